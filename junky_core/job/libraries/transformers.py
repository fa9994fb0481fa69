"""Models of Hugging Face's ``transformers``, built by several jobs at the same time.

``from_pretrained`` and ``from_config`` change the whole process while they build a
model, and put it back: torch's default dtype, ``PreTrainedModel.tie_weights``,
``torch.linspace``, the functions of ``torch.nn.init``. Two jobs at a time restore
each other's changes: models stay untied and the default dtype stays bfloat16, silently
and for good. While a sweep runs on several slots, each thread has its own version of
the first two, and jobs take turns at the others (:mod:`junky_core.job.turns`).

This holds for transformers 5. If a version differs, nothing is replaced, and the sweep
warns.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from junky_core.job.libraries.imports import when_imported
from junky_core.job.patches import replaced, shared
from junky_core.job.turns import in_turn, turn

__all__ = ["builds_apart"]

MODULE = "transformers.modeling_utils"
UNKNOWN = (
    "transformers {version} is not known to hydra-junky: from_pretrained changes the whole "
    "process while it loads, and models that jobs build at the same time may come out wrong. "
    "Run one job at a time (one slot in `devices`), or use transformers 5"
)


class _Local(threading.local):
    untied = 0  # how many blocks without tying the thread is in


_local = _Local()


@contextlib.contextmanager
def builds_apart(warn: Callable[[str], None]) -> Iterator[None]:
    """Let jobs build and load models at the same time inside the ``with`` block.

    Process-wide while it lasts; several blocks may overlap.

    Args:
        warn: Called with a message if the installed version is unknown.
    """

    def check(module: ModuleType) -> None:
        if not _is_known(module):
            version = getattr(sys.modules["transformers"], "__version__", "of this kind")
            warn(UNKNOWN.format(version=version))

    with _patched(), when_imported(MODULE, check):
        yield


@shared
@contextlib.contextmanager
def _patched() -> Iterator[None]:
    def patch(modeling: ModuleType) -> None:
        if _is_known(modeling):
            for owner, name, wrap in _patches(modeling):
                stack.enter_context(replaced(owner, name, wrap(vars(owner)[name])))

    with contextlib.ExitStack() as stack, when_imported(MODULE, patch):
        yield


def _is_known(modeling: ModuleType) -> bool:
    return all(name in getattr(owner, "__dict__", ()) for owner, name, _ in _patches(modeling))


def _patches(modeling: ModuleType) -> list[tuple[Any, str, Callable[[Any], Any]]]:
    """Return what is wrapped: its owner, its name, and what makes the wrapper."""
    model = getattr(modeling, "PreTrainedModel", None)
    initialization = getattr(modeling, "init", None)
    return [
        (modeling, "local_torch_dtype", lambda plain: functools.partial(_local_dtype, plain)),
        (initialization, "no_tie_weights", lambda _plain: _no_tie_weights),
        (initialization, "meta_device_safe_creation_ops", _block_in_turn),
        (model, "initialize_weights", in_turn),
        (model, "tie_weights", _unless_untied),
    ]


def _block_in_turn(plain: Callable[[], Any]) -> Callable[[], Any]:
    @contextlib.contextmanager
    def block() -> Iterator[None]:
        with turn(), plain():
            yield

    return block


def _unless_untied(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def tie_weights(self: Any, *args: Any, **kwargs: Any) -> Any:
        return None if _local.untied else plain(self, *args, **kwargs)

    return tie_weights


@contextlib.contextmanager
def _no_tie_weights() -> Iterator[None]:
    _local.untied += 1
    try:
        yield
    finally:
        _local.untied -= 1


@contextlib.contextmanager
def _local_dtype(plain: Any, dtype: torch.dtype, model_class_name: str | None = None) -> Any:
    if dtype == torch.get_default_dtype():
        yield
    elif not dtype.is_floating_point:
        with plain(dtype, model_class_name):  # raises its own error
            yield
    else:
        with _DefaultDtype(dtype):
            yield


def _functions(names: str) -> frozenset[Any]:
    return frozenset(getattr(torch, name) for name in names.split() if hasattr(torch, name))


class _DefaultDtype(TorchFunctionMode):
    """Sets the default dtype of one thread; ``torch.set_default_dtype`` sets that of all.

    The legacy constructor ``torch.Tensor(...)`` cannot be reached this way: it
    gives the process's default dtype.
    """

    # Their results have the default dtype unless they are given one.
    FLOATS = _functions(
        "empty empty_permuted zeros ones rand randn eye linspace logspace normal "
        "bartlett_window blackman_window hamming_window hann_window kaiser_window"
    )
    # The same, if they are made from Python's floats.
    BY_VALUE = _functions("arange as_tensor asarray full range scalar_tensor tensor")
    # Their name or their arguments say which dtype is wanted.
    CONVERSIONS = frozenset(
        {torch.Tensor.float, torch.Tensor.to, torch.Tensor.type, torch.Tensor.type_as}
    )

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [*args, *kwargs.values()]
        if any(isinstance(value, torch.dtype) for value in given) or func in self.CONVERSIONS:
            return func(*args, **kwargs)
        tensors = [value for value in given if isinstance(value, torch.Tensor)]
        if func in self.FLOATS and not tensors:
            return func(*args, **{**kwargs, "dtype": self.dtype})
        made = func(*args, **kwargs)
        if getattr(made, "dtype", None) != torch.get_default_dtype():
            return made
        if func in self.BY_VALUE:
            arrays = any(hasattr(value, "dtype") for value in given)
            return made if arrays else func(*args, **{**kwargs, "dtype": self.dtype})
        if tensors and not any(tensor.is_floating_point() for tensor in tensors):
            # torch converts integers to the default dtype for this operation.
            return func(*(self._as_number(value) for value in args), **kwargs)
        return made

    def _as_number(self, value: Any) -> Any:
        is_whole = isinstance(value, torch.Tensor) and value.dtype != torch.bool
        return value.to(self.dtype) if is_whole else value
