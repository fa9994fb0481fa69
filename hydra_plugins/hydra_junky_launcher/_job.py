"""One Hydra job in a slot's thread: composed, then run by Hydra's own ``run_job``."""

from __future__ import annotations

import contextvars
import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, filter_overrides, run_job
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from hydra_plugins.hydra_junky_launcher._compose import JobComposer
from hydra_plugins.hydra_junky_launcher._differences import changes_text, config_texts
from hydra_plugins.hydra_junky_launcher._isolation import (
    LaunchState,
    isolated_job,
    scratch_job,
)
from hydra_plugins.hydra_junky_launcher._job_callbacks import JobCallbacks
from hydra_plugins.hydra_junky_launcher._job_config import (
    JobPayload,
    compose_job,
    number_job,
    set_device,
)
from hydra_plugins.hydra_junky_launcher._quick import same_config
from hydra_plugins.hydra_junky_launcher._returns import (
    CompactReturn,
    outcome_of,
    split_config,
    taken_from_process,
)
from junky_core.job.exception_links import set_traceback, stand_in, traceback_of
from junky_core.job.forks import OwnProcess, leave_if_forked

if TYPE_CHECKING:
    from hydra.types import HydraContext, TaskFunction

    from junky_core.executors.slots import Slot
    from junky_core.job.context import JobContext
    from junky_core.jobs import Attempt
    from junky_core.record.rows import JobRecord

__all__ = ["JobRunner"]


class JobRunner:
    """Runs the attempts of Hydra jobs; one for all launches of a sweep.

    ``run`` is called in slot threads, several at once.

    Args:
        hydra_context: Hydra's; its callbacks are called one at a time.
        task_function: The user's.
        composer: Composes the jobs' configs.
        device_key: Key of the job's config that gets the slot's device, if any.
        chdir: Jobs change to their folders.

    Attributes:
        returns: By job number, the ``JobReturn`` of its last attempt.
    """

    def __init__(
        self,
        hydra_context: HydraContext,
        task_function: TaskFunction,
        composer: JobComposer,
        device_key: str | None = None,
        *,
        chdir: bool = False,
    ) -> None:
        self._chdir = chdir
        self._callbacks = JobCallbacks(hydra_context.callbacks)
        callbacks: Any = self._callbacks  # it has all that run_job calls
        self._hydra_context = dataclasses.replace(hydra_context, callbacks=callbacks)
        self._task_function = task_function
        self._composer = composer
        self._device_key = device_key
        self._launch: LaunchState | None = None
        self._context = contextvars.copy_context()
        self.returns: dict[int, JobReturn] = {}
        self._own = OwnProcess()
        self._tracebacks: dict[int, TracebackType | None] = {}

    def begin(self, launch: LaunchState) -> None:
        """Begin a launch, whose jobs share ``launch``; call it in the launching thread."""
        self._launch = launch
        # Jobs see the context variables of the launching thread, as under Hydra's own launcher.
        # Hydra 1.4 keeps its execution whitelist in one.
        self._context = contextvars.copy_context()

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
            ret = self._context.copy().run(self._run, attempt, job)
        self.returns[num] = ret
        outcome = outcome_of(ret)
        if ret.status is JobStatus.COMPLETED:
            return outcome
        assert isinstance(outcome, BaseException)
        self._tracebacks[num] = stand_in(traceback_of(outcome))
        raise outcome

    def keep(self, attempt: Attempt, exception: BaseException) -> None:
        """Replace the exception that ended the attempt by what is kept of it."""
        ret = self.returns.get(attempt.job.num)
        if ret is not None and ret.status is JobStatus.FAILED:
            ret.return_value = exception

    def take_return(self, num: int) -> JobReturn | None:
        """Return the ``JobReturn`` of a job, and drop it here; ``None`` if it did not run."""
        ret = self.returns.pop(num, None)
        tb = self._tracebacks.pop(num, None)
        if ret is None or ret.status is not JobStatus.FAILED:
            return ret
        error = outcome_of(ret)
        if isinstance(error, BaseException):
            # Hydra 1.4 shows a job's own frames, and finds them in a local variable of run_job;
            # frames were cleared to free tensors. It rebuilds them from this text instead.
            # Its causes are still the original exceptions; Hydra would replace them by copies.
            rebuilt = bool(getattr(ret, "_remote_traceback", None))
            set_traceback(error, None if rebuilt else tb)
            if rebuilt:
                vars(ret).update(_remote_exception_chain=None, _remote_exception_group=None)
        return ret

    def earlier_return(self, num: int, overrides: Sequence[str], value: Any) -> JobReturn:
        """Return the ``JobReturn`` of a job that finished before this process began."""

        def composed() -> DictConfig:
            config = compose_job(self._composer, overrides, num)
            if self._device_key is not None:
                set_device(config, self._device_key, "cpu", num)
            return config

        full = JobReturn(
            overrides=filter_overrides(list(overrides)),
            working_dir=str(_folder_of(composed())) if self._chdir else str(Path.cwd()),
            task_name=JobRuntime.instance().get("name"),
            status=JobStatus.COMPLETED,
        )
        full.return_value = value

        def configs() -> tuple[DictConfig, DictConfig]:
            output_dir = str(_folder_of(composed()).absolute())
            return split_config(composed(), {"runtime.output_dir": output_dir})

        return CompactReturn(full, configs)

    def what_changed(self, record: JobRecord) -> str:
        """Name the keys of a job's config that have changed since it ran, with both values.

        Returns:
            ``""`` if the config that Hydra wrote to the job's folder cannot be read.
        """
        try:
            config = compose_job(self._composer, record.info["overrides"], record.num)
            written = _folder_of(config) / str(config.hydra.output_subdir) / "config.yaml"
            saved: Any = OmegaConf.load(written)
            # Enums are written by name, so this config goes through YAML too.
            current: Any = OmegaConf.create(OmegaConf.to_yaml(config))
            before, now = config_texts(saved), config_texts(current)
        except Exception:  # noqa: BLE001 - the message does without
            return ""
        key = self._device_key
        if key in before:  # the device of the slot that the job ran on
            now[key] = before[key]
        return changes_text(before, now)

    def _compact(self, ret: JobReturn, config: DictConfig, num: int, device: str) -> JobReturn:
        """Return ``ret`` without its configs, if they can be composed again."""
        if not self._callbacks.started or not _left_unchanged(config, ret.cfg):
            return ret  # callers may want the config as the job changed it
        overrides: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
        taken = taken_from_process(config.hydra)

        def configs() -> tuple[DictConfig, DictConfig]:
            again = compose_job(self._composer, overrides, num)
            if self._device_key is not None:
                set_device(again, self._device_key, device, num)
            return split_config(again, taken)

        return CompactReturn(ret, configs)

    def _run(self, attempt: Attempt, job: JobContext) -> JobReturn:
        num = attempt.job.num
        payload: JobPayload = attempt.job.payload
        overrides = payload.overrides
        config: DictConfig | None = None
        self._callbacks.begin(num, attempt.number)
        try:
            try:
                config = payload.take_config()
                if config is None:
                    config = self._composer.compose(overrides)
                number_job(config, num)
                if self._device_key is not None:
                    set_device(config, self._device_key, str(job.device), num)
                ret: JobReturn = run_job(
                    hydra_context=self._hydra_context,
                    task_function=self._task_function,
                    config=config,
                    job_dir_key="hydra.sweep.dir",
                    job_subdir_key="hydra.sweep.subdir",
                )
            except BaseException as error:  # noqa: BLE001  # sys.exit() ends its job alone
                leave_if_forked(self._own, error)
                ret = self._ended_by(error, config, overrides)
            if config is None:
                return ret
            folder = OmegaConf.select(config, "hydra.runtime.output_dir")
            if folder is not None and ret.status is JobStatus.FAILED:
                job.folder = Path(str(folder))
            return self._compact(ret, config, num, str(job.device))
        finally:
            self._callbacks.keep_config()

    def _ended_by(
        self, error: BaseException, config: DictConfig | None, overrides: Sequence[str]
    ) -> JobReturn:
        """Return the ``JobReturn`` of a job that ended with what ``run_job`` does not catch.

        Under Hydra's own launchers that would end the process.
        """
        ended = self._callbacks.ended  # Hydra 1.4 made one, and called on_job_end
        if ended is not None and (
            ended.status is JobStatus.FAILED or issubclass(type(error), SystemExit)
        ):
            return ended
        ret = JobReturn(overrides=list(overrides), task_name=JobRuntime.instance().get("name"))
        ret.status = JobStatus.FAILED
        ret.return_value = error
        if config is not None:
            HydraConfig.instance().set_config(config)
            ret.cfg = copy.deepcopy(config)
            with open_dict(ret.cfg), read_write(ret.cfg):
                del ret.cfg["hydra"]
            ret.hydra_cfg = copy.deepcopy(HydraConfig.instance().cfg)  # type: ignore[assignment]
            if self._callbacks.started:
                self._callbacks.on_job_end(config=config, job_return=ret)
        return ret


def _folder_of(config: DictConfig) -> Path:
    """Return the output folder of a job."""
    with scratch_job():
        HydraConfig.instance().set_config(config)
        sweep = HydraConfig.get().sweep
        return Path(str(sweep.dir)) / str(sweep.subdir)


def _left_unchanged(config: DictConfig, task: DictConfig | None) -> bool:
    """Return whether a job's task config is as it was composed."""
    if task is None:
        return False
    try:
        composed = dict(config.items_ex(resolve=False))
        del composed["hydra"]
        return same_config(composed, dict(task.items_ex(resolve=False)))
    except Exception:  # noqa: BLE001 - the job put an object there that cannot be compared
        return False
