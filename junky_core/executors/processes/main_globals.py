"""Global variables of the script on their way to a worker process.

A worker imports the script, without what is under its ``__main__`` guard. Functions that it
finds by name use the variables of that import. They should see what they would see on threads:

    a variable that they use        a worker has
    set under the guard             the driver's value; an error if that cannot be sent
    plain data                      the driver's value: it may have been changed since the import
    anything else                   its own, from the import

As functions that are sent by value do, they see values as they are when the sweep begins.
"""

from __future__ import annotations

import argparse
import dataclasses
import dis
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from junky_core.executors.processes.main_module import names_set_under_guard
from junky_core.executors.processes.sending import dumps, loads, packed

__all__ = ["packed_globals", "set_globals"]

_SCALARS = frozenset({bool, int, float, complex, str, bytes, type(None)})
_SCRIPT = ("__main__", "__mp_main__")  # here, and in a worker
_MOST_ITEMS = 10_000  # of a container that is taken for plain data


def packed_globals(found_by_name: Iterable[Any]) -> bytes:
    """Return the variables to set in a worker, pickled.

    Args:
        found_by_name: Functions and classes of the script that a worker finds by name.

    Raises:
        ConfigError: One that is set under the guard cannot be sent.
    """
    main = vars(sys.modules["__main__"])
    here = {name: value for name, value in main.items() if not name.startswith("__")}
    guarded = names_set_under_guard()
    sent = {}
    for name in sorted(_used(found_by_name, here)):
        value = here[name]
        if name in guarded:
            packed(value, f"the script's variable {name!r}, which jobs use,")
            sent[name] = value
        elif _is_plain(value, [_MOST_ITEMS]):
            sent[name] = value
    return dumps(sent)


def set_globals(data: bytes) -> None:
    """Set in this worker's script what :func:`packed_globals` returned."""
    sent = loads(data)
    main = vars(sys.modules["__main__"])
    main.update(sent)
    for function in _functions(main.values()):  # theirs is another dict: that of the import
        if function.__globals__ is not main:
            function.__globals__.update(sent)


def _used(values: Iterable[Any], here: Mapping[str, Any]) -> set[str]:
    """Return the names of the script's variables that the values, or what they use, refer to."""
    names: set[str] = set()
    todo = list(values)
    while todo:
        used = {name for f in _functions(todo) for name in _global_names(f.__code__)}
        new = {name for name in used if name in here} - names
        names |= new
        todo = [here[name] for name in new]
    return names


def _functions(values: Iterable[Any]) -> Iterator[types.FunctionType]:
    """Yield the functions of the script that the values are or consist of."""
    todo = list(values)
    seen = set()
    while todo:
        value = todo.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, types.FunctionType) and value.__globals__.get("__name__") in _SCRIPT:
            yield value
        todo += _parts(value)


def _parts(value: Any) -> Iterator[Any]:
    """Yield what belongs to a function or class of the script."""
    if isinstance(value, type) and value.__module__ in _SCRIPT:
        yield from vars(value).values()
        yield from value.__bases__
    elif isinstance(value, (staticmethod, classmethod)):
        yield value.__func__
    elif isinstance(value, property):
        yield from (value.fget, value.fset, value.fdel)
    elif isinstance(value, types.FunctionType):
        yield getattr(value, "__wrapped__", None)
        for cell in value.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # not assigned yet
                continue


def _global_names(code: types.CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def _is_plain(value: Any, left: list[int]) -> bool:
    """Return whether the value consists of numbers, texts and not too many containers."""
    left[0] -= 1
    if left[0] < 0:
        return False
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind in (tuple, list, set, frozenset):
        return all(_is_plain(item, left) for item in value)
    if kind is dict:
        return all(_is_plain(item, left) for pair in value.items() for item in pair)
    if kind in (argparse.Namespace, types.SimpleNamespace) or (
        dataclasses.is_dataclass(kind) and hasattr(value, "__dict__")
    ):
        return all(_is_plain(item, left) for item in vars(value).values())
    return False
