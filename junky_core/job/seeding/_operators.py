"""torch's drawing operators, redirected to the streams of the calling thread.

Every operator call goes through torch's dispatcher, no matter where it comes from: Python,
C++ below an LSTM, autograd, TorchScript. The dispatcher walks a set of keys, most of
which belong to a backend or a feature; each thread can add keys to its set. We
take two keys that torch leaves to its own C++ tests, and give them kernels for
operators that draw and a fall-through for all others. A fall-through is resolved
when the table is built, not when the operator is called: so a thread with a key
pays for draws only, and a thread without one for nothing.

| Key | In threads of jobs | Has kernels once a job |
| --- | --- | --- |
| ``OWN`` | with a torch stream of their own | has such a stream |
| ``SHARED`` | without | lends, or forks beside others: draws must wait for that |

In a few places a job that seeds itself cannot have ``OWN`` (:func:`use_own_key`). It then keeps
``SHARED``, which gets its kernels at that time.

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
import functools
import inspect
import os
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
import torch.library
from torch import _C

from junky_core.job.patches import replaced
from junky_core.job.scopes import outside_scopes
from junky_core.job.seeding._current import (
    current_streams,
    entered,
    hidden_streams,
    several_inside,
)
from junky_core.job.seeding._kernels import (
    at_lending,
    generator_position,
    given_kernel,
    hold_default_generators,
    lent_kernel,
    passed_kernel,
    release_default_generators,
)

if TYPE_CHECKING:
    from junky_core.job.seeding._streams import JobStreams

__all__ = [
    "OWN",
    "SHARED",
    "check",
    "drawing_operators",
    "intercepted",
    "key_lasts_beyond_inference_mode",
    "register",
    "register_fallback",
    "treatment",
    "use_own_key",
]

OWN = "TESTING_ONLY_GenericMode"
SHARED = "TESTING_ONLY_GenericWrapper"
_KEYS: dict[str, Any] = {name: _C._dispatch_key_parse(name) for name in (OWN, SHARED)}

_include: Any = _C._dispatch_tls_set_dispatch_key_included
_is_included: Any = _C._dispatch_tls_is_dispatch_key_included
_backward_pass: Any = _C._current_graph_task_id  # -1: the calling thread is in none
_included: Any = _C._dispatch_tls_local_include_set
_excluded: Any = _C._dispatch_tls_local_exclude_set
_as_number: Any = _C.DispatchKeySet.raw_repr

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
# Of each key: the fall-through, and then the kernels. Kept for the life of the process: a thread
# that outlives a sweep still has a key in its set, and every operator it calls needs the
# fall-through. To a thread without the key it is nothing.
_libraries: dict[str, list[torch.library.Library]] = {}
_at_entry = threading.local()  # ``keys``: what _keys() returned when the thread entered a job


def _before_fork() -> None:
    """Have the child find neither torch's dispatcher half changed nor its default generators held.

    A generator is locked while it draws, and the child's copy of a locked one stays so: a
    DataLoader worker, which seeds it first of all, would wait for ever. Which job draws from it is
    known to our kernels only.
    """
    beside_others = several_inside()
    if beside_others:
        register(SHARED)
    _register_lock.acquire()
    hold_default_generators()
    if beside_others:
        with hidden_streams():
            torch.default_generator.get_state()  # waits for a draw that began before those kernels


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


def register(key: str) -> None:
    """Give torch's dispatcher our kernels for a key, once for the process.

    May be called while other threads draw: an operator's kernel is in the dispatcher's table
    before the key leads there.
    """
    register_fallback()
    if len(_libraries[key]) > 1:
        return
    with _register_lock:
        if len(_libraries[key]) > 1:
            return
        made: dict[str, torch.library.Library] = {}
        for operator in drawing_operators():
            how = treatment(operator)
            if how not in _KERNELS:
                continue
            namespace = operator.namespace
            if namespace not in made:
                made[namespace] = torch.library.Library(namespace, "IMPL", key)
            if how == "passed" and _IMPL_TAKES_KEYSET:
                kernel = passed_kernel(operator, _KEYS[key])
                made[namespace].impl(operator, kernel, with_keyset=True)
            else:
                made[namespace].impl(operator, _KERNELS[how](operator, _KEYS[key]))
        _libraries[key] += made.values()


at_lending(lambda: register(SHARED))


def register_fallback() -> None:
    """Let all operators fall through our keys; once for the process."""
    if len(_libraries) == len(_KEYS):
        return
    with _register_lock:
        for name, key in _KEYS.items():
            if name not in _libraries:
                fallback = torch.library.Library("_", "IMPL", name)
                fallback.m.fallback_fallthrough("")  # type: ignore[union-attr]
                _let_higher_order_operators_fall_through(key)
                _libraries[name] = [fallback]


def _let_higher_order_operators_fall_through(key: Any) -> None:
    """Hide our key from ``torch.cond``, flex attention and others that Python dispatches.

    They know no fall-backs. Those that torch imports later take it from the list.
    """
    keys = getattr(torch._ops, "_HIGHER_ORDER_OP_DEFAULT_FALLTHROUGH_DISPATCH_KEYS", None)
    if keys is not None:
        keys.append(key)
    for operator in tuple(getattr(torch._ops, "_higher_order_ops", {}).values()):
        operator.fallthrough(key)


def check() -> None:
    """Check that draws of a job's thread come from the job's stream.

    Raises:
        RuntimeError: They do not.
    """
    # Other threads may draw at the same time, so the process-wide state proves nothing.
    own, expected = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    streams: Any = SimpleNamespace(cpu=own, cuda=lambda _index: None, apart=True, threads=set())

    def draw() -> None:
        with intercepted(streams), entered(streams):
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
def intercepted(streams: JobStreams) -> Iterator[None]:
    """Let draws of the calling thread reach our kernels inside the ``with`` block."""
    register_fallback()
    outer, me = current_streams(), threading.get_ident()
    streams.threads.add(me)  # before asking whether they are apart, see use_own_key()
    _use_key_of(streams)
    if outer is None:
        _at_entry.keys = _keys()
    try:
        yield
    finally:
        _use_key_of(outer)
        if outer is None:
            streams.threads.discard(me)


def use_own_key(streams: JobStreams) -> None:
    """Turn the calling thread's draws to ``streams``, which are apart from now on.

    Another thread cannot be given the key, and where torch has changed this thread's keys, or runs
    a backward pass, it will put the former ones back. Then the kernels for ``SHARED`` do it,
    at a cost to jobs that never seed.
    """
    if _is_included(_KEYS[OWN]):
        return
    lasts = _backward_pass() == -1 and _keys() == getattr(_at_entry, "keys", None)
    if lasts and streams.threads == {threading.get_ident()}:
        _use_key_of(streams)
    else:
        register(SHARED)


@contextlib.contextmanager
def key_lasts_beyond_inference_mode() -> Iterator[None]:
    """Let a key that a job gets inside ``torch.inference_mode(False)`` stay, in the ``with`` block.

    That mode changes nothing in :func:`_keys`, and puts the former ones back all the same.
    """
    leave = torch.inference_mode.__exit__

    @functools.wraps(leave)
    def left(self: Any, *error: Any) -> None:
        leave(self, *error)
        streams = current_streams()
        if streams is not None and streams.apart:
            _use_key_of(streams)

    with replaced(torch.inference_mode, "__exit__", left):
        yield


def _use_key_of(streams: JobStreams | None) -> None:
    _include(_KEYS[OWN], streams is not None and streams.apart)
    _include(_KEYS[SHARED], streams is not None and not streams.apart)


def _keys() -> tuple[int, int]:
    """Return what the calling thread adds to each call's keys, and what it takes from them."""
    return _as_number(_included()), _as_number(_excluded())


def _has_kernel(name: str, key: str) -> bool:
    return bool(_C._dispatch_has_kernel_for_dispatch_key(name, key))
