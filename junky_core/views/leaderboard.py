"""The leaderboard: how the jobs of a sweep rank, as rows, as text and as CSV."""

from __future__ import annotations

import contextlib
import csv
import io
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from junky_core.files import write_atomically
from junky_core.jobs import JobResult, rank_key
from junky_core.logs.text_log import StdoutWriter
from junky_core.values.identity import key_of
from junky_core.values.texts import visible
from junky_core.values.wording import cell_text, count, pair_text

if TYPE_CHECKING:
    import os

    from rich.console import RenderableType

__all__ = [
    "LEADERBOARD_NAME",
    "LeaderboardRow",
    "leaderboard_rows",
    "leaderboard_text",
    "publish_leaderboard",
    "render_leaderboard",
    "varying_params",
    "write_leaderboard_csv",
]

LEADERBOARD_NAME = "leaderboard.csv"
_MAX_CELL = 28  # characters of one parameter's value
_MAX_ERROR = 300
_PLAIN_WIDTH = 120  # columns where nobody says how wide the paper is
_FORMULAS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # what a formula begins with, wide forms too
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?(?:inf|nan)")
_ABSENT = ""  # a parameter that the job's alternative does not have


@dataclass(frozen=True, slots=True)
class LeaderboardRow:
    """One job on the leaderboard.

    Attributes:
        rank: From 1; ``None`` for jobs that did not finish.
        score: Its score, ``None`` if it gave none.
        job: Its number; below 0 if it is not known.
        name: ``Thread-<slot>_<n>`` of its last attempt.
        params: All its parameters.
        status: ``"finished"``, ``"failed"`` or ``"stopped"``.
        duration_s: Seconds its last attempt took.
        slot: Slot of its last attempt, from 1.
        device: Device of that slot.
        retries: Attempts after the first.
        error: Last line of its error.
    """

    rank: int | None
    score: float | None
    job: int
    name: str
    params: Mapping[str, Any]
    status: str
    duration_s: float
    slot: int
    device: str
    retries: int
    error: str = field(default="")


def leaderboard_rows(results: Iterable[JobResult], direction: str) -> list[LeaderboardRow]:
    """Rank ``results``: finished jobs best first, then stopped, then failed ones by number.

    >>> rows = leaderboard_rows([JobResult(0, "Thread-1_0", {"a": 1}, "finished", 0.5),
    ...                          JobResult(1, "Thread-2_0", {"a": 2}, "finished", 0.7)], "maximize")
    >>> [(row.rank, row.score, row.params) for row in rows]
    [(1, 0.7, {'a': 2}), (2, 0.5, {'a': 1})]
    """
    order = {"finished": 0, "stopped": 1}

    def key(result: JobResult) -> tuple[Any, ...]:
        group = order.get(result.status, 2)
        return (
            group,
            *(rank_key(result.score, result.num, direction) if not group else ()),
            (result.num),
        )

    return [
        LeaderboardRow(
            rank=place if result.status == "finished" else None,
            score=result.score,
            job=result.num,
            name=result.name,
            params=result.params,
            status=result.status,
            duration_s=result.duration_s,
            slot=result.slot,
            device=result.device,
            retries=max(0, result.attempts - 1),
            error=result.error,
        )
        for place, result in enumerate(sorted(results, key=key), 1)
    ]


def varying_params(params: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names whose value is not the same in all, in order of appearance.

    Being there in some and not in others is varying too. Of a single set all
    names are returned.

    >>> varying_params([{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 1, "b": 3, "c": 0}])
    ['b', 'c']
    """
    first: dict[str, Any] = {}
    count: dict[str, int] = {}
    varying: set[str] = set()
    total = 0
    for one in params:
        total += 1
        for name, value in one.items():
            if name not in count:
                first[name], count[name] = key_of(value), 1
                continue
            count[name] += 1
            if name not in varying and key_of(value) != first[name]:
                varying.add(name)
    if total == 1:
        return list(count)
    return [name for name, times in count.items() if times < total or name in varying]


def score_text(score: float | None) -> str:
    """Return a score with six digits, ``"-"`` if there is none."""
    return "-" if score is None else f"{score:.6g}"


def duration_text(seconds: float) -> str:
    """Return a duration as people say it.

    >>> [duration_text(s) for s in (0.25, 12.3, 75, 4000, 200000)]
    ['0.25 s', '12.3 s', '1:15 min', '1:06 h', '2 d 7 h']
    """
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    if whole < 48 * 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02} h"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def render_leaderboard(
    results: Sequence[JobResult],
    direction: str,
    *,
    max_rows: int = 20,
    width: int = _PLAIN_WIDTH,
) -> RenderableType:
    """Return the leaderboard for a :class:`rich.console.Console`.

    Args:
        results: How the jobs ended, in any order.
        direction: ``"maximize"`` or ``"minimize"``.
        max_rows: Ranked jobs to show; of the failed ones as many. The rest is counted.
        width: Columns there are. Parameters that do not fit are left out, the last first.
    """
    from rich.console import Group
    from rich.text import Text

    rows = leaderboard_rows(results, direction)
    ranked = [row for row in rows if row.rank is not None]
    stopped = [row for row in rows if row.status == "stopped"]
    failed = [row for row in rows if row.rank is None and row.status != "stopped"]
    parts: list[RenderableType] = []
    notes: list[str] = []
    names = varying_params(row.params for row in rows)
    if ranked:
        table, hidden = _table(ranked[:max_rows], names, width)
        parts.append(table)
        if len(ranked) > max_rows:
            notes.append(f"... and {count(len(ranked) - max_rows, 'more finished job')}")
        if hidden:
            notes.append(f"not shown for want of room: {', '.join(map(visible, hidden))}")
    else:
        parts.append(Text("no job finished"))
    if stopped:
        nums = ", ".join(str(row.job) for row in stopped[:max_rows])
        noun = "job" if len(stopped) == 1 else "jobs"
        more = ", ..." if len(stopped) > max_rows else ""
        notes.append(f"not finished when the sweep ended: {len(stopped)} ({noun} {nums}{more})")
    if failed:
        notes.append(f"failed: {len(failed)}")
        notes.extend(_failure(row, names) for row in failed[:max_rows])
        if len(failed) > max_rows:
            notes.append(f"... and {count(len(failed) - max_rows, 'more failed job')}")
    parts.extend(Text(note) for note in notes)
    return Group(*parts)


def leaderboard_text(
    results: Sequence[JobResult],
    direction: str,
    *,
    max_rows: int = 20,
    width: int = _PLAIN_WIDTH,
) -> str:
    """Return the leaderboard as plain text, without control characters."""
    from rich.console import Console

    stream = io.StringIO()
    console = Console(
        file=stream, width=width, color_system=None, force_terminal=False, force_jupyter=False
    )
    console.print(
        render_leaderboard(results, direction, max_rows=max_rows, width=width), soft_wrap=False
    )
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def write_leaderboard_csv(
    path: str | os.PathLike[str], results: Iterable[JobResult], direction: str
) -> None:
    """Write all jobs and all parameters to a CSV file, atomically.

    A parameter that has a column's name stands under ``params.<name>``. A cell
    is empty where the job does not have the parameter. Control characters are
    written out; a text that a spreadsheet would take for a formula (``=1+1``)
    has an apostrophe in front.

    Raises:
        OSError: The file cannot be written; the old one is whole then.
    """
    rows = leaderboard_rows(results, direction)
    names = list(dict.fromkeys(name for row in rows for name in row.params))
    head = ["rank", "status", "score", "job", "name"]
    tail = ["duration_s", "slot", "device", "retries", "error"]
    taken = {*head, *tail}
    titles = [f"params.{name}" if name in taken else name for name in names]
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow([*head, *map(_cell, titles), *tail])
    for row in rows:
        writer.writerow(
            [
                "" if row.rank is None else row.rank,
                row.status,
                "" if row.score is None else repr(float(row.score)),
                row.job,
                _cell(row.name),
                *(
                    _cell(cell_text(n, row.params[n])) if n in row.params else _ABSENT
                    for n in names
                ),
                f"{row.duration_s:.3f}",
                row.slot or "",
                _cell(row.device),
                row.retries,
                _cell(row.error),
            ]
        )
    content = stream.getvalue().encode("utf-8", "backslashreplace")
    write_atomically(path, lambda file: file.write(content))


def _cell(text: str) -> str:
    """Return a text without control characters that no spreadsheet takes for a formula."""
    text = visible(text)
    is_formula = text.lstrip()[:1] in _FORMULAS and not _NUMBER.fullmatch(text)
    return f"'{text}" if text and is_formula else text


def publish_leaderboard(
    results: Sequence[JobResult], direction: str, folder: Path | None, tell: Callable[[str], None]
) -> None:
    """Print the leaderboard to ``sys.stdout``, and write ``leaderboard.csv`` to ``folder``.

    Args:
        results: How the jobs ended.
        direction: ``"maximize"`` or ``"minimize"``.
        folder: The sweep's, ``None`` if it has none.
        tell: Gets a sentence if the file could not be written; nothing is raised.
    """
    stream = sys.stdout
    if stream is not None:
        width = shutil.get_terminal_size((_PLAIN_WIDTH, 24)).columns
        text = leaderboard_text(results, direction, width=max(width, 60))
        with contextlib.suppress(Exception):  # closed, its reader is gone, or not a file at all
            StdoutWriter().write(f"{text}\n")
    if folder is not None:
        path = folder / LEADERBOARD_NAME
        try:
            write_leaderboard_csv(path, results, direction)
        except OSError as error:
            tell(f"the leaderboard could not be written to {path}: {error}")


def _table(
    rows: Sequence[LeaderboardRow], names: Sequence[str], width: int
) -> tuple[RenderableType, list[str]]:
    """Return a table of ``rows``, and the parameters that it has no room for."""
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    before = [
        ("rank", [str(row.rank) for row in rows]),
        ("score", [score_text(row.score) for row in rows]),
    ]
    if any(row.job >= 0 for row in rows):  # below 0: not known
        before.append(("job", [str(row.job) for row in rows]))
    after = []
    if any(row.duration_s for row in rows):
        after.append(("time", [duration_text(row.duration_s) for row in rows]))
    if any(row.retries for row in rows):
        after.append(("retries", [str(row.retries or "") for row in rows]))
    if any(row.slot for row in rows):
        after.append(("slot", [str(row.slot or "") for row in rows]))
    if len({row.device for row in rows}) > 1:
        after.append(("device", [visible(row.device) for row in rows]))
    params = [(_cut(visible(n)), [_shown(row.params, n) for row in rows]) for n in names]

    def room(columns: Sequence[tuple[str, list[str]]]) -> int:
        return sum(2 + max(map(cell_len, [title, *cells])) for title, cells in columns)

    while after and room([*before, *params, *after]) > width:
        after.pop()  # where a job ran matters less than what it ran with
    left = width - room(before) - room(after)
    shown = 0
    while shown < len(params) and left >= room(params[shown : shown + 1]):
        left -= room(params[shown : shown + 1])
        shown += 1
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    numbers = {"rank", "score", "job", "time", "retries", "slot"}
    columns = [*before, *params[:shown], *after]
    for index, (title, _) in enumerate(columns):
        is_param = len(before) <= index < len(before) + shown
        right = title in numbers and not is_param
        table.add_column(
            Text(title), justify="right" if right else "left", no_wrap=True, overflow="ellipsis"
        )
    for index in range(len(rows)):
        style = "bold green" if rows[index].rank == 1 else ""
        table.add_row(*(Text(cells[index]) for _, cells in columns), style=style)
    return table, list(names[shown:])


def _failure(row: LeaderboardRow, names: Sequence[str]) -> str:
    params = ", ".join(
        pair_text(n, row.params[n], _shown(row.params, n)) for n in names if n in row.params
    )
    lines = row.error.strip().splitlines() or ["no error was recorded"]
    error = lines[-1] if len(lines[-1]) <= _MAX_ERROR else lines[-1][:_MAX_ERROR] + "..."
    tries = row.retries + 1
    attempts = count(tries, "attempt")
    return visible(f"  job {row.job}{f' ({params})' if params else ''}, {attempts}: {error}")


def _shown(params: Mapping[str, Any], name: str) -> str:
    if name not in params:
        return _ABSENT
    value = params[name]
    return f"{value:.6g}" if type(value) is float else _cut(cell_text(name, value))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CELL else text[: _MAX_CELL - 3] + "..."
