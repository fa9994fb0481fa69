"""Errors of this project that Hydra prints as one message, without a traceback."""

from __future__ import annotations

from hydra.errors import CompactHydraException

from junky_core.errors import ConfigError, DeviceError, IsolationError

__all__ = ["HydraConfigError", "HydraDeviceError", "HydraIsolationError"]


class HydraConfigError(ConfigError, CompactHydraException):
    """A key of ``hydra.launcher``, or of a job's ``hydra.job``, cannot be used."""


class HydraDeviceError(DeviceError, CompactHydraException):
    """``hydra.launcher.devices`` is unknown, absent or malformed."""


class HydraIsolationError(IsolationError, CompactHydraException):
    """Jobs cannot be kept apart with the Hydra or Python that is installed."""
