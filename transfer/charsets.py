"""Files in other charsets than UTF-8, made UTF-8 as they come."""

import codecs
from encodings import normalize_encoding
from encodings.aliases import aliases

from rest.errors import FieldError, InvalidInput

UTF8 = {"utf_8", "utf_8_sig", "ascii"}
# Only what is in this list is looked up: Python keeps each name that it was ever asked for, and has codecs that are no charsets.
ENCODINGS = {name for name in aliases.values() if not name.endswith("_codec")} - {"mbcs", "rot_13", "utf_7"} | {
    "cp874",
    "koi8_u",
    "utf_8_sig",
}


def find_encoding(charset: str | None) -> str | None:
    """Return the name that Python has for a charset; None where it is UTF-8, or none is named. Raises LookupError where it has none."""
    name = normalize_encoding(charset or "utf-8").lower()
    encoding = aliases.get(name, name)
    if encoding not in ENCODINGS:
        raise LookupError(charset)
    return None if encoding in UTF8 else encoding


class Recoder:
    """Makes UTF-8 of the pieces of a text in another encoding."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._line, self._has_begun = 1, False

    def feed(self, piece: bytes, *, is_last: bool = False) -> bytes:
        """Return what there is of the next piece. Raises InvalidInput where it isn't of this encoding."""
        _, state = self._decoder.getstate()
        try:
            text = self._decoder.decode(piece, is_last)
        except UnicodeDecodeError as error:
            self._decoder.setstate((b"", state))
            line = self._line + self._decoder.decode(error.object[: error.start]).count("\n")
            words = f"is not {self._encoding.replace('_', '-')}, which the Content-Type names as its charset"
            raise InvalidInput(FieldError(f"line {line}", "malformed", words, line=line)) from None
        self._line += text.count("\n")
        if text and not self._has_begun:
            self._has_begun, text = True, text.removeprefix("\ufeff")
        return text.encode()
