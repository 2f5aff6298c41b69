"""Who has an account: how accounts are made, found, renewed and closed. Knows nothing of HTTP."""

from typing import NamedTuple

import peewee

from accounts.values import login_key
from models import Caller, User, UserState
from postgres.database import database
from rest.errors import Conflict, InvalidToken

CLOSED = -1  # the token generation of an account whose rows are yet to go: no token has it


class LoginTaken(Conflict):
    """Somebody has this login, or one that differs only in case or Unicode form."""

    kind = "login-taken"
    is_explained = True
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
        .where(User.login_key == login_key(login), UserState.token_generation >= 0)
        .tuples()
    )
    for user_id, password_hash, generation in await database.rows(*query.sql(), read=True):
        return Account(Caller(user_id, generation), password_hash)
    return None


async def get_login(caller: Caller) -> str:
    """Give the caller's login. Raises InvalidToken."""
    return await _get(User.login, caller)


async def get_password_hash(caller: Caller) -> str:
    """Give the hash of the caller's password. Raises InvalidToken."""
    return await _get(User.password_hash, caller)


async def _get(field: peewee.Field, caller: Caller) -> str:
    query = (
        User.select(field).join(UserState).where(UserState.user == caller.user_id, UserState.token_generation == caller.generation).tuples()
    )
    for (value,) in await database.rows(*query.sql(), read=True):
        return str(value)
    raise InvalidToken()


async def renew_password_hash(account: Account, password_hash: str) -> None:
    """Store the same password in another way, unless another one has been stored meanwhile."""
    whose = User.id == account.caller.user_id, User.password_hash == account.password_hash
    await User.update(password_hash=password_hash).where(*whose).aio_execute()


async def renew_account(caller: Caller, generation: int, password_hash: str | None = None) -> Caller:
    """Give the account another token generation, which ends all tokens up to now, and another password if given. Raises InvalidToken."""
    async with database.in_line(caller.user_id), database.aio_atomic():
        await _set_generation(caller, generation)
        if password_hash is not None:
            await User.update(password_hash=password_hash).where(User.id == caller.user_id).aio_execute()
    return Caller(caller.user_id, generation)


async def close_account(caller: Caller) -> None:
    """End the account: its tokens are dead and its login is free; housekeeping removes its rows. Raises InvalidToken."""
    nobody = f" closed {caller.user_id}"  # no login has a space
    async with database.in_line(caller.user_id), database.aio_atomic():
        await _set_generation(caller, CLOSED)
        await User.update(login=nobody, login_key=nobody, password_hash="").where(User.id == caller.user_id).aio_execute()


async def _set_generation(caller: Caller, generation: int) -> None:
    whose = UserState.user == caller.user_id, UserState.token_generation == caller.generation
    if not await UserState.update(token_generation=generation).where(*whose).aio_execute():  # somebody was faster
        raise InvalidToken()
