"""What a factory drew from its job's own streams, so that another job may use its result.

If a job seeds itself and then asks for loaders, its next draws come after those of the factory.
A job that gets the same loaders ready-made must continue from the same place. A job that used
another seed must not get them, because they may depend on what the factory drew.
"""

from __future__ import annotations

import contextlib
import pickle
import random
import sys
from collections.abc import Iterator
from typing import Any

import torch

from junky_core.job.seeding._current import current_streams, hidden_streams

__all__ = ["FactoryDraws"]


class FactoryDraws:
    """The job's own streams before and after a factory ran.

    Not thread-safe. For use in a job or outside.
    """

    def __init__(self) -> None:
        self._before: dict[str, bytes] = {}
        self._drawn: dict[str, bytes] = {}  # the job's own that moved, and how it left them
        self._moved: set[str] = set()  # process-wide ones that moved, by it or by others

    @staticmethod
    @contextlib.contextmanager
    def noted() -> Iterator[FactoryDraws]:
        """Record what the calling thread draws inside the ``with`` block."""
        draws = FactoryDraws()
        draws._before, shared = _states(), _process_wide()
        yield draws
        draws._drawn = {
            kind: state
            for kind, state in _states().items()
            if state != draws._before.get(kind) and not _is_copy(kind, state)
        }
        after = _process_wide()
        draws._moved = {kind for kind, state in after.items() if state != shared.get(kind)}

    def fit(self) -> bool:
        """Return whether the factory would draw the same numbers in the calling thread now."""
        for kind, state in _states().items():
            if kind in self._drawn and self._before.get(kind) != state:
                return False
            if kind not in self._before and kind in self._moved:
                return False  # it may have drawn unseeded numbers
        return True

    def repeat(self) -> None:
        """Move the calling thread's streams to where the factory left its job's."""
        streams = current_streams()
        if streams is None:
            return
        now = _states()
        for kind, state in self._drawn.items():
            if kind in now or kind not in self._before:
                streams.set_state(kind, pickle.loads(state))  # noqa: S301 - written here


def _states() -> dict[str, bytes]:
    streams = current_streams()
    if streams is None:
        return {}
    return {kind: pickle.dumps(state) for kind, state in streams.states().items()}


def _is_copy(kind: str, state: bytes) -> bool:
    """Return whether a stream is an unused copy: the next job makes its own."""
    streams = current_streams()
    return streams is not None and pickle.dumps(streams.copied.get(kind)) == state


def _process_wide() -> dict[str, bytes]:
    """Return the states of the process-wide streams; those of CUDA are unknown."""
    with hidden_streams():
        found: dict[str, Any] = {
            "cpu": torch.default_generator.get_state().numpy(),
            "python": random.getstate(),
        }
        if "numpy" in sys.modules:
            found["numpy"] = sys.modules["numpy"].random.get_state()
    return {kind: pickle.dumps(state) for kind, state in found.items()}
