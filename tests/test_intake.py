"""The source is asked by one slot at a time, outside the scheduler's lock."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fake_sampler import FakeSampler
from source_contract import OneAtATime, score_of

from junky_core.devices import SlotSpec
from junky_core.engine.scheduler import Scheduler
from junky_core.errors import SourceError
from junky_core.executors.contract import AttemptEnd
from junky_core.jobs import NOT_NOW, Job

OK = AttemptEnd(kind="finished", duration_s=0.0)
OOM = AttemptEnd(kind="oom", duration_s=0.0)


class Script:
    """Answers as scripted: a job for a number, or what a function returns."""

    hears_scores = True
    total = None

    def __init__(self, *answers):
        self.answers, self.heard = list(answers), []

    def next_job(self):
        answer = self.answers.pop(0) if self.answers else None
        if callable(answer):
            answer = answer()
        return Job(answer, {}) if isinstance(answer, int) else answer

    def tell(self, result):
        self.heard.append(("end", result.num))

    def tell_score(self, report):
        self.heard.append(("score", report.job))


class Bench:
    """A scheduler over ``source`` whose slots take and report in separate threads."""

    def __init__(self, source, devices=("cpu", "cpu")):
        self.slots = [SlotSpec(index, device) for index, device in enumerate(devices, 1)]
        self.results = []
        self.scheduler = Scheduler(
            source, self.slots, max_retries=1, fail_fast=None, on_over=self.results.append
        )
        self.pool = ThreadPoolExecutor(8)

    def take(self, slot=1):
        """Take in another thread; return the future."""
        return self.pool.submit(self.scheduler.take, self.slots[slot - 1])

    def report(self, job, end=OK, slot=1):
        return self.scheduler.report(self.slots[slot - 1], job, end)


@pytest.fixture
def bench():
    made = []

    def make(*args):
        made.append(Bench(*args))
        return made[-1]

    yield make
    for one in made:
        one.scheduler.stop()
        one.pool.shutdown()


class Gate:
    """A call that waits until it is released."""

    def __init__(self, answer):
        self.entered, self.go, self.answer = threading.Event(), threading.Event(), answer

    def __call__(self):
        self.entered.set()
        assert self.go.wait(20)
        return self.answer


def num(future):
    job = future.result(20)
    return None if job is None else job.job.num


def test_results_and_scores_do_not_wait_for_a_slow_source(bench):
    gate = Gate(1)
    source = Script(0, gate)
    b = bench(source)
    first = b.take(1).result(20)
    waiting = b.take(2)
    assert gate.entered.wait(20)
    b.scheduler.hear(score_of(0))  # each returns although the source is still asked
    b.report(first)
    assert b.scheduler.left_in_source() is None
    assert source.heard == []
    gate.go.set()
    assert num(waiting) == 1


def test_news_are_handed_over_in_order_by_the_next_ask(bench):
    source = Script(0, 1, 2)
    b = bench(source)
    first = b.take(1).result(20)
    second = b.take(2).result(20)
    b.scheduler.hear(score_of(0))
    b.scheduler.hear(score_of(1))
    b.report(first)
    b.report(second, slot=2)
    assert num(b.take(1)) == 2
    assert source.heard == [("score", 0), ("score", 1), ("end", 0), ("end", 1)]


@pytest.mark.parametrize("news", ["end", "score"])
def test_not_now_is_asked_again_after_news(bench, news):
    refused = Gate(NOT_NOW)
    source = Script(0, refused, 1)
    b = bench(source)
    first = b.take(1).result(20)
    waiting = b.take(2)
    assert refused.entered.wait(20)
    refused.go.set()
    if news == "end":
        b.report(first)
    else:
        b.scheduler.hear(score_of(0))
    assert num(waiting) == 1
    assert source.heard == [(news, 0)]


def test_the_last_result_during_an_ask_that_returns_not_now_does_not_deadlock(bench):
    refused = Gate(NOT_NOW)
    b = bench(Script(0, refused, 1))
    first = b.take(1).result(20)
    waiting = b.take(2)
    assert refused.entered.wait(20)
    b.report(first)  # the last one that runs, while the other slot asks
    refused.go.set()
    assert num(waiting) == 1


def test_not_now_is_not_asked_again_without_news(bench):
    first_time, second_time = Gate(NOT_NOW), Gate(NOT_NOW)
    b = bench(Script(0, first_time, second_time), ("cpu",) * 4)
    first = b.take(1).result(20)
    waiting = [b.take(slot) for slot in (2, 3, 4)]
    first_time.go.set()
    assert first_time.entered.wait(20)
    assert not second_time.entered.wait(0.2)
    b.scheduler.hear(score_of(0))
    assert second_time.entered.wait(20)
    b.scheduler.stop()
    second_time.go.set()
    assert [num(one) for one in waiting] == [None] * 3
    b.report(first)


def test_a_source_that_hears_no_scores_gets_none_and_none_are_kept(bench):
    source = Script(0, 1)
    source.hears_scores = False
    b = bench(source)
    first = b.take(1).result(20)
    for _ in range(1000):
        b.scheduler.hear(score_of(0))
    assert b.scheduler._intake._take_news() == []
    b.report(first)
    assert num(b.take(1)) == 1
    assert source.heard == [("end", 0)]


def test_one_slot_asks_at_a_time(bench):
    gates = [Gate(0), Gate(1)]
    b = bench(OneAtATime(Script(*gates)))
    futures = [b.take(1), b.take(2)]
    for gate in gates:
        assert gate.entered.wait(20)
        gate.go.set()
    assert sorted(map(num, futures)) == [0, 1]


@pytest.mark.parametrize("ends", ["stop", "close"])
def test_a_job_pulled_while_its_slot_ends_is_kept(bench, ends):
    gate = Gate(0)
    b = bench(Script(gate), ("cpu",))
    waiting = b.take(1)
    assert gate.entered.wait(20)
    if ends == "stop":
        b.scheduler.stop()
    else:
        b.scheduler.close_slot(b.slots[0])
    gate.go.set()
    assert num(waiting) is None
    (job,) = b.scheduler.unfinished()
    result = job.unfinished(failed_fast=False)
    assert (result.num, result.status, result.slot, result.attempts) == (0, "stopped", 0, 0)


def test_a_job_pulled_by_a_slot_that_closes_goes_to_another(bench):
    gate = Gate(1)
    b = bench(Script(0, gate))
    first = b.take(2).result(20)
    waiting = b.take(1)
    assert gate.entered.wait(20)
    b.scheduler.close_slot(b.slots[0])
    gate.go.set()
    assert num(waiting) is None
    b.report(first, slot=2)
    assert num(b.take(2)) == 1


def test_a_source_that_raises_is_not_asked_again_and_no_slot_hangs(bench):
    def broken():
        raise ValueError("no")

    b = bench(Script(0, broken, 1), ("cpu",) * 4)
    first = b.take(1).result(20)
    waiting = [b.take(slot) for slot in (2, 3, 4)]
    b.report(first)
    errors = [one.exception(20) for one in waiting]
    assert sum(isinstance(error, SourceError) for error in errors) == 1
    assert errors.count(None) == 2
    assert num(b.take(1)) is None


def test_a_retry_runs_while_the_source_has_no_job(bench):
    b = bench(Script(0, NOT_NOW), ("cpu",))
    job = b.take().result(20)
    b.report(job, AttemptEnd(kind="error", duration_s=0.0))
    assert b.take().result(20) is job
    assert job.attempts == 2
    b.report(job)
    assert num(b.take()) is None


def test_a_fresh_job_does_not_run_at_the_same_time_as_one_that_must_run_alone(bench):
    gate = Gate(2)
    b = bench(Script(0, NOT_NOW, 1, gate), ("cuda:0", "cuda:0", "cuda:1"))
    job = b.take(1).result(20)
    b.report(job, OOM)
    assert b.take(1).result(20) is job  # alone on cuda:0
    beside = b.take(2)
    b.scheduler.hear(score_of(0))  # news: the source has jobs again
    assert num(b.take(3)) == 1  # another device may take one
    assert not gate.entered.wait(0.2)  # and the slot that must wait does not ask for one
    b.report(job)
    gate.go.set()
    assert num(beside) == 2


def test_no_job_is_lost_when_racing_slots_are_stopped(bench):
    """A sampler that often returns NOT_NOW, 8 slots, and a stop in the middle: 30 times."""
    for seed in range(30):
        dice = random.Random(seed)
        stop_at, source = dice.randrange(1, 120), OneAtATime(FakeSampler(120, lag=1 + seed % 8))
        b = Bench(source, ("cpu",) * 8)

        def work(slot, b=b, stop_at=stop_at):
            while (job := b.scheduler.take(slot)) is not None:
                b.scheduler.hear(score_of(job.job.num))
                dies = job.job.num % 7 == 0 and job.attempts == 1
                b.scheduler.report(slot, job, AttemptEnd("error" if dies else "finished", 0.0))
                if len(b.results) >= stop_at:
                    b.scheduler.stop()

        for future in [b.pool.submit(work, slot) for slot in b.slots]:
            future.result(60)
        b.pool.shutdown()
        unfinished = [job.unfinished(failed_fast=False) for job in b.scheduler.unfinished()]
        b.scheduler.tell_source(unfinished)
        over = [result.num for result in (*b.results, *unfinished)]
        assert sorted(over) == sorted(source.handed_out) == sorted(source.told)
        assert b.scheduler.left_in_source() == 120 - len(source.handed_out)
