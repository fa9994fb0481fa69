"""What jobs on worker processes find: random streams, torch's threads, what the script has set."""

import random

import numpy as np
import pytest
import torch
from executor_contract import JobRunner
from process_runs import ProcessRuns

from junky_core.devices import parse_devices
from junky_core.engine.settings import SweepSettings
from junky_core.engine.sweep import Sweep
from junky_core.executors.processes.fork_server import ForkServer, is_supported
from junky_core.executors.processes.worker import set_torch_state, torch_state
from junky_core.job.best import BestModel
from junky_core.job.torch_state import default_device
from junky_core.jobs import GridSource, Job

pytestmark = pytest.mark.skipif(not is_supported(), reason="the fork server is for Linux")

SERVER = ForkServer()


@pytest.fixture(scope="module", autouse=True)
def _server():
    with SERVER:
        yield


@pytest.fixture
def run(tmp_path):
    runs = ProcessRuns(tmp_path, SERVER)
    yield runs
    runs.close()


class StateRunner(JobRunner):
    """Runs what parameters say; ``params["do"]`` names the function that gives the value."""

    def run(self, attempt, job):
        super().run(attempt, job)
        return FUNCTIONS[job.params["do"]](job)


def draw(_job):
    return [random.random(), float(np.random.rand()), float(torch.rand(1, dtype=torch.double))]


def train(job):
    if "own_seed" in job.params:
        torch.manual_seed(job.params["own_seed"])
    model = torch.nn.Sequential(
        torch.nn.Linear(8, 16), torch.nn.Dropout(0.2), torch.nn.Linear(16, 1)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=job.params["lr"])
    for _ in range(20):
        inputs = torch.randn(32, 8)
        loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss).hex()


def threads(_job):
    return torch.get_num_threads()


FUNCTIONS = {f.__name__: f for f in (draw, train, threads)}


def values(results):
    assert [result.error for result in results] == [""] * len(results)
    return [result.value for result in results]


def on_threads(folder, *params, **settings):
    """Return what the same jobs return on one thread."""
    sweep = Sweep(
        parse_devices("cpu"),
        StateRunner(),
        BestModel(folder / "on_threads.pt"),
        settings=SweepSettings(**settings),
    )
    try:
        jobs = [Job(num, one) for num, one in enumerate(params)]
        return values(sweep.run(GridSource(jobs, len(jobs))))
    finally:
        sweep.close()


def test_unseeded_workers_draw_different_numbers(run, tmp_path):
    flags = [str(tmp_path / f"flag{n}") for n in range(3)]
    jobs = [{"do": "draw", "write": flag, "wait": flags} for flag in flags]
    drawn = values(run(*jobs, slots=3, runner=StateRunner()))
    for kind in zip(*drawn, strict=True):
        assert len(set(kind)) == 3


@pytest.mark.parametrize("seed", ["of the sweep", "of the job"])
def test_seeded_jobs_are_those_of_threads_to_the_bit(run, tmp_path, seed):
    settings = {"seed": 3} if seed == "of the sweep" else {"threads_per_slot": 1}
    own = {} if seed == "of the sweep" else {"own_seed": 5}
    jobs = [{"do": "train", "lr": lr, **own} for lr in (0.1, 0.01, 0.001, 0.0001)]
    expected = on_threads(tmp_path, *jobs, **settings)
    assert len(set(expected)) == 4
    assert values(run(*jobs, slots=2, runner=StateRunner(), **settings)) == expected


def test_a_job_that_seeds_itself_is_the_plain_script_to_the_bit(run):
    jobs = [{"do": "train", "lr": lr, "own_seed": 5} for lr in (0.1, 0.01)]
    found = values(run(*jobs, slots=2, runner=StateRunner(), threads_per_slot=1))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            plain = [train(Job(n, one)) for n, one in enumerate(jobs)]
    finally:
        torch.set_num_threads(before)
    assert found == plain


@pytest.mark.parametrize(
    ("settings", "variable"),
    [({}, None), ({"seed": 1}, None), ({"threads_per_slot": 3}, None), ({}, "5")],
)
def test_torch_has_the_threads_that_it_has_on_threads(
    run, tmp_path, monkeypatch, settings, variable
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    before = torch.get_num_threads()
    torch.set_num_threads(7)  # as a script may do
    try:
        expected = on_threads(tmp_path, {"do": "threads"}, **settings)
        assert values(run({"do": "threads"}, runner=StateRunner(), **settings)) == expected
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("given", "slot", "expected"),
    [
        ("cuda:1", "cuda:0", "cuda:0"),  # the slot's GPU is the only one there
        ("meta", "cuda:0", "meta"),
        (None, "cpu", "None"),
    ],
)
def test_a_default_device_is_that_of_the_slot(given, slot, expected):
    state = torch_state()
    device = None if given is None else torch.device(given)
    try:
        set_torch_state({**state, "device": device}, slot)
        assert str(default_device()) == expected
    finally:
        set_torch_state(state, "cpu")
