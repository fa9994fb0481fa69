"""A text that lists the jobs of a sweep, for both front ends."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from junky_core.values.texts import visible
from junky_core.values.wording import cell_text, pair_text
from junky_core.values.wording import count as number_of

__all__ = ["preview_text"]

_HEAD, _TAIL = 20, 5  # jobs shown of a long list
_GAP = "  "


def preview_text(
    count: int,
    because: Sequence[str],
    params_of: Callable[[int], Mapping[str, Any]],
    width: int | None = None,
) -> str:
    """Return the number of jobs, an explanation of the number, and a table of the jobs.

    Args:
        count: The number of jobs.
        because: Lines that explain it.
        params_of: Returns the parameters of a job by number; called only for the jobs shown.
        width: Width in columns; by default the terminal's, or 120.

    The middle of a long table is left out. A table that is too wide is replaced by
    lines of ``key=value``.

    >>> print(preview_text(2, ["2 = 2 (lr)"], [{"lr": 0.1}, {"lr": 0.01}].__getitem__))
    2 jobs
    <BLANKLINE>
      2 = 2 (lr)
    <BLANKLINE>
      job  lr
      0    0.1
      1    0.01
    <BLANKLINE>
    """
    tail = range(count - _TAIL, count) if count > _HEAD + _TAIL else ()
    nums = [*range(_HEAD if tail else count), *tail]
    jobs = [params_of(num) for num in nums]
    keys = list(dict.fromkeys(key for params in jobs for key in params))
    rows = [["job", *keys]]
    rows += [
        [str(num), *(cell_text(key, params[key]) if key in params else "" for key in keys)]
        for num, params in zip(nums, jobs, strict=True)
    ]
    width = shutil.get_terminal_size((120, 24)).columns if width is None else width
    table = _columns(rows)
    if max(map(len, table)) > max(width, 40):
        pairs = [
            " ".join(pair_text(key, value) for key, value in params.items()) for params in jobs
        ]
        table = ["job", *(f"{num}{_GAP}{text}" for num, text in zip(nums, pairs, strict=True))]
    if count > len(nums):
        table.insert(1 + _HEAD, f"... {count - len(nums)} more ...")
    lines = [number_of(count, "job"), ""]
    lines += [f"{_GAP}{line}" for line in because]
    lines += ["", *(f"{_GAP}{line}".rstrip() for line in table)]
    return "".join(f"{visible(line)}\n" for line in lines)


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
