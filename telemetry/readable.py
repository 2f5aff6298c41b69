"""The log as people read it, on a terminal: short lines of words."""

import logging
import time
from collections.abc import Callable

TIME_FORMAT = "%H:%M:%S"


def access_line(method: str, route: str | None, status: int, seconds: float, moment: float) -> str:
    """Return the line of a request that has ended."""
    return _line(moment, "INFO", f"{method:<6} {route or '(no such address)':<24} {status} {seconds * 1000:>8.1f} ms")


class Formatter(logging.Formatter):
    """Make a line of a record, and of an error more of them."""

    def __init__(self, told: Callable[[BaseException], str]) -> None:
        super().__init__()
        self._told = told

    def format(self, record: logging.LogRecord) -> str:
        words = record.getMessage()
        if left_out := getattr(record, "left_out", 0):
            words += f" (and {left_out} like it)"
        if record.exc_info and record.exc_info[1]:
            words += f"\n{self._told(record.exc_info[1])}"
        return _line(record.created, record.levelname, words).rstrip("\n")


def _line(moment: float, level: str, words: str) -> str:
    return f"{time.strftime(TIME_FORMAT, time.localtime(moment))} {level:<8} {words}\n"
