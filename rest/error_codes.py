"""What can be wrong with a field: the one list of codes, for programs, and how validators name one."""

from typing import Any, Literal

from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

ErrorCode = TypeAliasType(
    "ErrorCode",
    Literal[
        # whether and how it is sent
        "missing", "unknown_field", "repeated", "not_together", "malformed", "not_utf_8",
        # of which kind
        "not_text", "not_a_number", "not_a_boolean", "not_a_day", "not_a_moment", "not_one_of",
        # how much
        "too_short", "too_long", "too_small", "too_large", "too_many", "too_many_marks",
        # which
        "blank", "characters_not_allowed", "too_common", "same_as_login", "wrong_password", "wrong_code", "taken", "reserved",
        "mismatch", "not_of_this_list",
        # of a file's lines
        "not_taken", "not_found", "wrong_number_of_cells", "inconsistent",
    ],
)  # fmt: skip

OURS = "ours:"  # before it in pydantic's types, some of which have the names of these


def wrong(code: ErrorCode, message: str, **params: Any) -> PydanticCustomError:
    """Return what a validator raises: what is wrong with a value, for programs and, as a sentence that begins with its verb, for people.

    In the message `{name}` stands for the parameter of that name.
    """
    return PydanticCustomError(f"{OURS}{code}", message, params)
