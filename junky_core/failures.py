"""What an exception that ended an attempt means, and how to let go of its memory."""

from __future__ import annotations

import gc
import re
import sys
import traceback
import types
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from junky_core.accelerators import empty_caches
from junky_core.errors import JobStopped

__all__ = [
    "Failure",
    "FatalJobError",
    "describe",
    "free_memory",
    "release_frames",
    "settle",
    "stand_in",
]

# In torch from 2.8 on; before, its errors are RuntimeErrors with a text and no code.
_ACCELERATOR_ERROR: tuple[type[BaseException], ...] = tuple(
    getattr(torch, name) for name in ("AcceleratorError",) if hasattr(torch, name)
)
_OWN_FOLDER = str(Path(__file__).parent)

# The codes of CUDA's runtime, which HIP shares, in torch.AcceleratorError.error_code. Other
# backends use small numbers of their own: MPS 1, for an index out of bounds.
_OUT_OF_MEMORY_CODE = 2
_POISONED_CODES = frozenset(
    # Of each of these the runtime's manual says that the process must be started again.
    {214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911}
)
_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|not enough memory|cudaErrorMemoryAllocation"
    # A library that could not be set up on the device: its handle and workspace take memory.
    r"|(CU|HIP)[A-Z]+_STATUS_(NOT_INITIALIZED|ALLOC_FAILED)"
    r"|CUDNN_STATUS_INTERNAL_ERROR_(DEVICE|HOST)_ALLOCATION_FAILED"
    r"|rocblas_status_memory_error|miopenStatusAllocFailed"
    r"|UR_RESULT_ERROR_OUT_OF_(DEVICE_MEMORY|HOST_MEMORY|RESOURCES)"
)
_POISONED = re.compile(
    r"device-side assert|illegal memory access|illegal address|misaligned address"
    r"|unspecified launch failure|illegal instruction|invalid program counter"
    r"|operation not supported on global/shared address space|the launch timed out"
    r"|uncorrectable (ECC|NVLink) error|hardware stack error|context is destroyed"
    r"|UR_RESULT_ERROR_DEVICE_LOST"
)
# A library's kernel did not run: of an earlier fault on the device, or for a reason of its own.
_PERHAPS_POISONED = re.compile(r"(CU|HIP)[A-Z]+_STATUS_EXECUTION_FAILED")


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
        certain: ``False`` of ``"poisoned"`` where only the device could tell, see :func:`settle`.
    """

    __slots__ = ("certain", "error", "exception", "host_memory", "kind", "location", "traceback")

    def __init__(self, exception: BaseException) -> None:
        self.kind, self.certain = _kind(exception)
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


def settle(failure: Failure, synchronize: Callable[[], bool]) -> Failure:
    """Return ``failure``, or the device's own error if it does not answer any more.

    A kernel's error comes late, often as another one first: a library that cannot be set up, a
    shape that is wrong. So the device is asked: it tells an error that is over once, and one
    that poisons it each time.

    Args:
        failure: How an attempt ended; call this outside the ``except`` block.
        synchronize: Waits for the device; returns whether there is one, raises its error.
    """
    for _ in range(2):
        try:
            if synchronize() and not failure.certain:
                failure.kind = "error"  # it works: that was the library's own affair
        except Exception as error:  # noqa: BLE001 - a backend may raise its own
            unanswered = error
        else:
            return failure
    is_over = failure.kind in ("poisoned", "interrupted", "fatal")
    if is_over or isinstance(failure.exception, KeyboardInterrupt):
        return failure
    unanswered.__context__ = failure.exception
    late = Failure(unanswered)
    late.kind = "poisoned"
    return late


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


def free_memory(device: torch.device | None = None) -> None:
    """Give memory back: cycles first, then what the GPU's allocator caches.

    Args:
        device: Where the memory is short; ``None``: on whatever GPU the process uses.
    """
    gc.collect()
    try:
        empty_caches(device)
    except RuntimeError as error:  # a poisoned device answers everything with its error
        print(f"could not empty the GPU's cache: {error}", file=sys.stderr)  # noqa: T201


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


def _kind(exception: BaseException) -> tuple[str, bool]:
    """Return the kind and whether it is certain. Class and code go before the text."""
    if isinstance(exception, JobStopped):
        return exception.reason, True
    if isinstance(exception, FatalJobError):
        return "fatal", True
    for link in _causes(exception):
        if isinstance(link, (MemoryError, torch.OutOfMemoryError)):
            return "oom", True
        if not isinstance(link, RuntimeError):
            continue
        code = getattr(link, "error_code", None) if isinstance(link, _ACCELERATOR_ERROR) else None
        if code in _POISONED_CODES:
            return "poisoned", True
        if code == _OUT_OF_MEMORY_CODE:
            return "oom", True
        if _POISONED.search(str(link)):
            return "poisoned", True
        if _OUT_OF_MEMORY.search(str(link)):
            return "oom", True
        if _PERHAPS_POISONED.search(str(link)):
            return "poisoned", False
    return "error", True


def _is_host_memory(exception: BaseException) -> bool:
    return any(
        isinstance(link, MemoryError) or re.search("allocate memory|HOST_(MEM|ALL)", str(link))
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
