"""The ``JobReturn``s of a sweep's jobs, from their ends until the launch returns them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, filter_overrides
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.hydra_junky_launcher._compose import JobComposer
from hydra_plugins.hydra_junky_launcher._differences import changes_text, config_texts
from hydra_plugins.hydra_junky_launcher._isolation import scratch_job
from hydra_plugins.hydra_junky_launcher._job_config import compose_job, set_device
from hydra_plugins.hydra_junky_launcher._returns import (
    CompactReturn,
    ConfigRecipe,
    outcome_of,
    split_config,
)
from junky_core.job.exception_links import set_traceback

if TYPE_CHECKING:
    from junky_core.record.rows import JobRecord

__all__ = ["JobReturns"]


class JobReturns:
    """The ``JobReturn`` of each job's last attempt, by the job's number.

    Slot threads put them here, each for other jobs.

    Args:
        composer: Composes the jobs' configs.
        device_key: Key of the job's config that gets the slot's device, if any.
        chdir: Jobs change to their folders.
    """

    def __init__(
        self, composer: JobComposer, device_key: str | None = None, *, chdir: bool = False
    ) -> None:
        self._composer = composer
        self._device_key = device_key
        self._chdir = chdir
        self._returns: dict[int, JobReturn] = {}
        self._tracebacks: dict[int, TracebackType | None] = {}

    def put(self, num: int, ret: JobReturn, recipe: ConfigRecipe | None) -> None:
        """Keep what an attempt of a job left.

        Args:
            num: The job's number.
            ret: As Hydra made it.
            recipe: How its configs are composed again; ``None`` to keep those of ``ret``.
        """
        if recipe is not None:
            ret = CompactReturn(ret, lambda: self._configs(recipe))
        self._returns[num] = ret

    def put_traceback(self, num: int, tb: TracebackType | None) -> None:
        """Keep the traceback of the exception that ended a job of this process."""
        self._tracebacks[num] = tb

    def replace_error(self, num: int, exception: BaseException) -> None:
        """Replace the exception that ended a job by what is kept of it."""
        ret = self._returns.get(num)
        if ret is not None and ret.status is JobStatus.FAILED:
            ret.return_value = exception

    def take(self, num: int) -> JobReturn | None:
        """Return the ``JobReturn`` of a job, and drop it here; ``None`` if it did not run."""
        ret = self._returns.pop(num, None)
        if num not in self._tracebacks:
            return ret
        tb = self._tracebacks.pop(num)
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

    def earlier(self, num: int, overrides: Sequence[str], value: Any) -> JobReturn:
        """Return the ``JobReturn`` of a job that finished before this process began."""

        def composed() -> DictConfig:
            return self._compose(overrides, num, "cpu")

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

    def _configs(self, recipe: ConfigRecipe) -> tuple[DictConfig, DictConfig]:
        again = self._compose(recipe.overrides, recipe.num, recipe.device)
        return split_config(again, recipe.taken)

    def _compose(self, overrides: Sequence[str], num: int, device: str) -> DictConfig:
        config = compose_job(self._composer, overrides, num)
        if self._device_key is not None:
            set_device(config, self._device_key, device, num)
        return config


def _folder_of(config: DictConfig) -> Path:
    """Return the output folder of a job."""
    with scratch_job():
        HydraConfig.instance().set_config(config)
        sweep = HydraConfig.get().sweep
        return Path(str(sweep.dir)) / str(sweep.subdir)
