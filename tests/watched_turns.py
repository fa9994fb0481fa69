"""Detect that a thread waits for its turn, without timing."""

import threading


class WatchedCondition(threading.Condition):
    """Calls ``on_wait()`` in each thread that has to wait; for ``turns._turns.changed``."""

    def __init__(self, on_wait):
        super().__init__()
        self.on_wait = on_wait

    def wait_for(self, predicate, timeout=None):
        if not predicate():
            self.on_wait()
        return super().wait_for(predicate, timeout)
