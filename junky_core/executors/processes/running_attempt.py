"""An attempt in a worker process, as the driver thread of its slot sees it."""

from __future__ import annotations

import mmap
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from junky_core.events import ScoreReported
from junky_core.executors.contract import AttemptEnd, Link
from junky_core.executors.messages import end_of
from junky_core.executors.processes.sending import loads
from junky_core.job.best import BestModel
from junky_core.job.offers import Standing
from junky_core.jobs import Attempt, EndKind

__all__ = ["RunningAttempt"]


class RunningAttempt:
    """Handles what the process says of an attempt.

    Args:
        link: The way up to the engine.
        attempt: The attempt.
        answer: Sends an answer to the process.
        received_file: Returns the open file that came with the last message.

    Attributes:
        began: Whether the process has taken it.
    """

    def __init__(
        self,
        link: Link,
        attempt: Attempt,
        answer: Callable[[Standing], None],
        received_file: Callable[[], int],
    ) -> None:
        self.began = False
        self._link = link
        self._attempt = attempt
        self._answer = answer
        self._received_file = received_file
        self._score = attempt.score
        self._serial = 0
        self._started = time.monotonic()

    def hear(self, message: tuple[Any, ...]) -> AttemptEnd | None:
        """Do what the process asks for; return how the attempt ended, if it has."""
        kind, *content = message
        best = self._link.best
        assert isinstance(best, BestModel)  # in the driver it is
        if kind == "begun":
            self.began = True
        elif kind == "end":
            return self._ended(content[0])
        elif kind == "would_lead":
            self._answer(Standing(leads=best.would_lead(*content), best=best.best, serial=0))
        elif kind == "take":
            job, name, score = content
            standing = best.take(job, name, score, _mapped(self._received_file()))
            self._serial = max(self._serial, standing.serial)
            self._answer(standing)
        elif kind == "warn":
            self._link.warn(*content)
        else:
            (event,) = content
            if isinstance(event, ScoreReported) and event.name == self._attempt.name:
                self._score = event.score if event.improved else self._score
            self._link.emit(event)
        return None

    def died(
        self, exit_code: int | None, how: str, asked: tuple[EndKind, str] | None
    ) -> AttemptEnd:
        """Return how the attempt ended: its process has.

        Args:
            exit_code: The process's; ``None`` if the server of worker processes died.
            how: How it ended, in words.
            asked: How it was asked to end, if that is why it did.
        """
        by_kernel = False
        if asked is not None:
            kind, why = asked
            error = f"{why}; its process ended: {how}"
        else:
            kind = EndKind.LOST if exit_code is None else EndKind.CRASHED
            error = f"the worker process ended: {how}"
            by_kernel = exit_code == -signal.SIGKILL
            if by_kernel:
                error += ", as the system does when memory is short"
        return AttemptEnd(
            kind=kind,
            duration_s=time.monotonic() - self._started,
            score=self._score,
            serial=self._serial,
            error=error,
            traceback=error,
            location=("process", how),
            host_memory=by_kernel,
        )

    def _ended(self, plain: dict[str, Any]) -> AttemptEnd:
        end = end_of(plain, loads)
        if end.value_is_repr:  # said once
            self._link.warn(
                "values that jobs return are replaced by their repr() if they cannot be pickled"
            )
        return end


def _mapped(file: int) -> mmap.mmap:
    """Return the content of an open file, which is closed: its memory is shared, not copied."""
    try:
        return mmap.mmap(file, 0, access=mmap.ACCESS_READ)
    finally:
        os.close(file)
