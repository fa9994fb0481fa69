"""The callbacks that ``run_job`` calls for a job, which also show how far it is."""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from hydra_plugins.hydra_junky_launcher._callbacks import SerialCallbacks
from hydra_plugins.hydra_junky_launcher._returns import outcome_of
from junky_core.errors import IsolationError, JobExited
from junky_core.job.exception_links import traceback_of
from junky_core.job.forks import OwnProcess, leave_if_forked
from junky_core.values.texts import cut, excerpt
from junky_core.values.user_text import repr_of

__all__ = ["JobCallbacks"]

log = logging.getLogger(__name__)


class JobCallbacks(SerialCallbacks):
    """Callbacks that also record how far ``run_job`` is, for each thread."""

    def __init__(self, plain: Any) -> None:
        super().__init__(plain)
        self._here = threading.local()
        self._own = OwnProcess()

    def begin(self, num: int, attempt: int) -> None:
        here = self._here
        here.num, here.attempt, here.started, here.ended = num, attempt, False, None
        here.config = None

    def keep_config(self) -> None:
        """Keep the job's config, which run_job removes, for threads that outlive the job."""
        if self._here.config is not None:
            HydraConfig.instance().cfg = self._here.config
            self._here.config = None

    @property
    def started(self) -> bool:
        return bool(self._here.started)

    @property
    def ended(self) -> JobReturn | None:
        ended: JobReturn | None = self._here.ended
        return ended

    def on_job_start(self, config: DictConfig, *, task_function: Any, **kwargs: Any) -> None:
        _check_own_config(self._here.num)
        self._here.started = True
        self._here.config = HydraConfig.instance().cfg
        if self._here.attempt > 1:  # its folder, and its log, are those of the first attempt
            log.warning("Job #%d runs again: attempt %d", self._here.num, self._here.attempt)
        super().on_job_start(config, task_function=task_function, **kwargs)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if not self._own:  # a forked child that returned from the job's code
            failed = job_return.status is JobStatus.FAILED
            leave_if_forked(self._own, outcome_of(job_return) if failed else sys.exc_info()[1])
        _take_exit_as_end(job_return, self._here.num)
        self._here.ended = job_return
        super().on_job_end(config, job_return, **kwargs)


def _check_own_config(num: int) -> None:
    found = HydraConfig.get().job.num
    if found != num:
        raise IsolationError(
            f"job #{num} was about to run with the Hydra config of job #{found}. Use "
            "hydra/launcher=basic, and please report this with the versions of Python and Hydra"
        )


def _take_exit_as_end(ret: JobReturn, num: int) -> None:
    """Let ``sys.exit()`` end only its job: finished with 0, failed with anything else."""
    error = outcome_of(ret)
    if ret.status is not JobStatus.FAILED or not issubclass(type(error), SystemExit):
        return
    code: Any = vars(SystemExit)["code"].__get__(error)
    if code is None or (issubclass(type(code), int) and int(code) == 0):
        ret.status = JobStatus.COMPLETED
        ret.return_value = None
        return
    failure = JobExited(f"job #{num} called sys.exit({cut(repr_of(code))})", code)
    failure.__cause__ = error
    ret.return_value = failure.with_traceback(traceback_of(error))
    if type(code) is str:  # as the interpreter would at the end of the process
        sys.stderr.write(f"{excerpt(code)}\n")
    log.error("%s", failure)
