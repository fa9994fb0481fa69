"""Cancellation points are installed only while a sweep needs them."""

import threading

import pytest
import torch
from torch.utils.data import DataLoader, dataloader

from junky_core import SweepFailed, torch_autotrain
from junky_core.engine import watch
from junky_core.errors import JobStopped
from junky_core.events import Notice
from junky_core.job.cancellation import CancellationPoints
from junky_core.job.scopes import JobScope, enter_scope


class Stopped:
    def check(self):
        raise JobStopped("stop", "timeout")


def weight():
    return torch.nn.Parameter(torch.zeros(1))


USES = {
    "model": lambda: torch.nn.Identity()(1),
    "loader": lambda: next(iter(DataLoader([1]))),
    "optimizer": lambda: torch.optim.SGD([weight()], lr=1).step(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_use_is_a_cancellation_point_while_armed(use):
    points = CancellationPoints()
    with enter_scope(JobScope(Stopped())):
        use()
        points.arm()
        try:
            with pytest.raises(JobStopped):
                use()
        finally:
            points.disarm()
        use()


def test_outside_jobs_nothing_is_checked():
    points = CancellationPoints()
    points.arm()
    try:
        for use in USES.values():
            use()
    finally:
        points.disarm()


@pytest.mark.parametrize("first", [0, 1])
def test_overlapping_sweeps_leave_nothing_whichever_ends_first(first):
    plain = dataloader._BaseDataLoaderIter.__next__
    sweeps = [CancellationPoints(), CancellationPoints()]
    for points in sweeps:
        points.arm()
    sweeps[first].disarm()
    with enter_scope(JobScope(Stopped())), pytest.raises(JobStopped):
        USES["loader"]()
    sweeps[1 - first].disarm()
    assert dataloader._BaseDataLoaderIter.__next__ is plain


def test_a_job_over_its_time_without_cancellation_points_is_named_repeatedly(
    monkeypatch,
):
    monkeypatch.setattr(watch, "REMIND_EVERY_S", 0.02)
    seen, twice = [], threading.Event()

    class Listener:
        def on_event(self, event):
            if isinstance(event, Notice) and "over its time" in event.message:
                seen.append(event.message)
                if len(seen) == 2:
                    twice.set()

    def train(_device, _loaders, _model, save_best, _prefix):
        assert twice.wait(30)  # no cancellation point
        save_best(torch.nn.Linear(1, 1), 1.0)

    with pytest.raises(SweepFailed):
        torch_autotrain(lambda: torch.nn.Linear(1, 1), train, job_timeout_s=0.01,
                        observers=[Listener()])  # fmt: skip
    for words in ("Thread-1_0 (job 0)", "its time limit of 0.01 s", "check()", "Ctrl-C"):
        assert words in seen[0]


def test_a_job_over_its_time_is_named_once_a_minute():
    assert watch.REMIND_EVERY_S == 60
