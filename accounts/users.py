"""Who has an account: how accounts are made, found, renewed and closed. Knows nothing of HTTP."""

from typing import Any, NamedTuple

import peewee

from accounts import codes
from accounts.values import login_key
from models import Caller, User, UserState
from rest.errors import Conflict, FieldError, InvalidToken
from service import Service


class LoginTaken(Conflict):
    """Somebody has this login, or one that differs only in case or Unicode form."""

    kind = "login-taken"
    is_explained = True
    detail = "This login is taken: choose another one."

    def members(self) -> dict[str, Any]:
        return {"errors": [FieldError("login", "taken", "is taken: choose another one")]}


class Account(NamedTuple):
    """What whoever lets a user in needs to know."""

    caller: Caller
    password_hash: str


async def create_user(service: Service, login: str, password_hash: str, generation: int, invitation: bytes | None = None) -> Caller:
    """Make an account, with no tasks, and use up the invitation (its digest) if one is needed. Raises LoginTaken, WrongCode."""
    try:
        async with service.database.aio_atomic():
            if invitation is not None:
                await codes.use_invitation(service, invitation)
            user_id = await service.database.aio_execute(User.insert(login=login, login_key=login_key(login), password_hash=password_hash))
            await service.database.aio_execute(UserState.insert(user=user_id, token_generation=generation))
    except peewee.IntegrityError as error:
        raise LoginTaken() from error
    return Caller(user_id, generation)


async def find_account(service: Service, login: str) -> Account | None:
    """Return the account of this login, or None."""
    query = (
        User.select(User.id, User.password_hash, UserState.token_generation)
        .join(UserState)
        .where(User.login_key == login_key(login), UserState.token_generation >= 0)
        .tuples()
    )
    for user_id, password_hash, generation in await service.database.rows(*query.sql(), read=True):
        return Account(Caller(user_id, generation), password_hash)
    return None


async def get_login(service: Service, caller: Caller) -> str:
    """Return the caller's login. Raises InvalidToken."""
    return await _get(service, User.login, caller)


async def get_password_hash(service: Service, caller: Caller) -> str:
    """Return the hash of the caller's password. Raises InvalidToken."""
    return await _get(service, User.password_hash, caller)


async def _get(service: Service, field: peewee.Field, caller: Caller) -> str:
    query = (
        User.select(field).join(UserState).where(UserState.user == caller.user_id, UserState.token_generation == caller.generation).tuples()
    )
    for (value,) in await service.database.rows(*query.sql(), read=True):
        return str(value)
    raise InvalidToken()


async def renew_password_hash(service: Service, account: Account, password_hash: str) -> None:
    """Store the same password in another way, unless another one has been stored meanwhile."""
    whose = User.id == account.caller.user_id, User.password_hash == account.password_hash
    await service.database.aio_execute(User.update(password_hash=password_hash).where(*whose))


async def renew_account(service: Service, caller: Caller, generation: int, password_hash: str | None = None) -> Caller:
    """Give the account another token generation, which ends all tokens up to now, and another password if given. Raises InvalidToken."""
    whose = UserState.user == caller.user_id, UserState.token_generation == caller.generation
    async with service.database.locked(caller.user_id), service.database.aio_atomic():
        if not await service.database.aio_execute(UserState.update(token_generation=generation).where(*whose)):  # somebody was faster
            raise InvalidToken()
        if password_hash is not None:
            await codes.drop_code(service, caller.user_id)  # what opens the account besides the new password
            await service.database.aio_execute(User.update(password_hash=password_hash).where(User.id == caller.user_id))
    return Caller(caller.user_id, generation)


async def reset_password(service: Service, user_id: int, code: bytes, generation: int, password_hash: str) -> Caller:
    """Give the account another password and token generation, and use up the code (its digest) that allows it. Raises WrongCode.

    Whatever the generation was: else whoever revokes tokens all the time, with a stolen one, would keep the owner out.
    """
    lives = UserState.user == user_id, UserState.token_generation >= 0
    async with service.database.locked(user_id), service.database.aio_atomic():
        if not await service.database.aio_execute(UserState.update(token_generation=generation).where(*lives)):
            raise codes.WrongCode()
        await codes.use_code(service, user_id, code)
        await service.database.aio_execute(User.update(password_hash=password_hash).where(User.id == user_id))
    return Caller(user_id, generation)


async def close_account(service: Service, caller: Caller) -> None:
    """End the account: its tokens are dead and its login is free; housekeeping removes its rows. Raises InvalidToken."""
    async with service.database.locked(caller.user_id):
        [(is_done,)] = await service.database.rows("SELECT account_close(%s, %s)", caller)
    if not is_done:  # somebody was faster
        raise InvalidToken()
