"""Decide whether two calls are equal, so that the first one's result can be reused.

A task function runs once per job, and each run creates new lambdas over its own
copy of the config. So functions are compared by their code, and the values they
close over and their arguments by content:

    what                          is equal if
    function, lambda, method      same code, defaults and closed-over values
    functools.partial             same function and arguments
    config, list, dict as an      equal content, as of the first call
    .. argument
    config closed over            equal content, as of the first call
    list, dict closed over        the same object, or equal content
    anything else                 the same object, or equal content

A function often writes to a list that it closes over (a counter, a cache). Such
a change does not make the call a different one.

This is not a comparison of digests (:mod:`junky_core.values.identity`), because
those would hash all data that a function closes over, for each job.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Hashable
from typing import Any

from junky_core.values.identity import digest, freeze

__all__ = ["Call"]


class Call:
    """A call of ``factory(*args, **kwargs)``, to be compared with a later one.

    Keeps references to all its parts, so that an object that is compared by
    identity is not freed and its id reused.
    """

    __slots__ = ("_function", "_given", "args", "factory", "kwargs")

    def __init__(
        self, factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.factory = factory
        self.args = args
        self.kwargs = kwargs
        self._function = _parts_of(factory)
        names = sorted(kwargs)
        self._given = [_Given(value) for value in (*args, *names, *map(kwargs.get, names))]

    def same_as(self, other: Call) -> bool:
        """Return whether both are the same call."""
        if len(self._given) != len(other._given) or len(self.args) != len(other.args):
            return False
        same_function = self.factory is other.factory or _all_same(self._function, other._function)
        return same_function and _all_same(self._given, other._given)

    def digest(self) -> str:
        """Return 32 hex digits that only the same call has, in any process with the same code.

        Those of a call that cannot be recognised in another process start with ``~``.
        """
        parts = (*self._function, *self._given)
        return digest([len(self.args), *(part.content() for part in parts)])

    def run(self) -> Any:
        """Make the call."""
        return self.factory(*self.args, **self.kwargs)


class _Given:
    """A value; the content of a mutable one is recorded as it is now."""

    __slots__ = ("_key", "closed_over", "value")

    def __init__(self, value: Any, *, closed_over: bool = False) -> None:
        self.value = value
        self.closed_over = closed_over
        self._key: Hashable = None
        if _changes(value):
            self._key = freeze(value)

    def same_as(self, other: _Given) -> bool:
        if self.value is other.value and (
            not _changes(self.value) or (self.closed_over and not _is_config(self.value))
        ):
            return True
        return type(self.value) is type(other.value) and self.key() == other.key()

    def content(self) -> Any:
        return self.value

    def key(self) -> Hashable:
        if self._key is None:
            self._key = freeze(self.value)
        return self._key


class _Code:
    """A function's code: its lambda is a new object each time, its code is not."""

    __slots__ = ("code", "module")

    def __init__(self, function: types.FunctionType) -> None:
        self.code = function.__code__
        self.module = function.__module__

    def content(self) -> Any:
        return [self.module, self.code.co_name, self.code.co_firstlineno, self.code]

    def same_as(self, other: _Code) -> bool:
        return self.code == other.code


_Parts = list[Any]


def _all_same(first: _Parts, second: _Parts) -> bool:
    return len(first) == len(second) and all(
        type(one) is type(two) and one.same_as(two) for one, two in zip(first, second, strict=True)
    )


def _parts_of(function: Any, seen: frozenset[int] = frozenset()) -> _Parts:
    """Return the parts of a callable that are compared."""
    if isinstance(function, functools.partial) and id(function) not in seen:
        seen |= {id(function)}
        names = sorted(function.keywords)
        values = (*function.args, *names, *map(function.keywords.get, names))
        return [*_parts_of(function.func, seen), *(_Given(value) for value in values)]
    if isinstance(function, types.MethodType):
        return [*_parts_of(function.__func__, seen), _Given(function.__self__, closed_over=True)]
    if not isinstance(function, types.FunctionType) or id(function) in seen:
        return [_Given(function)]
    seen |= {id(function)}
    parts: _Parts = [_Code(function)]
    closed_over = []
    for cell in function.__closure__ or ():
        try:
            closed_over.append(cell.cell_contents)
        except ValueError:  # a name that is not bound yet
            closed_over.append(cell)
    for value in closed_over:
        if isinstance(value, (types.FunctionType, types.MethodType, functools.partial)):
            parts += _parts_of(value, seen)
        else:
            parts.append(_Given(value, closed_over=True))
    parts += [_Given(value) for value in function.__defaults__ or ()]
    parts += [_Given(value) for _, value in sorted((function.__kwdefaults__ or {}).items())]
    return parts


def _changes(value: Any) -> bool:
    return isinstance(value, (list, dict, set, bytearray)) or _is_config(value)


def _is_config(value: Any) -> bool:
    omegaconf = sys.modules.get("omegaconf")
    return omegaconf is not None and isinstance(value, omegaconf.Container)
