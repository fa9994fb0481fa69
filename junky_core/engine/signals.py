"""SIGINT, SIGTERM and SIGHUP: noted from the start of a sweep until its results are written.

A signal that came while results are written would lose them, so the handlers
stay in place until the front door is done with the sweep:

    who                               does
    torch_autotrain, Hydra's plugins  ``noted_until_here()`` round all of it; takes nothing yet
    Sweep.run                         ``noted()``: takes the signals; gives them back itself only
                                      where no front door is open

Before the sweep starts a signal does what it did before. One that is ignored
(``nohup``) or has somebody else's handler is left alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from junky_core.errors import SweepInterrupted, in_session

__all__ = ["NotedSignals", "noted", "noted_until_here"]

_DEFAULTS: dict[str, Any] = {
    "SIGINT": signal.default_int_handler,
    "SIGTERM": signal.SIG_DFL,
    "SIGHUP": signal.SIG_DFL,  # not there on Windows
}
_current: NotedSignals | None = None  # of the main thread, which alone reads and sets it


class NotedSignals:
    """The first signal that came; a second one leaves at once.

    For the main thread.

    Attributes:
        signum: Its number, ``None`` if none came.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._before: dict[int, Any] = {}

    def take(self) -> None:
        """Replace the default handlers, where they are in place."""
        for name, default in _DEFAULTS.items():
            signum = getattr(signal, name, None)
            if signum is not None and signal.getsignal(signum) == default:
                self._before[signum] = signal.signal(signum, self._note)

    @property
    def taken(self) -> tuple[int, ...]:
        """The signals whose handlers are replaced."""
        return tuple(self._before)

    def give_back(self) -> None:
        """Put the handlers back that were replaced, where nobody replaced ours."""
        for signum, handler in self._before.items():
            if signal.getsignal(signum) == self._note:
                signal.signal(signum, handler)
        self._before.clear()

    def raise_if_noted(self, result: Any = None) -> None:
        """End what goes on after a sweep that was complete before the signal came.

        Raises:
            SweepInterrupted: With ``result``, if a signal came.
        """
        if self.signum is not None:
            name = signal.Signals(self.signum).name
            message = f"{name} came after the last job; all results are written"
            with contextlib.suppress(OSError, ValueError, AttributeError):  # no stderr
                sys.stderr.write(f"{message}\n")
            raise SweepInterrupted.here(message, self.signum, result)

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        # Runs between two bytecodes of the main thread, which may hold any lock: only take note.
        if self.signum is None:
            self.signum = signum
            return
        if in_session():
            raise KeyboardInterrupt  # a second one: leave, but keep the notebook
        os._exit(128 + signum)


@contextlib.contextmanager
def noted_until_here() -> Iterator[NotedSignals]:
    """Keep the signals that a sweep inside the block takes until the block ends."""
    global _current
    if threading.current_thread() is not threading.main_thread():
        yield NotedSignals()
        return
    if _current is not None:
        yield _current
        return
    _current = signals = NotedSignals()
    try:
        yield signals
    finally:
        _current = None
        signals.give_back()


@contextlib.contextmanager
def noted() -> Iterator[NotedSignals]:
    """Take the signals; give them back at the end, or leave that to :func:`noted_until_here`."""
    with noted_until_here() as signals:
        if threading.current_thread() is threading.main_thread():
            signals.take()
        yield signals


_fork = threading.local()  # .mask: the forking thread's signals before, None if left alone


def _hold_back_before_fork() -> None:
    """Let a signal to the child wait until it has the default handlers.

    One that came before would be noted by a handler that the child does not
    keep, and lost: ``multiprocessing`` terminates a process once, and joins it.
    """
    taken = () if _current is None else _current.taken
    _fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, taken) if taken else None


def _let_through() -> None:
    if _fork.mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _fork.mask)


def _give_back_in_child() -> None:
    """In a forked child a signal ends it, and not the sweep."""
    if _current is not None:
        _current.give_back()
    _let_through()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_hold_back_before_fork,
        after_in_parent=_let_through,
        after_in_child=_give_back_in_child,
    )
