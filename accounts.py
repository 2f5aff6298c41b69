"""Who has an account: how accounts are made and found. Knows nothing of HTTP."""

from typing import NamedTuple

import peewee

from models import Caller, User, UserState
from postgres.database import database
from rest.errors import Conflict
from scalars import login_key


class LoginTaken(Conflict):
    """Somebody has this login, or one that differs only in case or Unicode form."""

    problem = "login-taken"
    detail = "This login is taken: choose another one."


class Account(NamedTuple):
    """What the door needs to know of a user."""

    caller: Caller
    password_hash: str


async def create_user(login: str, password_hash: str, generation: int) -> Caller:
    """Make an account, with no tasks. Raises LoginTaken."""
    try:
        async with database.aio_atomic():
            user = await User.aio_create(login=login, login_key=login_key(login), password_hash=password_hash)
            await UserState.aio_create(user=user.id, token_generation=generation)
    except peewee.IntegrityError as error:
        raise LoginTaken() from error
    return Caller(user.id, generation)


async def find_account(login: str) -> Account | None:
    """Give the account of this login, or None."""
    query = (
        User.select(User.id, User.password_hash, UserState.token_generation)
        .join(UserState)
        .where(User.login_key == login_key(login))
        .tuples()
    )
    for user_id, password_hash, generation in await database.rows(*query.sql(), read=True):
        return Account(Caller(user_id, generation), password_hash)
    return None
