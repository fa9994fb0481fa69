"""One Hydra job in a slot's thread: composed, then run by Hydra's own ``run_job``."""

from __future__ import annotations

import contextvars
import copy
import dataclasses
import logging
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, filter_overrides, run_job
from omegaconf import DictConfig, OmegaConf, ValidationError, open_dict, read_write

from hydra_plugins.hydra_junky_launcher._callbacks import SerialCallbacks
from hydra_plugins.hydra_junky_launcher._compose import JobComposer
from hydra_plugins.hydra_junky_launcher._errors import HydraConfigError
from hydra_plugins.hydra_junky_launcher._isolation import (
    LaunchState,
    isolated_job,
    scratch_job,
)
from hydra_plugins.hydra_junky_launcher._quick import same_config
from hydra_plugins.hydra_junky_launcher._returns import (
    CompactReturn,
    outcome_of,
    split_config,
    taken_from_process,
)
from junky_core.errors import IsolationError, JobExited
from junky_core.job.exception_links import set_traceback, stand_in, traceback_of
from junky_core.job.forks import OwnProcess, leave_if_forked
from junky_core.values.texts import cut, excerpt
from junky_core.values.user_text import repr_of

if TYPE_CHECKING:
    from hydra.types import HydraContext, TaskFunction

    from junky_core.executors.slots import Slot
    from junky_core.job.context import JobContext
    from junky_core.jobs import Attempt

__all__ = ["JobPayload", "JobRunner", "compose_job", "number_job", "set_device"]

log = logging.getLogger(__name__)


class JobPayload:
    """A job's overrides and, until its first attempt takes it, its composed config.

    The config was composed to learn the job's identity; it is some 80 KB, and a
    job may change it, so it serves one attempt and is gone then.
    """

    __slots__ = ("_config", "overrides")

    def __init__(self, overrides: Sequence[str], config: DictConfig | None = None) -> None:
        self.overrides = list(overrides)
        self._config = config

    def take_config(self) -> DictConfig | None:
        """Return the config if it was not taken yet."""
        config, self._config = self._config, None
        return config


def compose_job(composer: JobComposer, overrides: Sequence[str], num: int) -> DictConfig:
    """Return the config of job ``num``, as Hydra's Basic launcher composes it.

    Args:
        composer: The sweep's.
        overrides: The job's.
        num: The job's number, which is its ``hydra.job.id`` too.

    Raises:
        ConfigCompositionException: Hydra cannot compose it.
    """
    return number_job(composer.compose(overrides), num)


def number_job(composed: DictConfig, num: int) -> DictConfig:
    """Write a job's number into its config, and return it."""
    job = composed.hydra.job
    with read_write(job):
        job.id, job.num = str(num), num
    return composed


def set_device(config: DictConfig, key: str, device: str, num: int) -> None:
    """Set ``key`` of a job's config to its slot's device.

    A key that holds a list, as Lightning's ``devices`` may, gets a list: of the
    GPU's index, ``[1]``, where it holds numbers (for the CPU it stays as it is),
    else of the device.

    Raises:
        ConfigError: The config has no such key, or one of a type that a device does not fit.
    """
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if not OmegaConf.is_dict(node) or last not in list(node):  # a list: '???' counts as there
        raise HydraConfigError(
            f"hydra.launcher.device_key={key}: the config of job #{num} has no such key. It must "
            "name the key that takes the device, trainer.device say"
        )
    ((_, held),) = node.items_ex(resolve=False, keys=[last])
    value: Any = device
    if OmegaConf.is_list(held) and not OmegaConf.is_interpolation(node, last):
        value = [device]
        listed: Any = OmegaConf.to_container(held, resolve=False)
        if any(type(one) is int for one in listed):
            index = torch.device(device).index
            if index is None:
                return
            value = [index]
    try:
        with read_write(node):
            OmegaConf.update(config, key, value)
    except ValidationError as error:
        raise HydraConfigError(
            f"hydra.launcher.device_key={key}: it cannot hold {value!r}, says the config's schema"
        ) from error


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
        returns: By job number, how its last attempt ended, as Hydra wants to know it.
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
        self._callbacks = _JobCallbacks(hydra_context.callbacks)
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
        """Take note of what the jobs of the next launch share; call it in the launching thread."""
        self._launch = launch
        # A job runs where Hydra's own launcher would run it: in the context of who launches.
        # Hydra 1.4 keeps its execution whitelist there.
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
        """Put what is kept of the exception in the place of the one that ended the attempt."""
        ret = self.returns.get(attempt.job.num)
        if ret is not None and ret.status is JobStatus.FAILED:
            ret.return_value = exception

    def take_return(self, num: int) -> JobReturn | None:
        """Hand out, and forget, the ``JobReturn`` of a job; ``None`` if it did not run."""
        ret = self.returns.pop(num, None)
        tb = self._tracebacks.pop(num, None)
        if ret is None or ret.status is not JobStatus.FAILED:
            return ret
        error = outcome_of(ret)
        if isinstance(error, BaseException):
            # Hydra 1.4 shows a job's own frames, and finds them in a local variable of run_job;
            # frames were cleared to let go of tensors. It rebuilds them from this text instead.
            # Its causes are there as they were; Hydra would put look-alikes in their place.
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

        def folder(config: DictConfig) -> str:
            with scratch_job():
                HydraConfig.instance().set_config(config)
                sweep = HydraConfig.get().sweep
                return str(Path(str(sweep.dir)) / str(sweep.subdir))

        full = JobReturn(
            overrides=filter_overrides(list(overrides)),
            working_dir=folder(composed()) if self._chdir else str(Path.cwd()),
            task_name=JobRuntime.instance().get("name"),
            status=JobStatus.COMPLETED,
        )
        full.return_value = value

        def configs() -> tuple[DictConfig, DictConfig]:
            output_dir = str(Path(folder(composed())).absolute())
            return split_config(composed(), {"runtime.output_dir": output_dir})

        return CompactReturn(full, configs)

    def _compact(self, ret: JobReturn, config: DictConfig, num: int, device: str) -> JobReturn:
        """Return ``ret`` without its configs, if they can be made again as they are."""
        if not self._callbacks.started or not _left_unchanged(config, ret.cfg):
            return ret  # who reads it may want what the job made of its config
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
        """Return the ``JobReturn`` of a job that ended by what ``run_job`` does not catch.

        Under Hydra's own launchers that ends the process.
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


class _JobCallbacks(SerialCallbacks):
    """Callbacks that also tell the runner where ``run_job`` is, thread by thread."""

    def __init__(self, plain: Any) -> None:
        super().__init__(plain)
        self._here = threading.local()
        self._own = OwnProcess()

    def begin(self, num: int, attempt: int) -> None:
        here = self._here
        here.num, here.attempt, here.started, here.ended = num, attempt, False, None
        here.config = None

    def keep_config(self) -> None:
        """Let threads that outlive the job still find its config, which run_job has put away."""
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
        if not self._own:  # a forked child of the job's code, which has ended
            failed = job_return.status is JobStatus.FAILED
            leave_if_forked(self._own, outcome_of(job_return) if failed else sys.exc_info()[1])
        _take_exit_as_end(job_return, self._here.num)
        self._here.ended = job_return
        super().on_job_end(config, job_return, **kwargs)


def _left_unchanged(config: DictConfig, task: DictConfig | None) -> bool:
    """Say whether a job's task config is as it was composed."""
    if task is None:
        return False
    try:
        composed = dict(config.items_ex(resolve=False))
        del composed["hydra"]
        return same_config(composed, dict(task.items_ex(resolve=False)))
    except Exception:  # noqa: BLE001 - the job put an object there that cannot be compared
        return False


def _check_own_config(num: int) -> None:
    found = HydraConfig.get().job.num
    if found != num:
        raise IsolationError(
            f"job #{num} was about to run with the Hydra config of job #{found}. Use "
            "hydra/launcher=basic, and please report this with the versions of Python and Hydra"
        )


def _take_exit_as_end(ret: JobReturn, num: int) -> None:
    """Let ``sys.exit()`` end its job alone: with 0 it is done, with anything else it failed."""
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
