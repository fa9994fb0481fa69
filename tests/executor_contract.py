"""What every executor must do: subclass :class:`ExecutorContract` and set ``make_executor``.

    class TestMyExecutor(ExecutorContract):
        make_executor = MyExecutor

What jobs do is a module-level function and plain parameters, so that they can be sent to other
processes, and what they wait for is a file.
"""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from junky_core import current_job
from junky_core.devices import SlotSpec, parse_devices
from junky_core.engine.settings import SweepSettings
from junky_core.engine.sweep import Sweep
from junky_core.errors import SweepFailed, SweepInterrupted
from junky_core.events import (
    AttemptFailed,
    JobFailed,
    JobFinished,
    JobStarted,
    ScoreReported,
    SlotClosed,
    SweepEnded,
    SweepStarted,
)
from junky_core.executors.contract import AttemptSettings
from junky_core.job.best import BestModel
from junky_core.jobs import Attempt, EndKind, GridSource, Job

LIMIT_S = 30  # for what must not hang


class JobRunner:
    """Runs what a job's parameters say; ``bad_slots`` cannot be opened."""

    def __init__(self, bad_slots=()):
        self.bad_slots = bad_slots

    def open_slot(self, slot):
        if slot.spec.index in self.bad_slots:
            raise OSError(f"slot {slot.spec.index} is broken")

    def run(self, _attempt, job):
        params = job.params
        for score in params.get("scores", ()):
            job.save_best(torch.nn.Linear(1, 1), score)
        if "write" in params:
            Path(params["write"]).touch()
        for path in params.get("wait", ()):
            wait_for(Path(path).exists)
        if "loaders" in params:
            value = job.loaders(make_loaders, *params["loaders"])
            job.save_best(torch.nn.Linear(1, 1), 0.5)  # answered by who knows of the loaders
            Path(params["loaders"][1]).touch()
            return value
        if params.get("spin"):
            wait_for(lambda: False)
        if params.get("dies", 0) >= job.attempt:
            raise ValueError(f"job {job.num} dies")
        return params.get("value")

    def keep(self, attempt, exception):
        pass


def make_loaders(broken, built, tried):
    """Build loaders, but not on slot ``broken``; with 0, on none.

    Either waits for the other, so that both have a job.
    """
    slot = current_job().slot
    if broken == 0:
        raise OSError("no slot can build them")
    if slot == broken:
        Path(tried).touch()
        wait_for(Path(built).exists)
        raise OSError(f"slot {slot} cannot build them")
    wait_for(Path(tried).exists)
    return 7


def wait_for(condition):
    end, pause = time.monotonic() + LIMIT_S, threading.Event()
    while not condition():
        assert time.monotonic() < end
        pause.wait(0.005)
        job = current_job()
        job.check()


class Recorder:
    """Hears events at once, and calls ``on[type](event)`` in the thread of the event."""

    def __init__(self, **on):
        self.seen, self.on, self.lock = [], on, threading.Lock()

    def on_event(self, event):
        with self.lock:
            self.seen.append(event)
        self.on.get(type(event).__name__, lambda _event: None)(event)

    def all(self, *kinds):
        return [event for event in self.seen if isinstance(event, kinds)]


def interrupt(_event=None):
    os.kill(os.getpid(), signal.SIGINT)


class ExecutorContract:
    """The contract, on 1 and on 4 slots."""

    make_executor = None

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder, self.sweeps = tmp_path, []
        before = set(threading.enumerate())
        yield
        for sweep in self.sweeps:
            sweep.close()
        left = set(threading.enumerate()) - before
        assert not [thread.name for thread in left if thread.name.startswith("Thread-")]

    @pytest.fixture(params=[1, 4])
    def slots(self, request):
        return request.param

    def sweep(self, slots, recorder=None, runner=None, **settings):
        settings.setdefault("fail_fast", None)
        sweep = Sweep(
            parse_devices(f"cpu*{slots}"),
            runner or JobRunner(),
            BestModel(self.folder / "model.pt"),
            settings=SweepSettings(**settings),
            recorder=recorder,
            make_executor=type(self).make_executor,
        )
        self.sweeps.append(sweep)
        return sweep

    def jobs(self, *params):
        return GridSource([Job(num, one) for num, one in enumerate(params)], len(params))

    def test_every_job_has_one_outcome(self, slots):
        kinds = [
            {"value": 7, "scores": [0.5, 0.9, 0.1]},
            {"dies": 1, "value": "second"},
            {"dies": 9},
            {},
        ]
        recorder = Recorder()
        results = self.sweep(slots, recorder).run(self.jobs(*kinds * 10))
        assert [result.num for result in results] == list(range(40))
        for result in results:
            status, value, score, attempts = [
                ("finished", 7, 0.9, 1),
                ("finished", "second", None, 2),
                ("failed", None, None, 2),
                ("finished", None, None, 1),
            ][result.num % 4]
            assert (result.status, result.value, result.attempts) == (status, value, attempts)
            assert result.score == score
        over = [event.job for event in recorder.all(JobFinished, JobFailed)]
        assert sorted(over) == list(range(40))

    def test_an_error_arrives_with_its_text(self, slots):
        (result,) = self.sweep(slots, max_retries=0).run(self.jobs({"dies": 1}))
        assert result.error == "ValueError: job 0 dies"
        assert "in run" in result.traceback
        assert isinstance(result.exception, ValueError)

    def test_events_come_in_order(self, slots):
        recorder = Recorder()
        one = {"scores": [0.1, 0.2], "dies": 1}
        self.sweep(slots, recorder).run(self.jobs(*[one] * 12))
        assert isinstance(recorder.seen[0], SweepStarted)
        assert isinstance(recorder.seen[-1], SweepEnded)
        kinds = (JobStarted, ScoreReported, AttemptFailed, JobFinished)
        names = [event.name for event in recorder.all(JobStarted)]
        assert len(set(names)) == len(names) == 24
        for name in names:
            story = [type(e) for e in recorder.all(*kinds) if e.name == name]
            end = story[-1]
            assert end in (AttemptFailed, JobFinished), (name, story)
            assert story == [JobStarted, ScoreReported, ScoreReported, end]
        for slot in range(1, slots + 1):  # one attempt at a time
            own = [e for e in recorder.all(JobStarted, AttemptFailed) if e.slot == slot]
            started = [e.name for e in own if isinstance(e, JobStarted)]
            assert started == [f"Thread-{slot}_{n}" for n in range(len(started))]

    def test_slots_work_side_by_side(self):
        paths = [str(self.folder / f"flag{n}") for n in range(4)]
        params = [{"write": paths[n], "wait": paths} for n in range(4)]
        results = self.sweep(4).run(self.jobs(*params))
        assert {result.slot for result in results} == {1, 2, 3, 4}
        assert {result.status for result in results} == {"finished"}

    def test_a_job_over_its_time_ends_and_the_next_one_does_not(self, slots):
        recorder = Recorder()
        results = self.sweep(slots, recorder, job_timeout_s=0.3).run(
            self.jobs(*[{"spin": True}] * slots, *[{"value": 1}] * 8)
        )
        assert [r.status for r in results] == ["failed"] * slots + ["finished"] * 8
        failed = recorder.all(AttemptFailed)
        assert [(event.kind, event.retry) for event in failed] == [("timeout", False)] * slots
        assert "exceeded its time limit of 0.3 s" in results[0].error

    @pytest.mark.parametrize("phase", ["JobStarted", "ScoreReported"])
    def test_what_runs_ends_when_the_sweep_is_stopped(self, slots, phase):
        recorder = Recorder(**{phase: lambda event: event.job == slots - 1 and interrupt()})
        with pytest.raises(SweepInterrupted) as caught:
            self.sweep(slots, recorder).run(
                self.jobs(*[{"scores": [0.5], "spin": True}] * (slots + 5))
            )
        assert {r.status for r in caught.value.result} == {"stopped"}
        assert 1 <= len(caught.value.result) <= slots
        (end,) = recorder.all(SweepEnded)
        assert (end.reason, end.finished, end.left) == ("interrupted", 0, slots + 5)
        started = len(recorder.all(JobStarted))
        assert [e.kind for e in recorder.all(AttemptFailed)] == ["interrupted"] * started

    def test_a_job_that_begins_as_the_sweep_is_stopped_ends_too(self, slots):
        stopped = threading.Event()

        def begin(event):
            if event.job == 0:
                interrupt()
            assert stopped.wait(LIMIT_S)  # all slots are about to begin, and have been asked to end

        def note(event):
            if "the sweep ends" in event.message:
                stopped.set()

        recorder = Recorder(JobStarted=begin, Notice=note)
        with pytest.raises(SweepInterrupted) as caught:
            self.sweep(slots, recorder).run(self.jobs(*[{"spin": True}] * slots))
        assert {r.status for r in caught.value.result} == {"stopped"}

    def test_a_stop_at_the_last_end_keeps_every_result(self, slots):
        recorder = Recorder(JobFinished=lambda event: event.job == 3 and interrupt())
        with pytest.raises(SweepInterrupted) as caught:
            self.sweep(slots, recorder).run(self.jobs(*[{"value": n} for n in range(4)]))
        by_num = {result.num: result for result in caught.value.result}
        assert by_num[3].value == 3
        assert {r.status for r in by_num.values()} <= {"finished", "stopped"}

    def test_a_stop_before_its_attempt_begins_is_kept_and_a_late_one_is_not(self):
        executor, slot = self.executor()
        with executor.running(1):
            worker = executor.worker(slot)
            with worker.attached():
                assert worker.open() == ""
                worker.stop("a", EndKind.INTERRUPTED, "enough")
                ended = worker.execute(Attempt(Job(0, {"spin": True}), 1, "a"))
                after = worker.execute(Attempt(Job(1, {"scores": [0.5]}), 1, "b"))
        executor.close()
        assert (ended.kind, after.kind) == (EndKind.INTERRUPTED, EndKind.FINISHED)
        assert "enough" in ended.error

    def executor(self):
        """Return an executor without an engine, and its slot."""

        class Link:
            best = BestModel(self.folder / "model.pt")

            def emit(self, event):
                pass

            warn = open_slot = close_slot = emit

        slot = SlotSpec(1, "cpu")
        return type(self).make_executor([slot], JobRunner(), AttemptSettings(), Link()), slot

    def test_a_worker_is_always_the_same_for_its_slot(self):
        executor, slot = self.executor()
        assert executor.worker(slot) is executor.worker(slot)
        executor.close()

    def test_the_best_score_of_earlier_attempts_counts(self, slots):
        one = {"scores": [0.5], "dies": 1}
        (result,) = self.sweep(slots).run(self.jobs(one))
        assert (result.score, result.attempts) == (0.5, 2)

    def test_a_slot_that_cannot_be_opened_is_closed_with_its_reason(self):
        recorder = Recorder()
        sweep = self.sweep(4, recorder, JobRunner(bad_slots=(2,)))
        results = sweep.run(self.jobs(*[{"value": n} for n in range(20)]))
        assert [result.value for result in results] == list(range(20))
        (closed,) = recorder.all(SlotClosed)
        assert (closed.slot, "slot 2 is broken" in closed.reason) == (2, True)

    def test_a_slot_that_opens_takes_jobs(self):
        flag = str(self.folder / "flag")
        recorder = Recorder(JobStarted=lambda e: e.job == 0 and sweep.open_slot(SlotSpec(2, "cpu")))
        sweep = self.sweep(1, recorder)
        results = sweep.run(self.jobs({"wait": [flag]}, {"write": flag}))
        assert [(r.status, r.slot) for r in results] == [("finished", 1), ("finished", 2)]
        again = sweep.run(self.jobs({}, {}, {}))  # and in the next batch
        assert {result.status for result in again} == {"finished"}

    def test_a_slot_that_closes_ends_its_attempt_and_takes_no_more(self):
        def close(event):
            if event.slot == 1:
                sweep.close_slot(SlotSpec(1, "cpu"), "the machine is needed")

        recorder = Recorder(JobStarted=close)
        sweep = self.sweep(2, recorder)
        results = sweep.run(self.jobs(*[{"value": n} for n in range(20)]))
        assert [result.value for result in results] == list(range(20))
        assert sum(event.slot == 1 for event in recorder.all(JobStarted)) <= 1

    def test_the_last_slot_to_close_with_jobs_left_is_an_error(self):
        recorder = Recorder(
            JobStarted=lambda _: sweep.close_slot(SlotSpec(1, "cpu"), "the machine is needed")
        )
        sweep = self.sweep(1, recorder)
        with pytest.raises(SweepFailed, match=r"no slot is left.*\n.*the machine is needed"):
            sweep.run(self.jobs({"dies": 1}, {}, {}))
        (end,) = recorder.all(SweepEnded)
        assert (end.reason, end.finished, end.left) == ("no_slots", 0, 3)

    def test_batches_follow_one_another(self, slots):
        recorder = Recorder()
        sweep = self.sweep(slots, recorder)
        for _ in range(3):
            assert len(sweep.run(self.jobs(*[{}] * 8))) == 8
        names = [event.name for event in recorder.all(JobStarted)]
        assert len(set(names)) == 24

    def test_a_sweep_that_never_ran_can_be_closed(self, slots):
        self.sweep(slots)

    @pytest.mark.parametrize("broken", [1, 2])
    def test_a_slot_that_cannot_build_what_another_has_built_is_closed(self, broken):
        flags = [str(self.folder / "built"), str(self.folder / "tried")]
        recorder = Recorder()
        sweep = self.sweep(2, recorder)
        jobs = [{"loaders": [broken, *flags]} for _ in range(4)]
        results = sweep.run(self.jobs(*jobs))
        assert [(r.status, r.slot, r.value) for r in results] == [("finished", 3 - broken, 7)] * 4
        assert [event.slot for event in recorder.all(SlotClosed)] == [broken]
        assert {event.kind for event in recorder.all(AttemptFailed)} == {"loaders"}

    def test_a_slot_is_not_closed_for_loaders_that_none_can_build(self):
        recorder = Recorder()
        sweep = self.sweep(2, recorder, max_retries=0)
        flag = str(self.folder / "flag")
        results = sweep.run(self.jobs({"loaders": [0, flag, flag]}, {"value": 2}))
        assert [result.status for result in results] == ["failed", "finished"]
        assert recorder.all(SlotClosed) == []
