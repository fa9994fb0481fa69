"""The sources of jobs fulfil the contract, and sweeps run with each."""

import threading

import pytest
import torch
from fake_sampler import FakeSampler
from source_contract import SourceContract

from junky_core.devices import parse_devices
from junky_core.engine.settings import SweepSettings
from junky_core.engine.sweep import Sweep
from junky_core.errors import SourceError, SweepInterrupted
from junky_core.events import SweepEnded
from junky_core.job.best import BestModel
from junky_core.jobs import NOT_NOW, GridSource, Job


class TestGridSource(SourceContract):
    def make(self, jobs):
        return GridSource((Job(num, {"x": num}) for num in range(jobs)), jobs)


class TestGridSourceOfUnknownLength(SourceContract):
    def make(self, jobs):
        return GridSource((Job(num, {"x": num}) for num in range(jobs)), None)


class TestSampler(SourceContract):
    def make(self, jobs):
        return FakeSampler(jobs)


class TestSamplerOneByOne(SourceContract):
    def make(self, jobs):
        return FakeSampler(jobs, lag=1)


class Runner:
    """What jobs do: ``function(job)``."""

    def __init__(self, function):
        self.function = function

    def open_slot(self, slot):
        pass

    def run(self, _attempt, job):
        return self.function(job)

    def keep(self, attempt, exception):
        pass


class Events:
    def __init__(self):
        self.seen = []

    def on_event(self, event):
        self.seen.append(event)

    @property
    def end(self):
        (end,) = [event for event in self.seen if isinstance(event, SweepEnded)]
        return end


@pytest.fixture
def sweep_of(tmp_path):
    """Make sweeps, and close them at the end."""
    made = []

    def make(function, slots="cpu*2", recorder=None, **settings):
        events = Events()
        best = BestModel(tmp_path / "model.pt")
        sweep = Sweep(
            parse_devices(slots),
            Runner(function),
            best,
            [events],
            SweepSettings(**settings),
            recorder=recorder,
        )
        made.append(sweep)
        return sweep, events

    yield make
    for sweep in made:
        sweep.close()
        sweep.best.close()


def save_x(job):
    job.save_best(torch.nn.Linear(1, 1), job.params["x"])


def test_a_sampler_gets_each_result_and_each_score(sweep_of):
    sweep, events = sweep_of(save_x, "cpu*4")
    sampler = FakeSampler(40)
    results = sweep.run(sampler)
    assert [result.num for result in results] == list(range(40))
    assert sorted(result.num for result in sampler.told) == list(range(40))
    assert sorted(num for num, _ in sampler.scores) == list(range(40))
    assert (events.end.reason, events.end.finished, events.end.left) == ("completed", 40, 0)


def test_the_last_results_are_delivered_although_no_slot_asks_for_a_job(sweep_of):
    class Grid(GridSource):
        def __init__(self, *args):
            super().__init__(*args)
            self.told = []

        def tell(self, result):
            self.told.append(result.num)

    grid = Grid((Job(num, {"x": num}) for num in range(3)), 3)
    sweep, _ = sweep_of(save_x, "cpu")
    sweep.run(grid)
    assert grid.told == [0, 1, 2]


class Broken(FakeSampler):
    """Raises, or returns something wrong, at the third call of ``where``."""

    def __init__(self, where, error=ValueError("the study is gone")):
        super().__init__(9)
        self.where, self.error, self.calls = where, error, 0

    def _count(self, method):
        if self.where == method:
            self.calls += 1
            if self.calls == 3:
                if self.error is not None:
                    raise self.error
                return "nonsense"
        return None

    def next_job(self):
        return self._count("next_job") or super().next_job()

    def tell(self, result):
        self._count("tell")
        super().tell(result)

    def tell_score(self, report):
        self._count("tell_score")
        super().tell_score(report)


@pytest.mark.parametrize("where", ["next_job", "tell", "tell_score"])
def test_a_source_that_raises_ends_the_sweep_with_its_name(sweep_of, where):
    sweep, events = sweep_of(save_x)
    source = Broken(where)
    with pytest.raises(
        SourceError, match=r"Broken\) failed.*ValueError: the study is gone"
    ) as caught:
        sweep.run(source)
    assert isinstance(caught.value.__cause__, ValueError)
    assert events.end.reason == "error"
    assert source.calls == 3  # it is not called again
    assert sweep.results()
    assert all(result.status in ("finished", "stopped") for result in sweep.results())


def test_a_source_that_returns_something_else_is_named(sweep_of):
    sweep, _ = sweep_of(save_x)
    with pytest.raises(SourceError, match=r"Broken\) returned 'nonsense'.*Job, NOT_NOW"):
        sweep.run(Broken("next_job", None))


def test_a_source_that_raises_at_the_very_end_is_reported(sweep_of):
    class Last(GridSource):
        def tell(self, result):
            raise OSError("disk")

    sweep, events = sweep_of(save_x, "cpu")
    with pytest.raises(SourceError, match=r"Last\) failed.*OSError: disk"):
        sweep.run(Last([Job(0, {"x": 1})], 1))
    assert [result.status for result in sweep.results()] == ["finished"]
    assert events.end.finished == 1


def test_ctrl_c_in_a_source_propagates(sweep_of):
    sweep, _ = sweep_of(save_x)
    with pytest.raises(KeyboardInterrupt):
        sweep.run(Broken("next_job", KeyboardInterrupt()))


def test_waiting_for_news_that_cannot_come_is_an_error(sweep_of):
    class Stubborn(FakeSampler):
        def next_job(self):
            return NOT_NOW if len(self.told) >= 2 else super().next_job()

    sweep, events = sweep_of(save_x, "cpu*3")
    with pytest.raises(SourceError, match=r"Stubborn\) has no job now.*no job runs"):
        sweep.run(Stubborn(9, lag=2))
    assert events.end.reason == "error"


def test_a_job_proposed_while_the_sweep_ends_is_not_lost(sweep_of):
    asked, ended = threading.Event(), threading.Event()

    class Slow(FakeSampler):
        def next_job(self):
            if self._proposed == 1:
                asked.set()
                assert ended.wait(20)
            return super().next_job()

    def stop(job):
        if job.num == 0:
            assert asked.wait(20)
            raise KeyboardInterrupt

    sweep, events = sweep_of(stop, recorder=Recorder(ended))
    source = Slow(5)
    with pytest.raises(SweepInterrupted) as caught:
        sweep.run(source)
    begun, pulled = caught.value.result
    assert (begun.num, begun.status, pulled.num, pulled.status) == (0, "stopped", 1, "stopped")
    assert begun.slot > 0 == pulled.slot  # it never started
    assert (events.end.finished, events.end.left) == (0, 5)
    assert sorted(result.num for result in source.told) == [0, 1]


class Recorder:
    """Releases the source once the sweep has announced its end."""

    def __init__(self, ended):
        self.ended = ended

    def on_event(self, event):
        if "Interrupt again" in getattr(event, "message", ""):
            self.ended.set()
