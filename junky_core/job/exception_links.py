"""How exceptions are linked, whatever their classes override.

A user's exception may have a property ``args``, a ``__setattr__`` that refuses
(as in a frozen dataclass), or a ``__getattribute__`` that raises. So what Python itself
keeps is read and written through the descriptors of ``BaseException``.
"""

from __future__ import annotations

import builtins
import types
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

__all__ = [
    "args_of",
    "attributes_of",
    "cause_of",
    "causes",
    "chain",
    "context_of",
    "join",
    "members_of",
    "set_traceback",
    "stand_in",
    "traceback_of",
]

_KEPT: Any = vars(BaseException)
_Group: Any = getattr(builtins, "BaseExceptionGroup", None)  # Python 3.11


# Each returns what the interpreter keeps of an exception: ``exception.args``, the ``__dict__``
# itself (not a copy), what it was raised from, what was being handled when it was raised, and
# its traceback.
args_of: Callable[[BaseException], tuple[Any, ...]] = _KEPT["args"].__get__
attributes_of: Callable[[BaseException], dict[str, Any]] = _KEPT["__dict__"].__get__
cause_of: Callable[[BaseException], BaseException | None] = _KEPT["__cause__"].__get__
context_of: Callable[[BaseException], BaseException | None] = _KEPT["__context__"].__get__
traceback_of: Callable[[BaseException], TracebackType | None] = _KEPT["__traceback__"].__get__


def set_traceback(exception: BaseException, tb: TracebackType | None) -> None:
    """Set ``exception.__traceback__``."""
    _KEPT["__traceback__"].__set__(exception, tb)


def join(
    exception: BaseException,
    cause: BaseException | None,
    context: BaseException | None,
    like: BaseException,
) -> None:
    """Set cause and context of ``exception``, and show the same one of them as ``like``."""
    _KEPT["__cause__"].__set__(exception, cause)
    _KEPT["__context__"].__set__(exception, context)
    suppressed = _KEPT["__suppress_context__"]
    suppressed.__set__(exception, suppressed.__get__(like))


def members_of(exception: BaseException) -> tuple[BaseException, ...]:
    """Return the exceptions of a group; none for any other exception.

    >>> members_of(ValueError())
    ()
    """
    if _Group is None or not issubclass(type(exception), _Group):
        return ()
    members: tuple[BaseException, ...] = vars(_Group)["exceptions"].__get__(exception)
    return members


def causes(exception: BaseException) -> Iterator[BaseException]:
    """Yield the exception and what it was raised from: ``raise ... from ...`` keeps its meaning."""
    seen: set[int] = set()
    link: BaseException | None = exception
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = cause_of(link)


def chain(exception: BaseException) -> Iterator[BaseException]:
    """Yield the exception and all exceptions that it is linked to, members of groups included."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [exception]
    while waiting:
        link = waiting.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        waiting += [cause_of(link), context_of(link), *members_of(link)]


def _nowhere() -> Iterator[None]:  # its frame, as it never runs, has no caller
    yield


def stand_in(tb: TracebackType | None) -> TracebackType | None:
    """Return a traceback that shows what ``tb`` shows, made of frames that hold nothing."""
    links = []
    while tb is not None:
        links.append(tb)
        tb = tb.tb_next
    for link in reversed(links):
        code, names = link.tb_frame.f_code, link.tb_frame.f_globals
        look_alike = _nowhere.__code__.replace(
            co_filename=code.co_filename, co_name=code.co_name, co_firstlineno=link.tb_lineno
        )
        # These find source that is not in a file, as in a notebook.
        finders: dict[str, Any] = {
            name: names[name] for name in ("__name__", "__loader__") if name in names
        }
        frame = types.FunctionType(look_alike, finders)().gi_frame
        tb = TracebackType(tb, frame, 0, link.tb_lineno)
    return tb
