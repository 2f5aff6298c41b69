"""How one gets in: accounts are made and closed, passwords changed, tokens given and ended."""

import secrets
from contextlib import suppress
from http import HTTPStatus

from accounts import codes, users
from accounts.passwords import Hashing
from accounts.schemas import Closure, Credentials, PasswordChange, PasswordReset, Registration
from accounts.values import is_login
from auth import GENERATIONS, Token, issue_token
from models import Caller
from rest.errors import Failure, FieldError, InvalidInput, Unauthorized, Unavailable
from service import Service


class WrongCredentials(Unauthorized):
    """One answer for an unknown login and for a wrong password."""

    kind = "wrong-credentials"
    detail = "There is no such login with this password."


class RegistrationClosed(Failure):
    """Nobody can register here: the operator has closed registration."""

    status = HTTPStatus.FORBIDDEN
    kind = "registration-closed"
    is_explained = True
    detail = "Registration is closed here: ask the operator."


def check_registration(service: Service) -> None:
    """Raise RegistrationClosed where nobody can register."""
    if service.settings.registration == "closed":
        raise RegistrationClosed()


async def register(service: Service, hashing: Hashing, registration: Registration) -> Token:
    """Make an account and return its first token. Raises WrongCode, LoginTaken, Unavailable.

    A needed invitation is looked at before the login, and before any work: without one nobody learns which logins there are.
    """
    invitation = None
    if service.settings.registration == "invited":
        invitation = codes.digest(registration.invitation or "")
        await codes.check_invitation(service, invitation)
    password_hash = await hashing.hash(registration.password)
    caller = await users.create_user(service, registration.login, password_hash, secrets.randbelow(GENERATIONS), invitation)
    return issue_token(service.settings, caller)


async def get_token(service: Service, hashing: Hashing, credentials: Credentials) -> Token:
    """Return a token to whoever knows the password. Raises WrongCredentials, Unavailable; an unknown login takes as long as a known one."""
    account = await users.find_account(service, credentials.login)
    right = await hashing.verify(credentials.password, account and account.password_hash)
    if account is None or not right:
        raise WrongCredentials()
    if hashing.is_outdated(account.password_hash):
        with suppress(Unavailable):  # the next login will do
            await users.renew_password_hash(service, account, await hashing.hash(credentials.password))
    return issue_token(service.settings, account.caller, credentials.expires_in)


async def change_password(service: Service, hashing: Hashing, caller: Caller, login: str, change: PasswordChange) -> Token:
    """Change the password and return the only good token. Raises InvalidInput (`old` wrong, `new` the login), InvalidToken, Unavailable."""
    _refuse_login(change.new, login)
    await _prove(service, hashing, caller, "old", change.old)
    password_hash = await hashing.hash(change.new)
    renewed = await users.renew_account(service, caller, secrets.randbelow(GENERATIONS), password_hash)
    return issue_token(service.settings, renewed)


async def reset_password(service: Service, hashing: Hashing, reset: PasswordReset) -> Token:
    """Set a forgotten password again and return the only good token. Raises WrongCode, InvalidInput (`new` is the login), Unavailable."""
    code = codes.digest(reset.code)
    whose = await codes.find_forgetful(service, code)
    _refuse_login(reset.new, whose.login)
    password_hash = await hashing.hash(reset.new)
    renewed = await users.reset_password(service, whose.user_id, code, secrets.randbelow(GENERATIONS), password_hash)
    return issue_token(service.settings, renewed)


async def revoke_tokens(service: Service, caller: Caller) -> Token:
    """End all tokens up to now and return the only good one. Raises InvalidToken, Unavailable."""
    return issue_token(service.settings, await users.renew_account(service, caller, secrets.randbelow(GENERATIONS)))


async def delete_account(service: Service, hashing: Hashing, caller: Caller, closure: Closure) -> None:
    """End the account. Raises InvalidInput where `password` is wrong, InvalidToken, Unavailable."""
    await _prove(service, hashing, caller, "password", closure.password)
    await users.close_account(service, caller)


def _refuse_login(password: str, login: str) -> None:
    if is_login(password, login):
        raise InvalidInput(FieldError("new", "same_as_login", "must not be the login"))


async def _prove(service: Service, hashing: Hashing, caller: Caller, field: str, password: str) -> None:
    if not await hashing.verify(password, await users.get_password_hash(service, caller)):
        raise InvalidInput(FieldError(field, "wrong_password", "is not the present password"))
