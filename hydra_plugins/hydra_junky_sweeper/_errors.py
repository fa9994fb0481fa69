"""Errors of this project that Hydra prints as one message, without a traceback."""

from __future__ import annotations

from hydra.errors import CompactHydraException

from junky_core.errors import ConfigError, FitParamsError, SweepFailed

__all__ = ["HydraConfigError", "HydraFitParamsError", "HydraSweepFailed"]


class HydraConfigError(ConfigError, CompactHydraException):
    """A key of ``hydra.sweeper``, or an override, cannot be used."""


class HydraFitParamsError(FitParamsError, CompactHydraException):
    """``hydra.sweeper.fit_params`` does not follow the grammar, or no override can carry it."""


class HydraSweepFailed(SweepFailed, CompactHydraException):
    """Jobs of a sweep failed for good; ``failed`` holds one record for each."""
