"""What runs in place of a drawing operator in a job's thread.

A generator that the caller gave is used, unless it is the process's default one, which
``torch.utils.data.random_split`` passes on. A job that has not seeded draws from the default one.

To *lend* is to put the job's state into torch's default generators, call, and take it
out again, under a lock. This is done for operators that leave no other
way, and when Python code observes the call (a ``TorchDispatchMode``, a tensor subclass,
tracing). Such code sees the original call, and torch excludes our key from the calls that
it makes.
"""

# ruff: noqa: SLF001  # torch has no public way into its dispatcher's keys

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import _C

from junky_core.job.fork_locks import free_in_children
from junky_core.job.seeding._current import KEY, current_streams, hidden_streams

if TYPE_CHECKING:
    from junky_core.job.seeding._streams import JobStreams

__all__ = [
    "at_lending",
    "generator_position",
    "given_kernel",
    "hold_default_generators",
    "lent_kernel",
    "passed_kernel",
    "release_default_generators",
]

# Module globals, because they are looked up for each draw.
_exclude: Any = _C._dispatch_tls_set_dispatch_key_excluded
_get_streams: Any = _C._get_obj_in_tls
_mode_count: Any = _C._len_torch_dispatch_stack
_tracing_state: Any = _C._get_tracing_state
_Tensor = torch.Tensor
_default: torch.Generator = torch.default_generator

# Guards the states of torch's default generators while lent.
_lend_lock = free_in_children(threading.RLock())
_at_lending: list[Callable[[], None]] = []


def at_lending(call: Callable[[], None]) -> None:
    """Have ``call`` called each time before a state is lent."""
    _at_lending.append(call)


def hold_default_generators() -> None:
    """Wait until no job draws from the process-wide generators, and keep jobs from it."""
    _lend_lock.acquire()


def release_default_generators() -> None:
    """Let jobs draw from them again."""
    _lend_lock.release()


def _address(generator: Any) -> int:
    """Return what identifies a generator: torch may make a new wrapper for each call."""
    address: int = generator._cdata
    return address


_default_address = _address(_default)


def generator_position(schema: Any) -> int | None:
    """Return at which place a schema takes a generator, ``None`` if it takes none."""
    for at, argument in enumerate(schema.arguments):
        if "Generator" in str(argument.type):
            return at
    return None


def given_kernel(operator: Any, key: Any) -> Callable[..., Any]:
    """Return a kernel for ``key`` that hands the job's generator to ``operator``."""
    schema = operator._schema
    position = generator_position(schema)
    assert position is not None
    keyword = schema.arguments[position].name
    call = operator._op  # without the Python layer of OpOverload.__call__: half the price

    def kernel(*args: Any, **kwargs: Any) -> Any:
        _exclude(key, True)
        try:
            streams = current_streams()
            if streams is None:
                return call(*args, **kwargs)
            tensor = _first_tensor(args, kwargs)
            given = args[position] if len(args) > position else kwargs.get(keyword)
            chosen = _generator_for(streams, tensor, given)
            if chosen is None or _address(chosen) == _default_address:
                with _lend_lock:  # not while a job's state is in the default generator
                    return call(*args, **kwargs)
            if chosen is given:
                return call(*args, **kwargs)
            if _python_looks_on(args, kwargs):
                with _lent(streams, tensor):
                    return call(*args, **kwargs)
            if len(args) > position:
                args = (*args[:position], chosen, *args[position + 1 :])
            else:
                kwargs[keyword] = chosen
            return call(*args, **kwargs)
        finally:
            _exclude(key, False)

    name = schema.name.split("::")[1]
    method = getattr(torch.Tensor, name, None) if name.endswith("_") else None
    return kernel if method is None else _fast(method, key, kernel)


def _fast(method: Any, key: Any, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``kernel`` with a short way for what all dropouts and initialisations come down to.

    That is: an in-place draw without a generator on a plain CPU tensor. Tensor methods parse
    their arguments twice as fast as operators do, and here each microsecond shows.
    """

    def fast_kernel(tensor: Any, *args: Any, **kwargs: Any) -> Any:
        if (
            kwargs
            or type(tensor) is not _Tensor
            or not tensor.is_cpu
            or _mode_count()
            or _tracing_state() is not None
        ):
            return kernel(tensor, *args, **kwargs)
        streams = _get_streams(KEY)
        generator = None if streams is None else streams.cpu
        _exclude(key, True)
        try:
            if generator is not None:
                return method(tensor, *args, generator=generator)
            with _lend_lock:
                return method(tensor, *args)
        finally:
            _exclude(key, False)

    return fast_kernel


def lent_kernel(operator: Any, key: Any) -> Callable[..., Any]:
    """Return a kernel for ``key`` that calls ``operator`` with the job's state lent."""
    call = operator._op

    def kernel(*args: Any, **kwargs: Any) -> Any:
        _exclude(key, True)
        try:
            streams = current_streams()
            if streams is None:
                return call(*args, **kwargs)
            with _lent(streams, _first_tensor(args, kwargs)):
                return call(*args, **kwargs)
        finally:
            _exclude(key, False)

    return kernel


def passed_kernel(operator: Any, key: Any) -> Callable[..., Any]:
    """Return a kernel for ``key`` and an ``operator`` that draws through other operators here.

    Its own CPU kernel does; on CUDA it may draw by itself (``native_dropout``), so there the
    state is lent.
    """
    lent = lent_kernel(operator, key)
    after_key = _C._dispatch_keyset_full_after(key)
    redispatch = operator.redispatch
    has_cuda_kernel = _C._dispatch_has_kernel_for_dispatch_key(operator.name(), "CUDA")

    def kernel(keyset: Any, *args: Any, **kwargs: Any) -> Any:
        tensor = _first_tensor(args, kwargs)
        on_cuda = has_cuda_kernel and tensor is not None and tensor.is_cuda
        if on_cuda or _python_looks_on(args, kwargs):
            return lent(*args, **kwargs)
        # Our key stays in the thread's set, so that the calls below find our kernels.
        return redispatch(keyset & after_key, *args, **kwargs)

    return kernel


def _generator_for(
    streams: JobStreams, tensor: torch.Tensor | None, given: torch.Generator | None
) -> torch.Generator | None:
    """Return the generator to draw with: the job's if it has one, or ``given``."""
    if given is None:
        if tensor is None:
            return None
        if tensor.is_cpu:
            return streams.cpu
        if tensor.is_cuda and not torch.cuda.is_current_stream_capturing():
            return streams.cuda(tensor.get_device())
        return None  # other backends: theirs alone; a CUDA graph: it knows the default one only
    own = None
    if _address(given) == _default_address:
        own = streams.cpu
    elif given.device.type == "cuda" and any(
        _address(given) == _address(default) for default in torch.cuda.default_generators
    ):
        own = streams.cuda(given.device.index)
    return given if own is None else own


@contextlib.contextmanager
def _lent(streams: JobStreams, tensor: torch.Tensor | None) -> Iterator[None]:
    """Put the job's state into torch's default generators, and take it out again.

    During that time the thread has no streams: a dispatch mode that is called below repeats the
    call, which must then draw from the default generator.
    """
    for call in _at_lending:
        call()
    with _lend_lock, hidden_streams(), contextlib.ExitStack() as stack:
        stack.enter_context(_lent_state(streams.cpu, _default))
        if torch.cuda.is_initialized() and not torch.cuda.is_current_stream_capturing():
            on_cuda = tensor is not None and tensor.is_cuda
            # Which device a factory will draw on is not known here: the current one, most likely.
            index = tensor.get_device() if on_cuda else torch.cuda.current_device()  # type: ignore[union-attr]
            stack.enter_context(
                _lent_state(streams.cuda(index), torch.cuda.default_generators[index])
            )
        yield


@contextlib.contextmanager
def _lent_state(lender: torch.Generator | None, borrower: torch.Generator) -> Iterator[None]:
    if lender is None:  # the job draws from the process-wide stream
        yield
        return
    # A CUDA generator's numbers are fixed when a kernel is launched, not when it runs: its state
    # (seed and offset, kept on the host) can be taken out again at once.
    own = borrower.get_state()
    borrower.set_state(lender.get_state())
    try:
        yield
    finally:
        lender.set_state(borrower.get_state())
        borrower.set_state(own)


def _python_looks_on(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if _mode_count() or _tracing_state() is not None:
        return True
    return any(
        isinstance(value, torch.Tensor)
        and type(value) is not _Tensor
        and _C._dispatch_keys(value).has(_C.DispatchKey.Python)
        for value in (*args, *kwargs.values())
    )


def _first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            return value
    return None
