"""What a sweep would run, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from junky_core.values.wording import count
from junky_core.views.preview import preview_text

if TYPE_CHECKING:
    from hydra_plugins.hydra_junky_sweeper._space import JobOverrides

__all__ = ["preview_of"]


def preview_of(jobs: JobOverrides) -> str:
    """Return the number of jobs, its factors, and a table of the jobs."""
    because = []
    for axis in jobs.axes:
        shown = count(len(axis.texts), "value") if axis.swept else "fixed"
        because.append(f"{axis.key}: {shown}, from the command line or params")

    def params_of(num: int) -> dict[str, Any]:
        return jobs.params_of(num) or {"": "(no parameter varies)"}

    return preview_text(len(jobs), [*because, *jobs.space.explain()], params_of)
