"""The user's script in a worker process: imported as ``multiprocessing``'s ``spawn`` does it.

The script runs once more there, under the name ``__mp_main__``, so that what is
under ``if __name__ == "__main__"`` does not run. A script that starts its sweep
outside of it would start another one in each worker: that is refused.

    defined in the script                    in a worker
    at the top level                         found by its name
    under ``if __name__ == "__main__"``      not there: sent by value
    in a notebook, at a prompt               not there: sent by value
"""

from __future__ import annotations

import ast
import functools
import inspect
import logging
import multiprocessing.spawn
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from junky_core.errors import ConfigError

__all__ = [
    "import_main",
    "is_found_in_main",
    "names_set_under_guard",
    "preparation",
    "refuse_unguarded_script",
    "refuse_while_main_is_imported",
]

_CONDITIONS = (ast.If, ast.IfExp, ast.BoolOp, ast.While, ast.Match)
_importing = False
_refused = False


def preparation() -> dict[str, Any]:
    """Return what a worker needs to be like this process: plain data, to be pickled."""
    data: dict[str, Any] = multiprocessing.spawn.get_preparation_data("")
    data["name"] = multiprocessing.current_process().name
    data["authkey"] = bytes(data["authkey"])  # its own class refuses to be sent
    return {"process": data, "environment": dict(os.environ)}


def import_main(prepared: Mapping[str, Any]) -> None:
    """Make this worker like the process that called :func:`preparation`, and import its script.

    The environment is set already.

    Raises:
        ConfigError: The script starts its sweep while it is imported.
        BaseException: What the script raises.
    """
    global _importing, _refused
    # So that the script's logger has the name that users configure and read.
    logging.Logger.manager.loggerDict["__mp_main__"] = logging.getLogger("__main__")
    _importing, _refused = True, False
    try:
        multiprocessing.spawn.prepare(prepared["process"])
    except BaseException:
        if not _refused:
            raise
    finally:
        _importing = False
    if _refused:  # whatever the script made of it
        raise ConfigError(_not_guarded(prepared["process"].get("init_main_from_path", "")))


def refuse_while_main_is_imported() -> None:
    """Raise if a worker imports the script now; to be called where a sweep begins.

    Raises:
        ConfigError: It does.
    """
    global _refused
    if _importing:
        _refused = True
        raise ConfigError(_not_guarded(getattr(sys.modules["__main__"], "__file__", "")))


def _not_guarded(path: str) -> str:
    return (
        f"the script {path or '(__main__)'} starts its sweep when it is imported, so each worker "
        'process would start it again. Put the call under: if __name__ == "__main__":'
    )


def refuse_unguarded_script() -> None:
    """Raise if the script has come here by a line that runs when it is imported.

    To be called where a sweep begins, in the main thread, before anything is made. If the
    statement has a condition, which may be a guard, the workers find out.

    Raises:
        ConfigError: It has.
    """
    path, frame = _script(), inspect.currentframe()
    while path is not None and frame is not None:
        code = frame.f_code
        is_script = code.co_filename == path and code.co_name == "<module>"
        if is_script and _always_runs(path, frame.f_lineno):
            raise ConfigError(_not_guarded(path))
        frame = frame.f_back


def _script() -> str | None:
    """Return the path of the script that workers import, ``None`` if they import none."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name.rpartition(".")[2] == "__main__":
        return None
    return getattr(main, "__file__", None)


def is_found_in_main(qualname: str) -> bool:
    """Return whether a worker finds this name of ``__main__`` in the script that it imports."""
    path = _script()
    return path is not None and qualname.partition(".")[0] in _names_in_script(path)


def _always_runs(path: str, line: int) -> bool:
    for statement in _parsed(path).body:
        if statement.lineno <= line <= (statement.end_lineno or line):
            return not any(isinstance(node, _CONDITIONS) for node in ast.walk(statement))
    return False


def names_set_under_guard() -> frozenset[str]:
    """Return the names that the script sets under its ``__main__`` guard."""
    path = _script()
    return frozenset() if path is None else _names_under_guard(path)


@functools.lru_cache(maxsize=4)
def _names_under_guard(path: str) -> frozenset[str]:
    guards = [
        statement
        for statement in _parsed(path).body
        if isinstance(statement, ast.If) and _is_guard(statement.test)
    ]
    stored = {
        node.id
        for guard in guards
        for node in ast.walk(guard)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    return frozenset(stored.union(*(_names(guard.body) for guard in guards)))


@functools.lru_cache(maxsize=4)
def _names_in_script(path: str) -> frozenset[str]:
    return frozenset(_names(_parsed(path).body))


def _parsed(path: str) -> ast.Module:
    try:
        return ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ast.Module([], [])


def _names(body: Sequence[ast.stmt]) -> Iterator[str]:
    """Yield what the statements define at the top level when the script is imported."""
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield statement.name
            continue
        if isinstance(statement, ast.If) and _is_guard(statement.test):
            yield from _names(statement.orelse)
            continue
        if isinstance(statement, (ast.Assign, ast.AnnAssign)):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for target in targets:
                for node in ast.walk(target):
                    if isinstance(node, ast.Name):
                        yield node.id
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            for alias in statement.names:
                yield (alias.asname or alias.name).partition(".")[0]
        for part in ("body", "orelse", "finalbody"):
            yield from _names(getattr(statement, part, ()))
        for handler in getattr(statement, "handlers", ()):
            yield from _names(handler.body)


def _is_guard(test: ast.expr) -> bool:
    return any(isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(test))
