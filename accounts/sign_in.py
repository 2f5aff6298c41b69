"""How one gets in: accounts are made and closed, passwords changed, tokens given and ended."""

import secrets
from contextlib import suppress

from accounts import passwords, users
from accounts.passwords import Hashing
from accounts.schemas import Closure, Credentials, PasswordChange, Registration
from accounts.values import is_login
from auth import GENERATIONS, Token, issue_token
from models import Caller
from rest.errors import FieldError, InvalidInput, Unauthorized, Unavailable


class WrongCredentials(Unauthorized):
    """One answer for an unknown login and for a wrong password."""

    kind = "wrong-credentials"
    detail = "There is no such login with this password."


async def register(hashing: Hashing, registration: Registration) -> Token:
    """Make an account and give its first token. Raises LoginTaken, Unavailable."""
    password_hash = await hashing.run(passwords.hash_password, registration.password)
    return issue_token(await users.create_user(registration.login, password_hash, secrets.randbelow(GENERATIONS)))


async def get_token(hashing: Hashing, credentials: Credentials) -> Token:
    """Give a token to whoever knows the password. Raises WrongCredentials, Unavailable; an unknown login takes as long as a known one."""
    account = await users.find_account(credentials.login)
    right = await hashing.run(passwords.verify_password, credentials.password, account and account.password_hash)
    if account is None or not right:
        raise WrongCredentials()
    if passwords.is_outdated(account.password_hash):
        with suppress(Unavailable):  # the next login will do
            new_hash = await hashing.run(passwords.hash_password, credentials.password)
            await users.renew_password_hash(account, new_hash)
    return issue_token(account.caller, credentials.expires_in)


async def change_password(hashing: Hashing, caller: Caller, login: str, change: PasswordChange) -> Token:
    """Change the password and give the only good token. Raises InvalidInput (`old` wrong, `new` the login), InvalidToken, Unavailable."""
    if is_login(change.new, login):
        raise InvalidInput(FieldError("new", "must not be the login"))
    await _prove(hashing, caller, "old", change.old)
    password_hash = await hashing.run(passwords.hash_password, change.new)
    return issue_token(await users.renew_account(caller, secrets.randbelow(GENERATIONS), password_hash))


async def revoke_tokens(caller: Caller) -> Token:
    """End all tokens up to now and give the only good one. Raises InvalidToken, Unavailable."""
    return issue_token(await users.renew_account(caller, secrets.randbelow(GENERATIONS)))


async def delete_account(hashing: Hashing, caller: Caller, closure: Closure) -> None:
    """End the account. Raises InvalidInput where `password` is wrong, InvalidToken, Unavailable."""
    await _prove(hashing, caller, "password", closure.password)
    await users.close_account(caller)


async def _prove(hashing: Hashing, caller: Caller, field: str, password: str) -> None:
    if not await hashing.run(passwords.verify_password, password, await users.get_password_hash(caller)):
        raise InvalidInput(FieldError(field, "is not the present password"))
