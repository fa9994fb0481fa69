"""Make any text safe for terminals, logs and tables: no control characters, limited length."""

from __future__ import annotations

import re

__all__ = ["MAX_ERROR", "MAX_TEXT", "MAX_TOLD", "cut", "excerpt", "visible"]

MAX_TEXT = 20_000  # bytes of an error with its traceback
MAX_ERROR = 2_000  # bytes of its last line
_NOTE_SIZE = 50
MAX_TOLD = MAX_TEXT + 4_000  # bytes of any text in log and journal: with a note of what was cut

# C0 and C1, DEL, and characters that end a line or change its direction.
_CONTROLS = "\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_IN_A_LINE = re.compile(f"[\x00-\x0a{_CONTROLS}]+")
_IN_LINES = re.compile(f"[\x00-\x08{_CONTROLS}]+")  # all but line ends and tabs


def visible(text: str, *, lines: bool = False) -> str:
    r"""Return ``text`` with its control characters escaped as in Python.

    Args:
        text: Anything.
        lines: Keep line ends and tabs.

    >>> print(visible("\x1b[31mred\n"), visible("a\nb\r", lines=True))
    \x1b[31mred\n a
    b\r
    """
    if text.isprintable():
        return text
    return (_IN_LINES if lines else _IN_A_LINE).sub(_written_out, text)


def cut(text: str, limit: int = MAX_TEXT, where: str = "") -> str:
    """Return ``text``, or its start and end if it takes more than ``limit`` bytes as UTF-8.

    Args:
        text: Anything.
        limit: How many bytes are kept, without the note that replaces the middle.
        where: Added to the note: where the whole text is.

    >>> cut("12345678", 4, "; all is in the file")
    '12 ... 4 characters left out; all is in the file ... 78'
    """
    if len(text) <= limit // 4 or (len(text) <= limit and _size(text) <= limit):
        return text
    half = limit // 2
    first = _bytes(text[:half])[:half].decode("utf-8", "ignore")
    last = _bytes(text[-half:])[-half:].decode("utf-8", "ignore")
    left_out = len(text) - len(first) - len(last)
    joint = "\n" if "\n" in text else " "
    return f"{first}{joint}... {left_out} characters left out{where} ...{joint}{last}"


def excerpt(text: str, limit: int = MAX_TEXT, where: str = "") -> str:
    r"""Return ``text`` cut to ``limit`` bytes, with its control characters escaped.

    >>> excerpt("\0" * 1000, 40)
    '\\x00\\x00\\x00\\x00\\x00 ... 990 characters left out ... \\x00\\x00\\x00\\x00\\x00'
    """
    room = limit
    while True:
        short = visible(cut(text, room, where), lines=True)
        note = _NOTE_SIZE + _size(where) if room < limit or short != text else 0
        if _size(short) <= limit + note or room < limit // 8:
            return short
        room //= 2


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(_bytes(text))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _written_out(found: re.Match[str]) -> str:
    return repr(found[0])[1:-1]
