"""SerialCallbacks: one call at a time, and each job's end finds what its start has set."""

import concurrent.futures
import threading

from hydra_plugins.hydra_junky_launcher._callbacks import SerialCallbacks
from junky_core.job.scopes import JobScope, enter_scope


class Plain:
    """Does what Hydra's own ``Callbacks`` does for the two calls of a job."""

    def __init__(self, *callbacks):
        self.callbacks = list(callbacks)

    def on_job_start(self, config, **kwargs):
        for callback in self.callbacks:
            callback.on_job_start(config)

    def on_job_end(self, config, job_return, **kwargs):
        for callback in reversed(self.callbacks):
            callback.on_job_end(config)

    def on_multirun_end(self):
        return "its own"


class Noting:
    def __init__(self):
        self.running = 0
        self.ended = []
        self.most = 0

    def on_job_start(self, config):
        self.folder = config
        self.running += 1
        self.most = max(self.most, self.running)

    def on_job_end(self, config):
        self.ended.append((config, self.folder))
        self.running -= 1


def interleaved(*steps):
    """Call start and end of jobs in the order of ``steps``, each job in its own scope."""
    noting = Noting()
    serial = SerialCallbacks(Plain(noting))
    scopes = {}
    for step, job in steps:
        with enter_scope(scopes.setdefault(job, JobScope(None))):
            if step == "start":
                serial.on_job_start(job, task_function=None)
            else:
                serial.on_job_end(job, None)
    return noting


ORDER = [("start", "a"), ("start", "b"), ("end", "a"), ("start", "c"), ("end", "c"), ("end", "b")]


def test_an_end_finds_what_its_own_start_set():
    assert interleaved(*ORDER).ended == [("a", "a"), ("c", "c"), ("b", "b")]


def test_counters_count_all_jobs():
    noting = interleaved(*ORDER)
    assert noting.running == 0
    assert len(noting.ended) == 3


def test_all_other_attributes_are_hydras():
    assert SerialCallbacks(Plain()).on_multirun_end() == "its own"


def test_a_callback_without_attributes_works():
    class Slotted:
        __slots__ = ()

        def on_job_start(self, config):
            pass

        def on_job_end(self, config):
            pass

    serial = SerialCallbacks(Plain(Slotted()))
    with enter_scope(JobScope(None)):
        serial.on_job_start("a", task_function=None)
        serial.on_job_end("a", None)


def test_calls_from_many_threads_never_overlap():
    class Guarded:
        def __init__(self):
            self.lock = threading.Lock()
            self.overlaps = 0
            self.calls = 0

        def on_job_start(self, config):
            if not self.lock.acquire(blocking=False):
                self.overlaps += 1
                return
            threading.Event().wait(0.001)  # gives other threads time to enter
            self.calls += 1
            self.lock.release()

        on_job_end = on_job_start

    guarded = Guarded()
    serial = SerialCallbacks(Plain(guarded))

    def job(num):
        with enter_scope(JobScope(None)):
            serial.on_job_start(num, task_function=None)
            serial.on_job_end(num, None)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(job, range(32)))
    assert guarded.overlaps == 0
    assert guarded.calls == 64
