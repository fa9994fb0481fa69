"""The leaderboard: the ranking of a sweep's jobs, as text and as CSV."""

from __future__ import annotations

import contextlib
import csv
import io
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from junky_core.files import write_atomically
from junky_core.jobs import Direction, JobResult, rank_key
from junky_core.logs.text_log import StdoutWriter
from junky_core.values.identity import key_of
from junky_core.values.texts import visible
from junky_core.values.wording import cell_text, count, pair_text

if TYPE_CHECKING:
    import os

    from rich.console import RenderableType

__all__ = [
    "LEADERBOARD_NAME",
    "leaderboard_text",
    "publish_leaderboard",
    "ranked",
    "render_leaderboard",
    "varying_params",
    "write_leaderboard_csv",
]

LEADERBOARD_NAME = "leaderboard.csv"
_MAX_CELL = 28  # characters of one parameter's value
_MAX_ERROR = 300
_PLAIN_WIDTH = 120  # columns, if the output has no width
_FORMULAS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # first characters of formulas, wide forms too
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?(?:inf|nan)")
_ABSENT = ""  # the job does not have the parameter


def ranked(results: Iterable[JobResult], direction: Direction) -> list[JobResult]:
    """Sort ``results``: finished jobs, best first, then stopped and failed ones by number.

    >>> jobs = ranked([JobResult(0, "Thread-1_0", {"a": 1}, "finished", 0.5),
    ...                JobResult(1, "Thread-2_0", {"a": 2}, "finished", 0.7)], Direction.MAXIMIZE)
    >>> [(job.score, job.params) for job in jobs]
    [(0.7, {'a': 2}), (0.5, {'a': 1})]
    """
    order = {"finished": 0, "stopped": 1}

    def key(job: JobResult) -> tuple[Any, ...]:
        group = order.get(job.status, 2)
        return group, rank_key(None if group else job.score, job.num, direction)

    return sorted(results, key=key)


def varying_params(params: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names whose values differ, in order of appearance.

    A name that is missing from some of ``params`` counts as varying. If there is
    only one set of parameters, all its names are returned.

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
    """Return a duration in a suitable unit.

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
    direction: Direction,
    *,
    max_rows: int = 20,
    width: int = _PLAIN_WIDTH,
) -> RenderableType:
    """Return the leaderboard for a :class:`rich.console.Console`.

    Args:
        results: How the jobs ended, in any order.
        direction: Whether higher or lower scores are better.
        max_rows: How many ranked jobs to show, and how many failed ones. The others are counted.
        width: Width in columns. Parameters that do not fit are left out, the last ones first.
    """
    from rich.console import Group
    from rich.text import Text

    jobs = ranked(results, direction)
    finished = [job for job in jobs if job.status == "finished"]
    stopped = [job for job in jobs if job.status == "stopped"]
    failed = jobs[len(finished) + len(stopped) :]
    parts: list[RenderableType] = []
    notes: list[str] = []
    names = varying_params(job.params for job in jobs)
    if finished:
        table, hidden = _table(finished[:max_rows], names, width)
        parts.append(table)
        if len(finished) > max_rows:
            notes.append(f"... and {count(len(finished) - max_rows, 'more finished job')}")
        if hidden:
            notes.append(f"not shown, for lack of space: {', '.join(map(visible, hidden))}")
    else:
        parts.append(Text("no job finished"))
    if stopped:
        nums = ", ".join(str(job.num) for job in stopped[:max_rows])
        noun = "job" if len(stopped) == 1 else "jobs"
        more = ", ..." if len(stopped) > max_rows else ""
        notes.append(f"not finished when the sweep ended: {len(stopped)} ({noun} {nums}{more})")
    if failed:
        notes.append(f"failed: {len(failed)}")
        notes.extend(_failure(job, names) for job in failed[:max_rows])
        if len(failed) > max_rows:
            notes.append(f"... and {count(len(failed) - max_rows, 'more failed job')}")
    parts.extend(Text(note) for note in notes)
    return Group(*parts)


def leaderboard_text(
    results: Sequence[JobResult],
    direction: Direction,
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
    path: str | os.PathLike[str], results: Iterable[JobResult], direction: Direction
) -> None:
    """Write all jobs and all parameters to a CSV file, atomically.

    A parameter with the name of another column is written as ``params.<name>``.
    A cell is empty if the job does not have the parameter. Control characters
    are escaped. A text that a spreadsheet would treat as a formula (``=1+1``) is
    prefixed with an apostrophe.

    Raises:
        OSError: The file cannot be written; the old one is intact.
    """
    jobs = ranked(results, direction)
    names = list(dict.fromkeys(name for job in jobs for name in job.params))
    head = ["rank", "status", "score", "job", "name"]
    tail = ["duration_s", "slot", "device", "retries", "error"]
    taken = {*head, *tail}
    titles = [f"params.{name}" if name in taken else name for name in names]
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow([*head, *map(_cell, titles), *tail])
    for rank, job in enumerate(jobs, 1):
        params = job.params
        writer.writerow(
            [
                rank if job.status == "finished" else "",
                job.status,
                "" if job.score is None else repr(float(job.score)),
                job.num,
                _cell(job.name),
                *(_cell(cell_text(n, params[n])) if n in params else _ABSENT for n in names),
                f"{job.duration_s:.3f}",
                job.slot or "",
                _cell(job.device),
                _retries(job),
                _cell(job.error),
            ]
        )
    content = stream.getvalue().encode("utf-8", "backslashreplace")
    write_atomically(path, lambda file: file.write(content))


def _cell(text: str) -> str:
    """Return a text without control characters that no spreadsheet treats as a formula."""
    text = visible(text)
    is_formula = text.lstrip()[:1] in _FORMULAS and not _NUMBER.fullmatch(text)
    return f"'{text}" if text and is_formula else text


def publish_leaderboard(
    results: Sequence[JobResult],
    direction: Direction,
    folder: Path | None,
    tell: Callable[[str], None],
) -> None:
    """Print the leaderboard to ``sys.stdout``, and write ``leaderboard.csv`` to ``folder``.

    Args:
        results: How the jobs ended.
        direction: Whether higher or lower scores are better.
        folder: The sweep's, ``None`` if it has none.
        tell: Called with a message if the file could not be written; nothing is raised.
    """
    stream = sys.stdout
    if stream is not None:
        width = shutil.get_terminal_size((_PLAIN_WIDTH, 24)).columns
        text = leaderboard_text(results, direction, width=max(width, 60))
        with contextlib.suppress(Exception):  # closed, a broken pipe, or not even a file
            StdoutWriter().write(f"{text}\n")
    if folder is not None:
        path = folder / LEADERBOARD_NAME
        try:
            write_leaderboard_csv(path, results, direction)
        except OSError as error:
            tell(f"the leaderboard could not be written to {path}: {error}")


def _table(
    jobs: Sequence[JobResult], names: Sequence[str], width: int
) -> tuple[RenderableType, list[str]]:
    """Return a table of ranked jobs, and the parameters that do not fit in it."""
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    before = [
        ("rank", [str(rank) for rank, _ in enumerate(jobs, 1)]),
        ("score", [score_text(job.score) for job in jobs]),
    ]
    if any(job.num >= 0 for job in jobs):  # below 0: unknown
        before.append(("job", [str(job.num) for job in jobs]))
    after = []
    if any(job.duration_s for job in jobs):
        after.append(("time", [duration_text(job.duration_s) for job in jobs]))
    if any(map(_retries, jobs)):
        after.append(("retries", [str(_retries(job) or "") for job in jobs]))
    if any(job.slot for job in jobs):
        after.append(("slot", [str(job.slot or "") for job in jobs]))
    if len({job.device for job in jobs}) > 1:
        after.append(("device", [visible(job.device) for job in jobs]))
    params = [(_cut(visible(n)), [_shown(job.params, n) for job in jobs]) for n in names]

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
    for index in range(len(jobs)):
        style = "" if index else "bold green"
        table.add_row(*(Text(cells[index]) for _, cells in columns), style=style)
    return table, list(names[shown:])


def _failure(job: JobResult, names: Sequence[str]) -> str:
    params = ", ".join(
        pair_text(n, job.params[n], _shown(job.params, n)) for n in names if n in job.params
    )
    lines = job.error.strip().splitlines() or ["no error was recorded"]
    error = lines[-1] if len(lines[-1]) <= _MAX_ERROR else lines[-1][:_MAX_ERROR] + "..."
    attempts = count(_retries(job) + 1, "attempt")
    return visible(f"  job {job.num}{f' ({params})' if params else ''}, {attempts}: {error}")


def _retries(job: JobResult) -> int:
    return max(0, job.attempts - 1)


def _shown(params: Mapping[str, Any], name: str) -> str:
    if name not in params:
        return _ABSENT
    value = params[name]
    return f"{value:.6g}" if type(value) is float else _cut(cell_text(name, value))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CELL else text[: _MAX_CELL - 3] + "..."
