"""Order, retry, out-of-memory, closed slots and fail fast, one decision at a time."""

import threading

import pytest

from junky_core.devices import SlotSpec
from junky_core.engine.scheduler import Scheduler
from junky_core.executors.contract import AttemptEnd
from junky_core.jobs import GridSource, Job

OK = AttemptEnd(kind="finished", duration_s=0.0)


def dies(kind="error", **facts):
    facts.setdefault("location", ("E", "f.py", 1))
    return AttemptEnd(kind=kind, duration_s=0.0, error=kind, **facts)


class Bench:
    """A scheduler with its slots, driven from one thread."""

    def __init__(self, jobs=4, devices=("cpu",), max_retries=1, fail_fast=None):
        self.results = []
        self.slots = [SlotSpec(i, d) for i, d in enumerate(devices, 1)]
        source = GridSource((Job(n, {"n": n}) for n in range(jobs)), jobs)
        self.scheduler = Scheduler(
            source,
            self.slots,
            max_retries=max_retries,
            fail_fast=fail_fast,
            on_over=self.results.append,
        )

    def take(self, slot=1):
        return self.scheduler.take(self.slots[slot - 1])

    def report(self, job, end, slot=1):
        return self.scheduler.report(self.slots[slot - 1], job, end)

    def would_wait(self, slot):
        """Whether ``take`` would block: no job for that slot now, and the run is not over."""
        with self.scheduler._changed:
            return self.scheduler._next_for(self.slots[slot - 1]) is None

    def statuses(self):
        return {result.num: result.status for result in self.results}

    def run_all(self, end_of):
        order = []
        while (job := self.take()) is not None:
            order.append(job.job.num)
            self.report(job, end_of(job))
        return order


def test_jobs_come_in_order_and_end():
    bench = Bench(3)
    assert bench.run_all(lambda _: OK) == [0, 1, 2]
    assert bench.statuses() == {0: "finished", 1: "finished", 2: "finished"}


def test_a_job_that_died_runs_again_after_all_others():
    bench = Bench(4)
    order = bench.run_all(lambda job: dies() if (job.job.num, job.attempts) == (1, 1) else OK)
    assert order == [0, 1, 2, 3, 1]
    assert next(r for r in bench.results if r.num == 1).attempts == 2


@pytest.mark.parametrize("max_retries", [0, 1, 3])
def test_a_job_that_always_dies_is_capped(max_retries):
    bench = Bench(3, max_retries=max_retries)
    order = bench.run_all(lambda job: dies() if job.job.num == 0 else OK)
    assert order == [0, 1, 2] + [0] * max_retries
    assert bench.statuses()[0] == "failed"


def test_a_retry_waits_for_what_runs():
    bench = Bench(2, ("cpu", "cpu"))
    first, second = bench.take(1), bench.take(2)
    bench.report(first, dies(), 1)
    assert bench.would_wait(1)
    bench.report(second, OK, 2)
    assert bench.take(1) is first


def test_a_slot_that_waits_wakes_for_a_retry():
    bench = Bench(2, ("cpu", "cpu"))
    first, second = bench.take(1), bench.take(2)
    bench.report(second, OK, 2)
    taken = []
    waiter = threading.Thread(target=lambda: taken.append(bench.take(2)))
    waiter.start()
    bench.report(first, dies(), 1)
    waiter.join(60)
    assert taken == [first]


def test_out_of_memory_runs_last_and_alone_on_its_device():
    bench = Bench(4, ("cuda:0", "cuda:0", "cuda:1"))
    a, b, c = bench.take(1), bench.take(2), bench.take(3)
    bench.report(a, dies("oom"), 1)
    bench.report(b, dies("oom"), 2)
    d = bench.take(1)
    bench.report(d, dies(), 1)
    bench.report(c, OK, 3)
    assert bench.take(1) is d  # ordinary retries first
    assert bench.would_wait(2)
    bench.report(d, OK, 1)
    assert bench.take(2) is a
    assert bench.would_wait(1)  # its device is reserved for a
    assert bench.take(3) is b  # another device may run the other
    bench.report(a, OK, 2)
    bench.report(b, OK, 3)
    assert bench.take(1) is None


def test_out_of_the_hosts_memory_runs_alone_in_the_process():
    bench = Bench(2, ("cuda:0", "cuda:1"))
    a, b = bench.take(1), bench.take(2)
    bench.report(a, dies("oom", host_memory=True), 1)
    bench.report(b, dies("oom"), 2)
    first = bench.take(1)
    assert first is a
    assert bench.would_wait(2)
    bench.report(a, OK, 1)
    assert bench.take(2) is b


def test_out_of_memory_is_capped_too():
    bench = Bench(2)
    assert bench.run_all(lambda job: OK if job.job.num else dies("oom")) == [0, 1, 0]
    assert bench.statuses() == {0: "failed", 1: "finished"}


def test_a_timeout_is_not_retried():
    bench = Bench(2, max_retries=5)
    assert bench.run_all(lambda job: OK if job.job.num else dies("timeout")) == [0, 1]
    assert bench.statuses()[0] == "failed"


def test_an_interrupted_job_is_neither_finished_nor_failed():
    bench = Bench(3)
    job = bench.take()
    bench.scheduler.stop()
    bench.report(job, dies("interrupted"))
    assert bench.statuses() == {0: "stopped"}
    assert bench.take() is None
    assert bench.scheduler.left_in_source() == 2


def test_stop_leaves_retries_unfinished():
    bench = Bench(3)
    job = bench.take()
    bench.report(job, dies())
    bench.scheduler.stop()
    assert bench.scheduler.unfinished() == [job]


def test_a_slot_whose_loaders_fail_returns_its_job_uncounted():
    bench = Bench(2, ("cpu", "cpu"), max_retries=0)
    job = bench.take(1)
    decision = bench.report(job, dies("loaders"), 1)
    assert decision.retry
    other = bench.take(1)
    assert other is not job  # not to the slot that failed it
    assert bench.take(2) is job
    assert job.attempts == 1
    bench.report(job, OK, 2)
    bench.report(other, OK, 1)
    assert bench.statuses() == {0: "finished", 1: "finished"}


def test_a_slot_whose_loaders_fail_where_others_built_them_is_closed():
    bench = Bench(3, ("cpu", "cpu"))
    job = bench.take(1)
    decision = bench.report(job, dies("loaders", loaders_elsewhere=True), 1)
    assert [slot.index for slot in decision.closed] == [1]
    assert bench.take(1) is None
    assert bench.take(2) is job


def test_a_job_handed_to_a_slot_that_cannot_open_comes_back():
    bench = Bench(1, ("cpu", "cpu"), max_retries=0)
    job = bench.take(1)
    bench.report(job, dies("loaders"), 1)
    bench.scheduler.close_slot(bench.slots[1])
    assert not bench.would_wait(1)


def test_a_job_that_must_run_alone_does_so_when_it_is_handed_back():
    bench = Bench(2, ("cuda:0", "cuda:1", "cuda:1"), max_retries=1)
    a, b = bench.take(1), bench.take(2)
    bench.report(a, dies("oom"), 1)
    bench.report(b, dies("oom"), 2)
    assert bench.take(1) is a
    assert bench.take(2) is b
    bench.report(a, dies("loaders"), 1)
    assert bench.would_wait(3)  # b is alone on that device
    assert bench.would_wait(1)  # that slot has failed its loaders
    bench.report(b, OK, 2)
    assert bench.take(3) is a
    assert bench.would_wait(2)
    bench.report(a, OK, 3)
    assert bench.take(1) is None


def test_loaders_that_fail_on_every_slot_fail_the_job():
    bench = Bench(1, ("cpu", "cpu"), max_retries=0)
    job = bench.take(1)
    bench.report(job, dies("loaders"), 1)
    assert bench.take(2) is job
    assert not bench.report(job, dies("loaders"), 2).retry
    assert bench.statuses() == {0: "failed"}


def test_a_poisoned_device_is_closed_and_its_jobs_move():
    bench = Bench(4, ("cuda:0", "cuda:1", "cuda:0"), max_retries=0)
    a, b, c = bench.take(1), bench.take(2), bench.take(3)
    decision = bench.report(a, dies("poisoned"), 1)
    assert sorted(slot.index for slot in decision.closed) == [1, 3]
    assert bench.report(c, dies("poisoned"), 3).retry  # the victim moves, uncounted
    assert bench.take(1) is None
    assert bench.take(3) is None
    bench.report(b, OK, 2)
    assert bench.take(2) is c
    bench.report(c, OK, 2)
    bench.report(bench.take(2), OK, 2)
    assert bench.take(2) is None
    assert bench.statuses() == {0: "failed", 1: "finished", 2: "finished", 3: "finished"}


def test_no_device_left_ends_the_run():
    bench = Bench(5)
    job = bench.take()
    bench.report(job, dies("poisoned"))
    assert bench.take() is None
    assert bench.scheduler.open_slots == 0


def test_fail_fast_stops_when_the_first_jobs_die_alike():
    bench = Bench(100, fail_fast=3)
    assert bench.run_all(lambda _: dies()) == [0, 1, 2]
    assert bench.scheduler.stopping


@pytest.mark.parametrize(
    "ends",
    [
        [dies(), dies(), OK, dies()],
        [dies(), dies(location=("E", "f.py", 2)), dies(), dies()],
        [dies("oom"), dies("oom"), dies("oom"), dies("oom")],
        [OK, dies(), dies(), dies()],
    ],
)
def test_fail_fast_needs_one_error_and_no_success(ends):
    bench = Bench(4, fail_fast=3, max_retries=0)
    assert bench.run_all(lambda job: ends[job.job.num]) == [0, 1, 2, 3]
    assert not bench.scheduler.stopping


def test_out_of_memory_in_between_does_not_prevent_fail_fast():
    bench = Bench(9, fail_fast=2)
    ends = [dies(), dies("oom"), dies()]
    assert bench.run_all(lambda job: ends[job.job.num]) == [0, 1, 2]
    assert bench.scheduler.stopping


def test_every_job_ends_once_with_many_racing_slots():
    """8 threads, 2,000 jobs, a fifth of them dying once: one result each."""
    bench = Bench(2000, ("cpu",) * 8)

    def work(slot):
        while (job := bench.take(slot)) is not None:
            dead = job.job.num % 5 == 0 and job.attempts == 1
            bench.report(job, dies(location=None) if dead else OK, slot)

    threads = [threading.Thread(target=work, args=(s,)) for s in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert sorted(r.num for r in bench.results) == list(range(2000))
    assert {r.status for r in bench.results} == {"finished"}
    assert sum(r.attempts == 2 for r in bench.results) == 400
