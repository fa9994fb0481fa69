"""Classes that a job has defined, and what may be kept of them.

A class defined in a function keeps objects alive: class attributes, defaults, the
variables that its methods close over. So if an exception outlives its job, such a class
is kept only if it holds nothing but code and plain data.
"""

from __future__ import annotations

import gc
import sys
import types
from collections.abc import Collection
from typing import Any

__all__ = ["holds_nothing", "look_alike"]

_MAX_OBJECTS = 10_000
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class that is not written in C
_LEAVES = (type(None), bool, int, float, complex, str, bytes, types.CodeType, types.ModuleType)
_LOOKED_INTO = (
    *(tuple, list, set, frozenset, dict, property, staticmethod, classmethod),
    *(types.FunctionType, types.CellType, types.GetSetDescriptorType, types.MemberDescriptorType),
)


def holds_nothing(cls: type, plain: Collection[type] = ()) -> bool:
    """Return whether ``cls`` can be imported by its name, or holds only code and plain data.

    Args:
        cls: Any class.
        plain: Classes whose instances are plain data, besides numbers and texts.
    """
    waiting: list[Any] = [cls]
    seen: dict[int, Any] = {}
    try:
        while waiting:
            found = waiting.pop()
            kind = type(found)
            if id(found) in seen or kind in _LEAVES or kind in plain:
                continue
            seen[id(found)] = found
            if issubclass(kind, type):
                if _is_importable(found):
                    continue
                waiting.append(kind)  # its metaclass
            elif kind not in _LOOKED_INTO or len(seen) > _MAX_OBJECTS:
                return False
            elif kind is dict and _is_of_module(found):
                continue
            waiting += gc.get_referents(found)
    except Exception:  # noqa: BLE001 - names that are not strings, a module that is not one
        return False
    return True


def look_alike(cls: type) -> type:
    """Return a class with the name of ``cls`` and those of its bases that may be kept.

    >>> class Diverged(ArithmeticError):
    ...     last = [object()]
    >>> kept = look_alike(Diverged)
    >>> kept.__name__, kept.__bases__, hasattr(kept, "last")
    ('Diverged', (<class 'ArithmeticError'>,), False)
    """
    names = {name: _of_class(name, cls) for name in ("__module__", "__qualname__")}
    bases = tuple(
        base if holds_nothing(base) else look_alike(base) for base in _of_class("__bases__", cls)
    )
    return types.new_class(_of_class("__name__", cls), bases, exec_body=lambda to: to.update(names))


def _of_class(name: str, cls: type) -> Any:
    """Return an attribute that every class has, whatever the metaclass says."""
    return vars(type)[name].__get__(cls)


def _is_importable(cls: type) -> bool:
    """Return whether its module has it under its name, and so keeps it anyway."""
    if not cls.__flags__ & _HEAP_TYPE:
        return True
    found: Any = sys.modules.get(_of_class("__module__", cls))
    for name in _of_class("__qualname__", cls).split("."):
        is_class = issubclass(type(found), type)
        found = (_of_class("__dict__", found) if is_class else vars(found)).get(name)
        if found is None:
            return False
    return found is cls


def _is_of_module(names: dict[Any, Any]) -> bool:
    module = sys.modules.get(names["__name__"]) if "__name__" in names else None
    return module is not None and vars(module) is names
