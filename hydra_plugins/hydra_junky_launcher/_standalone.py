"""What ``current_job()`` finds in a Hydra run that this launcher does not run.

``python train.py``, and jobs under another launcher. The package's entry point
``junky_core.standalone`` leads here, so that ``junky_core`` needs to know
nothing of Hydra.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from junky_core.errors import ConfigError

__all__ = ["run_settings"]


def run_settings() -> dict[str, Any] | None:
    """Return device, seed and best model's file of the current run, ``None`` outside any.

    If this launcher is chosen, they come from ``hydra.launcher``, so a single run
    uses the same as a sweep.
    """
    if "hydra.core.hydra_config" not in sys.modules:
        return None
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return None
    hydra_config: Any = HydraConfig.get()
    written: Any = OmegaConf.select(hydra_config, "runtime.output_dir")
    folder = Path(written or "")  # a config that was composed by hand has none
    settings: dict[str, Any] = {
        "key": str(folder),
        "num": OmegaConf.select(hydra_config, "job.num", default=None) or 0,
        "best_model_path": folder / "model.pt",
    }
    from hydra_plugins.hydra_junky_launcher._devices import read_devices
    from hydra_plugins.hydra_junky_launcher._direction import one_direction
    from hydra_plugins.hydra_junky_launcher._errors import hydra_error
    from hydra_plugins.hydra_junky_launcher._reading import check_values
    from junky_core.record.best_path import best_model_path

    launcher: Any = OmegaConf.select(hydra_config, "launcher", default={})
    ours = "JunkyLauncher" in str(launcher.get("_target_", ""))
    if ours:
        check_values(launcher, "hydra.launcher")
    settings["direction"] = one_direction(OmegaConf.select(hydra_config, "sweeper"), launcher)
    if ours:
        devices = launcher.devices
        if OmegaConf.is_config(devices):
            devices = OmegaConf.to_container(devices, resolve=True)
        read_devices(devices)  # raises errors that Hydra prints without a traceback
        try:
            path = best_model_path(launcher.best_model_file_name, folder)
        except ConfigError as error:
            raise hydra_error(error) from error
        settings |= {"devices": devices, "seed": launcher.seed, "best_model_path": path}
    return settings
