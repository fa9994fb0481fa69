"""Values in messages: short, and never an error of their own."""

from __future__ import annotations

import reprlib
from typing import Any

__all__ = ["shown", "whole"]


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 80
        self.maxlist = self.maxtuple = self.maxdict = 4
        self.maxlevel = 3

    def repr1(self, x: Any, level: int) -> str:
        try:
            return super().repr1(x, level)
        except Exception:  # noqa: BLE001 - anybody's __repr__; an int that Python will not write
            return _nameless(x)


def shown(value: Any) -> str:
    """Return the ``repr`` of ``value``, shortened; whatever it is, this does not raise.

    >>> shown([1, "a", {"b": None}]), shown(10**5000)
    ("[1, 'a', {'b': None}]", '<int of 16610 bits>')
    """
    return _Short().repr(value)


def whole(value: Any) -> str:
    """Return the ``repr`` of ``value``, or what :func:`shown` says where it has none.

    >>> whole(range(3))
    'range(0, 3)'
    """
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - as above; RecursionError, too
        return shown(value)


def _nameless(value: Any) -> str:
    if isinstance(value, int):
        return f"<{type(value).__name__} of {value.bit_length()} bits>"
    return f"<{type(value).__name__}>"
