"""Words in messages: numbers with their nouns, and parameters."""

from __future__ import annotations

from types import BuiltinFunctionType, FunctionType
from typing import Any

from junky_core.values.texts import visible
from junky_core.values.user_text import repr_of

__all__ = ["cell_text", "count", "pair_text", "param_text"]


def count(number: int, noun: str) -> str:
    """Return ``number`` and ``noun``, in the plural unless it is one.

    >>> count(1, "job"), count(0, "job"), count(2, "running job")
    ('1 job', '0 jobs', '2 running jobs')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def param_text(value: Any) -> str:
    """Return a parameter's value for tables: strings and names without quotes.

    >>> param_text("adam"), param_text(0.1), param_text([64, 64]), param_text(dict)
    ('adam', '0.1', '[64, 64]', 'dict')
    """
    kind = type(value)
    if issubclass(kind, (type, FunctionType, BuiltinFunctionType)):
        return visible(str(value.__qualname__))
    if kind is str and value.strip() == value and value.isprintable() and value:
        return str(value)
    return visible(" ".join(repr_of(value).split()))


def cell_text(name: str, value: Any) -> str:
    """Return a parameter's value for a column that is called ``name``.

    >>> cell_text("lr", None), cell_text("~scheduler", None)
    ('None', 'deleted')
    """
    return "deleted" if _deletes(name, value) else param_text(value)


def pair_text(name: str, value: Any, text: str | None = None) -> str:
    """Return a parameter with its name, and its value as ``text`` if that is given.

    >>> pair_text("lr", 0.1), pair_text("~scheduler", None)
    ('lr=0.1', '~scheduler')
    """
    if _deletes(name, value):
        return name
    return f"{name}={param_text(value) if text is None else text}"


def _deletes(name: str, value: Any) -> bool:
    """Return whether a parameter is a Hydra override that deletes its key."""
    return value is None and name.startswith("~")
