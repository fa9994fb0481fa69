"""The content of values of foreign types, as simpler values; used by ``identity``."""

from __future__ import annotations

import array
import ctypes
import functools
import hashlib
import re
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["children", "data", "found_by_name", "state_of"]

_LARGE = 1 << 24  # bytes; larger content is hashed in pieces, without copying all of it


def found_by_name(value: Any) -> bytes | None:
    """Return ``module:name`` if a class or function can be imported by it, else ``None``."""
    module = getattr(value, "__module__", None)
    # The qualified name of torch.relu is _VariableFunctionsClass.relu: try its bare name, too.
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
    """Return the parts of ``value``, ``None`` if its type is unknown."""
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
        # Neither file nor line: an edit above a lambda does not change it.
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
        except ValueError:  # not bound yet
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


def state_of(value: Any) -> Iterable[Any] | None:
    """Return the state of an object that is compared by value, ``None`` for other objects.

    Objects compared by value are torch modules, and those whose class defines
    ``__eq__`` (``argparse.Namespace``, attrs, pydantic).
    """
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "nn") and isinstance(value, torch.nn.Module):
        # Without the hooks and flags that torch keeps there: they depend on its version.
        held = dict(vars(value))
        base = vars(torch.nn.Module()).keys()
        state = {name: item for name, item in held.items() if name not in base}
        for name in ("_parameters", "_buffers", "_modules"):
            state[name] = dict(held.get(name) or {})
        return [state, held.get("training")]
    kind: Any = type(value)
    if kind.__eq__ is object.__eq__:
        return None
    names = [name for cls in kind.__mro__ for name in _slots(cls) if hasattr(value, name)]
    slots = {name: getattr(value, name) for name in names}
    own = dict(getattr(value, "__dict__", None) or {})
    # An object with neither has no visible state: a tensor without storage, for example.
    return [own, slots] if own or slots else None


def _slots(cls: type) -> list[str]:
    names = vars(cls).get("__slots__", ())
    return [name for name in ([names] if isinstance(names, str) else names) if name[:2] != "__"]


def data(value: Any) -> Iterable[Any] | None:
    """Return the content of NumPy, torch or OmegaConf data, ``None`` for anything else.

    None of them is imported here: a library that is not imported has created no values.
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
    whole = np.asarray(value)
    if whole.dtype.hasobject:
        return [repr(whole.dtype), whole.shape, whole.tolist()]

    def raw(content: Any) -> bytes:
        content = np.array(content, subok=False)  # a copy
        if content.dtype.kind in "fc":
            content[np.isnan(content)] = np.nan  # a NaN has many bit patterns
        return bytes(content.tobytes())

    flat = whole.reshape(-1) if whole.flags.c_contiguous else whole.flat
    found = raw(whole) if whole.nbytes <= _LARGE else _hashed(flat, whole.size, whole.itemsize, raw)
    return [repr(whole.dtype), whole.shape, found]


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
    except (NotImplementedError, RuntimeError, TypeError):  # no accessible content: meta, nested
        return None
    return [str(value.dtype), tuple(value.shape), str(value.layout), raw]


def _tensor_bytes(torch: Any, tensor: Any) -> bytes:
    if tensor.is_meta or tensor.is_quantized:
        raise TypeError
    content = tensor.detach()
    content = content.to_dense() if content.layout != torch.strided else content

    def raw(content: Any) -> bytes:
        content = content.cpu().resolve_conj().resolve_neg()
        if content.dtype.itemsize > 1 and (content.is_floating_point() or content.is_complex()):
            content = torch.where(torch.isnan(content), torch.nan, content)  # many bit patterns
        content = content.contiguous()
        # Tensor.numpy() does not support bfloat16, and torch may be installed without NumPy.
        return ctypes.string_at(content.data_ptr(), content.numel() * content.element_size())

    if content.numel() * content.element_size() <= _LARGE:
        return raw(content)
    return _hashed(content.reshape(-1), content.numel(), content.element_size(), raw)


def _hashed(flat: Any, size: int, itemsize: int, raw: Callable[[Any], bytes]) -> bytes:
    """Return a hash of large content, read in pieces."""
    sha = hashlib.sha256()
    step = max(1, _LARGE // itemsize)
    for start in range(0, size, step):
        sha.update(raw(flat[start : start + step]))
    return sha.digest()


def _omegaconf_parts(value: Any) -> Iterable[Any] | None:
    omegaconf = sys.modules.get("omegaconf")
    if omegaconf is None or not isinstance(value, omegaconf.Container):
        return None
    try:
        return [omegaconf.OmegaConf.to_container(value, resolve=True)]
    except omegaconf.errors.OmegaConfBaseException:  # an interpolation that does not resolve
        return [omegaconf.OmegaConf.to_container(value, resolve=False)]
