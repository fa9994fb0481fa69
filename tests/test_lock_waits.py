"""The end of a sweep on threads says when slots mostly waited for the interpreter lock, only then."""

import threading
import time
from dataclasses import replace

import pytest
import torch

from junky_core import torch_autotrain
from junky_core.events import Notice
from junky_core.executors import lock_waits
from junky_core.executors.lock_waits import LockWaits, RunFigures, ThreadFigures

# Two slots for a minute: each ran half the time and waited half the time, 0.5 ms at a time.
BOUND = RunFigures(
    wall_s=60.0,
    process_s=62.0,
    busy_s=118.0,
    slots=ThreadFigures(cpu_s=60.0, delayed_s=1.0, waits=120_000),
    cores=8,
)


def other(slots=None, **figures):
    return replace(BOUND, slots=replace(BOUND.slots, **(slots or {})), **figures)


def test_slots_that_take_turns_show_it():
    assert BOUND.show_lock_waits()
    assert BOUND.advice() == (
        "2.0 slots were busy on average, but used only 1.0 CPU cores: they mostly waited for "
        "Python's interpreter lock, which threads share. With executor=processes each slot has its own"
    )


def test_so_do_eight():
    assert other({"waits": 800_000}, busy_s=472.0).show_lock_waits()


@pytest.mark.parametrize(
    "figures",
    {
        "a short sweep": other(
            {"cpu_s": 8.0, "waits": 4000}, wall_s=8.0, process_s=8.0, busy_s=15.0
        ),
        "one slot": other({"cpu_s": 57.0}, busy_s=59.0),
        "one slot for most of the time": other(busy_s=80.0),
        "kernels in parallel": other({"cpu_s": 110.0}, process_s=112.0),
        "waiting for GPUs, which spins": other({"cpu_s": 116.0}, process_s=117.0),
        "waiting for GPUs, which sleeps": other({"cpu_s": 20.0}, process_s=22.0),
        "a disk": other({"cpu_s": 12.0, "waits": 100_000}, process_s=14.0),
        "sleeping half of the time, 5 ms each": other({"waits": 12_000}),
        "a machine that others use": other({"cpu_s": 58.0, "delayed_s": 50.0}),
        "one core, which two slots share": other({"cpu_s": 58.0, "delayed_s": 60.0}),
        "one core": other(cores=1),
        "enough cores": other({"cpu_s": 95.0}, process_s=96.0),
    }.items(),
    ids=lambda item: item[0].replace(" ", "-"),
)
def test_nothing_else_shows_it(figures):
    assert not figures[1].show_lock_waits()


def sweep(train, devices="cpu*2"):
    heard = []

    class Listener:
        def on_event(self, event):
            if isinstance(event, Notice) and "interpreter lock" in event.message:
                heard.append(event.message)

    torch_autotrain(
        lambda job: torch.nn.Linear(1, 1), train, make_model_fit_params=[("job", [1, 2])],
        devices=devices, observers=[Listener()],
    )  # fmt: skip
    return heard


def train_tiny(*_):
    """Train a tiny network until the job has had some time of it."""
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    end = time.thread_time() + 0.6
    while time.thread_time() < end:
        optimizer.zero_grad()
        model(torch.ones(4, 8)).sum().backward()
        optimizer.step()


def sleep_half_of_the_time(*_):
    """Use half a core, so that two jobs use one."""
    for _ in range(60):
        end = time.thread_time() + 0.005
        while time.thread_time() < end:
            sum(range(100))
        threading.Event().wait(0.005)


@pytest.fixture
def figures(tmp_path, monkeypatch):
    """The figures that runs were judged by; short ones count too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lock_waits, "_LEAST_S", 0.5)
    seen = []
    judge = RunFigures.show_lock_waits

    def show_lock_waits(self):
        seen.append(self)
        return judge(self)

    monkeypatch.setattr(RunFigures, "show_lock_waits", show_lock_waits)
    return seen


@pytest.mark.skipif(ThreadFigures.of_this_thread() is None, reason="the system has no figures")
def test_the_figures_of_real_trainings_decide(figures):
    heard = sweep(train_tiny)
    (run,) = figures
    assert run.busy_s > 1.5 * run.wall_s
    assert 0 < run.slots.cpu_s + run.slots.delayed_s <= run.busy_s * 1.1
    assert heard == ([run.advice()] if run.show_lock_waits() else [])


def test_a_sweep_that_waits_is_not_told(figures):
    waited = threading.Event()
    assert sweep(lambda *_: waited.wait(0.6)) == []
    assert len(figures) <= 1


def test_a_sweep_that_sleeps_half_of_the_time_is_not_told(figures):
    assert sweep(sleep_half_of_the_time) == []
    assert len(figures) <= 1


def test_a_thread_s_figures_are_its_own():
    before = ThreadFigures.of_this_thread()
    if before is None:
        pytest.skip("the system has no figures")
    threading.Event().wait(0.01)
    waited = ThreadFigures.of_this_thread() - before
    assert waited.waits >= 1
    assert waited.cpu_s < 0.01
    waits = LockWaits()
    with waits.slot(), waits.job():
        threading.Event().wait(0.01)
    assert waits.advice() == ""
