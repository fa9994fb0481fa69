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

from junky_core.errors import LogNotFoundError
from junky_core.live_state import LiveState
from junky_core.live_view import plain_line, render
from junky_core.sweep_folder import JOURNAL_NAME, LOCK_NAME
from junky_core.sweep_history import event_of, load_history

__all__ = ["JournalTail", "watch"]

_SILENT_S = 5.0  # without news so long, look whether the sweep's process is there
_PLAIN_EVERY_S = 10.0


class JournalTail:
    """Reads what is appended to a journal.

    Args:
        path: The journal.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._inode = -1

    def read(self) -> Iterator[dict[str, object]]:
        """Yield the records that are new and whole.

        Raises:
            OSError: The file is away.
        """
        with self._path.open("rb") as file:
            now = os.fstat(file.fileno())
            if now.st_ino != self._inode or now.st_size < self._offset:  # another file, or cut off
                self._inode, self._offset = now.st_ino, 0
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                if isinstance(record, dict):
                    yield record


def watch(path: Path, *, once: bool, interval_s: float, stream: TextIO | None = None) -> int:
    """Show how the sweep at ``path`` stands until it is over; return the exit status.

    On a terminal a display that renews itself; else lines, each when something
    changed, at most one in ten seconds.

    Raises:
        LogNotFoundError: There is nothing at ``path``.
        LogError: It is no sweep.
    """
    stream = sys.stdout if stream is None else stream
    journal = path / JOURNAL_NAME if path.is_dir() else path
    if not path.exists():
        raise LogNotFoundError(f"there is no sweep folder or log at {str(path)!r}")
    if not _is_journal(journal):
        return _watch_log(path, once=once, interval_s=interval_s, stream=stream)
    state, tail = LiveState(), JournalTail(journal)
    if once:
        _feed(state, tail)
        _print_once(state, stream)
        return _status(state, alive=_is_alive(journal.parent), once=True)
    if stream.isatty():
        return _watch_on_terminal(state, tail, journal.parent, interval_s)
    return _watch_in_lines(state, tail, journal.parent, interval_s, stream)


def _watch_on_terminal(state: LiveState, tail: JournalTail, folder: Path, interval_s: float) -> int:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    news = time.monotonic()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            if _feed(state, tail):
                news = time.monotonic()
            live.update(render(state, time.time(), console.width), refresh=True)
            if _is_over(state, folder, time.monotonic() - news):
                break
            time.sleep(interval_s)
    return _say_end(state, folder, sys.stdout)


def _watch_in_lines(
    state: LiveState, tail: JournalTail, folder: Path, interval_s: float, stream: TextIO
) -> int:
    news, printed, shown = time.monotonic(), 0.0, None
    while True:
        if _feed(state, tail):
            news = time.monotonic()
        over = _is_over(state, folder, time.monotonic() - news)
        facts = (state.finished, state.failed, state.best)
        if over or (facts != shown and time.monotonic() - printed >= _PLAIN_EVERY_S):
            print(plain_line(state, time.time()), file=stream, flush=True)
            printed, shown = time.monotonic(), facts
        if over:
            return _say_end(state, folder, stream)
        time.sleep(interval_s)


def _watch_log(path: Path, *, once: bool, interval_s: float, stream: TextIO) -> int:
    """Follow a text log: read it anew when it has changed."""
    seen: object = None
    while True:
        history = load_history(path)
        done, jobs = history.count("finished"), len(history.jobs)
        best = history.best()
        text = f"junky progress: {done} of {jobs} jobs seen finished"
        if best is not None:
            text += f", best {history.bests[-1][1]:.6g} of {best.name}"
        if text != seen:
            print(text, file=stream, flush=True)
            seen = text
        if history.ended is not None:
            return 0 if history.ended == "completed" and done == jobs else 1
        if once:
            return 0
        time.sleep(interval_s)


def _feed(state: LiveState, tail: JournalTail) -> bool:
    """Take in what is new; return whether there was anything."""
    fed = False
    try:
        for record in tail.read():
            event = event_of(record)
            if event is not None:
                state.on_event(event)
                fed = True
    except OSError:  # the folder is away for now; that its process is too is found out elsewhere
        return False
    return fed


def _is_over(state: LiveState, folder: Path, silent_s: float) -> bool:
    if state.ended is not None:
        # A Hydra sweeper may launch another batch as long as its process is there.
        return state.kind != "hydra" or state.ended != "completed" or not _is_alive(folder)
    return silent_s > _SILENT_S and not _is_alive(folder)


def _status(state: LiveState, *, alive: bool, once: bool) -> int:
    if state.ended is None:
        return 0 if once and alive else 1
    left = state.left or 0
    return 0 if state.ended == "completed" and not state.failed and not left else 1


def _say_end(state: LiveState, folder: Path, stream: TextIO) -> int:
    if state.ended is None:
        print(
            f"the process of this sweep is gone before its end; it can be resumed: {folder}",
            file=stream,
        )
    return _status(state, alive=False, once=False)


def _print_once(state: LiveState, stream: TextIO) -> None:
    from rich.console import Console

    width = None if stream.isatty() else 200
    console = Console(file=stream, width=width, highlight=False)
    console.print(render(state, time.time(), console.width))


def _is_journal(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(8) == b'{"event"'
    except OSError:
        return False


def _is_alive(folder: Path) -> bool:
    """Return whether the process that locked ``folder`` is there; true if that cannot be told."""
    try:
        holder = json.loads((folder / LOCK_NAME).read_bytes())
        pid, host = int(holder["pid"]), holder["host"]
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        return True
    if host != socket.gethostname():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    try:
        # A killed process that nobody waits for (containers without an init) stays as a zombie.
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state != b"Z"
