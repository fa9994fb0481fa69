"""The thread executor, and one that loses workers, fulfil the executors' contract."""

import threading

import pytest
from executor_contract import ExecutorContract, Recorder

from junky_core.devices import SlotSpec
from junky_core.errors import SweepFailed
from junky_core.events import AttemptFailed, JobStarted, SlotClosed, SweepEnded
from junky_core.executors.contract import AttemptEnd
from junky_core.executors.messages import attempt_of, end_of, plain_attempt, plain_end
from junky_core.executors.threads import ThreadExecutor
from junky_core.jobs import EndKind


class TestThreads(ExecutorContract):
    make_executor = ThreadExecutor


class Remote:
    """A worker that sends and receives plain data only; it dies as its parameters say."""

    def __init__(self, worker, executor, slot):
        self.worker, self.executor, self.slot = worker, executor, slot
        self.attached, self.open, self.stop = worker.attached, worker.open, worker.stop

    def execute(self, attempt):
        arrived = attempt_of(plain_attempt(attempt))
        params = arrived.job.params
        if params.get("crashes", 0) >= arrived.number:
            return AttemptEnd(EndKind.CRASHED, 0.0, error="killed by SIGSEGV", location="SIGSEGV")
        if self.executor.to_lose > 0 and params.get("lost"):
            self.executor.to_lose -= 1
            self.executor.replace(self.slot)
            return AttemptEnd(EndKind.LOST, 0.0, error="node is gone", closes_slot="node is gone")
        return end_of(plain_end(self.worker.execute(arrived)))


class RemoteExecutor(ThreadExecutor):
    """Its workers are reached by messages; a lost slot is replaced by a new one."""

    to_lose = 0
    replaces = True

    def __init__(self, slots, runner, settings, link):
        self.remotes = {}
        super().__init__(slots, runner, settings, link)
        self._highest = len(slots)

    def worker(self, slot):
        return self.remotes.setdefault(slot.index, Remote(super().worker(slot), self, slot))

    def replace(self, slot):
        if self.replaces:
            self._highest += 1
            self._link.open_slot(SlotSpec(self._highest, slot.device))


class TestRemote(ExecutorContract):
    make_executor = RemoteExecutor

    def test_a_crash_counts_and_the_job_is_retried(self, slots):
        recorder = Recorder()
        results = self.sweep(slots, recorder).run(
            self.jobs({"crashes": 1, "value": 1}, {"crashes": 2}, {"value": 3})
        )
        assert [(r.status, r.attempts) for r in results] == [
            ("finished", 2),
            ("failed", 2),
            ("finished", 1),
        ]
        assert {event.kind for event in recorder.all(AttemptFailed)} == {"crashed"}

    def test_equal_crashes_of_the_first_jobs_stop_the_sweep(self):
        sweep = self.sweep(1, fail_fast=3)
        with pytest.raises(SweepFailed, match="first 3 jobs all failed"):
            sweep.run(self.jobs(*[{"crashes": 9}] * 20))

    def test_a_lost_attempt_does_not_count_and_goes_to_the_slot_that_comes(self):
        recorder = Recorder()
        sweep = self.sweep(1, recorder, max_retries=0)
        sweep._executor.to_lose = 3
        results = sweep.run(self.jobs({"lost": True, "value": 1}, {"value": 2}))
        assert [(r.status, r.attempts) for r in results] == [("finished", 1)] * 2
        assert results[0].slot == 4
        assert [event.slot for event in recorder.all(SlotClosed)] == [1, 2, 3]

    def test_a_job_that_is_lost_again_and_again_fails(self):
        sweep = self.sweep(1, max_retries=9)
        sweep._executor.to_lose = 99
        results = sweep.run(self.jobs({"lost": True}, {"value": 2}))
        assert [r.status for r in results] == ["failed", "finished"]
        assert sweep._executor.to_lose == 99 - 6

    def test_without_a_slot_the_sweep_waits_for_one(self):
        recorder = Recorder(SlotClosed=lambda _event: later.start())
        sweep = self.sweep(1, recorder)
        executor = sweep._executor
        executor.to_lose, executor.replaces, executor.wait_s = 1, False, 30.0
        later = threading.Timer(0.3, sweep.open_slot, [SlotSpec(7, "cpu")])
        results = sweep.run(self.jobs({"lost": True, "value": 1}, {"value": 2}))
        assert [(r.status, r.slot) for r in results] == [("finished", 7)] * 2

    def test_a_sweep_may_start_without_a_slot(self):
        sweep = self.sweep(1)
        executor = sweep._executor
        sweep.close_slot(SlotSpec(1, "cpu"), "away")
        executor.wait_s = 30.0
        later = threading.Timer(0.2, sweep.open_slot, [SlotSpec(2, "cpu")])
        later.start()
        assert [r.slot for r in sweep.run(self.jobs({}, {}))] == [2, 2]

    def test_the_wait_for_a_slot_ends(self):
        recorder = Recorder()
        sweep = self.sweep(1, recorder)
        executor = sweep._executor
        executor.to_lose, executor.replaces, executor.wait_s = 1, False, 0.3
        with pytest.raises(SweepFailed, match="no slot is left"):
            sweep.run(self.jobs({"lost": True}, {}, {}))
        (end,) = recorder.all(SweepEnded)
        assert (end.reason, end.left) == ("no_slots", 3)
        assert len(recorder.all(JobStarted)) == 1
