"""torch's drawing operators, turned to the streams of the calling thread.

Every operator call goes through torch's dispatcher, whoever makes it: Python,
C++ below an LSTM, autograd, TorchScript. The dispatcher walks a set of keys, most of
which belong to a backend or a feature; each thread can add keys to the set. We
take a key that torch leaves to its own C++ tests, and give it a kernel for each
operator that draws and a fall-through for all others. A fall-through is resolved
when the table is built, not when the operator is called: so a thread with the key
pays for draws only, and a thread without it for nothing.

    x.uniform_()  in a job's thread
      -> our kernel: the same call, generator=<the job's>, our key left out
           -> autograd, CPU kernel, as ever

What our kernel does depends on the operator:

| Operator | Kernel |
| --- | --- |
| takes a generator and a tensor (``uniform_``, ``multinomial``) | hands in the job's generator |
| takes none and is made of others (``rand``, ``dropout``, ``lstm``) | none: those others have one |
| takes none and draws by itself (fused attention on CUDA) | *lends* the state, see below |
| none of the last kind on the CPU (``native_dropout``) | none on the CPU |

To *lend* is to put the job's state into torch's default generators, call, and take it
out again, under a lock. It is also done where a call is being traced, for a
generator argument would become part of the trace.

A generator that the caller gave is kept, unless it is the process's default one,
which ``torch.utils.data.random_split`` hands on.
"""

# ruff: noqa: SLF001  # torch has no public way into its dispatcher's keys

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.library
from torch import _C

from junky_core.seeding._streams import DefaultGenerator, JobStreams, current_streams

__all__ = ["drawing_operators", "intercepted", "register", "treatment"]

_DISPATCH_KEY_NAME = "TESTING_ONLY_GenericMode"
_dispatch_key: Any = _C._dispatch_key_parse(_DISPATCH_KEY_NAME)
_exclude: Any = _C._dispatch_tls_set_dispatch_key_excluded
_include: Any = _C._dispatch_tls_set_dispatch_key_included
_is_included: Any = _C._dispatch_tls_is_dispatch_key_included
_mode_count: Any = _C._len_torch_dispatch_stack
_tracing_state: Any = _C._get_tracing_state
_default: torch.Generator = torch.default_generator
_PLAIN = (torch.Tensor, torch.nn.Parameter)

# Tagged as drawing and with a CPU kernel of their own, but that kernel draws through other
# operators (bernoulli_), or takes no dropout at all. To lend would be right too, and slower.
_CPU_DRAWS_THROUGH_OTHERS = frozenset(
    {"aten::native_dropout", "aten::_scaled_dot_product_flash_attention_for_cpu"}
)
_DRAWS_NOTHING = frozenset({"aten::_fused_sdp_choice"})  # it only says which kernel will do
_COMPOSITE_KEYS = (
    "CompositeImplicitAutograd",
    "CompositeExplicitAutograd",
    "CompositeExplicitAutogradNonFunctional",
)

_register_lock = threading.Lock()  # guards _libraries
# Kept for the life of the process: a thread that outlives a sweep still has the key in its set,
# and every operator it calls needs the fall-through. To a thread without the key it is nothing.
_libraries: list[torch.library.Library] = []
_lend_lock = threading.RLock()  # guards the states of torch's default generators while lent


def _renew_lend_lock() -> None:
    """In a forked child: whoever held the lock stayed behind."""
    global _lend_lock
    _lend_lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lend_lock)


def drawing_operators() -> Iterator[Any]:
    """Yield each ``torch._ops.OpOverload`` that torch's dispatcher knows to draw numbers.

    That is: tagged ``torch.Tag.nondeterministic_seeded``, or with a generator among its
    arguments. Operators of other libraries are among them where they are tagged.
    """
    for schema in _C._jit_get_all_schemas():
        found = _C._get_operation_overload(schema.name, schema.overload_name)
        tags = found[2] if found else ()
        if _generator_position(schema) is None and torch.Tag.nondeterministic_seeded not in tags:
            continue
        namespace, name = schema.name.split("::")
        packet = getattr(getattr(torch.ops, namespace), name)
        operator = getattr(packet, schema.overload_name or "default")
        if _C._dispatch_has_kernel(operator.name()):
            yield operator
        # else: TorchScript's own (``aten::_no_grad_normal_``), made of operators listed here


def treatment(operator: Any) -> str:
    """Return how an operator of :func:`drawing_operators` is turned to a job's streams.

    Returns:
        ``"given"``: it is handed the job's generator. ``"lent"``: it draws from torch's
        default generators, which hold the job's state meanwhile. ``"parts"``: it is made of
        operators that are treated themselves. ``"none"``: it runs on no device that this torch
        is built for, or draws nothing.
    """
    if _generator_position(operator._schema) is not None and _takes_tensor(operator._schema):
        return "given"
    name = operator.name()
    if any(_has_kernel(name, key) for key in _COMPOSITE_KEYS):
        return "parts"
    if name in _DRAWS_NOTHING:
        return "none"
    if torch.backends.cuda.is_built():
        return "lent"
    if not _has_kernel(name, "CPU"):
        return "none"
    return "parts" if name in _CPU_DRAWS_THROUGH_OTHERS else "lent"


def register() -> None:
    """Give torch's dispatcher our kernels, once for the process."""
    with _register_lock:
        if _libraries:
            return
        fallback = torch.library.Library("_", "IMPL", _DISPATCH_KEY_NAME)
        fallback.m.fallback_fallthrough("")  # type: ignore[union-attr]
        made = {"": fallback}
        for operator in drawing_operators():
            how = treatment(operator)
            if how not in ("given", "lent"):
                continue
            namespace = operator.namespace
            if namespace not in made:
                made[namespace] = torch.library.Library(namespace, "IMPL", _DISPATCH_KEY_NAME)
            if how == "given":
                made[namespace].impl(operator, _given_kernel(operator))
            else:
                made[namespace].impl(operator, _lent_kernel(operator), with_keyset=True)
        _libraries.extend(made.values())


@contextlib.contextmanager
def intercepted() -> Iterator[None]:
    """Let draws of the calling thread reach our kernels inside the ``with`` block."""
    register()
    before = _is_included(_dispatch_key)
    _include(_dispatch_key, True)
    try:
        yield
    finally:
        _include(_dispatch_key, before)


def _given_kernel(operator: Any) -> Callable[..., Any]:
    """Return a kernel that hands the job's generator to ``operator``."""
    schema = operator._schema
    position = _generator_position(schema)
    assert position is not None
    keyword = schema.arguments[position].name
    call = operator._op  # without the Python layer of OpOverload.__call__: half the price
    name = schema.name.split("::")[1]
    # Tensor methods parse their arguments three times as fast as the operator does.
    method = getattr(torch.Tensor, name, None) if name.endswith("_") else None

    def kernel(*args: Any, **kwargs: Any) -> Any:
        _exclude(_dispatch_key, True)
        try:
            streams = current_streams()
            if streams is None:
                return call(*args, **kwargs)
            tensor = args[0]
            if type(tensor) not in _PLAIN:
                tensor = _first_tensor(args, kwargs)
            given = args[position] if len(args) > position else kwargs.get(keyword)
            chosen = _generator_for(streams, tensor, given)
            if chosen is given:
                return call(*args, **kwargs)
            if _mode_count() or _tracing_state() is not None:
                with _lent(streams, tensor):
                    return call(*args, **kwargs)
            if len(args) > position:
                args = (*args[:position], chosen, *args[position + 1 :])
            else:
                kwargs[keyword] = chosen
            if method is not None and type(tensor) in _PLAIN:
                return method(*args, **kwargs)
            return call(*args, **kwargs)
        finally:
            _exclude(_dispatch_key, False)

    return kernel


def _lent_kernel(operator: Any) -> Callable[..., Any]:
    """Return a kernel that calls ``operator`` with the job's state in the default generators."""
    call = operator._op
    on_cpu_draws_through_others = operator.name() in _CPU_DRAWS_THROUGH_OTHERS

    def kernel(keyset: Any, *args: Any, **kwargs: Any) -> Any:
        tensor = _first_tensor(args, kwargs)
        if on_cpu_draws_through_others and tensor is not None and tensor.is_cpu:
            # Our key stays in the thread's set, so that the calls below find our kernels.
            below = keyset & _C._dispatch_keyset_full_after(_dispatch_key)
            return operator.redispatch(below, *args, **kwargs)
        _exclude(_dispatch_key, True)
        try:
            streams = current_streams()
            if streams is None:
                return call(*args, **kwargs)
            with _lent(streams, tensor):
                return call(*args, **kwargs)
        finally:
            _exclude(_dispatch_key, False)

    return kernel


def _generator_for(
    streams: JobStreams, tensor: torch.Tensor | None, given: torch.Generator | None
) -> torch.Generator | None:
    """Return the generator to draw with: the job's, or ``given`` where that is to stay."""
    if given is None:
        if tensor is None:
            return None
        if tensor.is_cpu:
            return streams.cpu
        if tensor.is_cuda and not torch.cuda.is_current_stream_capturing():
            return streams.cuda(tensor.get_device())
        return None  # other backends: theirs alone; a CUDA graph: it knows the default one only
    if given is _default or isinstance(given, DefaultGenerator):
        return streams.cpu
    if given.device.type == "cuda":
        index = given.device.index
        if index < len(torch.cuda.default_generators) and (
            given is torch.cuda.default_generators[index]
        ):
            return streams.cuda(index)
    return given


@contextlib.contextmanager
def _lent(streams: JobStreams, tensor: torch.Tensor | None) -> Iterator[None]:
    """Put the job's state into torch's default generators, and take it out again."""
    with _lend_lock, contextlib.ExitStack() as stack:
        stack.enter_context(_lent_state(streams.cpu, _default))
        if (
            tensor is not None
            and tensor.is_cuda
            and torch.cuda.is_initialized()
            and not torch.cuda.is_current_stream_capturing()
        ):
            index = tensor.get_device()
            stack.enter_context(
                _lent_state(streams.cuda(index), torch.cuda.default_generators[index])
            )
        yield


@contextlib.contextmanager
def _lent_state(lender: torch.Generator, borrower: torch.Generator) -> Iterator[None]:
    # A CUDA generator's numbers are fixed when a kernel is launched, not when it runs: its state
    # (seed and offset, kept on the host) can be taken out again at once.
    own = borrower.get_state()
    borrower.set_state(lender.get_state())
    try:
        yield
    finally:
        lender.set_state(borrower.get_state())
        borrower.set_state(own)


def _first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            return value
    return None


def _generator_position(schema: Any) -> int | None:
    for at, argument in enumerate(schema.arguments):
        if "Generator" in str(argument.type):
            return at
    return None


def _takes_tensor(schema: Any) -> bool:
    return any("Tensor" in str(argument.type) for argument in schema.arguments)


def _has_kernel(name: str, key: str) -> bool:
    return bool(_C._dispatch_has_kernel_for_dispatch_key(name, key))
