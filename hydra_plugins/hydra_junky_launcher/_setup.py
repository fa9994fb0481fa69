"""From the keys of ``hydra.launcher`` to a sweep that can be launched; every check is here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hydra_plugins.hydra_junky_launcher._core import (
    HydraSweep,
    HydraSweepSpec,
    read_devices,
    read_direction,
)
from hydra_plugins.hydra_junky_launcher._errors import HydraConfigError
from hydra_plugins.hydra_junky_launcher.junky_launcher import JunkyLauncherConf
from junky_core.errors import ConfigError
from junky_core.sweep import SweepSettings

if TYPE_CHECKING:
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig

__all__ = ["make_sweep"]

# Keys that the engine takes as they are.
_ENGINE_KEYS = (
    "max_retries",
    "seed",
    "threads_per_slot",
    "fail_fast",
    "job_timeout_s",
    "sweep_timeout_s",
)


def make_sweep(
    options: Mapping[str, Any],
    hydra_context: HydraContext,
    task_function: TaskFunction,
    config: DictConfig,
) -> HydraSweep:
    """Return the sweep that the launcher's settings describe; nothing is written or started.

    Args:
        options: The keys of ``hydra.launcher``; those left out have their defaults.
        hydra_context: Config loader and callbacks.
        task_function: The user's.
        config: The sweep's own composed config.

    Raises:
        DeviceError, ConfigError: A setting cannot be used; the message names it.
    """
    defaults = {
        field.name: field.default
        for field in dataclasses.fields(JunkyLauncherConf)
        if not field.name.startswith("_")
    }
    unknown = sorted(set(options) - set(defaults))
    if unknown:
        raise HydraConfigError(
            f"hydra.launcher has no key {', '.join(unknown)}; it has {', '.join(defaults)}"
        )
    given = {**defaults, "direction": "maximize", **options}
    slots = read_devices(given["devices"])
    try:
        settings = SweepSettings(
            direction=read_direction(given["direction"]),
            value_is_score=True,
            spec={
                "config_name": str(config.hydra.job.config_name),
                "overrides": [str(o) for o in config.hydra.overrides.task],
                "devices": [slot.device for slot in slots],
            },
            **{name: given[name] for name in _ENGINE_KEYS},
        )
    except HydraConfigError:
        raise
    except ConfigError as error:
        raise HydraConfigError(f"hydra.launcher: {error}") from error
    return HydraSweep(
        HydraSweepSpec(
            config=config,
            hydra_context=hydra_context,
            task_function=task_function,
            slots=slots,
            settings=settings,
            best_model_file_name=str(given["best_model_file_name"]),
            device_key=given["device_key"],
        )
    )
