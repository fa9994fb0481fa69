"""The config of one job: composed, numbered, with the device of its slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, ValidationError, read_write

from hydra_plugins.hydra_junky_launcher._compose import JobComposer
from hydra_plugins.hydra_junky_launcher._errors import HydraConfigError

__all__ = ["JobPayload", "compose_job", "number_job", "set_device"]


class JobPayload:
    """A job's overrides and, until its first attempt takes it, its composed config.

    The config was composed to find the job's identity. It takes about 80 KB and a
    job may change it, so only the first attempt gets it.
    """

    __slots__ = ("_config", "overrides")

    def __init__(self, overrides: Sequence[str], config: DictConfig | None = None) -> None:
        self.overrides = list(overrides)
        self._config = config

    def take_config(self) -> DictConfig | None:
        """Return the config, once; ``None`` after that."""
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

    A key that holds a list, such as Lightning's ``devices``, gets a list of one: the
    GPU's index (``[1]``) if it holds numbers, otherwise the device. A list of numbers
    is left as it is for the CPU.

    Raises:
        ConfigError: The config has no such key, or one of a type that a device does not fit.
    """
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if not OmegaConf.is_dict(node) or last not in list(node):  # a list: '???' counts as there
        raise HydraConfigError(
            f"hydra.launcher.device_key={key}: the config of job #{num} has no such key. It must "
            "name the key that takes the device, for example trainer.device"
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
            f"hydra.launcher.device_key={key}: the config's schema does not accept {value!r}"
        ) from error
