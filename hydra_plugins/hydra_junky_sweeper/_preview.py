"""What a sweep would run, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hydra_plugins.hydra_junky_sweeper._space import JobOverrides

__all__ = ["preview_text"]

_HEAD, _TAIL = 20, 5


def preview_text(jobs: JobOverrides) -> str:
    """Return the number of jobs, how it comes about, and a table of the jobs.

    Long tables are cut in the middle.
    """
    count = len(jobs)
    lines = [f"{count} job{'' if count == 1 else 's'}", ""]
    for axis in jobs.axes:
        shown = f"{len(axis.texts)} values" if axis.swept else "fixed"
        lines.append(f"  {axis.key}: {shown}, from the command line or params")
    lines.extend(f"  {line}" for line in jobs.space.explain())
    lines.append("")
    shown_nums = (
        list(range(count))
        if count <= _HEAD + _TAIL
        else [*range(_HEAD), -1, *range(count - _TAIL, count)]
    )
    width = len(str(count - 1))
    for num in shown_nums:
        if num < 0:
            lines.append(f"  ... {count - _HEAD - _TAIL} more ...")
        else:
            lines.append(f"  #{num:<{width}} {' '.join(jobs[num])}".rstrip())
    return "\n".join(lines) + "\n"
