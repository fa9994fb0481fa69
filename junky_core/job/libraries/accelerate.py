"""State of Hugging Face's ``accelerate``, one for each slot.

``PartialState``, ``AcceleratorState`` and ``GradientState`` are singletons by
class: ``self.__dict__ = self._shared_state``, a dictionary of the class. Jobs
that run at the same time would share them, and with them whether gradients are
due (``sync_gradients``), the mixed precision and the loader in use. While a
sweep runs, a descriptor stands in each class for that dictionary and gives the
slot's own; a thread of no slot finds the process's, as ever.

A slot's dictionaries stay the same objects from job to job, emptied as each
begins: a prepared loader that ``loaders()`` keeps holds them as the
``__dict__`` of its state. What a factory itself put there (an ``Accelerator``
of its own) is put back when a later job gets its loaders.

``PartialState`` alone begins as the process's: an app that makes one at its top,
for accelerate's logging, finds it in its jobs too.

The classes were looked up in accelerate 0.20 to 1.15. Where they are not as
described, nothing is replaced, and a sweep on several slots says so.
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

FACET = "accelerate"  # where a slot's dictionaries hang, by class name
MODULE = "accelerate.state"
PARTIAL, ACCELERATOR, GRADIENT = CLASSES = ("PartialState", "AcceleratorState", "GradientState")
ATTRIBUTE = "_shared_state"

# By class name, while in place; assigned, never changed, so that threads need no lock to read it.
_stand_ins: Mapping[str, _SharedState] = {}

ELSEWHERE = (
    "accelerate: the Accelerator made before the sweep is not for its jobs. Each job begins "
    "without one: make an Accelerator in the job"
)
UNKNOWN = (
    "accelerate {version} is not known to hydra-junky: its state is that of the whole process, "
    "and jobs that run at the same time share it. Use one slot, or a version from 0.20 to 1.15"
)


class _SharedState:
    """Stands for a class's ``_shared_state``; always gives a plain dictionary.

    Args:
        owner: The class.
        process: The dictionary that it stands for.
    """

    def __init__(self, owner: type, process: dict[str, Any]) -> None:
        self.owner = owner
        self.process = process

    def __get__(self, _instance: object, _owner: type | None = None) -> dict[str, Any]:
        facets = slot_facets()
        return self.process if facets is None else self.of_slot(facets)

    def of_slot(self, facets: dict[str, Any]) -> dict[str, Any]:
        """Return the slot's dictionary, making it if it has none yet."""
        states: dict[str, dict[str, Any]] = facets.setdefault(FACET, {})
        name = self.owner.__name__
        if name not in states:
            states.setdefault(name, self.fresh())  # one of its job's threads may be as far
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
        warn: Called with a message where jobs do share a state.
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
        """Put it there again, where the running job has nothing yet."""
        states = _of_this_slot()
        for name, made in self.made.items():
            if name in states and not states[name]:
                states[name].update(made)


@contextlib.contextmanager
def factory_states() -> Iterator[FactoryStates]:
    """Note which of the slot's states are made inside the ``with`` block."""
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
