"""What every source of jobs must do: subclass :class:`SourceContract` and implement ``make``.

class TestMySource(SourceContract):
    def make(self, jobs):
        return MySource(..., n_trials=jobs)
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from junky_core.devices import SlotSpec
from junky_core.engine.scheduler import Scheduler
from junky_core.events import ScoreReported
from junky_core.executors.contract import AttemptEnd
from junky_core.jobs import NOT_NOW, Job, JobResult, JobStatus

FINISHED, FAILED, STOPPED = JobStatus.FINISHED, JobStatus.FAILED, JobStatus.STOPPED


def result_of(job, status=FINISHED, score=0.5):
    return JobResult(job.num, "Thread-1_0", job.params, status, score=score, slot=1, device="cpu")


def score_of(num, score=0.5, name="Thread-1_0"):
    return ScoreReported(
        job=num,
        name=name,
        score=score,
        improved=True,
        overall=True,
        best_score=None,
        best_name=None,
    )


class OneAtATime:
    """Passes calls on to a source, and fails if two come at the same time."""

    def __init__(self, source):
        self.source, self.told, self.handed_out = source, [], []
        self.hears_scores = source.hears_scores
        self._busy = threading.Lock()

    @property
    def total(self):
        return self.source.total

    def _call(self, method, *args):
        assert self._busy.acquire(blocking=False), "two calls at the same time"
        try:
            return method(*args)
        finally:
            self._busy.release()

    def next_job(self):
        job = self._call(self.source.next_job)
        if isinstance(job, Job):
            self.handed_out.append(job.num)
        return job

    def tell(self, result):
        self.told.append(result.num)
        self._call(self.source.tell, result)

    def tell_score(self, report):
        assert self.hears_scores
        self._call(self.source.tell_score, report)


class SourceContract:
    """The contract. ``make(jobs)`` returns a source that hands out that many jobs in all."""

    def make(self, jobs):
        raise NotImplementedError

    def ask_all(self, source, end=result_of):
        """Ask to the end with one slot; return the jobs."""
        jobs = []
        while (job := source.next_job()) is not None:
            assert isinstance(job, Job), "no job runs, so there is no news to wait for"
            jobs.append(job)
            if source.hears_scores:
                source.tell_score(score_of(job.num))
            source.tell(end(job))
        return jobs

    def test_it_hands_out_all_jobs_and_ends(self):
        jobs = self.ask_all(self.make(12))
        assert len(jobs) == 12
        assert len({job.num for job in jobs}) == 12

    def test_its_total_is_a_number_or_none_and_does_not_change(self):
        source = self.make(3)
        assert source.total in (3, None)
        total = source.total
        self.ask_all(source)
        assert source.total == total

    def test_no_jobs(self):
        assert self.make(0).next_job() is None

    def test_it_declares_whether_it_wants_scores(self):
        assert isinstance(self.make(1).hears_scores, bool)

    def test_jobs_may_run_at_the_same_time(self):
        source, running, seen = self.make(9), [], []
        while (job := source.next_job()) is not None:
            if job is NOT_NOW:
                assert running, "nothing runs, so there is no news to wait for"
            else:
                running.append(job)
                seen.append(job.num)
            if job is NOT_NOW or len(running) == 4:
                source.tell(result_of(running.pop()))  # the latest first
        for job in running:
            source.tell(result_of(job))
        assert len(set(seen)) == len(seen) == 9

    @pytest.mark.parametrize("status", [FINISHED, FAILED, STOPPED])
    @pytest.mark.parametrize("score", [None, -1.5, float("nan"), float("inf")])
    def test_it_continues_however_jobs_end(self, status, score):
        jobs = self.ask_all(self.make(5), lambda job: result_of(job, status, score))
        assert len(jobs) == 5

    def test_any_thread_may_ask(self):
        source, jobs = self.make(6), []
        while True:
            with ThreadPoolExecutor(1) as pool:
                job = pool.submit(source.next_job).result()
                if job is None:
                    break
                pool.submit(source.tell, result_of(job)).result()
            jobs.append(job)
        assert len(jobs) == 6

    def test_four_slots_run_each_job_once(self):
        source, results = OneAtATime(self.make(200)), []
        ended = self.run_slots(source, results)
        assert sorted(result.num for result in results) == sorted(source.handed_out)
        assert len(set(source.handed_out)) == len(source.handed_out) == 200
        assert sorted(source.told) == sorted(source.handed_out)
        assert ended.unfinished() == []

    def test_it_gets_every_result_when_the_sweep_is_stopped(self):
        source, results = OneAtATime(self.make(200)), []
        self.run_slots(source, results, stop_after=50)
        assert 50 <= len(results) < 200
        assert len(set(source.handed_out)) == len(source.handed_out)
        assert sorted(source.told) == sorted(source.handed_out)

    def run_slots(self, source, results, stop_after=None):
        """Run ``source`` on four slots; a fifth of the jobs die once."""
        slots = [SlotSpec(index, "cpu") for index in range(1, 5)]
        scheduler = Scheduler(source, slots, max_retries=1, fail_fast=None, on_over=results.append)

        def work(slot):
            while (job := scheduler.take(slot)) is not None:
                scheduler.hear(score_of(job.job.num))
                dies = job.job.num % 5 == 0 and job.attempts == 1
                kind = "error" if dies else "finished"
                scheduler.report(slot, job, AttemptEnd(kind=kind, duration_s=0.0))
                if stop_after is not None and len(results) >= stop_after:
                    scheduler.stop()

        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(work, slot) for slot in slots]:
                future.result(60)
        scheduler.tell_source(job.unfinished(failed_fast=False) for job in scheduler.unfinished())
        return scheduler
