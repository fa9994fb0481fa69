"""Run Hydra jobs with the sweep engine, and return a ``JobReturn`` for each."""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.utils import (
    JobReturn,
    JobStatus,
    filter_overrides,
    setup_globals,
)
from omegaconf import DictConfig

from hydra_plugins.hydra_junky_launcher._compose import composer_of
from hydra_plugins.hydra_junky_launcher._differences import config_texts, what_differs
from hydra_plugins.hydra_junky_launcher._errors import (
    HydraBestModelError,
    hydra_error,
)
from hydra_plugins.hydra_junky_launcher._isolation import private_log_config
from hydra_plugins.hydra_junky_launcher._job import HydraJobs
from hydra_plugins.hydra_junky_launcher._job_logging import configure_hydra_log
from hydra_plugins.hydra_junky_launcher._job_processes import JobSender
from hydra_plugins.hydra_junky_launcher._job_returns import JobReturns
from hydra_plugins.hydra_junky_launcher._job_threads import ThreadJobs
from hydra_plugins.hydra_junky_launcher._jobs import hydra_jobs
from hydra_plugins.hydra_junky_launcher._preflight import check_output_folder, shared_environment
from junky_core.devices import SlotSpec
from junky_core.engine.settings import SweepSettings
from junky_core.engine.signals import noted_until_here
from junky_core.engine.sweep import Sweep
from junky_core.errors import ConfigError, JunkyError, SweepFailed
from junky_core.events import Notice, NoticeLevel, Observer, SweepKind
from junky_core.executors.contract import AttemptRunner
from junky_core.executors.factory import executor_factory
from junky_core.executors.kinds import ExecutorKind
from junky_core.job.best import BestModel
from junky_core.job.failures import showable
from junky_core.job.offers import Best
from junky_core.jobs import Job, JobResult
from junky_core.logs.standard_streams import unbreakable_streams
from junky_core.logs.text_log import FileWriter, SweepLog
from junky_core.record.folder import LOG_NAME
from junky_core.record.state import SweepState
from junky_core.record.sweep_record import Plan, SweepRecord
from junky_core.values.wording import count
from junky_core.views.leaderboard import publish_leaderboard
from junky_core.views.progress import Progress
from junky_core.views.report import publish_report
from junky_core.views.results import AutotrainResult

if TYPE_CHECKING:
    from hydra.types import HydraContext, TaskFunction

__all__ = ["HOW_TO_RESUME", "HydraSweep", "HydraSweepSpec"]

log = logging.getLogger(__name__)

_COMPARED = 100  # jobs compared to find the keys in which another sweep differs
# What worker processes need for any Hydra job.
_PRELOADED = ("hydra_plugins.hydra_junky_launcher._job_processes",)
HOW_TO_RESUME = "hydra.launcher.resume=true"


@dataclass(frozen=True)
class HydraSweepSpec:
    """Settings of a sweep under Hydra.

    Attributes:
        config: The sweep's own composed config.
        hydra_context: Config loader and callbacks.
        task_function: The user's function.
        slots: One for each job that may run at the same time.
        settings: Settings of the engine.
        folder: The sweep's folder.
        resume: Continue the sweep in the folder; ``"repair"``: also if its journal is damaged.
        progress: As ``hydra.launcher.progress``.
        report: As ``hydra.launcher.report``.
        best_model_path: The best model's file.
        device_key: Key of a job's config that gets the slot's device, if any.
        preload: Modules that worker processes find imported.
    """

    config: DictConfig
    hydra_context: HydraContext
    task_function: TaskFunction
    slots: Sequence[SlotSpec]
    settings: SweepSettings
    folder: Path
    resume: bool | str
    progress: bool | None
    report: bool
    best_model_path: Path
    device_key: str | None = None
    preload: Sequence[str] = ()


class HydraSweep:
    """All launches of one sweep, which share slots, their loaders and the best model.

    Not thread-safe. Slot threads end when it is no longer referenced.
    """

    def __init__(self, spec: HydraSweepSpec) -> None:
        self._spec = spec
        self._composer = composer_of(spec.hydra_context.config_loader, spec.config)
        self._returns = JobReturns(
            self._composer, spec.device_key, chdir=bool(spec.config.hydra.job.chdir)
        )
        self._runner: ThreadJobs | JobSender | None = None
        self._on_threads = spec.settings.executor is ExecutorKind.THREADS
        self._sweep: Sweep | None = None
        self._record: SweepRecord | None = None
        self._log: SweepLog | None = None
        self._results: dict[int, JobResult] = {}

    @property
    def results(self) -> list[JobResult]:
        """How the jobs of all launches ended, by number."""
        left = [] if self._record is None else self._record.leftovers()
        found = {**{result.num: result for result in left}, **self._results}
        return [found[num] for num in sorted(found)]

    @property
    def saved_best(self) -> Best | None:
        """The record of the saved best model, ``None`` if there is none."""
        return None if self._sweep is None else self._sweep.best.saved

    @property
    def best_model_path(self) -> Path | None:
        """The best model's file, ``None`` if there is none."""
        if self._sweep is None or self._sweep.best.saved is None:
            return None
        return self._sweep.best.path

    def best_model_error(self) -> HydraBestModelError | None:
        """Return why the best model is not on disk after the last launch, ``None`` if it is."""
        if self._sweep is None or not self._sweep.best.problem:
            return None
        direction = self._spec.settings.direction
        result = AutotrainResult.of(self.results, self.saved_best, direction)
        return HydraBestModelError(self._sweep.best.problem, result)

    def launch(self, job_overrides: Sequence[Sequence[str]], first_num: int) -> list[JobReturn]:
        """Run jobs; return how each ended, in their order.

        Args:
            job_overrides: The overrides of each job. A ``params_of(place)``
                method, if it has one, gives a job's parameters as plain data.
            first_num: The number of the first one.

        Raises:
            ConfigError: Jobs cannot run at the same time; nothing has run.
            ResumeError: The folder's sweep is another one.
            SweepInterrupted: Ctrl-C, SIGTERM or SIGHUP; the results so far are written.
            SweepFailed: The first jobs all failed with the same error.
        """
        with unbreakable_streams(), noted_until_here() as signals:
            returns = self._launch(job_overrides, first_num)
        signals.raise_if_noted()
        return returns

    def _launch(self, job_overrides: Sequence[Sequence[str]], first_num: int) -> list[JobReturn]:
        spec = self._spec
        setup_globals()
        slots = min(len(spec.slots), len(job_overrides))
        if not slots:
            return []
        runner = self._runner = self._runner or self._make_runner()
        with private_log_config(self._configure_log):
            env = shared_environment(
                self._composer,
                job_overrides,
                first_num,
                slots if self._on_threads else 1,
                spec.device_key,
            )
            if self._record is None:
                check_output_folder(self._composer, job_overrides[0], first_num)
            record = self._open_record()
            with runner.launching(slots, env):
                plan = self._plan(record, job_overrides, first_num)
                sweep = self._open_sweep(record, job_overrides[0], runner)
                log.info(
                    "Launching %s on %s: %s",
                    count(len(job_overrides), "job"),
                    count(slots, "slot"),
                    ", ".join(slot.device for slot in spec.slots[:slots]),
                )
                try:
                    sweep.run(plan.source, already_finished=len(plan.done))
                except (SweepFailed, ConfigError) as error:  # the message has what is needed
                    raise hydra_error(error) from error.__cause__
                finally:
                    self._conclude(sweep, plan.done)
            nums = plan.nums or range(first_num, first_num + len(job_overrides))
            return [
                self._return(num, overrides)
                for num, overrides in zip(nums, job_overrides, strict=True)
            ]

    def _make_runner(self) -> ThreadJobs | JobSender:
        """Return what runs the jobs of all launches.

        Raises:
            HydraConfigError: Something that jobs need cannot be sent to processes.
        """
        spec = self._spec
        if not self._on_threads:
            return JobSender(
                spec.config,
                spec.hydra_context,
                spec.task_function,
                spec.device_key,
                self._returns,
            )
        jobs = HydraJobs(spec.hydra_context, spec.task_function, self._composer, spec.device_key)
        return ThreadJobs(jobs, self._returns)

    def _open_record(self) -> SweepRecord:
        """Lock the sweep's folder and read its journal."""
        if self._record is None:
            spec = self._spec
            folder = spec.folder
            folder.mkdir(parents=True, exist_ok=True)
            try:
                record = SweepRecord(
                    folder,
                    resume=spec.resume,
                    direction=spec.settings.direction,
                    seed=spec.settings.seed,
                    how_to_resume=HOW_TO_RESUME,
                    spent_may_go=True,
                )
            except JunkyError as error:
                raise hydra_error(error) from error
            self._best = BestModel(spec.best_model_path, spec.settings.direction)
            try:
                self._best.check_folder()
            except JunkyError as error:
                record.close()
                raise hydra_error(error) from error
            self._settings = replace(record.begin(self._best, spec.settings), folder=record.path)
            self._record = record
        return self._record

    def _open_sweep(
        self, record: SweepRecord, first_job: Sequence[str], runner: AttemptRunner
    ) -> Sweep:
        if self._sweep is None:
            spec = self._spec
            self._log = SweepLog(FileWriter(record.path / LOG_NAME))
            self._progress = Progress(spec.progress, plain=spec.progress is True)
            observers: list[Observer] = [self._progress, self._log, SweepLog()]
            settings = self._settings
            for config in self._configs([first_job]):  # a later sweep is compared with it
                settings = replace(settings, spec={**settings.spec, "config": config})
            self._sweep = Sweep(
                spec.slots,
                runner,
                self._best,
                observers,
                settings,
                kind=SweepKind.HYDRA,
                recorder=record.open_journal(),
                make_executor=executor_factory(
                    settings.executor,
                    kill_after_s=settings.kill_after_s,
                    preload=(*_PRELOADED, *spec.preload),
                ),
            )
            record.hand_over(self._sweep.emit)
            weakref.finalize(self, _close, self._sweep, record)
        return self._sweep

    def _plan(
        self, record: SweepRecord, job_overrides: Sequence[Sequence[str]], first_num: int
    ) -> Plan:
        loader = self._spec.hydra_context.config_loader
        keep_config = record.state is None and self._on_threads
        jobs = hydra_jobs(job_overrides, first_num, self._composer, loader, keep_config=keep_config)
        try:
            return record.plan(
                jobs, len(job_overrides), self._best, self._what_differs, self._returns.what_changed
            )
        except JunkyError as error:
            record.close()
            self._best.close()
            self._record = None  # it belongs to another sweep
            raise hydra_error(error) from error

    def _what_differs(self, before: SweepState, asked: Sequence[Job]) -> str:
        """Return a sentence that names how the sweep in the folder differs from this one."""
        configs = self._configs([job.payload.overrides for job in asked[:_COMPARED]])
        old = [job.params for job in before.by_num.values()]
        new = [job.params for job in asked]
        return what_differs(before.spec, self._spec.settings.spec, configs, old, new)

    def _configs(self, job_overrides: Sequence[Sequence[str]]) -> list[dict[str, str]]:
        """Return the configs of jobs as text, without those that cannot be composed."""
        found = []
        for overrides in job_overrides:
            with contextlib.suppress(Exception):
                found.append(config_texts(self._composer.compose(list(overrides))))
        return found

    def _conclude(self, sweep: Sweep, done: Sequence[JobResult]) -> None:
        """Bring leaderboard, log and journal up to date after a launch."""
        self._results.update({result.num: result for result in (*done, *sweep.results())})
        assert self._record is not None
        assert self._log is not None
        sweep.settings = self._settings  # the next batch does not record a config again
        self._progress.close()
        publish_leaderboard(
            self.results,
            self._spec.settings.direction,
            self._record.path,
            lambda message: sweep.emit(Notice(level=NoticeLevel.ERROR, message=message)),
        )
        self._log.close()  # the next launch opens it again, and appends
        if self._record.journal is not None:
            self._record.journal.flush()
        if self._spec.report:
            publish_report(self._record.path)

    def _configure_log(self) -> None:
        configure_hydra_log(self._spec.config, self._spec.hydra_context)

    def _return(self, num: int, overrides: Sequence[str]) -> JobReturn:
        ret = self._returns.take(num)
        result = self._results.get(num)
        if ret is None:
            ret = self._return_without_attempt(num, overrides, result)
        elif (
            result is not None
            and result.status != "finished"
            and ret.status is not JobStatus.FAILED
        ):
            ret.status, ret.return_value = JobStatus.FAILED, result.exception or _not_run(num, self)
        if result is not None and result.exception is not None and result.status == "failed":
            _make_showable(ret, result)
        return ret

    def _return_without_attempt(
        self, num: int, overrides: Sequence[str], result: JobResult | None
    ) -> JobReturn:
        """Return the result of a job that this process did not run or did not finish."""
        if result is not None and result.status == "finished":  # in an earlier run, by the journal
            return self._returns.earlier(num, overrides, result.value)
        ret = JobReturn(overrides=filter_overrides(list(overrides)), status=JobStatus.FAILED)
        ret.return_value = (result and result.exception) or _not_run(num, self)
        return ret

    @property
    def stop_reason(self) -> str:
        """Why the last launch ended early, ``""`` if it did not."""
        return "" if self._sweep is None else self._sweep.stop_reason


def _make_showable(ret: JobReturn, result: JobResult) -> None:
    """Replace an error whose text never ends, because Hydra prints it."""
    if showable(result.exception) is None:
        ret.return_value = SweepFailed(f"job #{result.num} failed: {result.traceback}", [result])
        for name in ("_remote_traceback", "_remote_exception_chain", "_remote_exception_group"):
            if hasattr(ret, name):  # Hydra 1.4 shows these
                setattr(ret, name, None)


def _not_run(num: int, sweep: HydraSweep) -> SweepFailed:
    reason = sweep.stop_reason or "the sweep ended"
    return SweepFailed(f"job #{num} did not finish ({reason})")


def _close(sweep: Sweep, record: SweepRecord) -> None:
    sweep.close()
    record.close()
