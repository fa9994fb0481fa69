"""Errors of this project that Hydra prints as one message, without a traceback."""

from __future__ import annotations

from hydra.errors import CompactHydraException

from junky_core.errors import (
    BestModelError,
    ConfigError,
    DeviceError,
    IsolationError,
    JournalError,
    JunkyError,
    ResumeError,
    SweepFailed,
    SweepFolderError,
)

__all__ = [
    "HydraBestModelError",
    "HydraConfigError",
    "HydraDeviceError",
    "HydraIsolationError",
    "HydraJournalError",
    "HydraResumeError",
    "HydraSweepFailed",
    "HydraSweepFolderError",
    "hydra_error",
]


class HydraBestModelError(BestModelError, CompactHydraException):
    """The sweep is over, and its best model is not on disk."""


class HydraConfigError(ConfigError, CompactHydraException):
    """A key of ``hydra.launcher``, or of a job's ``hydra.job``, cannot be used."""


class HydraDeviceError(DeviceError, CompactHydraException):
    """``hydra.launcher.devices`` is unknown, absent or malformed."""


class HydraIsolationError(IsolationError, CompactHydraException):
    """Jobs cannot be kept apart with the Hydra or Python that is installed."""


class HydraJournalError(JournalError, CompactHydraException):
    """The sweep's journal is damaged; the message names the line."""


class HydraResumeError(ResumeError, CompactHydraException):
    """A sweep cannot be resumed from its folder."""


class HydraSweepFolderError(SweepFolderError, CompactHydraException):
    """The sweep's folder is in use, holds a sweep, or cannot be written."""


class HydraSweepFailed(SweepFailed, CompactHydraException):
    """The sweep was stopped before its jobs were done; the message says why."""


def hydra_error(error: JunkyError) -> Exception:
    """Return ``error`` as one that Hydra prints without a traceback, if it can be."""
    for plain, compact in (
        (SweepFolderError, HydraSweepFolderError),
        (ResumeError, HydraResumeError),
        (JournalError, HydraJournalError),
        (ConfigError, HydraConfigError),
    ):
        if isinstance(error, plain):
            return compact(getattr(error, "strerror", None) or str(error))  # no "[Errno 11]"
    if isinstance(error, SweepFailed):
        return HydraSweepFailed(str(error), error.failed)
    return error
