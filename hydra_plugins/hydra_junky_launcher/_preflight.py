"""Checks of the jobs of a launch before the first one runs.

Jobs that run at the same time share one environment, and need a working folder
each if they change it. Both are settings of a job (``hydra.job``), so jobs are
composed here to look at them: one for each set of choices that can change what
is under ``hydra``, which is one for most sweeps.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from hydra_plugins.hydra_junky_launcher._compose import JobComposer
from hydra_plugins.hydra_junky_launcher._environment import env_error
from hydra_plugins.hydra_junky_launcher._errors import HydraConfigError
from hydra_plugins.hydra_junky_launcher._folders import folders_per_thread
from hydra_plugins.hydra_junky_launcher._isolation import scratch_job
from hydra_plugins.hydra_junky_launcher._job_config import compose_job, set_device
from hydra_plugins.hydra_junky_launcher._reading import usable_folder

__all__ = ["check_output_folder", "shared_environment"]

# An interpolation that gives the same in every job: a variable of the process.
_SAME_FOR_ALL = re.compile(r"\$\{oc\.env:[^${}]*\}")


def shared_environment(
    composer: JobComposer,
    job_overrides: Sequence[Sequence[str]],
    first_num: int,
    slots: int,
    device_key: str | None = None,
) -> dict[str, str] | None:
    """Return what ``hydra.job.env_set`` sets in all jobs; ``None`` if each may set its own.

    Args:
        composer: Composes the jobs' configs.
        job_overrides: The overrides of each job; read one by one.
        first_num: The number of the first job.
        slots: How many jobs may run at once. A single one may set any variables.
        device_key: The key that gets the slot's device, if any.

    Raises:
        ConfigError: Jobs differ in ``env_set`` (names the variables); a job
            wants ``hydra.job.chdir`` and this system keeps one folder for all
            threads; there is no ``device_key`` in a job's config.
    """

    def composed(num: int, overrides: Sequence[str]) -> DictConfig:
        job = compose_job(composer, overrides, num)
        if device_key is not None:
            set_device(job, device_key, "cpu", num)
        return job

    if slots == 1:
        if device_key is not None:
            composed(first_num, job_overrides[0])
        return None
    numbered = list(_one_of_each_kind(job_overrides, composer.is_group))
    first: tuple[int, dict[str, str]] | None = None
    with scratch_job():
        looked_at: Iterable[tuple[int, Sequence[str]]] = numbered
        if any(_differs_by_job(composed(first_num + at, job)) for at, job in numbered):
            looked_at = enumerate(job_overrides)
        for at, overrides in looked_at:
            num = first_num + at
            job = composed(num, overrides)
            _check_folder(job, num, slots)
            env = _environment(job, num)
            if first is None:
                first = num, env
            elif env != first[1]:
                raise env_error(first[1], env, f" of job #{first[0]} and job #{num}")
    return {} if first is None else first[1]


def check_output_folder(composer: JobComposer, overrides: Sequence[str], num: int) -> None:
    """Check that the folder of a job can be created; create nothing.

    Args:
        composer: Composes the job's config.
        overrides: The job's.
        num: Its number.

    Raises:
        ConfigError: ``hydra.sweep.subdir`` does not resolve, or names a folder that cannot be made.
    """
    try:
        job = compose_job(composer, overrides, num)
    except Exception:  # noqa: BLE001 - the job's attempt raises it again, and fails
        return
    with scratch_job():
        HydraConfig.instance().set_config(job)
        sweep = HydraConfig.get().sweep
        usable_folder("hydra.sweep.subdir", sweep, "subdir", inside=Path(str(sweep.dir)))


def _one_of_each_kind(
    job_overrides: Sequence[Sequence[str]], is_group: Callable[[str], bool]
) -> Iterable[tuple[int, Sequence[str]]]:
    """Yield place and overrides of one job for each set of choices that can reach ``hydra``."""
    seen: set[tuple[str, ...]] = set()
    for at, overrides in enumerate(job_overrides):
        kind = tuple(override for override in overrides if _reaches_hydra(override, is_group))
        if kind not in seen:
            seen.add(kind)
            yield at, overrides


def _reaches_hydra(override: str, is_group: Callable[[str], bool]) -> bool:
    key = override.partition("=")[0].lstrip("+~").partition("@")[0].strip()
    return key.partition(".")[0].partition("/")[0] == "hydra" or is_group(key)


def _differs_by_job(job: DictConfig) -> bool:
    """Return whether another job may resolve the interpolations of ``env_set`` differently."""
    values = OmegaConf.to_container(job.hydra.job.env_set, resolve=False)
    return "${" in _SAME_FOR_ALL.sub("", str(values))


def _environment(job: DictConfig, num: int) -> dict[str, str]:
    env_set = job.hydra.job.env_set
    if not env_set:
        return {}
    try:
        HydraConfig.instance().set_config(job)
        sweep = HydraConfig.get().sweep
        folder = os.path.join(str(sweep.dir), str(sweep.subdir))  # noqa: PTH118  # as Hydra
        with read_write(job.hydra.runtime), open_dict(job.hydra.runtime):
            job.hydra.runtime.output_dir = os.path.abspath(folder)  # noqa: PTH100
        HydraConfig.instance().set_config(job)
        resolved = OmegaConf.to_container(env_set, resolve=True)
    except Exception as error:
        raise HydraConfigError(
            f"hydra.job.env_set of job #{num} cannot be resolved: {error}"
        ) from error
    assert isinstance(resolved, dict)
    return {str(name): str(value) for name, value in resolved.items()}


def _check_folder(job: DictConfig, num: int, slots: int) -> None:
    if not _changes_folder(job) or folders_per_thread():
        return
    raise HydraConfigError(
        f"hydra.job.chdir is on for job #{num}, and {slots} jobs may run at once, but this system "
        "keeps one working folder for all threads (only Linux has one for each, and containers "
        "may forbid it). Set hydra.job.chdir=false and write to hydra.runtime.output_dir, or use "
        "one slot (hydra.launcher.devices=cpu)"
    )


def _changes_folder(job: DictConfig) -> bool:
    chdir = job.hydra.job.chdir
    if chdir is None:  # up to Hydra 1.3 an old version_base makes it true
        try:
            from hydra import version

            return not version.base_at_least("1.2")
        except (ImportError, AttributeError):  # Hydra 1.4 has no version_base
            return False
    return bool(chdir)
