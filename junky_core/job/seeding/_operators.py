"""torch's drawing operators, redirected to the streams of the calling thread.

Every operator call goes through torch's dispatcher, no matter where it comes from: Python,
C++ below an LSTM, autograd, TorchScript. The dispatcher walks a set of keys, most of
which belong to a backend or a feature; each thread can add keys to its set. We
take a key that torch leaves to its own C++ tests, and give it a kernel for
operators that draw and a fall-through for all others. A fall-through is resolved
when the table is built, not when the operator is called: so a thread with the key
pays for draws only, and a thread without it for nothing. The kernels come when a job first
has its own stream: until then all operators fall through.

    x.uniform_()  in a job's thread
      -> our kernel: the same call, generator=<the job's>, our key left out
           -> autograd, CPU kernel, as usual

A ``TorchFunctionMode`` would see Python's calls only, and each of them: a step of a small
MLP takes 1.4 times as long under one that does nothing.

What is done depends on the operator (:func:`treatment`):

| Treatment | Operator | Kernel |
| --- | --- | --- |
| given | takes a generator and a tensor (``uniform_``, ``multinomial``) | hands in the job's |
| lent | draws by itself (fused attention on CUDA) | lends the job's state to the default one |
| passed | made of the above by its own kernel (``rand``, ``native_dropout``) | passes on |
| parts | made of the above, always (``dropout``, ``lstm``) | none |
| none | of no device that this torch is built for; draws nothing | none |
"""

# ruff: noqa: SLF001  # torch has no public way into its dispatcher's keys

from __future__ import annotations

import contextlib
import inspect
import os
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
import torch.library
from torch import _C

from junky_core.job.scopes import outside_scopes
from junky_core.job.seeding._current import entered, several_inside
from junky_core.job.seeding._kernels import (
    DISPATCH_KEY,
    DISPATCH_KEY_NAME,
    generator_position,
    given_kernel,
    hold_default_generators,
    lent_kernel,
    passed_kernel,
    release_default_generators,
)

__all__ = [
    "check",
    "drawing_operators",
    "intercepted",
    "register",
    "register_fallback",
    "treatment",
]

_include: Any = _C._dispatch_tls_set_dispatch_key_included
_is_included: Any = _C._dispatch_tls_is_dispatch_key_included

# Tagged as drawing and with a CPU kernel of their own, but that kernel draws through other
# operators (bernoulli_), or takes no dropout at all. To lend would be right too, and slower.
_CPU_DRAWS_THROUGH_OTHERS = frozenset(
    {"aten::native_dropout", "aten::_scaled_dot_product_flash_attention_for_cpu"}
)
_DRAWS_NOTHING = frozenset({"aten::_fused_sdp_choice"})  # it only says which kernel will do
_ALWAYS_TAKEN_APART = "CompositeImplicitAutograd"
_COMPOSITE = ("CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")

# Without it a kernel cannot pass a call on, but it can lend: right as well, and slower.
_IMPL_TAKES_KEYSET = "with_keyset" in inspect.signature(torch.library.Library.impl).parameters

# Names of operators that were looked at. To look at one writes to its memory: a forked worker
# looks at those alone that its server has not seen.
_draw_nothing: set[str] = set()

_register_lock = threading.Lock()  # guards _libraries
# By what they hold: the fall-through, or kernels. Kept for the life of the process: a thread that
# outlives a sweep still has the key in its set, and every operator it calls needs the
# fall-through. To a thread without the key it is nothing.
_libraries: dict[str, torch.library.Library] = {}


def _before_fork() -> None:
    """Have the child find neither torch's dispatcher half changed nor its default generators held.

    A generator is locked while it draws, and the child's copy of a locked one stays so: a
    DataLoader worker, which seeds it first of all, would wait for ever. Which job draws from it is
    known to our kernels only.
    """
    if several_inside():
        register()
    _register_lock.acquire()
    hold_default_generators()


def _after_fork_in_parent() -> None:
    release_default_generators()
    _register_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_register_lock.release,
    )


def drawing_operators() -> Iterator[Any]:
    """Yield each ``torch._ops.OpOverload`` that torch's dispatcher knows to draw numbers.

    That is: tagged ``torch.Tag.nondeterministic_seeded``, or with a generator among its
    arguments. Operators of other libraries are among them where they are tagged.
    """
    for full_name in _C._dispatch_get_all_op_names():
        if full_name in _draw_nothing:
            continue
        name, _, overload = full_name.partition(".")
        found = _C._get_operation_overload(name, overload)
        if found is None:  # without a schema, so it cannot be called
            continue
        if (
            torch.Tag.nondeterministic_seeded not in found[2]
            and generator_position(_C._get_schema(name, overload)) is None
        ):
            _draw_nothing.add(full_name)
            continue
        namespace, packet = name.split("::")
        operator = getattr(getattr(getattr(torch.ops, namespace), packet), overload or "default")
        if _C._dispatch_has_kernel(full_name):
            yield operator


def treatment(operator: Any) -> str:
    """Return how an operator of :func:`drawing_operators` is turned to a job's streams.

    Returns:
        One of the words in the table above.
    """
    name = operator.name()
    takes_generator = generator_position(operator._schema) is not None
    if takes_generator and any("Tensor" in str(a.type) for a in operator._schema.arguments):
        return "given"
    if _has_kernel(name, _ALWAYS_TAKEN_APART):
        return "parts"
    if any(_has_kernel(name, key) for key in _COMPOSITE):
        return "passed"
    if name in _DRAWS_NOTHING:
        return "none"
    has_cpu_kernel = _has_kernel(name, "CPU")
    if not torch.backends.cuda.is_built() and not has_cpu_kernel:
        return "none"
    return "passed" if name in _CPU_DRAWS_THROUGH_OTHERS else "lent"


def register() -> None:
    """Give torch's dispatcher our kernels, once for the process.

    May be called while other threads draw: an operator's kernel is in the dispatcher's table
    before the key leads there.
    """
    register_fallback()
    with _register_lock:
        if len(_libraries) > 1:
            return
        made: dict[str, torch.library.Library] = {}
        for operator in drawing_operators():
            how = treatment(operator)
            if how not in _KERNELS:
                continue
            namespace = operator.namespace
            if namespace not in made:
                made[namespace] = torch.library.Library(namespace, "IMPL", DISPATCH_KEY_NAME)
            if how == "passed" and _IMPL_TAKES_KEYSET:
                made[namespace].impl(operator, passed_kernel(operator), with_keyset=True)
            else:
                made[namespace].impl(operator, _KERNELS[how](operator))
        _libraries.update(made)


def register_fallback() -> None:
    """Let all operators fall through our key; once for the process."""
    if "_" in _libraries:
        return
    with _register_lock:
        if "_" not in _libraries:
            fallback = torch.library.Library("_", "IMPL", DISPATCH_KEY_NAME)
            fallback.m.fallback_fallthrough("")  # type: ignore[union-attr]
            _libraries["_"] = fallback
            _let_higher_order_operators_fall_through()


def _let_higher_order_operators_fall_through() -> None:
    """Hide our key from ``torch.cond``, flex attention and others that Python dispatches.

    They know no fall-backs. Those that torch imports later take it from the list.
    """
    keys = getattr(torch._ops, "_HIGHER_ORDER_OP_DEFAULT_FALLTHROUGH_DISPATCH_KEYS", None)
    if keys is not None:
        keys.append(DISPATCH_KEY)
    for operator in tuple(getattr(torch._ops, "_higher_order_ops", {}).values()):
        operator.fallthrough(DISPATCH_KEY)


def check() -> None:
    """Check that draws of a job's thread come from the job's stream.

    Raises:
        RuntimeError: They do not.
    """
    # Other threads may draw at the same time, so the process-wide state proves nothing.
    own, expected = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    streams: Any = SimpleNamespace(cpu=own, cuda=lambda _index: None)

    def draw() -> None:
        with intercepted(), entered(streams):
            torch.rand(2)
            torch.nn.functional.dropout(torch.ones(9), 0.5)
        torch.rand(2, generator=expected)
        torch.empty(9).bernoulli_(0.5, generator=expected)

    # In a new thread, because a job may be in any of torch's modes when it first seeds.
    thread = threading.Thread(target=draw, name="junky-seeding-check")
    with outside_scopes():
        thread.start()
    thread.join()
    untouched = torch.Generator().manual_seed(0).get_state()
    if torch.equal(own.get_state(), untouched) or not torch.equal(
        own.get_state(), expected.get_state()
    ):
        raise RuntimeError("draws of a job's thread do not come from the job's stream")


_KERNELS = {"given": given_kernel, "lent": lent_kernel, "passed": lent_kernel}


@contextlib.contextmanager
def intercepted() -> Iterator[None]:
    """Let draws of the calling thread reach our kernels, once there are any, in the block.

    The key must be there from a job's start: torch forgets one that was included inside
    ``torch.inference_mode()`` when that block ends.
    """
    register_fallback()
    before = _is_included(DISPATCH_KEY)
    _include(DISPATCH_KEY, True)
    try:
        yield
    finally:
        _include(DISPATCH_KEY, before)


def _has_kernel(name: str, key: str) -> bool:
    return bool(_C._dispatch_has_kernel_for_dispatch_key(name, key))
