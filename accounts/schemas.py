"""What clients send about accounts, as data. Nothing here knows HTTP or SQL."""

from pydantic import ConfigDict, ValidationInfo, field_validator

from accounts.values import Code, Invitation, Login, NewLogin, NewPassword, Password, TokenLifetime, is_login
from rest.error_codes import wrong
from rest.values import Confidential


class Registration(Confidential):
    """A new account."""

    login: NewLogin
    password: NewPassword
    invitation: Invitation = None

    @field_validator("password")
    @classmethod
    def _is_not_the_login(cls, value: str, info: ValidationInfo) -> str:
        if is_login(value, info.data.get("login", "")):
            raise wrong("same_as_login", "must not be the login")
        return value


class Credentials(Confidential):
    """An account and the proof that it is one's own."""

    login: Login
    password: Password
    expires_in: TokenLifetime | None = None


class PasswordChange(Confidential):
    """The present password, and the one to come."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"old": "correct horse battery", "new": "correct horse battery staple"}]})

    old: Password
    new: NewPassword


class PasswordReset(Confidential):
    """An operator's one-time code, and the password to come."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"code": "mzxw-6ytb-oi2d-knrv-gezd-gnbv", "new": "correct horse battery staple"}]}
    )

    code: Code
    new: NewPassword


class Closure(Confidential):
    """The proof that the account is one's own."""

    password: Password
