"""Follow a running sweep from another process, by its journal."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from junky_core.errors import LogError, LogNotFoundError
from junky_core.events import EndReason, SweepKind
from junky_core.record.folder import JOURNAL_NAME, LOCK_NAME
from junky_core.record.lines import Line, LineReader
from junky_core.record.live_state import LiveState
from junky_core.record.regular_files import check_regular, open_regular
from junky_core.views.history import is_journal
from junky_core.views.live_view import plain_line, render

__all__ = ["JournalTail", "watch"]

_SILENT_S = 5.0  # after so long without events, check whether the sweep's process is alive
_PLAIN_EVERY_S = 10.0
_FIRST_BYTES = 4096  # how much of the first record identifies a sweep's journal


class JournalTail:
    """Reads what is appended to a journal.

    Args:
        path: The journal.

    Attributes:
        restarted: Set when a ``read`` begins at the file's start: the first time, and if the file
            was replaced or truncated. Lines read before are then no longer valid. The caller
            clears it.
    """

    def __init__(self, path: Path) -> None:
        self.restarted = True
        self._path = path
        self._offset = 0
        self._inode = -1
        self._first = b""  # inodes are reused
        self._lines = LineReader(path)

    def read(self) -> Iterator[Line]:
        """Yield the new lines that are complete.

        Raises:
            OSError: The file does not exist, or cannot be read.
            JournalError: The next line is damaged.
        """
        with open_regular(self._path) as file:
            now = os.fstat(file.fileno())
            first = file.readline(_FIRST_BYTES)
            same = now.st_ino == self._inode and first.startswith(self._first)
            if not same or now.st_size < self._offset:
                self.restarted = True
                self._inode, self._offset = now.st_ino, 0
                self._lines = LineReader(self._path)
            self._first = first
            file.seek(self._offset)
            for text in file:
                if not text.endswith(b"\n"):
                    return
                self._offset += len(text)
                line = self._lines.take(text)
                if line is not None:
                    yield line


def watch(path: Path, *, once: bool, interval_s: float, stream: TextIO | None = None) -> int:
    """Show the progress of the sweep at ``path`` until it is over; return the exit status.

    On a terminal this is a live display. Otherwise a line is printed when
    something changed, at most every ten seconds.

    Raises:
        LogNotFoundError: There is nothing at ``path``.
        LogError: It has no journal.
        JournalError: Its journal is damaged.
        OSError: It is a fifo or a device.
    """
    stream = sys.stdout if stream is None else stream
    journal = path / JOURNAL_NAME if path.is_dir() else path
    if not path.exists():
        raise LogNotFoundError(f"there is no sweep folder or log at {str(path)!r}")
    check_regular(journal)
    if not is_journal(journal):
        raise LogError(
            f"{str(path)!r} has no journal to watch; for a log, use: junky leaderboard {path}"
        )
    view = _View(JournalTail(journal))
    if once:
        view.look()
        _print_once(view.state, stream)
        return _status(view.state, alive=_is_alive(journal.parent), once=True)
    if stream.isatty():
        return _watch_on_terminal(view, journal.parent, interval_s)
    return _watch_in_lines(view, journal.parent, interval_s, stream)


class _View:
    """The state of a sweep, as far as its journal has been read."""

    def __init__(self, tail: JournalTail) -> None:
        self.state = LiveState()
        self._tail = tail

    def look(self) -> bool:
        """Read new events; return whether there were any."""
        news = False
        try:
            for line in self._tail.read():
                if self._tail.restarted:
                    self._tail.restarted, self.state = False, LiveState()
                if line.event is not None:
                    self.state.on_event(line.event)
                    news = True
        except OSError:  # the folder is gone; the process is checked elsewhere
            return False
        return news


def _watch_on_terminal(view: _View, folder: Path, interval_s: float) -> int:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    news = time.monotonic()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            if view.look():
                news = time.monotonic()
            live.update(render(view.state, time.time(), console.width), refresh=True)
            if _is_over(view.state, folder, time.monotonic() - news):
                break
            time.sleep(interval_s)
    return _say_end(view.state, folder, sys.stdout)


def _watch_in_lines(view: _View, folder: Path, interval_s: float, stream: TextIO) -> int:
    news, printed, shown = time.monotonic(), 0.0, None
    while True:
        if view.look():
            news = time.monotonic()
        state = view.state
        over = _is_over(state, folder, time.monotonic() - news)
        facts = (state.finished, state.failed, state.best)
        if over or (facts != shown and time.monotonic() - printed >= _PLAIN_EVERY_S):
            print(plain_line(state, time.time()), file=stream, flush=True)
            printed, shown = time.monotonic(), facts
        if over:
            return _say_end(state, folder, stream)
        time.sleep(interval_s)


def _is_over(state: LiveState, folder: Path, silent_s: float) -> bool:
    if state.ended is not None:
        # A Hydra sweeper may launch another batch as long as its process is alive.
        may_continue = state.kind == SweepKind.HYDRA and state.ended == EndReason.COMPLETED
        return not (may_continue and _is_alive(folder))
    return silent_s > _SILENT_S and not _is_alive(folder)


def _status(state: LiveState, *, alive: bool, once: bool) -> int:
    if state.ended is None:
        return 0 if once and alive else 1
    left = state.left or 0
    return 0 if state.ended == "completed" and not state.failed and not left else 1


def _say_end(state: LiveState, folder: Path, stream: TextIO) -> int:
    if state.ended is None:
        print(
            f"the sweep did not end, but its process is gone; it can be resumed: {folder}",
            file=stream,
        )
    return _status(state, alive=False, once=False)


def _print_once(state: LiveState, stream: TextIO) -> None:
    from rich.console import Console

    width = None if stream.isatty() else 200
    console = Console(file=stream, width=width, highlight=False)
    console.print(render(state, time.time(), console.width))


def _is_alive(folder: Path) -> bool:
    """Return whether the process that locked ``folder`` is alive; true if that is unknown."""
    try:
        with open_regular(folder / LOCK_NAME) as file:
            holder = json.loads(file.read())
        pid, host = int(holder["pid"]), holder["host"]
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return True
    if host != socket.gethostname():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    try:
        # A killed process that nobody waits for (containers without an init) stays as a zombie.
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state != b"Z"
