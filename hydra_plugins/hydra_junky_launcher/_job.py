"""One Hydra job: composed, then run by Hydra's own ``run_job``."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, run_job
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from hydra_plugins.hydra_junky_launcher._compose import JobComposer
from hydra_plugins.hydra_junky_launcher._job_callbacks import JobCallbacks
from hydra_plugins.hydra_junky_launcher._job_config import JobPayload, number_job, set_device
from hydra_plugins.hydra_junky_launcher._quick import same_config
from hydra_plugins.hydra_junky_launcher._returns import ConfigRecipe, outcome_of, taken_from_process
from junky_core.job.forks import OwnProcess, leave_if_forked

if TYPE_CHECKING:
    from hydra.types import HydraContext, TaskFunction

    from junky_core.job.context import JobContext
    from junky_core.jobs import Attempt

__all__ = ["EndedJob", "HydraJobs"]


@dataclass(frozen=True, slots=True)
class EndedJob:
    """What an attempt of a job left.

    Attributes:
        ret: As Hydra made it.
        recipe: How its configs are composed again as they were when it started; ``None`` if it
            did not.
        changed: The job has changed its config, so that callers may want that one.
    """

    ret: JobReturn
    recipe: ConfigRecipe | None = None
    changed: bool = False

    def value(self) -> Any:
        """Return what the task function returned.

        Raises:
            BaseException: What ended the job.
        """
        outcome = outcome_of(self.ret)
        if self.ret.status is JobStatus.COMPLETED:
            return outcome
        assert isinstance(outcome, BaseException)
        raise outcome


class HydraJobs:
    """Runs attempts of Hydra jobs with the state of Hydra that the calling thread finds.

    Args:
        hydra_context: Hydra's; its callbacks are called one at a time.
        task_function: The user's.
        composer: Composes the jobs' configs.
        device_key: Key of the job's config that gets the slot's device, if any.

    Attributes:
        callbacks: What ``run_job`` calls.
    """

    def __init__(
        self,
        hydra_context: HydraContext,
        task_function: TaskFunction,
        composer: JobComposer,
        device_key: str | None = None,
    ) -> None:
        self.callbacks = JobCallbacks(hydra_context.callbacks)
        callbacks: Any = self.callbacks  # it has all that run_job calls
        self._hydra_context = dataclasses.replace(hydra_context, callbacks=callbacks)
        self._task_function = task_function
        self._composer = composer
        self._device_key = device_key
        self._own = OwnProcess()

    def run(self, attempt: Attempt, job: JobContext) -> EndedJob:
        """Run one attempt; return what it left, also of one that failed."""
        num = attempt.job.num
        payload: JobPayload = attempt.job.payload
        overrides = payload.overrides
        config: DictConfig | None = None
        self.callbacks.begin(num, attempt.number)
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
            return EndedJob(ret)
        folder = OmegaConf.select(config, "hydra.runtime.output_dir")
        if folder is not None and ret.status is JobStatus.FAILED:
            job.folder = Path(str(folder))
        if not self.callbacks.started:
            return EndedJob(ret)
        listed: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
        recipe = ConfigRecipe(listed, num, str(job.device), taken_from_process(config.hydra))
        return EndedJob(ret, recipe, changed=not _left_unchanged(config, ret.cfg))

    def _ended_by(
        self, error: BaseException, config: DictConfig | None, overrides: Sequence[str]
    ) -> JobReturn:
        """Return the ``JobReturn`` of a job that ended with what ``run_job`` does not catch.

        Under Hydra's own launchers that would end the process.
        """
        ended = self.callbacks.ended  # Hydra 1.4 made one, and called on_job_end
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
            if self.callbacks.started:
                self.callbacks.on_job_end(config=config, job_return=ret)
        return ret


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
