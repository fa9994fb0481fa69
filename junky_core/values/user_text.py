"""What a user's object says of itself, whatever its methods do.

``__str__``, ``__repr__`` and ``__class__`` of a parameter, a returned value or an
exception may raise anything, ``SystemExit`` too, or return something else than
a text. That is the affair of the job that the object comes from. So nothing of
this project calls ``str`` or ``repr`` on such an object itself.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from junky_core.values.texts import visible

__all__ = ["NO_TEXT", "class_name", "dict_text", "error_line", "is_ctrl_c", "repr_of", "str_of"]

NO_TEXT = "<exception str() failed>"  # as Python's own tracebacks have it


def is_ctrl_c(error: BaseException) -> bool:
    """Tell Ctrl-C from what an object raised: signals reach the main thread alone."""
    return (
        issubclass(type(error), KeyboardInterrupt)
        and threading.current_thread() is threading.main_thread()
    )


def class_name(value: Any) -> str:
    """Return the name of the class of ``value``, whatever its metaclass says.

    >>> class_name(1)
    'int'
    """
    return str(type.__dict__["__name__"].__get__(type(value)))


def repr_of(value: Any) -> str:
    """Return ``repr(value)``, or ``<Class>`` if it cannot be had.

    >>> class Broken:
    ...     def __repr__(self):
    ...         raise SystemExit
    >>> repr_of([1]), repr_of(Broken())
    ('[1]', '<Broken>')
    """
    try:
        return str.__str__(repr(value))  # a plain str, not one of a subclass
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        return f"<{class_name(value)}>"


def dict_text(params: Mapping[str, Any]) -> str:
    """Return ``params`` as a dict is written, each value as :func:`repr_of` has it.

    >>> dict_text({"a": 1})
    "{'a': 1}"
    """
    pairs = ", ".join(f"{key!r}: {repr_of(value)}" for key, value in params.items())
    return visible(f"{{{pairs}}}")


def str_of(value: Any) -> str | None:
    """Return ``str(value)``, or ``None`` if it cannot be had.

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
    """Return the class of ``error`` and what it says.

    >>> error_line(ValueError("bad"))
    'ValueError: bad'
    """
    text = str_of(error)
    if text is None:
        text = NO_TEXT
    return f"{class_name(error)}: {text}" if text else class_name(error)
