"""The devices of ``hydra.launcher.devices``; needs torch, which ``_reading`` does not."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

from hydra_plugins.hydra_junky_launcher._errors import HydraDeviceError
from hydra_plugins.hydra_junky_launcher._reading import reading
from junky_core.devices import SlotSpec, parse_devices
from junky_core.errors import DeviceError

__all__ = ["read_devices"]


def read_devices(devices: Any) -> list[SlotSpec]:
    """Return the slots that ``hydra.launcher.devices`` asks for, in any form of it.

    Raises:
        DeviceError: It is unknown, absent or malformed; shows the forms.
    """
    if OmegaConf.is_config(devices):
        with reading("hydra.launcher.devices"):
            devices = OmegaConf.to_container(devices, resolve=True)
    try:
        return parse_devices(devices)
    except DeviceError as error:
        raise HydraDeviceError(f"hydra.launcher.devices: {error}") from error
