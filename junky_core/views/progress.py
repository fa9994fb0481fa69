"""Observer: live progress in a terminal, plain lines elsewhere.

In a terminal a display of a few lines stays at the bottom, and everything that
the process prints or logs scrolls above it. Events only update the state; a
thread draws it, at most twice a second.

``rich.live`` is not used, because the jobs' own output must reach the terminal
unchanged: it would wrap their long lines, hide their progress bars and lock up
in their forked workers.

    state                 on SweepStarted      on SweepEnded
    terminal              the display opens    drawn once more, then closed
    other, or a notebook  nothing              a last line
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from junky_core.events import (
    AttemptFailed,
    Event,
    JobFailed,
    JobFinished,
    SweepEnded,
    SweepStarted,
)
from junky_core.record.live_state import LiveState
from junky_core.views.live_view import plain_line, render

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Progress"]

_DRAW_EVERY_S = 0.5
_PLAIN_EVERY_S = 30.0


class Progress:
    """Shows the progress of the sweep. Thread-safe.

    Args:
        enabled: ``False`` shows nothing. ``None`` shows the display if stdout is a
            terminal, and lines elsewhere if ``plain`` is true.
        plain: Whether to print lines if stdout is not a terminal: when a job has
            ended, at most one every ``plain_every_s``, and one at the end.
        plain_every_s: Seconds between lines.

    While the sweep runs, the display replaces ``sys.stdout`` and ``sys.stderr``,
    also in log handlers that write to them, so that their lines go above it.
    """

    def __init__(
        self,
        enabled: bool | None = None,
        *,
        plain: bool = True,
        plain_every_s: float = _PLAIN_EVERY_S,
    ) -> None:
        self._enabled = enabled is not False
        self._plain = plain
        self._plain_every_s = plain_every_s
        self._lock = threading.Lock()  # guards the state and the time of the last line
        self._state = LiveState()
        self._last_line = 0.0
        self._told_end = False
        self._display: _Display | None = None  # set and cleared by the thread that runs the sweep

    def on_event(self, event: Event) -> None:
        """Update the progress with ``event``."""
        if not self._enabled:
            return
        with self._lock:
            self._state.on_event(event)
        if isinstance(event, SweepStarted):
            self._begin()
        elif isinstance(event, SweepEnded):
            self.close()
        elif self._display is not None:
            self._display.changed.set()
        elif isinstance(event, (JobFinished, JobFailed, AttemptFailed)):
            self._say(final=False)

    def close(self) -> None:
        """Draw a last time and restore the streams; may be called however the sweep ended."""
        display, self._display = self._display, None
        if display is not None:
            display.close()
        elif self._state.ended is not None and not self._told_end:
            self._told_end = True
            self._say(final=True)

    def _begin(self) -> None:
        self._told_end = False
        self._last_line = time.monotonic()
        if self._display is None and _is_terminal(sys.stdout):
            self._display = _Display(self._render)

    def _render(self, width: int) -> RenderableType:
        with self._lock:
            return render(self._state, time.time(), width)

    def _say(self, *, final: bool) -> None:
        if not self._plain:
            return
        with self._lock:
            now = time.monotonic()
            if not final and now - self._last_line < self._plain_every_s:
                return
            self._last_line = now
            line = plain_line(self._state, time.time())
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, full, None
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


class _Display:
    """The lines at the bottom of the terminal, and the thread that draws them.

    Other output is written unchanged: the display is erased before it and drawn
    again after it.
    """

    def __init__(self, content: Callable[[int], RenderableType]) -> None:
        from rich.console import Console

        self.changed = threading.Event()
        self._content = content
        self._terminal = sys.stdout
        self._console = Console(file=self._terminal)
        # Reentrant: a signal handler may print while this thread draws.
        self._lock = threading.RLock()  # guards what is on the terminal, and the two below
        self._frame: list[str] = []
        self._closed = False
        self._stop = threading.Event()
        streams = [sys.stdout, *([sys.stderr] if _is_terminal(sys.stderr) else [])]
        self._stack = contextlib.ExitStack()
        self._above = [(stream, _Above(stream, self)) for stream in streams]
        self._stack.enter_context(_streams_follow(self._above))
        self._stack.enter_context(_handlers_follow(self._above))
        self._thread = threading.Thread(target=self._run, name="junky-progress", daemon=True)
        self._thread.start()

    def write_above(self, text: str) -> None:
        """Write whole lines above the display."""
        with self._lock:
            self._terminal.write(self._erasing() + text + "".join(self._frame))
            self._terminal.flush()

    def close(self) -> None:
        self._stop.set()
        self.changed.set()
        self._thread.join(5.0)
        with contextlib.suppress(OSError, ValueError):
            self._draw()
        with self._lock:
            self._closed = True
            self._frame = []  # what is on the screen stays there
        self._stack.close()
        for _, above in self._above:
            above.end()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.changed.wait(1.0)  # without events, the times shown advance once a second
            self.changed.clear()
            with contextlib.suppress(OSError, ValueError):
                self._draw()
            self._stop.wait(_DRAW_EVERY_S)

    def _draw(self) -> None:
        # The last column stays empty: some terminals wrap a line that fills it.
        width = max(20, self._console.width - 1)
        with self._console.capture() as capture:
            self._console.print(self._content(width), width=width, soft_wrap=False)
        frame = capture.get().splitlines(keepends=True)
        frame = frame[: max(1, self._console.height - 1)]
        with self._lock:
            if self._closed:
                return
            erasing, self._frame = self._erasing(), frame
            self._terminal.write(erasing + "".join(frame))
            self._terminal.flush()

    def _erasing(self) -> str:
        return f"\r\x1b[{len(self._frame)}A\x1b[J" if self._frame else "\r\x1b[J"


class _Above(io.TextIOBase):
    """Replaces a stream of the terminal: complete lines go above the display."""

    def __init__(self, stream: TextIO, display: _Display) -> None:
        super().__init__()
        self._stream = stream
        self._display = display
        self._lock = threading.RLock()  # guards the incomplete line
        self._line = ""
        self._pid = os.getpid()

    def write(self, text: str) -> int:
        if os.getpid() != self._pid:  # a forked worker: the locks may be held for ever there
            return self._stream.write(text)
        with self._lock:
            *whole, rest = (self._line + text).split("\n")
            # A progress bar rewrites its line: keep the last version.
            self._line = rest[rest.rfind("\r") + 1 :] if "\r" in rest[:-1] else rest
            if whole:
                self._display.write_above("".join(f"{line}\n" for line in whole))
        return len(text)

    def end(self) -> None:
        """Write the incomplete line."""
        with self._lock:
            line, self._line = self._line, ""
        if line:
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(line)
                self._stream.flush()

    def flush(self) -> None:
        """Do nothing: complete lines are flushed when they are written."""
        if os.getpid() != self._pid:
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._stream.errors


@contextlib.contextmanager
def _streams_follow(above: Sequence[tuple[TextIO, _Above]]) -> Iterator[None]:
    """Replace ``sys.stdout`` and ``sys.stderr``."""
    names = ["stdout", "stderr"]
    for (_, stand_in), name in zip(above, names, strict=False):
        setattr(sys, name, stand_in)
    try:
        yield
    finally:
        for (stream, stand_in), name in zip(above, names, strict=False):
            if getattr(sys, name) is stand_in:  # not if it was replaced since
                setattr(sys, name, stream)


@contextlib.contextmanager
def _handlers_follow(above: Sequence[tuple[TextIO, _Above]]) -> Iterator[None]:
    """Make log handlers that write to the terminal write above the display."""
    moved: list[tuple[logging.StreamHandler[Any], TextIO, _Above]] = []
    known = list(logging.root.manager.loggerDict.values())
    for logger in (logging.root, *known):
        for handler in list(getattr(logger, "handlers", ())):
            for stream, stand_in in above:
                if isinstance(handler, logging.StreamHandler) and handler.stream is stream:
                    handler.setStream(stand_in)
                    moved.append((handler, stream, stand_in))
                    break
    try:
        yield
    finally:
        for handler, stream, stand_in in moved:
            if handler.stream is stand_in:
                handler.setStream(stream)


def _is_terminal(stream: Any) -> bool:
    """Return whether ``stream`` is a terminal that understands control characters."""
    try:
        return bool(stream.isatty()) and os.environ.get("TERM", "") not in ("", "dumb")
    except (AttributeError, ValueError):
        return False
