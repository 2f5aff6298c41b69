"""What clients send about accounts, as data. Nothing here knows HTTP or SQL."""

from pydantic import ConfigDict, ValidationInfo, field_validator

from accounts.values import Login, NewLogin, NewPassword, Password, TokenLifetime, is_login
from rest.values import Strict


class Registration(Strict):
    """A new account."""

    login: NewLogin
    password: NewPassword

    @field_validator("password")
    @classmethod
    def _is_not_the_login(cls, value: str, info: ValidationInfo) -> str:
        if is_login(value, info.data.get("login", "")):
            raise ValueError("must not be the login")
        return value


class Credentials(Strict):
    """An account and the proof that it is one's own."""

    login: Login
    password: Password
    expires_in: TokenLifetime | None = None


class PasswordChange(Strict):
    """The present password, and the one to come."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"old": "correct horse battery", "new": "correct horse battery staple"}]})

    old: Password
    new: NewPassword


class Closure(Strict):
    """The proof that the account is one's own."""

    password: Password
