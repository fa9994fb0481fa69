"""The state of a running sweep as a line of text, or as a display for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from junky_core.record.live_state import LiveState
from junky_core.record.rows import SlotRecord
from junky_core.values.texts import visible
from junky_core.values.wording import count, pair_text
from junky_core.views.leaderboard import duration_text, score_text

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["plain_line", "render"]

_MAX_SLOTS = 16  # how many slots are shown


def plain_line(state: LiveState, now: float) -> str:
    """Return the progress of the sweep as one line without control characters.

    It contains no ``name: message``, so that the log parser ignores it.
    """
    done = count(state.finished, "job")
    if state.total is not None:
        done = f"{state.finished} of {count(state.total, 'job')}"
    parts = [f"{done} finished"]
    if state.failed:
        parts.append(f"{state.failed} failed")
    if state.ended is None:
        parts.append(f"{state.running} running")
        if state.left is not None:
            parts.append(f"{state.left} left")
        eta = state.eta_s(now)
        if eta is not None and (state.left or state.running):
            parts.append(f"about {duration_text(eta)} to go")
    else:
        parts.append(f"ended ({state.ended})")
    if state.best is not None:
        parts.append(f"best {score_text(state.best.score)} of {state.best.name}")
    return visible("junky progress: " + ", ".join(parts))


def render(state: LiveState, now: float, width: int) -> RenderableType:
    """Return the display for a :class:`rich.console.Console` that is ``width`` columns wide."""
    from rich.console import Group
    from rich.text import Text

    head = Text(no_wrap=True, overflow="ellipsis")
    done = state.finished + state.failed
    if state.total:
        room = min(30, width - 84)  # what the text leaves
        if room >= 8:
            filled = min(room, round(room * done / state.total))
            head.append("━" * filled, "green").append("━" * (room - filled), "dim").append(" ")
        head.append(f"{done}/{state.total} done", "bold")
    else:
        head.append(f"{done} done", "bold")
    head.append(f" · {state.running} running")
    if state.failed:
        head.append(" · ").append(f"{state.failed} failed", "bold red")
    if state.waiting:
        head.append(f" · {len(state.waiting)} to run again")
    if state.left is not None:
        head.append(f" · {state.left} left")
    eta = state.eta_s(now)
    if state.ended is not None:
        head.append(visible(f" · ended ({state.ended})"))
    elif eta is not None:
        head.append(f" · about {duration_text(eta)} to go")
    if state.sessions:
        head.append(f" · {duration_text(max(0.0, now - state.sessions[-1][0]))}", "dim")
    lines: list[RenderableType] = [head]
    if state.best is not None:
        score, job, name = state.best
        best = Text(f"best {score_text(score)}", "green", no_wrap=True, overflow="ellipsis")
        lines.append(best.append(visible(f"  job {job} ({name})"), "default"))
    if state.ended is None:
        lines += [_slot_line(state, slot, now) for slot in _shown(state)]
        hidden = len(state.slots) - _MAX_SLOTS
        if hidden > 0:
            lines.append(Text(f"... and {count(hidden, 'more slot')}", "dim"))
    return Group(*lines)


def _shown(state: LiveState) -> list[SlotRecord]:
    return [state.slots[number] for number in sorted(state.slots)][:_MAX_SLOTS]


def _slot_line(state: LiveState, slot: SlotRecord, now: float) -> RenderableType:
    from rich.text import Text

    line = Text(visible(f"{slot.number:>3} {slot.device:<7}"), no_wrap=True, overflow="ellipsis")
    if slot.closed:
        return line.append(visible(f" closed, {slot.closed}"), "red")
    attempt = slot.attempt
    if attempt is None:
        return line.append(" idle", "dim")
    line.append(f" job {attempt.job}", "bold")
    if attempt.number > 1:
        line.append(f" (attempt {attempt.number})", "yellow")
    line.append(f" {duration_text(max(0.0, now - attempt.start))}", "dim")
    if attempt.last_score is not None:
        line.append(f"  last {score_text(attempt.last_score)}")
    if attempt.best_score is not None:
        line.append(f"  best {score_text(attempt.best_score)}", "green")
    params = state.jobs[attempt.job].params
    params = state.varying(params) or params
    if params:
        shown = (
            pair_text(name, value, f"{value:.6g}" if type(value) is float else None)
            for name, value in params.items()
        )
        line.append(visible("  " + " ".join(shown)), "cyan")
    return line
