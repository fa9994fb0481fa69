"""A model's weights: copied for saving, and checked to be loadable again."""

from __future__ import annotations

import copy
import io
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch

from junky_core.errors import ModelError

__all__ = ["check_weights", "copy_weights", "state_of", "unwrapped", "weights_to_offer"]

# Modules that hold the model as `module` and put that before every name in the state dict.
_WRAPPERS = (
    torch.nn.DataParallel,
    torch.nn.parallel.DistributedDataParallel,
    torch.optim.swa_utils.AveragedModel,
)
_TENSORS = (torch.Tensor, torch.nn.Parameter)
_SCALARS = (int, float, bool, str, type(None))
_SHOWN = 200  # characters of an object's repr in a message


def unwrapped(model: Any) -> Any:
    """Return the model inside ``torch.compile``, ``DataParallel`` and the like.

    So the weights can be loaded into what ``make_model_method`` returns, even if
    training wrapped its model.

    >>> model = torch.nn.Linear(1, 1)
    >>> unwrapped(torch.nn.DataParallel(model)) is model
    True
    """
    while True:
        compiled = getattr(model, "_orig_mod", None)  # torch.compile's OptimizedModule
        if isinstance(compiled, torch.nn.Module):
            model = compiled
        elif isinstance(model, _WRAPPERS):
            model = model.module
        else:
            return model


def state_of(model: Any) -> Mapping[str, Any]:
    """Return the model's state dict; for a wrapper, that of the model inside.

    Args:
        model: A module, or anything with ``state_dict()``.

    Raises:
        ModelError: It has no ``state_dict()``, or that does not return a mapping.
    """
    if not callable(getattr(model, "state_dict", None)):
        raise ModelError(
            f"save_best needs a torch.nn.Module, it was given a {type(model).__name__}"
        )
    state = unwrapped(model).state_dict()
    if not isinstance(state, Mapping):
        raise ModelError(
            f"save_best: state_dict() of {type(model).__name__} must return a mapping of names to "
            f"tensors, it returned a {type(state).__name__}"
        )
    return state


def weights_to_offer(model: Any, *, leads: bool, check: bool) -> dict[str, Any] | None:
    """Return a copy of the weights of a model whose score leads, ``None`` for another.

    Args:
        model: A module, or anything with ``state_dict()``.
        leads: Whether its score leads.
        check: Check the model even if it does not.

    Raises:
        ModelError: It has no ``state_dict()``; or its weights, if it leads or ``check`` is
            true, could not be loaded again.
    """
    if not leads:
        if check or not callable(getattr(model, "state_dict", None)):
            check_weights(state_of(model), model)
        return None
    state = state_of(model)
    check_weights(state, model)
    return copy_weights(state, model)


def check_weights(state: Mapping[str, Any], model: Any) -> None:
    """Check that a saved ``state`` could be loaded with ``weights_only=True``.

    Ordinary tensors always can. Everything else is saved to memory and loaded again.

    Args:
        state: What :func:`state_of` returned.
        model: The model, for the message.

    Raises:
        ModelError: It could not be saved or loaded, or has no values; says which
            entry, why, and the remedy.
    """
    odd = {name: value for name, value in state.items() if not _is_plain(name, value)}
    metadata = getattr(state, "_metadata", None)
    if not odd and _has_plain_metadata(metadata):
        return
    for name, value in odd.items():
        if _has_meta(value):
            raise ModelError(
                f"save_best: {name!r} of {type(model).__name__} is on the meta device, or holds a "
                "tensor that is, and so has no values to save"
            )
        _round_trip(OrderedDict({name: value}), f"the entry {name!r} of the state dict", model)
    if metadata:
        _round_trip(metadata, "the metadata of the state dict", model)


def copy_weights(state: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """Return a copy of a state dict on the CPU; tied weights stay tied.

    Args:
        state: What :func:`state_of` returned.
        model: The model, for the message.

    Raises:
        ModelError: An entry other than a tensor cannot be copied.
    """
    copies: dict[Any, torch.Tensor] = {}
    result: OrderedDict[str, Any] = OrderedDict()
    for name, value in state.items():
        if isinstance(value, torch.Tensor):
            result[name] = _copied(value, copies)
            continue
        try:
            result[name] = copy.deepcopy(value)
        except Exception as error:
            raise _refusal(f"the entry {name!r} of the state dict", model, error) from error
    metadata = getattr(state, "_metadata", None)
    if metadata is not None:
        result._metadata = copy.copy(metadata)  # type: ignore[attr-defined]  # noqa: SLF001 - load_state_dict reads it
    return result


def _copied(value: torch.Tensor, copies: dict[Any, torch.Tensor]) -> torch.Tensor:
    if value.layout != torch.strided or value.is_quantized or value.is_nested:
        return value.detach().cpu().clone()
    if type(value) not in _TENSORS or value.numel() == 0:  # a subclass may have no storage
        return value.detach().to("cpu", copy=True)
    key = (
        value.untyped_storage().data_ptr(),
        value.storage_offset(),
        value.shape,
        value.stride(),
        value.dtype,
        value.is_conj(),  # a lazy view: its values differ from its base's
        value.is_neg(),
    )
    if key not in copies:
        # A copy keeps strides, and copies only what a view shows, not the whole storage.
        copies[key] = value.detach().to("cpu", copy=True)
    return copies[key]


def _is_plain(name: Any, value: Any) -> bool:
    """Return whether an entry needs no check: saving and loading an ordinary tensor works."""
    return (
        type(name) is str
        and type(value) in _TENSORS
        and value.layout == torch.strided
        and not (value.is_quantized or value.is_meta or value.is_nested)
    )


def _has_meta(value: Any) -> bool:
    """Return whether an entry holds a tensor without values. It may contain itself."""
    waiting, seen = [value], set()
    while waiting:
        one = waiting.pop()
        if isinstance(one, torch.Tensor) and one.is_meta:
            return True
        if id(one) not in seen and isinstance(one, (Mapping, list, tuple, set)):
            seen.add(id(one))
            waiting.extend(one.values() if isinstance(one, Mapping) else one)
    return False


def _has_plain_metadata(metadata: Any) -> bool:
    return not metadata or all(
        type(entry) is dict and all(type(value) in _SCALARS for value in entry.values())
        for entry in metadata.values()
    )


def _round_trip(part: Any, what: str, model: Any) -> None:
    file = io.BytesIO()
    try:
        torch.save(part, file)
        file.seek(0)
        torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _refusal(what, model, error) from error


def _refusal(what: str, model: Any, error: Exception) -> ModelError:
    reason = (str(error).strip().splitlines() or [""])[0][:_SHOWN]
    return ModelError(
        f"save_best: {what} of {type(model).__name__} could not be loaded again with "
        f"weights_only=True ({type(error).__name__}: {reason}), so it is not saved. Keep tensors, "
        "numbers, strings, lists and dicts in the state dict (see get_extra_state), or allow the "
        "class with torch.serialization.add_safe_globals"
    )
