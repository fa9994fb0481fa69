"""Read a journal: its records, or the state of its sweep.

state = load_state("sweep/journal.jsonl")
state.jobs[3].status          # JobStatus.FINISHED: need not run again
state.match_best_file("sweep/model.pt").score
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from junky_core.record.lines import Line, LineReader
from junky_core.record.regular_files import open_regular
from junky_core.record.state import SweepState

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["load_state", "read_journal"]


def read_journal(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Yield the records of a journal, one by one, without their numbers and checksums.

    A last line cut short by a kill or a power cut is ignored. Known fields have the types that the
    journal's writer gives them.

    Args:
        path: The file, or the sweep folder that it is in.

    Raises:
        JournalError: A line is damaged, missing, doubled or out of order (the message says
            which), or the file is not a journal that this version can read.
        FileNotFoundError: There is no such file.
    """
    for line in _lines(path):
        yield line.record


def load_state(path: str | os.PathLike[str]) -> SweepState:
    """Return the state of the sweep whose journal is at ``path`` (the file, or its folder).

    Raises:
        JournalError: As :func:`read_journal`.
        FileNotFoundError: There is no such file.
    """
    state = SweepState()
    for line in _lines(path):
        if line.event is not None:
            state.on_event(line.event)
    state.source = str(path)
    return state


def _lines(path: str | os.PathLike[str]) -> Iterator[Line]:
    path = Path(path)
    if path.is_dir():
        path /= "journal.jsonl"
    reader = LineReader(path)
    with open_regular(path) as file:
        for text in file:
            line = reader.take(text)
            if line is not None:
                yield line
