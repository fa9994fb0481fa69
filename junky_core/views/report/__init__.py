"""The report: one HTML page about a whole sweep, which works offline.

A script in the page draws on canvases. The page loads nothing, and its content
security policy forbids it.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
from importlib import resources
from pathlib import Path

from junky_core.errors import JunkyError
from junky_core.files import write_atomically
from junky_core.logs.text_log import StdoutWriter
from junky_core.record.state import SweepState
from junky_core.values.texts import visible
from junky_core.values.user_text import error_line
from junky_core.views.history import load_history
from junky_core.views.leaderboard import leaderboard_text
from junky_core.views.report.payload import payload_of

__all__ = ["publish_report", "report_html", "report_path", "write_report"]

REPORT_NAME = "report.html"


def write_report(
    source: str | os.PathLike[str] | SweepState, path: str | os.PathLike[str] | None = None
) -> Path:
    """Write the report of a sweep, atomically.

    Args:
        source: A sweep folder, a journal, a log, or a state.
        path: The page to write. By default ``report.html`` in the sweep's
            folder, or ``<log>.html`` next to a log.

    Returns:
        The page's path.

    Raises:
        LogError: ``source`` is not a sweep, or does not exist.
        JournalError: Its journal is damaged.
        OSError: The page cannot be written.
    """
    state = source if isinstance(source, SweepState) else load_history(source)
    origin = Path(state.source or ".") if isinstance(source, SweepState) else Path(source)
    path = report_path(origin) if path is None else Path(path)
    folder = origin if origin.is_dir() else origin.parent
    page = report_html(state, folder.resolve().name or "sweep").encode()
    write_atomically(path, lambda file: file.write(page))
    return path


def publish_report(folder: Path) -> None:
    """Write the report of a sweep that has ended, and print its path, or why it failed."""
    try:
        said = f"report: {write_report(folder)}"
    except (JunkyError, OSError) as error:
        said = f"the report could not be written: {error}"
    except Exception as error:  # noqa: BLE001 - jobs may have replaced open(); the results count
        said = f"the report could not be written: {error_line(error)}"
    with contextlib.suppress(OSError, ValueError):  # nobody listens any more
        StdoutWriter().write(f"{said}\n")


def report_path(source: str | os.PathLike[str]) -> Path:
    """Return where the report of a sweep folder, a journal or a log lies by default."""
    origin = Path(source)
    if origin.is_dir():
        return origin / REPORT_NAME
    if origin.name == "journal.jsonl":
        return origin.with_name(REPORT_NAME)
    return origin.with_name(origin.name + ".html")


def report_html(state: SweepState, title: str) -> str:
    """Return the page as text."""
    data = json.dumps(
        payload_of(state, title), ensure_ascii=True, allow_nan=False, separators=(",", ":")
    )
    plain = leaderboard_text(state.results(), state.direction)
    parts = {
        "title": html.escape(visible(title)),
        "style": _part("page.css"),
        # "</script>" and "<!--" in a value must not end the element.
        "data": data.replace("<", "\\u003c"),
        "script": _part("page.js"),
        "plain": html.escape(plain),
    }
    page = _part("page.html")
    before, *rest = page.split("{{")
    text = [before]
    for piece in rest:
        name, _, after = piece.partition("}}")
        text += [parts[name], after]
    return "".join(text)


def _part(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")
