"""Hydra jobs in worker processes, one at a time in each: Hydra's state is the process's own.

the launching process                          a worker process
JobSender, pickled                     ───>    WorkerJobs
  what its jobs need, packed once                takes it over when the slot opens
an attempt: overrides                  ───>      composes the config, runs the job
hear: makes the ``JobReturn``          <───    report: the fields of the ``JobReturn``
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.hydra_junky_launcher._compose import JobComposer
from hydra_plugins.hydra_junky_launcher._errors import HydraConfigError
from hydra_plugins.hydra_junky_launcher._job import EndedJob, HydraJobs
from hydra_plugins.hydra_junky_launcher._job_logging import configure_hydra_log
from hydra_plugins.hydra_junky_launcher._job_returns import JobReturns
from hydra_plugins.hydra_junky_launcher._job_singletons import (
    process_state,
    put_back_after_job,
    take_over_state,
)
from hydra_plugins.hydra_junky_launcher._quick import quick_hydra
from hydra_plugins.hydra_junky_launcher._returns import ConfigRecipe
from junky_core.errors import ConfigError, JobError
from junky_core.executors.processes.sending import dumps, loads, packed
from junky_core.job.exception_links import join
from junky_core.jobs import EndKind
from junky_core.values.user_text import error_line, is_ctrl_c

if TYPE_CHECKING:
    from junky_core.executors.contract import AttemptEnd
    from junky_core.executors.slots import Slot
    from junky_core.job.context import JobContext
    from junky_core.jobs import Attempt

__all__ = ["JobSender", "WorkerJobs"]

log = logging.getLogger(__name__)

_WAY_OUT = "hydra.launcher.executor=threads"
_LOST_CONFIG = (
    "has put something into its config that cannot be sent back, so its JobReturn has the config "
    "as it was composed"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Needed:
    """What jobs need of the launching process.

    Attributes:
        config: The sweep's own composed config.
        hydra_context: Config loader and callbacks.
        task_function: The user's.
        device_key: Key of a job's config that gets the slot's device, if any.
        folder: The working folder.
        singletons: Hydra's, by class; the ``ConfigStore`` among them.
        resolvers: OmegaConf's, by name.
    """

    config: DictConfig
    hydra_context: HydraContext
    task_function: TaskFunction
    device_key: str | None
    folder: str
    singletons: Mapping[type, Any]
    resolvers: Mapping[str, Callable[..., Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """What a worker says about a job that ended there.

    Attributes:
        fields: Those of its ``JobReturn``, without the configs, and without what it returned
            or raised, which every attempt's end has.
        recipe: How its configs are composed again, or ``None``.
        configs: Its configs, pickled, if the job has changed them; ``None`` if they cannot be.
        warning: For the user, ``""`` if there is none.
    """

    fields: dict[str, Any]
    recipe: ConfigRecipe | None
    configs: bytes | None = None
    warning: str = ""


class JobSender:
    """Jobs that run in worker processes, as the launching process sees them.

    Make it in the launching thread: workers get Hydra's state as it is then.

    Args:
        config: The sweep's own composed config.
        hydra_context: Config loader and callbacks.
        task_function: The user's.
        device_key: Key of a job's config that gets the slot's device, if any.
        returns: Get what the jobs leave.

    Raises:
        HydraConfigError: Something that jobs need cannot be sent; names it.
    """

    def __init__(
        self,
        config: DictConfig,
        hydra_context: HydraContext,
        task_function: TaskFunction,
        device_key: str | None,
        returns: JobReturns,
    ) -> None:
        self._returns = returns
        singletons, resolvers = process_state()
        self._needed = _packed(
            _Needed(
                config=config,
                hydra_context=hydra_context,
                task_function=task_function,
                device_key=device_key,
                folder=str(Path.cwd()),
                singletons=singletons,
                resolvers=resolvers,
            )
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return WorkerJobs, (self._needed,)

    @contextlib.contextmanager
    def launching(self, _slots: int, _env: Mapping[str, str] | None) -> Iterator[None]:
        """Return a block that does nothing: workers need no preparation for a launch."""
        yield

    def open_slot(self, _slot: Slot) -> None:
        """Do nothing: workers do."""

    def run(self, attempt: Attempt, job: JobContext) -> Any:
        """Raise: jobs run in workers."""
        raise NotImplementedError

    def keep(self, attempt: Attempt, exception: BaseException) -> None:
        """Do nothing: workers do."""

    def hear(self, attempt: Attempt, end: AttemptEnd) -> None:
        """Make the ``JobReturn`` of an attempt that ended in a worker, or with it."""
        num = attempt.job.num
        if end.report is None:  # the worker ended, or the job never began
            ret = JobReturn(overrides=list(attempt.job.payload.overrides), status=JobStatus.FAILED)
            ret.return_value = end.exception or JobError(end.error)
            self._returns.put(num, ret, None)
            return
        report: _Report = loads(end.report)
        ret = JobReturn(**report.fields)
        if end.kind is EndKind.FINISHED:
            ret.return_value = end.value
        else:
            ret.status, ret.return_value = JobStatus.FAILED, _error_of(ret, end)
        recipe, warning = report.recipe, report.warning
        if report.configs is not None:
            try:
                ret.cfg, ret.hydra_cfg = loads(report.configs)
                recipe = None
            except Exception:  # noqa: BLE001 - a class that only the worker can import
                warning = _LOST_CONFIG
        if warning:
            log.warning("Job #%d %s", num, warning)
        self._returns.put(num, ret, recipe)


def _error_of(ret: JobReturn, end: AttemptEnd) -> BaseException:
    """Return what ended a job, with its traceback in the worker."""
    if end.exception is None:
        return JobError(end.error)
    if not hasattr(ret, "_remote_traceback"):  # Hydra 1.4 shows that
        there = JobError(f"in its worker process:\n{end.traceback}")
        join(end.exception, there, None, like=end.exception)
    return end.exception


def _packed(needed: _Needed) -> bytes:
    try:
        return dumps(needed)
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        parts: dict[str, Any] = {
            "the task function": needed.task_function,
            "the sweep's config": needed.config,
            "Hydra's config loader": needed.hydra_context.config_loader,
            "Hydra's callbacks": needed.hydra_context.callbacks,
        }
        parts |= {f"Hydra's {kind.__name__}": one for kind, one in needed.singletons.items()}
        parts |= {f"the resolver {name!r}": one for name, one in needed.resolvers.items()}
        try:
            for name, part in parts.items():
                packed(part, name, way_out=_WAY_OUT)
        except ConfigError as named:
            raise HydraConfigError(str(named)) from named
        raise HydraConfigError(
            f"jobs cannot be sent to worker processes: {error_line(error)}; let them run on "
            f"threads ({_WAY_OUT})"
        ) from error


class WorkerJobs:
    """Runs the attempts of Hydra jobs in a worker process.

    Args:
        needed: What jobs need, pickled.
    """

    def __init__(self, needed: bytes) -> None:
        self._needed = needed
        self._folder = ""
        self._report: tuple[str, bytes] | None = None  # by the attempt's name

    def open_slot(self, _slot: Slot) -> None:
        """Take over the state of the launching process."""
        needed: _Needed = loads(self._needed)
        take_over_state(needed.singletons, needed.resolvers)
        self._folder = needed.folder
        os.chdir(self._folder)
        # What a job finds there before it configures its own, under Hydra's Basic launcher too.
        configure_hydra_log(needed.config, needed.hydra_context)
        composer = JobComposer(needed.hydra_context.config_loader, needed.config)
        self._jobs = HydraJobs(
            needed.hydra_context, needed.task_function, composer, needed.device_key
        )

    def run(self, attempt: Attempt, job: JobContext) -> Any:
        """Run one attempt and return what the task function returned.

        Raises:
            BaseException: What ended the job.
        """
        os.chdir(self._folder)  # a job may have left it
        with put_back_after_job(), quick_hydra():
            ended = self._jobs.run(attempt, job)
        self._report = attempt.name, _report_of(ended)
        return ended.value()

    def keep(self, attempt: Attempt, exception: BaseException) -> None:
        """Do nothing: what is kept travels with the attempt's end."""

    def report(self, attempt: Attempt) -> bytes | None:
        """Return what the launching process is to hear about an attempt that ended."""
        report, self._report = self._report, None
        return None if report is None or report[0] != attempt.name else report[1]


def _report_of(ended: EndedJob) -> bytes:
    ret, configs, warning = ended.ret, None, ""
    names = {field.name for field in dataclasses.fields(JobReturn)}
    fields = {name: getattr(ret, name) for name in names - {"cfg", "hydra_cfg", "_return_value"}}
    if ret.cfg is not None and (ended.changed or ended.recipe is None):
        try:
            configs = dumps((ret.cfg, ret.hydra_cfg))
        except BaseException as error:
            if is_ctrl_c(error):
                raise
            warning = _LOST_CONFIG
    return dumps(_Report(fields=fields, recipe=ended.recipe, configs=configs, warning=warning))
