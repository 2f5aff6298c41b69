"""An operator's one-time codes: invitations, and those with which a forgotten password is set again."""

import base64
import hashlib
import re
import secrets
from typing import NamedTuple

import peewee

from models import OneTimeCode, User, UserState
from rest.errors import FieldError, InvalidInput
from service import Service

CODE_BYTES = 15  # 120 random bits, which nobody comes upon by trying: a plain digest keeps them, and an index finds it (ASVS 5.0, 6.5.2)
INVITATION_DAYS, RESET_DAYS = 30, 1

_IS_GOOD = OneTimeCode.expires_at > peewee.fn.now()


class WrongCode(InvalidInput):
    """One answer for a code that never was, is used, or has expired."""

    kind = "wrong-code"

    def __init__(self, field: str = "code") -> None:
        super().__init__(FieldError(field, "wrong_code", "is not good, or not any more: ask the operator for another one"))


class Forgetful(NamedTuple):
    """Whose password a code sets."""

    user_id: int
    login: str


def make_code() -> str:
    """Return a new code, as people read it to one another: groups of four of a-z and 2-7."""
    text = base64.b32encode(secrets.token_bytes(CODE_BYTES)).decode().lower()
    return "-".join(re.findall("....", text))


def digest(code: str) -> bytes:
    """Return what is stored of a code; neither its case nor spaces or hyphens matter."""
    return hashlib.sha256(re.sub(r"[\s-]", "", code).lower().encode()).digest()


async def check_invitation(service: Service, invitation: bytes) -> None:
    """Raise WrongCode where there is no such invitation (its digest)."""
    query = OneTimeCode.select(OneTimeCode.digest).where(*_invitation(invitation))
    if not await service.database.rows(*query.sql(), read=True):
        raise WrongCode("invitation")


async def use_invitation(service: Service, invitation: bytes) -> None:
    """Use an invitation up, in the transaction of what it is used for. Raises WrongCode."""
    if not await service.database.aio_execute(OneTimeCode.delete().where(*_invitation(invitation))):
        raise WrongCode("invitation")


def _invitation(invitation: bytes) -> tuple[peewee.Expression, ...]:
    return OneTimeCode.digest == invitation, OneTimeCode.user.is_null(), _IS_GOOD


async def find_forgetful(service: Service, code: bytes) -> Forgetful:
    """Return whose password a code (its digest) sets. Raises WrongCode."""
    query = (
        User.select(User.id, User.login)
        .join(OneTimeCode)
        .switch(User)
        .join(UserState)
        .where(OneTimeCode.digest == code, _IS_GOOD, UserState.token_generation >= 0)
        .tuples()
    )
    for row in await service.database.rows(*query.sql(), read=True):
        return Forgetful(*row)
    raise WrongCode()


async def use_code(service: Service, user_id: int, code: bytes) -> None:
    """Use up the code with which this user's password is set, in the transaction that sets it. Raises WrongCode."""
    if not await service.database.aio_execute(
        OneTimeCode.delete().where(OneTimeCode.digest == code, OneTimeCode.user == user_id, _IS_GOOD)
    ):
        raise WrongCode()


async def drop_code(service: Service, user_id: int) -> None:
    """Let go of the code with which this user's password could be set, if there is one."""
    await service.database.aio_execute(OneTimeCode.delete().where(OneTimeCode.user == user_id))
