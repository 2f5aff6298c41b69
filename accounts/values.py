"""The values of which an account's fields are made: how each is written, read and limited, and how the document describes it."""

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field

import settings
from accounts import passwords
from rest.values import CLEAN, WIDE, Number, Text


def login_key(login: str) -> str:
    """Give what two logins of one account have in common: neither case nor Unicode form (Unicode 16, D147; RFC 8265 in spirit)."""
    folded = unicodedata.normalize("NFD", login).casefold()
    folded = unicodedata.normalize("NFKC", folded).casefold()
    return unicodedata.normalize("NFKC", folded)


def is_login(password: str, login: str) -> bool:
    """Tell whether the password is but the login, however written."""
    return login_key(password) == login_key(login)


def _unspaced(value: str) -> str:
    for text in (value, login_key(value)):
        if any(character.isspace() or unicodedata.category(character) in ("Zs", "Zl", "Zp", "Cc", "Cf") for character in text):
            raise ValueError("must not contain white space, control or format characters")
    return value


def _long_enough(value: str) -> str:
    if len(value) < settings.load().password_min_length:
        raise ValueError(f"must have at least {settings.load().password_min_length} characters")
    return value


def _uncommon(value: str) -> str:
    if passwords.is_common(value):
        raise ValueError("is too common: guessers try it first")
    return value


def _not_too_long(seconds: int) -> int:
    if seconds > settings.load().token_lifetime_most_seconds:
        raise ValueError(f"must be at most {settings.load().token_lifetime_most_seconds} seconds")
    return seconds


_VISIBLE = {"pattern": rf"^[^\u0000-\u0020\u007f-\u00a0{WIDE}]+$", "format": "login"}  # the format: what no pattern says
Login = Annotated[
    Text,
    Field(
        min_length=1,
        max_length=64,
        description="case doesn't matter; no white space, control or format characters",
        examples=["alice"],
        json_schema_extra=_VISIBLE,
    ),
    AfterValidator(_unspaced),
]
Password = Annotated[Text, Field(min_length=1, max_length=128, description="any characters", examples=["correct horse battery"])]
_LEAST = settings.Settings.model_fields["password_min_length"].default
NewPassword = Annotated[
    Password,
    AfterValidator(_long_enough),
    AfterValidator(_uncommon),
    Field(
        description=f"any characters; at least {_LEAST} unless the operator set another number; not a common password, nor the login",
        json_schema_extra={"minLength": _LEAST} | CLEAN,
    ),
]
_MOST = settings.Settings.model_fields["token_lifetime_most_seconds"].default
TokenLifetime = Annotated[
    Number,
    AfterValidator(_not_too_long),
    Field(
        description=f"for how many seconds the token is good; at most {_MOST} unless the operator set another number",
        json_schema_extra={"maximum": _MOST, "examples": [86400]},
    ),
]
