"""``JobReturn``s that do not hold their configs.

Hydra keeps two configs for each job, some 80 KB. Ten thousand jobs would be
0.8 GB, and they are rarely read. Here they are composed again when they are
first read, as they were when the job started.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from hydra_plugins.hydra_junky_launcher._isolation import scratch_job

__all__ = ["CompactReturn", "ConfigRecipe", "outcome_of", "split_config", "taken_from_process"]

_Configs = tuple[DictConfig, DictConfig]


@dataclass(frozen=True, slots=True)
class ConfigRecipe:
    """How the configs of a job are composed again, as they were when it started.

    Attributes:
        overrides: The job's.
        num: Its number.
        device: The device of its slot.
        taken: See :func:`taken_from_process`.
    """

    overrides: Sequence[str]
    num: int
    device: str
    taken: Mapping[str, Any]


_CONFIGS = ("cfg", "hydra_cfg")

# Hydra 1.4 keeps the variables of a job as they were resolved for it, 1.3 as they are written.
_RESOLVES_ENV_SET = not hydra.__version__.startswith("1.3.")


# What Hydra took from the process when the job was composed; the process may have changed since.
_FROM_PROCESS = ("job.name", "runtime.version", "runtime.version_base", "runtime.cwd")


def outcome_of(ret: JobReturn) -> Any:
    """Return what a job returned, or the exception that ended it.

    ``ret.return_value`` raises that exception, after writing to stderr.
    """
    status, ret.status = ret.status, JobStatus.COMPLETED
    try:
        return ret.return_value
    finally:
        ret.status = status


def taken_from_process(hydra_config: Any) -> dict[str, Any]:
    """Return the values of a job's ``hydra`` node that composing it later may not reproduce."""
    keys = (*_FROM_PROCESS, "runtime.output_dir")
    return {key: OmegaConf.select(hydra_config, key) for key in keys}


def split_config(config: DictConfig, taken: Mapping[str, Any]) -> _Configs:
    """Return a job's config without its ``hydra`` node, and that node alone, as Hydra does.

    Args:
        config: The whole config of a job; it is changed.
        taken: Values to set under ``hydra``, by key; ``runtime.output_dir`` among them.
    """
    with read_write(config.hydra), open_dict(config.hydra):
        for key, value in taken.items():
            OmegaConf.update(config.hydra, key, value)
    with scratch_job():  # ${hydra:...} is that job's
        HydraConfig.instance().set_config(config)
        task = copy.deepcopy(config)
        with read_write(task), open_dict(task):
            del task["hydra"]
        hydra_config: Any = HydraConfig.instance().cfg
        if _RESOLVES_ENV_SET:
            env_set = hydra_config.hydra.job.env_set
            with read_write(env_set):
                OmegaConf.resolve(env_set)
        return task, copy.deepcopy(hydra_config)


class CompactReturn(JobReturn):
    """A ``JobReturn`` whose ``cfg`` and ``hydra_cfg`` are composed when they are first read."""

    def __init__(self, full: JobReturn, compose: Callable[[], _Configs]) -> None:
        self._compose = compose
        self._configs: _Configs | None = None
        kept = {name: value for name, value in vars(full).items() if name not in _CONFIGS}
        vars(self).update(kept)  # Hydra 1.4 has more fields, for errors

    def _config(self, which: int) -> DictConfig:
        if self._configs is None:
            self._configs = self._compose()
        return self._configs[which]

    @property
    def cfg(self) -> DictConfig:
        """The job's config."""
        return self._config(0)

    @cfg.setter
    def cfg(self, value: DictConfig | None) -> None:
        if value is not None:
            self._configs = (value, self._config(1))

    @property
    def hydra_cfg(self) -> DictConfig:
        """The job's ``hydra`` node, under its name."""
        return self._config(1)

    @hydra_cfg.setter
    def hydra_cfg(self, value: DictConfig | None) -> None:
        if value is not None:
            self._configs = (self._config(0), value)

    def __reduce__(self) -> tuple[Any, ...]:
        full = JobReturn(cfg=self.cfg, hydra_cfg=self.hydra_cfg)
        own = ("_compose", "_configs")
        vars(full).update({name: v for name, v in vars(self).items() if name not in own})
        state: Any = full.__reduce_ex__(2)
        return JobReturn, (), state[2]
