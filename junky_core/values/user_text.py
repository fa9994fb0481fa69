"""The text of users' objects, whatever their methods do.

``__str__``, ``__repr__`` and ``__class__`` of a parameter, a returned value or an
exception may raise anything, even ``SystemExit``, or return something that is
not a string. Only the job that the object belongs to may suffer from that, so
this project calls ``str`` and ``repr`` on such objects only here.
"""

from __future__ import annotations

import reprlib
import threading
from collections.abc import Mapping
from typing import Any

from junky_core.values.texts import visible

__all__ = [
    "NO_TEXT",
    "class_name",
    "dict_text",
    "error_line",
    "is_ctrl_c",
    "repr_of",
    "shown",
    "str_of",
]

NO_TEXT = "<exception str() failed>"  # as in Python's own tracebacks


def is_ctrl_c(error: BaseException) -> bool:
    """Distinguish Ctrl-C from an object's own exception: signals reach only the main thread."""
    return (
        issubclass(type(error), KeyboardInterrupt)
        and threading.current_thread() is threading.main_thread()
    )


def class_name(value: Any) -> str:
    """Return the name of the class of ``value``, whatever its metaclass does.

    >>> class_name(1)
    'int'
    """
    return str(type.__dict__["__name__"].__get__(type(value)))


def repr_of(value: Any) -> str:
    """Return ``repr(value)``, or ``<Class>`` if that raises.

    >>> class Broken:
    ...     def __repr__(self):
    ...         raise SystemExit
    >>> repr_of([1]), repr_of(Broken()), repr_of(10**5000)
    ('[1]', '<Broken>', '<int of 16610 bits>')
    """
    try:
        return str.__str__(repr(value))  # a plain str, not one of a subclass
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        size = f" of {value.bit_length()} bits" if type(value) is int else ""
        return f"<{class_name(value)}{size}>"


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 80
        self.maxlist = self.maxtuple = self.maxdict = 4
        self.maxlevel = 3

    def repr1(self, x: Any, level: int) -> str:
        try:
            return super().repr1(x, level)
        except BaseException as error:
            if is_ctrl_c(error):
                raise
            return repr_of(x)


def shown(value: Any) -> str:
    """Return the ``repr`` of ``value`` for a message: shortened, and it never raises.

    >>> shown([1, "a", {"b": None}]), shown(10**5000)
    ("[1, 'a', {'b': None}]", '<int of 16610 bits>')
    """
    return _Short().repr(value)


def dict_text(params: Mapping[str, Any]) -> str:
    """Return the ``repr`` of ``params``, with :func:`repr_of` for each value.

    >>> dict_text({"a": 1})
    "{'a': 1}"
    """
    pairs = ", ".join(f"{key!r}: {repr_of(value)}" for key, value in params.items())
    return visible(f"{{{pairs}}}")


def str_of(value: Any) -> str | None:
    """Return ``str(value)``, or ``None`` if that raises.

    >>> str_of(1)
    '1'
    """
    try:
        return str.__str__(str(value))
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        return None


def error_line(error: BaseException) -> str:
    """Return the class of ``error`` and its text.

    >>> error_line(ValueError("bad"))
    'ValueError: bad'
    """
    text = str_of(error)
    if text is None:
        text = NO_TEXT
    return f"{class_name(error)}: {text}" if text else class_name(error)
