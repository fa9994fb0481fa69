"""Hydra jobs in slot threads of this process, each with its own state of Hydra."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobStatus

from hydra_plugins.hydra_junky_launcher._isolation import (
    LaunchState,
    isolated_job,
    isolated_launch,
)
from hydra_plugins.hydra_junky_launcher._job import HydraJobs
from hydra_plugins.hydra_junky_launcher._job_returns import JobReturns
from hydra_plugins.hydra_junky_launcher._returns import outcome_of
from junky_core.job.exception_links import stand_in, traceback_of

if TYPE_CHECKING:
    from junky_core.executors.slots import Slot
    from junky_core.job.context import JobContext
    from junky_core.jobs import Attempt

__all__ = ["ThreadJobs"]


class ThreadJobs:
    """Runs the attempts of Hydra jobs; one for all launches of a sweep.

    ``run`` is called in slot threads, several at once.

    Args:
        jobs: Run the jobs.
        returns: Get what the jobs leave.
    """

    def __init__(self, jobs: HydraJobs, returns: JobReturns) -> None:
        self._jobs = jobs
        self._returns = returns
        self._launch: LaunchState | None = None
        self._context = contextvars.copy_context()

    @contextlib.contextmanager
    def launching(self, slots: int, env: Mapping[str, str] | None) -> Iterator[None]:
        """Let the jobs of a launch run inside the ``with`` block; for the launching thread.

        Args:
            slots: How many jobs may run at once.
            env: What ``hydra.job.env_set`` sets in all jobs; ``None`` if each may set its own.
        """
        with isolated_launch(slots, env) as self._launch:
            # Jobs see the context variables of the launching thread, as under Hydra's own
            # launcher. Hydra 1.4 keeps its execution whitelist in one.
            self._context = contextvars.copy_context()
            yield

    def open_slot(self, _slot: Slot) -> None:
        """Do nothing: a Hydra job makes what it needs itself."""

    def run(self, attempt: Attempt, job: JobContext) -> Any:
        """Run one attempt and return what the task function returned.

        Raises:
            BaseException: What ended the job.
        """
        assert self._launch is not None
        num = attempt.job.num
        with isolated_job(self._launch):
            try:
                ended = self._context.copy().run(self._jobs.run, attempt, job)
            finally:
                self._jobs.callbacks.keep_config()
        self._returns.put(num, ended.ret, None if ended.changed else ended.recipe)
        if ended.ret.status is not JobStatus.COMPLETED:
            self._returns.put_traceback(num, stand_in(traceback_of(outcome_of(ended.ret))))
        return ended.value()

    def keep(self, attempt: Attempt, exception: BaseException) -> None:
        """Replace the exception that ended the attempt by what is kept of it."""
        self._returns.replace_error(attempt.job.num, exception)
