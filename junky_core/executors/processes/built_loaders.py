"""Which slots have built which loaders: a slot that cannot build those is closed."""

from __future__ import annotations

import threading

__all__ = ["BuiltLoaders"]


class BuiltLoaders:
    """What worker processes say of the loaders that they have built. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _slots
        self._slots: dict[str, set[int]] = {}  # by Call.digest()

    def add(self, slot: int, digest: str) -> None:
        """Note that ``slot`` has built the loaders of a call."""
        with self._lock:
            self._slots.setdefault(digest, set()).add(slot)

    def elsewhere(self, slot: int, digest: str) -> bool:
        """Return whether another slot than ``slot`` has built them."""
        with self._lock:
            return bool(self._slots.get(digest, set()) - {slot})
