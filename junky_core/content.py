"""What makes up a value, as simpler values: the part of identity that knows foreign types."""

from __future__ import annotations

import array
import ctypes
import functools
import re
import sys
import types
from collections.abc import Iterable
from typing import Any

__all__ = ["children", "data", "found_by_name"]


def found_by_name(value: Any) -> bytes | None:
    """Return ``module:name`` if that leads to this class or function, nothing else."""
    module = getattr(value, "__module__", None)
    # torch.relu says that it is torch._VariableFunctionsClass.relu: try its bare name, too.
    for name in (getattr(value, "__qualname__", None), getattr(value, "__name__", None)):
        if not isinstance(module, str) or not isinstance(name, str):
            return None
        found: Any = sys.modules.get(module)
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is value:
            return f"{module}:{name}".encode("utf-8", "surrogatepass")
    return None


def children(value: Any) -> Iterable[Any] | None:
    """Return what makes up ``value``, ``None`` if that is not known."""
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, types.BuiltinMethodType) and not isinstance(
        value.__self__, (types.ModuleType, type(None))
    ):
        return [value.__name__, value.__self__]
    if isinstance(value, types.FunctionType) and found_by_name(value) is None:
        return [
            value.__module__,
            value.__code__,
            value.__closure__,
            value.__defaults__,
            value.__kwdefaults__,
        ]
    if isinstance(value, types.CodeType):
        # Neither file nor line: an edit above a lambda does not make it another one.
        return [
            value.co_code,
            value.co_consts,
            value.co_names,
            value.co_varnames,
            value.co_freevars,
            value.co_cellvars,
            (value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount),
            value.co_flags,
            getattr(value, "co_exceptiontable", b""),
        ]
    if isinstance(value, types.CellType):
        try:
            return [value.cell_contents]
        except ValueError:  # not filled yet
            return []
    if isinstance(value, re.Pattern):
        return [value.pattern, value.flags]
    if isinstance(value, slice):
        return [value.start, value.stop, value.step]
    if isinstance(value, types.GenericAlias):
        return [value.__origin__, value.__args__]
    if isinstance(value, array.array):
        return [value.typecode, value.tobytes()]
    return None


def data(value: Any) -> Iterable[Any] | None:
    """Return what tells NumPy, torch or OmegaConf data apart, ``None`` for anything else.

    None of them is imported: what is not imported cannot have made a value.
    """
    for read in (_numpy_parts, _torch_parts, _omegaconf_parts):
        found = read(value)
        if found is not None:
            return found
    return None


def _numpy_parts(value: Any) -> Iterable[Any] | None:
    np = sys.modules.get("numpy")
    if np is None:
        return None
    if isinstance(value, np.dtype):
        return [repr(value)]
    if not isinstance(value, (np.ndarray, np.generic)):
        return None
    if isinstance(value, np.ma.MaskedArray):
        return [np.ma.getdata(value), np.ma.getmaskarray(value)]
    content = np.array(value, subok=False)  # a copy
    if content.dtype.hasobject:
        return [repr(content.dtype), content.shape, content.tolist()]
    if content.dtype.kind in "fc":
        content[np.isnan(content)] = np.nan  # a NaN has many bit patterns
    return [repr(content.dtype), content.shape, content.tobytes()]


def _torch_parts(value: Any) -> Iterable[Any] | None:
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "Tensor"):  # torch is being imported
        return None
    if isinstance(value, (torch.dtype, torch.device, torch.layout, torch.memory_format)):
        return [str(value)]
    if not isinstance(value, torch.Tensor):
        return None
    try:
        raw = _tensor_bytes(torch, value)
    except (NotImplementedError, RuntimeError, TypeError):  # no content to be had: meta, nested
        return None
    return [str(value.dtype), tuple(value.shape), str(value.layout), raw]


def _tensor_bytes(torch: Any, tensor: Any) -> bytes:
    if tensor.is_meta or tensor.is_quantized:
        raise TypeError
    content = tensor.detach()
    content = content.to_dense() if content.layout != torch.strided else content
    content = content.cpu().resolve_conj().resolve_neg()
    if content.dtype.itemsize > 1 and (content.is_floating_point() or content.is_complex()):
        content = torch.where(torch.isnan(content), torch.nan, content)  # NaN: many bit patterns
    content = content.contiguous()
    # Tensor.numpy() knows no bfloat16, and torch may be there without NumPy.
    return ctypes.string_at(content.data_ptr(), content.numel() * content.element_size())


def _omegaconf_parts(value: Any) -> Iterable[Any] | None:
    omegaconf = sys.modules.get("omegaconf")
    if omegaconf is None or not isinstance(value, omegaconf.Container):
        return None
    try:
        return [omegaconf.OmegaConf.to_container(value, resolve=True)]
    except omegaconf.errors.OmegaConfBaseException:  # an interpolation that leads nowhere
        return [omegaconf.OmegaConf.to_container(value, resolve=False)]
