"""What a job has instead of the process's own state, and the objects that look it up.

A process-wide mapping or attribute is replaced by an object that asks which job
the calling thread works for, and looks in that job's *layer* first:

    logging.getLogger("app").level = 10       in job A
    layer of job A: {app: 10}    layer of job B: {}    the process: 30
    reads                10                      30                 30
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from junky_core.job.first_imports import importing
from junky_core.job.scopes import JobScope, current_scope

__all__ = ["JobState", "LayeredAttribute", "LayeredMapping", "job_state", "set_job_state"]

_FACET = "hydra"  # key of a job's state in its JobScope
_GONE = object()  # deleted in a job's layer, still there below it


@dataclass(eq=False)
class JobState:
    """What one job has instead of the process's own state.

    Attributes:
        env: What ``hydra.job.env_set`` has set for all jobs of the launch.
        env_before: What those variables were before; ``None`` for unset.
        task_runs: Whether the job's task is running, not its preparation.
        layers: The job's own entries, by the replaced mapping or attribute.
        handlers: The logging handlers made in this job, closed with it.
    """

    env: Mapping[str, str] | None = None
    env_before: Mapping[str, str | None] | None = None
    task_runs: bool = False
    layers: dict[Any, dict[Any, Any]] = field(default_factory=dict)
    handlers: list[Any] = field(default_factory=list)


def job_state() -> JobState | None:
    """Return the state of the job that the calling thread works for, ``None`` outside any."""
    scope = current_scope()
    return None if scope is None else scope.facets.get(_FACET)


def set_job_state(scope: JobScope, state: JobState) -> JobState:
    """Give the job of a scope its state, and return it."""
    scope.facets[_FACET] = state
    return state


class _Layered:
    def _layer(self) -> dict[Any, Any] | None:
        state = job_state()
        return None if state is None else state.layers.setdefault(self, {})


class LayeredMapping(_Layered, MutableMapping[Any, Any]):
    """A process-wide mapping, with a layer in front of it for each job.

    Args:
        base: The process's own mapping; what threads of no job see and change.
        owned: Whether a job's change of this key stays in the job.
        copied: Makes the job's own copy of an owned value when the job first reads it.
    """

    def __init__(
        self,
        base: Any,
        owned: Callable[[Any], bool] = lambda _key: True,
        copied: Callable[[Any], Any] | None = None,
    ) -> None:
        self.base = base
        self._owned = owned
        self._copied = copied

    __hash__ = object.__hash__  # it is a key of JobState.layers

    def __eq__(self, other: object) -> bool:
        return self is other

    def __getitem__(self, key: Any) -> Any:
        layer = self._layer()
        if layer is None or not self._owned(key):
            return self.base[key]
        if key not in layer:
            if self._copied is None:
                return self.base[key]
            layer.setdefault(key, self._copied(self.base[key]))
        value = layer[key]
        if value is _GONE:
            raise KeyError(key)
        return value

    def __setitem__(self, key: Any, value: Any) -> None:
        layer = self._layer()
        if layer is None or not self._owned(key):
            self.base[key] = value
            return
        if importing():
            self.base[key] = value
        layer[key] = value

    def __delitem__(self, key: Any) -> None:
        layer = self._layer()
        if layer is None or not self._owned(key):
            del self.base[key]
            return
        if key not in self:
            raise KeyError(key)
        layer[key] = _GONE

    def __contains__(self, key: object) -> bool:
        layer = self._layer()
        if layer is not None and key in layer and self._owned(key):
            return layer[key] is not _GONE
        return key in self.base

    def __iter__(self) -> Iterator[Any]:
        keys = dict.fromkeys(list(self.base))
        layer = self._layer()
        for key, value in list((layer or {}).items()):
            keys.pop(key, None) if value is _GONE else keys.setdefault(key)
        return iter(keys)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[Any, Any]:
        return {key: copy.deepcopy(self[key], memo) for key in self}  # Singleton.get_state


class LayeredAttribute(_Layered):
    """An instance attribute with a layer for each job in front of the instance's own value.

    Args:
        name: Its name.
        copied: Makes the job's own copy when the job first reads it; for values changed in place.
        shared: Called after an import in a job has changed the process's own value.
    """

    def __init__(
        self,
        name: str,
        copied: Callable[[Any], Any] | None = None,
        shared: Callable[[], None] = lambda: None,
    ) -> None:
        self._name = name
        self._copied = copied
        self._shared = shared

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        layer = self._layer()
        if layer is not None and instance in layer:
            return layer[instance]
        try:
            value = instance.__dict__[self._name]
        except KeyError:
            raise AttributeError(self._name) from None
        if layer is not None and self._copied is not None:
            return layer.setdefault(instance, self._copied(value))
        return value

    def __set__(self, instance: Any, value: Any) -> None:
        layer = self._layer()
        own = instance.__dict__
        if layer is None or self._name not in own:  # a new instance belongs to the process
            own[self._name] = value
            return
        if own[self._name] is not value and importing():
            own[self._name] = value
            self._shared()
        layer[instance] = value

    def __delete__(self, instance: Any) -> None:
        instance.__dict__.pop(self._name, None)
