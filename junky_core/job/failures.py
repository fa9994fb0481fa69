"""What an exception that ended an attempt means, and how to free its memory."""

from __future__ import annotations

import gc
import os
import re
import sys
import traceback
from collections.abc import Callable, Hashable
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from junky_core.accelerators import empty_caches
from junky_core.errors import JobStopped
from junky_core.job.detached import detached
from junky_core.job.exception_links import (
    attributes_of,
    cause_of,
    causes,
    chain,
    context_of,
    set_traceback,
    stand_in,
    traceback_of,
)
from junky_core.jobs import EndKind
from junky_core.values.texts import MAX_ERROR, cut, excerpt, visible
from junky_core.values.user_text import class_name, error_line, is_ctrl_c, str_of

__all__ = [
    "Failure",
    "FatalJobError",
    "describe",
    "free_memory",
    "last_line",
    "release_frames",
    "settle",
    "showable",
    "traceback_text",
]

# In torch from 2.8 on; before, its errors are RuntimeErrors with a text and no code.
_ACCELERATOR_ERROR: tuple[type[BaseException], ...] = tuple(
    getattr(torch, name) for name in ("AcceleratorError",) if hasattr(torch, name)
)
_OWN_FOLDER = f"{Path(__file__).parents[1]}{os.sep}"

# The codes of CUDA's runtime, which HIP shares, in torch.AcceleratorError.error_code. Other
# backends use their own small numbers: MPS 1, for an index out of bounds.
_OUT_OF_MEMORY_CODE = 2
_POISONED_CODES = frozenset(
    # For each of these, the runtime's manual says that the process must be restarted.
    {214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911}
)
_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|not enough memory|cudaErrorMemoryAllocation"
    # A library that could not be set up on the device: its handle and workspace take memory.
    r"|(CU|HIP)[A-Z]+_STATUS_(NOT_INITIALIZED|ALLOC_FAILED)"
    r"|(CU|HIP)FFT_ALLOC_FAILED|insufficient resources when calling"  # the latter is cuSPARSE's
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
# A library's kernel did not run, because of an earlier fault on the device or its own error.
_PERHAPS_POISONED = re.compile(r"(CU|HIP)[A-Z]+_STATUS_EXECUTION_FAILED")

_ENDS = (EndKind.INTERRUPTED, EndKind.TIMEOUT)  # what JobStopped may be raised for


class FatalJobError(Exception):
    """Wraps an error that every job would raise: the sweep ends with ``__cause__``."""


class Failure:
    """An exception, described while its frames were still there.

    Attributes:
        kind: ``ERROR``, ``OOM``, ``POISONED``, ``TIMEOUT``, ``INTERRUPTED`` or ``FATAL``.
        exception: A copy of it that holds nothing of the job (:mod:`junky_core.job.detached`).
        error: Its last line, ``"ValueError: bad"``.
        traceback: All of it as text, without this package's outer frames; of a long one both
            ends, see :meth:`keep_whole`.
        location: Class, and file and line of each frame, to recognize the same error.
        host_memory: Out of the host's memory, not of a GPU's.
        certain: ``False`` if ``POISONED`` must be confirmed by the device, see :func:`settle`.
    """

    __slots__ = (
        "_whole",
        "certain",
        "error",
        "exception",
        "host_memory",
        "kind",
        "location",
        "traceback",
    )

    def __init__(self, exception: BaseException) -> None:
        self.kind, self.certain = _kind(exception)
        if type(exception) is FatalJobError:
            exception = cause_of(exception) or exception
        self.error = excerpt(last_line(exception), MAX_ERROR)
        whole = traceback_text(exception)
        self.traceback = excerpt(whole)
        is_short = cut(whole) == whole and visible(whole, lines=True) == self.traceback
        self._whole = "" if is_short else whole
        self.location = _location(exception)
        self.host_memory = _is_host_memory(exception)
        release_frames(exception)
        self.exception: BaseException = detached(exception)

    def keep_whole(self, folder: Path | None, name: str) -> None:
        """Write a text that was cut to ``error-<name>.txt``, and say so in what is left.

        Args:
            folder: The job's folder, or the sweep's; ``None`` if there is none.
            name: The attempt's.
        """
        whole, self._whole = self._whole, ""
        if folder is None or not whole:
            return
        path = folder / f"error-{name}.txt"
        try:
            path.unlink(missing_ok=True)  # a link is replaced, never followed
            path.write_text(visible(whole, lines=True), "utf-8", "backslashreplace")
        except OSError as error:
            where = f"; the whole text could not be written to {path}: {error.strerror}"
        else:
            where = f"; the whole text is in {path}"
        self.traceback = excerpt(whole, where=where)


def describe(exception: BaseException) -> Failure:
    """Describe ``exception``, and make it release its frames.

    Call it in the job's scope, where its tensors can be printed.
    """
    return Failure(exception)


def settle(failure: Failure, synchronize: Callable[[], bool]) -> Failure:
    """Return ``failure``, or the device's own error if the device no longer works.

    A kernel's error comes late, and another one often comes first: a library that cannot be
    set up, a wrong shape. So the device is asked twice. It reports a passing error once, and
    one that poisons it each time.

    Args:
        failure: How an attempt ended; call this outside the ``except`` block.
        synchronize: Waits for the device; returns whether there is one, raises its error.
    """
    for _ in range(2):
        try:
            if synchronize() and not failure.certain:
                failure.kind = EndKind.ERROR  # the device works: only the library's call failed
        except Exception as error:  # noqa: BLE001 - a backend may raise its own
            unanswered = error
        else:
            return failure
    is_over = failure.kind in (EndKind.POISONED, EndKind.INTERRUPTED, EndKind.FATAL)
    if is_over or issubclass(type(failure.exception), KeyboardInterrupt):
        return failure
    unanswered.__context__ = failure.exception
    late = Failure(unanswered)
    late.kind = EndKind.POISONED
    return late


def release_frames(exception: BaseException) -> None:
    """Make ``exception`` and its causes release the frames that they passed through.

    A traceback holds frames, frames hold the model, its activations and the
    batch. A frame's locals can be cleared, but it still holds its function, a local
    function its closure, and every frame its caller. So the tracebacks are
    replaced by stand-ins, which show the same files, lines and names. This
    package's outer frames are left out.
    """
    set_traceback(exception, _without_own_frames(traceback_of(exception)))
    for link in chain(exception):
        tb = traceback_of(link)
        traceback.clear_frames(tb)  # other code may keep the traceback
        set_traceback(link, stand_in(tb))


def showable(exception: BaseException | None) -> BaseException | None:
    """Return ``exception``, or ``None`` if it may not be shown in full.

    Python shows all of an error's causes: one whose text is endless, or holds control
    characters, is left out of them.
    """
    texts = () if exception is None else [str_of(link) or "" for link in chain(exception)]
    good = all(text == cut(text) == visible(text, lines=True) for text in texts)
    return exception if good else None


def free_memory(device: torch.device | None = None) -> None:
    """Free memory: reference cycles first, then what the GPU's allocator caches.

    Args:
        device: Where memory is short; ``None`` for every GPU that the process uses.
    """
    gc.collect()
    try:
        empty_caches(device)
    except RuntimeError as error:  # a poisoned device answers everything with its error
        print(f"could not empty the GPU's cache: {error}", file=sys.stderr)  # noqa: T201


def last_line(exception: BaseException) -> str:
    """Return the line of a traceback that says what ``exception`` is: ``"ValueError: bad"``."""
    try:
        described = traceback.TracebackException(type(exception), exception, None)
        vars(described)["__notes__"] = None  # they come after that line
        return list(described.format_exception_only())[-1].strip()
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        return error_line(exception)


def traceback_text(exception: BaseException) -> str:
    """Return the whole traceback as text, without this package's outer frames."""
    theirs = _without_own_frames(traceback_of(exception))
    try:
        lines = traceback.format_exception(type(exception), exception, theirs)
        return "".join(lines).rstrip("\n")
    except BaseException as error:  # notes, a class's name, a module's loader: all may be anything
        if is_ctrl_c(error):
            raise
    head = "Traceback (most recent call last):\n"
    where = "".join(
        f'  File "{frame.f_code.co_filename}", line {line}, in {frame.f_code.co_name}\n'
        for frame, line in traceback.walk_tb(theirs)
    )
    earlier = cause_of(exception) or context_of(exception)
    return (
        (head + where if where else "")
        + error_line(exception)
        + ("" if earlier is None else f"\nIt came after {error_line(earlier)}")
    )


def _kind(exception: BaseException) -> tuple[EndKind, bool]:
    """Return the kind and whether it is certain. Class and code go before the text."""
    if issubclass(type(exception), JobStopped):
        reason = attributes_of(exception).get("reason")
        asked = type(reason) is str and reason in _ENDS
        return (EndKind(reason) if asked else EndKind.ERROR), True
    if type(exception) is FatalJobError:
        return EndKind.FATAL, True
    for link in causes(exception):
        kind = type(link)
        if issubclass(kind, (MemoryError, torch.OutOfMemoryError)):
            return EndKind.OOM, True
        if not issubclass(kind, RuntimeError):
            continue
        code: Any = None
        if issubclass(kind, _ACCELERATOR_ERROR):
            code = attributes_of(link).get("error_code")
        if type(code) is int and code in _POISONED_CODES:
            return EndKind.POISONED, True
        if type(code) is int and code == _OUT_OF_MEMORY_CODE:
            return EndKind.OOM, True
        text = cut(str_of(link) or "")
        if _POISONED.search(text):
            return EndKind.POISONED, True
        if _OUT_OF_MEMORY.search(text):
            return EndKind.OOM, True
        if _PERHAPS_POISONED.search(text):
            return EndKind.POISONED, False
    return EndKind.ERROR, True


def _is_host_memory(exception: BaseException) -> bool:
    return any(
        issubclass(type(link), MemoryError)
        or re.search("allocate memory|HOST_(MEM|ALL)", cut(str_of(link) or ""))
        for link in causes(exception)
    )


def _location(exception: BaseException) -> Hashable:
    """Return the class and the line of each frame: the last alone may be a library's."""
    frames = traceback.walk_tb(traceback_of(exception))
    lines = tuple((frame.f_code.co_filename, line) for frame, line in frames)
    return class_name(exception), lines


def _without_own_frames(tb: TracebackType | None) -> TracebackType | None:
    """Drop this package's leading frames: they say nothing about the job."""
    first = tb
    while first is not None and first.tb_frame.f_code.co_filename.startswith(_OWN_FOLDER):
        first = first.tb_next
    return first if first is not None else tb
