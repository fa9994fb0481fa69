"""State of Hugging Face's ``accelerate``, one for each slot.

``PartialState``, ``AcceleratorState`` and ``GradientState`` are singletons by
class: ``self.__dict__ = self._shared_state``, a dictionary of the class. Jobs
that run at the same time would share them: whether gradients are synchronized
(``sync_gradients``), the mixed precision, the loader in use. While a sweep runs, a
descriptor in each class replaces that dictionary and returns the slot's own. Threads
of no slot still get the process's.

A slot keeps the same dictionaries for all its jobs and empties them before each one,
because a prepared loader that ``loaders()`` keeps uses them as the ``__dict__`` of its
state. If a loader factory made an ``Accelerator``, its state is put back when a later
job gets the same loaders.

Only ``PartialState`` starts as a copy of the process's: an app that creates one at
import, for accelerate's logging, finds it in its jobs too.

This holds for accelerate 0.20 to 1.15. If the classes are different, nothing is
replaced, and a sweep on several slots warns.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from junky_core.job.libraries.imports import when_imported
from junky_core.job.patches import replaced, shared
from junky_core.job.scopes import slot_facets

__all__ = ["begin_job", "factory_states", "states_apart"]

FACET = "accelerate"  # where a slot's dictionaries are kept, by class name
MODULE = "accelerate.state"
PARTIAL, ACCELERATOR, GRADIENT = CLASSES = ("PartialState", "AcceleratorState", "GradientState")
ATTRIBUTE = "_shared_state"

# By class name, while in place; assigned, never changed, so that threads need no lock to read it.
_stand_ins: Mapping[str, _SharedState] = {}

ELSEWHERE = (
    "accelerate: jobs do not use the Accelerator that was made before the sweep. "
    "Make one in each job"
)
UNKNOWN = (
    "accelerate {version} is not known to hydra-junky: jobs that run at the same time share its "
    "state. Use one slot, or a version from 0.20 to 1.15"
)


class _SharedState:
    """Replaces a class's ``_shared_state``; always returns a plain dictionary.

    Args:
        owner: The class.
        process: The dictionary that it replaces.
    """

    def __init__(self, owner: type, process: dict[str, Any]) -> None:
        self.owner = owner
        self.process = process

    def __get__(self, _instance: object, _owner: type | None = None) -> dict[str, Any]:
        facets = slot_facets()
        return self.process if facets is None else self.of_slot(facets)

    def of_slot(self, facets: dict[str, Any]) -> dict[str, Any]:
        """Return the slot's dictionary, creating it if it has none yet."""
        states: dict[str, dict[str, Any]] = facets.setdefault(FACET, {})
        name = self.owner.__name__
        if name not in states:
            states.setdefault(name, self.fresh())  # another thread of the job may do so now
        return states[name]

    def fresh(self) -> dict[str, Any]:
        """Return what a job begins with."""
        return dict(self.process) if self.owner.__name__ == PARTIAL else {}


@contextlib.contextmanager
def states_apart(warn: Callable[[str], None], *, slots: int) -> Iterator[None]:
    """Give each slot its own state inside the ``with`` block.

    Process-wide while it lasts; several blocks may overlap. ``accelerate`` may
    be imported before or inside the block, or never.

    Args:
        warn: Called with a message if jobs share a state after all.
        slots: How many slots run jobs at the same time.
    """

    def check(_module: ModuleType) -> None:
        if _stand_ins and _stand_ins[ACCELERATOR].process:
            warn(ELSEWHERE)
        elif not _stand_ins and slots > 1:
            version = getattr(sys.modules["accelerate"], "__version__", "of this kind")
            warn(UNKNOWN.format(version=version))

    with _replaced(), when_imported(MODULE, check):
        yield


@shared
@contextlib.contextmanager
def _replaced() -> Iterator[None]:
    """Put a stand-in into each class, if the classes are as described above."""
    global _stand_ins

    def replace(module: ModuleType) -> None:
        global _stand_ins
        found = {name: _stand_in(getattr(module, name, None)) for name in CLASSES}
        if all(found.values()):
            for stand_in in found.values():
                stack.enter_context(replaced(stand_in.owner, ATTRIBUTE, stand_in))
            _stand_ins = found

    try:
        with contextlib.ExitStack() as stack, when_imported(MODULE, replace):
            yield
    finally:
        _stand_ins = {}


def _stand_in(owner: Any) -> Any:
    state: Any = vars(owner).get(ATTRIBUTE) if isinstance(owner, type) else None
    code = getattr(getattr(owner, "__init__", None), "__code__", None)
    known = type(state) is dict and code is not None and ATTRIBUTE in code.co_names
    return _SharedState(owner, state) if known else None


def begin_job(facets: dict[str, Any]) -> None:
    """Empty the states of a slot for its next job; they stay the same objects."""
    stand_ins = _stand_ins
    for name, state in facets.get(FACET, {}).items():
        state.clear()
        if name in stand_ins:
            state.update(stand_ins[name].fresh())


class FactoryStates:
    """What a loader factory put into its slot's states; see :func:`factory_states`."""

    def __init__(self) -> None:
        self.made: dict[str, dict[str, Any]] = {}

    def restore(self) -> None:
        """Put it back where the running job has nothing yet."""
        states = _of_this_slot()
        for name, made in self.made.items():
            if name in states and not states[name]:
                states[name].update(made)


@contextlib.contextmanager
def factory_states() -> Iterator[FactoryStates]:
    """Record which of the slot's states are made inside the ``with`` block."""
    states = FactoryStates()
    before = {name for name, state in _of_this_slot().items() if state}
    yield states
    states.made.update(
        (name, dict(state))
        for name, state in _of_this_slot().items()
        if state and name not in before
    )


def _of_this_slot() -> dict[str, dict[str, Any]]:
    facets = slot_facets()
    if facets is None:
        return {}
    return {name: stand_in.of_slot(facets) for name, stand_in in _stand_ins.items()}
