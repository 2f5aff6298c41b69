"""The values of which an account's fields are made: how each is written, read and limited, and how the document describes it."""

import unicodedata
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field, ValidationInfo

from accounts import passwords
from rest.error_codes import wrong
from rest.values import CLEAN, INVISIBLE, WIDE, Number, StoredText, Text, clean, not_blank
from settings import Settings


class AccountLimits(NamedTuple):
    """What the operator sets for these values: the validators find it as `info.context["app"]`."""

    password_min_length: int
    token_lifetime_max_seconds: int
    needs_invitation: bool


def _limits(info: ValidationInfo) -> AccountLimits:
    limits: AccountLimits = (info.context or {})["app"]
    return limits


def login_key(login: str) -> str:
    """Return what two logins of one account have in common: neither case nor Unicode form (Unicode 16, D147; RFC 8265 in spirit)."""
    folded = unicodedata.normalize("NFD", login).casefold()
    folded = unicodedata.normalize("NFKC", folded).casefold()
    return unicodedata.normalize("NFKC", folded)


def is_login(password: str, login: str) -> bool:
    """Return whether the password is but the login, however written."""
    return login_key(password) == login_key(login)


def _unspaced(value: str) -> str:
    for text in (value, login_key(value)):
        if any(character.isspace() or unicodedata.category(character) in ("Zs", "Zl", "Zp", "Cc", "Cf") for character in text):
            raise wrong("characters_not_allowed", "must not contain white space, control or format characters")
    return value


def _long_enough(value: str, info: ValidationInfo) -> str:
    min_length = _limits(info).password_min_length
    if len(value) < min_length:
        raise wrong("too_short", "must have at least {min} characters", min=min_length)
    return value


def _uncommon(value: str, info: ValidationInfo) -> str:
    if passwords.is_common(value, _limits(info).password_min_length):
        raise wrong("too_common", "is too common: guessers try it first")
    return value


def _sent_if_needed(value: str | None, info: ValidationInfo) -> str | None:
    if value is None and info.context and _limits(info).needs_invitation:
        raise wrong("missing", "must be sent: an account needs an invitation of the operator's")
    return value


def _not_too_long(seconds: int, info: ValidationInfo) -> int:
    max_seconds = _limits(info).token_lifetime_max_seconds
    if seconds > max_seconds:
        raise wrong("too_large", "must be at most {max} seconds", max=max_seconds)
    return seconds


_SPACE = rf"\u0000-\u0020\u007f-\u00a0{WIDE}"
_UNSPACED = {"pattern": rf"^[^{_SPACE}]+$", "format": "login"}  # the format: what no pattern says
_VISIBLE = {"pattern": rf"^[^{_SPACE}]*[^{_SPACE}{INVISIBLE}][^{_SPACE}]*$", "format": "login"}
Login = Annotated[
    StoredText,
    Field(
        min_length=1,
        max_length=64,
        description="case doesn't matter; no white space, control or format characters",
        examples=["alice"],
        json_schema_extra=_UNSPACED,
    ),
    AfterValidator(_unspaced),
]
NewLogin = Annotated[
    Login,
    AfterValidator(clean),
    AfterValidator(not_blank),
    Field(
        description="case doesn't matter; no white space, control or format characters; something in it must be visible",
        json_schema_extra=_VISIBLE,
    ),
]
Password = Annotated[StoredText, Field(min_length=1, max_length=128, description="any characters", examples=["correct horse battery"])]
_MIN_LENGTH = Settings.model_fields["password_min_length"].default
NewPassword = Annotated[
    Password,
    AfterValidator(clean),
    AfterValidator(_long_enough),
    AfterValidator(_uncommon),
    Field(
        description=f"any characters; at least {_MIN_LENGTH} unless the operator set another number; not a common password, nor the login",
        json_schema_extra={"minLength": _MIN_LENGTH} | CLEAN,
    ),
]
_MAX_SECONDS = Settings.model_fields["token_lifetime_max_seconds"].default
TokenLifetime = Annotated[
    Number,
    AfterValidator(_not_too_long),
    Field(
        description=f"for how many seconds the token is good; at most {_MAX_SECONDS} unless the operator set another number",
        json_schema_extra={"maximum": _MAX_SECONDS, "examples": [86400]},
    ),
]
_CODE = {"min_length": 1, "max_length": 100, "examples": ["mzxw-6ytb-oi2d-knrv-gezd-gnbv"]}
Code = Annotated[Text, Field(description="the operator's one-time code; case, spaces and hyphens don't matter", **_CODE)]
Invitation = Annotated[
    Annotated[Text, Field(**_CODE)] | None,
    AfterValidator(_sent_if_needed),
    Field(
        validate_default=True,
        description="the operator's one-time code, where the service takes whom its operator invites; else it is ignored",
    ),
]
