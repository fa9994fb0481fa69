"""Load the state of a sweep from its folder, its journal or its log."""

from __future__ import annotations

import os
from pathlib import Path

from junky_core.errors import LogError, LogNotFoundError
from junky_core.jobs import JobStatus
from junky_core.logs.literals import read_loosely
from junky_core.logs.parser import find_log
from junky_core.paths import user_path
from junky_core.record.folder import JOURNAL_NAME
from junky_core.record.reader import load_state
from junky_core.record.regular_files import open_regular
from junky_core.record.rows import JobRecord
from junky_core.record.state import SweepState

__all__ = ["is_journal", "load_history"]

_SLOT_DIGITS = 6  # longer slot numbers are not credible: anyone may have written the log


def load_history(path: str | os.PathLike[str]) -> SweepState:
    """Read a sweep folder, a journal or a log.

    In a folder, the journal is read, or the log if there is no journal.

    Raises:
        LogNotFoundError: There is nothing at ``path``.
        LogError: It is not the log of a sweep.
        JournalError: The journal is damaged.
    """
    path = user_path("PATH", path, LogError)
    if not path.exists():
        raise LogNotFoundError(f"there is no sweep folder or log at {str(path)!r}")
    journal = path / JOURNAL_NAME if path.is_dir() else path
    return load_state(journal) if is_journal(journal) else _from_log(path)


def is_journal(path: Path) -> bool:
    """Return whether a file is a journal, possibly a damaged one, and not a log."""
    if not path.is_file():
        return False
    with open_regular(path) as file:
        return path.name == JOURNAL_NAME or file.read(8) == b'{"event"'


def _from_log(path: Path) -> SweepState:
    found = find_log(path)
    if isinstance(found, SweepState):
        return found
    state = SweepState()
    state.has_times, state.source, state.ended = False, str(path), found.ended
    entries = found.jobs()
    free = 1 + max((num for _, num, *_ in entries if num is not None), default=-1)
    for direction, num, name, score, params, finished in entries:
        state.direction = direction
        if num is None or num in state.jobs:
            num, free = free, free + 1  # noqa: PLW2901 - in logs of the old tool
        thread = name.removeprefix("Thread-").partition("_")[0].partition(" ")[0]
        job = JobRecord(
            num,
            name=name,
            params=read_loosely(params) if isinstance(params, str) else params or {},
            status=JobStatus.FINISHED if finished else JobStatus.STOPPED,
            score=score,
            slot=int(thread) if thread.isdecimal() and len(thread) <= _SLOT_DIGITS else 0,
        )
        state.add(job, time=float(num))
    return state
