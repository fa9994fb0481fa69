"""Hyper-parameter sweeps for PyTorch on device slots.

Names are loaded when they are first used: importing this package, as Hydra's
plugins do at the start of every Hydra app, does not import torch.

>>> import junky_core
>>> list(junky_core.expand_fit_params([("a", [50, 100]), ("b", [0.1])]))
[{'a': 50, 'b': 0.1}, {'a': 100, 'b': 0.1}]
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from junky_core.autotrain import torch_autotrain
    from junky_core.errors import BestModelError, JunkyError, SweepFailed, SweepInterrupted
    from junky_core.job.context import JobContext
    from junky_core.job.standalone import current_job
    from junky_core.logs.parser import parse_autotrain_log
    from junky_core.space.grammar import expand_fit_params
    from junky_core.views.results import AutotrainResult

__all__ = [
    "AutotrainResult",
    "BestModelError",
    "JobContext",
    "JunkyError",
    "SweepFailed",
    "SweepInterrupted",
    "current_job",
    "expand_fit_params",
    "parse_autotrain_log",
    "torch_autotrain",
]

__version__ = "0.1.0"

_HOMES = {
    "AutotrainResult": "views.results",
    "BestModelError": "errors",
    "JobContext": "job.context",
    "JunkyError": "errors",
    "SweepFailed": "errors",
    "SweepInterrupted": "errors",
    "current_job": "job.standalone",
    "expand_fit_params": "space.grammar",
    "parse_autotrain_log": "logs.parser",
    "torch_autotrain": "autotrain",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
