"""Hydra's callbacks, called one at a time; a job's end finds what that job's start has set."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from numbers import Number
from typing import Any

from hydra.core.utils import JobReturn
from omegaconf import DictConfig

from junky_core.job.scopes import current_scope

__all__ = ["SerialCallbacks"]

_ABSENT = object()
_FACET = "hydra callbacks"  # where a scope keeps what its job's start has set


class SerialCallbacks:
    """The callbacks of a sweep, for ``run_job`` in several threads at once.

    Callbacks are written for one job at a time, so a lock is held while they
    are called (not while a job trains). And they expect a job's
    end right after its start: Hydra's own ``PickleJobInfoCallback`` stores the
    output folder in ``on_job_start`` and writes there in ``on_job_end``. If other
    jobs start in between, that would be another job's folder. So the attributes
    that a start sets on a callback are set again while that job's end is called:

        on_job_start A    sets folder = A
        on_job_start B    sets folder = B
        on_job_end A      is called with folder = A; then folder = B again
        on_job_end B      is called with folder = B

    Changes that an end makes stay, such as an entry in a list of results. What an
    end adds to a number is added to the current number.

    Args:
        plain: Hydra's callbacks, which have all other attributes.
    """

    def __init__(self, plain: Any) -> None:
        self._plain = plain
        self._lock = threading.RLock()  # held while a callback runs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def on_job_start(self, config: DictConfig, *, task_function: Any, **kwargs: Any) -> None:
        """Call ``on_job_start`` of all callbacks."""
        with self._lock:
            before = [dict(state) for state in self._states()]
            try:
                self._plain.on_job_start(config=config, task_function=task_function, **kwargs)
            finally:
                scope = current_scope()
                if scope is not None:
                    scope.facets[_FACET] = [
                        {k: v for k, v in now.items() if old.get(k, _ABSENT) is not v}
                        for old, now in zip(before, self._states(), strict=False)
                    ]

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Call ``on_job_end`` of all callbacks, the last one first."""
        scope = current_scope()
        started = () if scope is None else scope.facets.get(_FACET, ())
        with self._lock, self._as_started(started):
            self._plain.on_job_end(config=config, job_return=job_return, **kwargs)

    def _states(self) -> list[dict[str, Any]]:
        return [getattr(callback, "__dict__", {}) for callback in self._plain.callbacks]

    @contextlib.contextmanager
    def _as_started(self, started: Sequence[Mapping[str, Any]]) -> Iterator[None]:
        replaced: list[tuple[dict[str, Any], str, Any, Any]] = []
        for state, own in zip(self._states(), started, strict=False):
            for name, value in own.items():
                other = state.get(name, _ABSENT)
                if other is not value:
                    replaced.append((state, name, value, other))
                    state[name] = value
        try:
            yield
        finally:
            for state, name, value, other in replaced:
                now = state.get(name, _ABSENT)
                if now is value:
                    if other is _ABSENT:
                        del state[name]
                    else:
                        state[name] = other
                elif _is_count(now) and _is_count(value) and _is_count(other):
                    state[name] = other + (now - value)


def _is_count(value: Any) -> bool:
    return isinstance(value, Number) and not isinstance(value, bool)
