"""Users' functions and objects on their way to a worker process.

    function or class                          is sent as
    has a name in a module, or in the script   module and name; the worker imports it
    .. hidden by a decorator that keeps        module, name, and how often to follow
    .. ``__wrapped__``                         ``__wrapped__``
    has no such name: lambda, closure,         its code (cloudpickle)
    .. notebook cell

By name is better where it is possible: such classes can be saved with
``torch.save`` in the worker and loaded elsewhere, and all jobs of a worker see
the same module.
"""

from __future__ import annotations

import functools
import importlib
import io
import pickle
import sys
import types
from collections.abc import Iterator
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

from junky_core.errors import ConfigError
from junky_core.executors.processes.main_module import is_found_in_main
from junky_core.values.user_text import class_name, error_line, is_ctrl_c

__all__ = ["Pickler", "check_loadable", "dumps", "loads", "packed"]

_MAX_DEPTH = 6
_MAX_WRAPPED = 20


def packed(
    value: Any,
    name: str,
    found_by_name: list[Any] | None = None,
    way_out: str = "executor=threads",
) -> bytes:
    """Return ``value`` pickled.

    Args:
        value: Anything of the user's.
        name: What the user calls it, for the error.
        found_by_name: Gets the functions and classes of the script that are sent by name.
        way_out: The setting that lets jobs run on threads, for the error.

    Raises:
        ConfigError: It cannot be; says what part of it, and what to do.
    """
    try:
        return dumps(value, found_by_name)
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        path, culprit, why = _culprit(value, name, 0, set()) or (name, value, error)
        what = f"a {class_name(culprit)}"
        if culprit is not value:
            what = f"{path} is {what}, which"
        raise ConfigError(
            f"{name} cannot be sent to worker processes: {what} cannot be pickled "
            f"({error_line(why)}). Create it inside the function that uses it, or put what uses it "
            "at the top level of a script or module, where workers import it; or let jobs run on "
            f"threads ({way_out})"
        ) from error


def check_loadable(value: Any, name: str) -> None:
    """Raise if ``value`` cannot be pickled and loaded again; arguments as for :func:`packed`.

    Raises:
        ConfigError: It cannot.
    """
    data = packed(value, name)
    try:
        loads(data)
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        raise ConfigError(
            f"{name} cannot be sent to worker processes: a {class_name(value)} that was pickled "
            f"cannot be loaded again ({error_line(error)})"
        ) from error


def dumps(value: Any, found_by_name: list[Any] | None = None) -> bytes:
    """Pickle ``value`` for a worker process, or for the driver; see :func:`packed`."""
    file = io.BytesIO()
    pickler = Pickler(file, protocol=pickle.HIGHEST_PROTOCOL)
    pickler.found_by_name = found_by_name
    pickler.dump(value)
    return file.getvalue()


def loads(data: bytes | bytearray) -> Any:
    """Return what :func:`dumps` pickled, in this process or another."""
    return pickle.loads(data)  # noqa: S301 - it comes from the process at the other end


class Pickler(cloudpickle.Pickler):  # type: ignore[misc] # it has no types
    """Finds more names than cloudpickle, which sends all of ``__main__`` by value.

    Attributes:
        found_by_name: Gets the functions and classes of the script that are sent by name.
    """

    found_by_name: list[Any] | None = None

    def reducer_override(self, obj: Any) -> Any:
        """Return how to find it by its name, if cloudpickle would not."""
        if isinstance(obj, (types.FunctionType, type)):
            found = _reference(obj)
            if found is not None:
                if self.found_by_name is not None and found[0] == "__main__":
                    self.found_by_name.append(obj)
                return _look_up, found
        elif isinstance(obj, types.ModuleType) and sys.modules.get(obj.__name__) is obj:
            # Of a class of its own, as torch.backends.cudnn is.
            return importlib.import_module, (obj.__name__,)
        return super().reducer_override(obj)


def _reference(obj: Any) -> tuple[str, str, int] | None:
    """Return module, name and number of decorators, if cloudpickle would not find the name."""
    module, name = getattr(obj, "__module__", None), getattr(obj, "__qualname__", "")
    if not isinstance(module, str) or "<" in name:
        return None
    if module == "__mp_main__":
        module = "__main__"
    is_main = module == "__main__"
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if is_main and not is_found_in_main(name):
        return None
    for depth in range(_MAX_WRAPPED):
        if found is obj:
            return (module, name, depth) if is_main or depth else None
        found = getattr(found, "__wrapped__", None)
    return None


def _look_up(module: str, name: str, depth: int) -> Any:
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    for _ in range(depth):
        found = found.__wrapped__
    return found


def _culprit(
    value: Any, path: str, depth: int, seen: set[int]
) -> tuple[str, Any, BaseException] | None:
    """Return where in ``value`` the innermost object is that cannot be pickled, and why."""
    if depth > _MAX_DEPTH or id(value) in seen:
        return None
    seen.add(id(value))
    try:
        dumps(value)
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        for name, part in _parts(value):
            found = _culprit(part, f"{path}{name}", depth + 1, seen)
            if found is not None:
                return found
        return path, value, error
    return None


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"[{key!r}]", item
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield f"[{number}]", item
    elif isinstance(value, types.FunctionType):
        yield from _parts_of_function(value)
    elif isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
    elif isinstance(value, functools.partial):
        yield ".func", value.func
        yield from ((f".args[{number}]", item) for number, item in enumerate(value.args))
        yield from ((f".keywords[{name!r}]", item) for name, item in value.keywords.items())
    else:
        yield from ((f".{name}", item) for name, item in getattr(value, "__dict__", {}).items())


def _parts_of_function(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"'s variable {name!r}", cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield f"'s global {name!r}", function.__globals__[name]
