"""What an exception that ended an attempt means, and how to let go of its memory."""

from __future__ import annotations

import gc
import re
import sys
import traceback
import types
from collections.abc import Hashable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from junky_core.errors import JobStopped

__all__ = ["Failure", "FatalJobError", "describe", "free_memory", "release_frames", "stand_in"]

_OWN_FOLDER = str(Path(__file__).parent)
_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|not enough memory|CUBLAS_STATUS_ALLOC_FAILED"
    r"|CUDNN_STATUS_ALLOC_FAILED|cudaErrorMemoryAllocation"
)
_POISONED = re.compile(
    r"device-side assert|illegal memory access|illegal address|misaligned address"
    r"|unspecified launch failure|illegal instruction|invalid program counter"
    r"|uncorrectable (ECC|NVLink) error|hardware stack error"
)


class FatalJobError(Exception):
    """Wraps an error of a job that would be every job's: the sweep ends with ``__cause__``."""


class Failure:
    """An exception, described while its frames are still there.

    Attributes:
        kind: ``"error"``, ``"oom"``, ``"poisoned"``, ``"timeout"``,
            ``"interrupted"`` or ``"fatal"``.
        exception: The exception.
        error: Its last line, ``"ValueError: bad"``.
        traceback: All of it as text, without this package's outer frames.
        location: Type, file and line where it was raised.
        host_memory: Out of the host's memory, not of a GPU's.
    """

    __slots__ = ("error", "exception", "host_memory", "kind", "location", "traceback")

    def __init__(self, exception: BaseException) -> None:
        self.kind = _kind(exception)
        if isinstance(exception, FatalJobError) and exception.__cause__ is not None:
            exception = exception.__cause__
        self.exception: BaseException = exception
        lines = traceback.format_exception_only(type(exception), exception)
        self.error = lines[-1].strip() if lines else type(exception).__name__
        theirs = _without_own_frames(exception.__traceback__)
        text = traceback.format_exception(type(exception), exception, theirs)
        self.traceback = "".join(text).rstrip("\n")
        self.location = _location(exception)
        self.host_memory = _is_host_memory(exception)


def describe(exception: BaseException) -> Failure:
    """Describe ``exception``; call it outside the ``except`` block, then release its frames."""
    return Failure(exception)


def release_frames(exception: BaseException) -> None:
    """Let ``exception`` and its causes hold none of the frames that they passed through.

    A traceback holds frames, frames hold the model, its activations and the
    batch. A frame's locals can be cleared, but it goes on holding its function,
    a local function its closure, and every frame its caller: so the tracebacks
    are replaced by stand-ins, which show the same files, lines and names. This
    package's outer frames are left out.
    """
    exception.__traceback__ = _without_own_frames(exception.__traceback__)
    for link in _chain(exception):
        traceback.clear_frames(link.__traceback__)  # others may hold on to the traceback
        link.__traceback__ = stand_in(link.__traceback__)


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
        # How source is found that is not in a file of its own.
        finders: dict[str, Any] = {
            name: names[name] for name in ("__name__", "__loader__") if name in names
        }
        frame = types.FunctionType(look_alike, finders)().gi_frame
        tb = TracebackType(tb, frame, 0, link.tb_lineno)
    return tb


def free_memory() -> None:
    """Give memory back: cycles first, then what CUDA's allocator caches."""
    gc.collect()
    if torch.cuda.is_initialized():
        try:
            torch.cuda.empty_cache()
        except RuntimeError as error:  # a poisoned device answers everything with its error
            print(f"could not empty the CUDA cache: {error}", file=sys.stderr)  # noqa: T201


def _chain(exception: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [exception]
    while waiting:
        link = waiting.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        waiting += [link.__cause__, link.__context__, *getattr(link, "exceptions", ())]


def _causes(exception: BaseException) -> Iterator[BaseException]:
    """Yield the exception and what it was raised from: ``raise ... from ...`` keeps its meaning."""
    seen: set[int] = set()
    link: BaseException | None = exception
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__


def _kind(exception: BaseException) -> str:
    if isinstance(exception, JobStopped):
        return exception.reason
    if isinstance(exception, FatalJobError):
        return "fatal"
    for link in _causes(exception):
        if isinstance(link, (MemoryError, torch.OutOfMemoryError)):
            return "oom"
        if isinstance(link, RuntimeError):
            if _POISONED.search(str(link)):
                return "poisoned"
            if _OUT_OF_MEMORY.search(str(link)):
                return "oom"
    return "error"


def _is_host_memory(exception: BaseException) -> bool:
    return any(
        isinstance(link, MemoryError) or "allocate memory" in str(link)
        for link in _causes(exception)
    )


def _location(exception: BaseException) -> Hashable:
    last = exception.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return (type(exception), None, None)
    return (type(exception), last.tb_frame.f_code.co_filename, last.tb_lineno)


def _without_own_frames(tb: TracebackType | None) -> TracebackType | None:
    """Drop this package's leading frames: they say nothing of the job."""
    first = tb
    while first is not None and first.tb_frame.f_code.co_filename.startswith(_OWN_FOLDER):
        first = first.tb_next
    return first if first is not None else tb
