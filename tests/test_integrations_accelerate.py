"""State of ``accelerate``: each slot has its own."""

import sys
import threading
from pathlib import Path

import pytest
import torch

from junky_core import current_job, torch_autotrain
from junky_core.events import Notice
from junky_core.job.libraries.accelerate import states_apart
from junky_core.job.scopes import JobScope, enter_scope

pytest.importorskip("accelerate", reason="needs the extra huggingface")

from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from accelerate.state import AcceleratorState, GradientState, PartialState, ThreadLocalSharedDict

sys.path.append(str(Path(__file__).parent / "apps"))
import accelerate_script
from running import run_plain, run_sweep

CLASSES = (PartialState, AcceleratorState, GradientState)
# Each slot gets several, so that the next job there has another precision and accumulation.
JOBS = [
    (1, "no"),
    (4, "bf16"),
    (4, "no"),
    (3, "bf16"),
    (4, "bf16"),
    (1, "no"),
    (3, "bf16"),
    (4, "no"),
]


@pytest.fixture(autouse=True)
def the_process_has_no_state(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = [vars(kind)["_shared_state"] for kind in CLASSES]
    yield
    assert all(
        vars(kind)["_shared_state"] is state for kind, state in zip(CLASSES, plain, strict=True)
    )
    for state in plain:
        state.clear()


class Notices:
    def __init__(self):
        self.messages = []

    def on_event(self, event):
        if isinstance(event, Notice):
            self.messages.append(event.message)


def sweep(train, jobs, slots, **settings):
    """Return the value of ``train(job)`` for each of ``jobs``."""
    result = torch_autotrain(
        lambda at: (torch.nn.Linear(1, 1), jobs[at]),
        lambda _device, loaders, _model, job, _save, _prefix: train(job, *loaders),
        make_model_fit_params=[("at", list(range(len(jobs))))],
        devices=f"cpu*{slots}",
        threads_per_slot=1,
        max_retries=0,
        progress=False,
        **settings,
    )
    assert not result.failed, result.failed[0].traceback
    return [value for *_, value in sorted(result.stats, key=lambda row: row[2]["at"])]


@pytest.fixture(scope="module")
def alone():
    """The results of the plain script for each kind of job."""
    return {
        job: run_plain("accelerate_script", *job, module="accelerate") for job in sorted(set(JOBS))
    }


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_jobs_train_as_the_plain_script_does(alone, slots):
    together = threading.Barrier(slots, timeout=60)
    trained = sweep(lambda job: accelerate_script.train(*job, together.wait), JOBS, slots)
    assert trained == [alone[job] for job in JOBS]


def test_jobs_that_all_import_it_first_train_the_same(alone):
    assert run_sweep("accelerate_script", 4, JOBS) == [alone[job] for job in JOBS]


def test_threads_that_a_job_starts_find_its_state():
    together = threading.Barrier(2, timeout=60)

    def train(steps):
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=steps)
        together.wait()
        found = []

        def look():
            found.extend(
                kind().__dict__ for kind in (PartialState, AcceleratorState, GradientState)
            )
            found.append(GradientState().num_steps)

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        own = (
            PartialState().__dict__,
            accelerator.state.__dict__,
            accelerator.gradient_state.__dict__,
        )
        return [one is other for one, other in zip(found, own, strict=False)], found[-1]

    assert sweep(train, [2, 3], 2) == [([True] * 3, 2), ([True] * 3, 3)]


def test_the_processs_own_state_is_unchanged():
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    before = [(kind._shared_state, dict(kind._shared_state)) for kind in CLASSES]
    sweep(lambda job: accelerate_script.train(*job), JOBS[:4], 2)
    for kind, (state, held) in zip(CLASSES, before, strict=True):
        assert kind._shared_state is state
        assert state == held
    net = accelerator.prepare(torch.nn.Linear(1, 1))
    synced = []
    for _ in range(4):
        with accelerator.accumulate(net):
            synced.append(accelerator.sync_gradients)
    assert synced == [False, True, False, True]


def test_an_accelerator_made_before_the_sweep_causes_a_warning():
    Accelerator(cpu=True)
    notices = Notices()
    sweep(lambda _job: len(AcceleratorState._shared_state), [1, 2], 2, observers=[notices])
    assert len([message for message in notices.messages if "made before the sweep" in message]) == 1


def test_a_job_finds_the_process_s_partial_state():
    PartialState(cpu=True)

    def train(_job):
        found = PartialState._shared_state != {} and AcceleratorState._shared_state == {}
        PartialState._reset_state()
        return found

    assert sweep(train, [1, 2, 3], 1) == [True] * 3
    assert PartialState._shared_state != {}


def test_prepared_loaders_that_a_slot_keeps_work_in_its_next_job(alone):
    def loader():
        return prepare_data_loader(
            torch.utils.data.DataLoader(accelerate_script.data(), batch_size=4)
        )

    def train(job):
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=job)
        kept = current_job().loaders(loader)
        return id(kept), accelerate_script.train(job, "no", accelerator=accelerator, loader=kept)

    (first, *_), *_ = trained = sweep(train, [4, 4, 4], 1)
    assert trained == [(first, alone[4, "no"])] * 3


def test_loaders_may_be_asked_for_before_the_accelerator_is_made(alone):
    def loader():
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
        return accelerator, accelerator.prepare(
            torch.utils.data.DataLoader(accelerate_script.data(), batch_size=4)
        )

    def train(job):
        made, kept = current_job().loaders(loader)
        if job == "own":
            made = Accelerator(cpu=True, gradient_accumulation_steps=4)
        return accelerate_script.train(4, "no", accelerator=made, loader=kept)

    assert sweep(train, ["kept", "kept", "own", "kept"], 1) == [alone[4, "no"]] * 4


@pytest.mark.parametrize("slots", [1, 2])
def test_an_accelerator_made_with_a_slot_s_loaders_serves_all_its_jobs(alone, slots):
    together = threading.Barrier(slots, timeout=60)

    def loaders():
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
        loader = torch.utils.data.DataLoader(accelerate_script.data(), batch_size=4)
        return accelerator, accelerator.prepare(loader)

    def train(_job, accelerator, loader):
        return accelerate_script.train(4, "no", together.wait, accelerator, loader)

    trained = sweep(train, [1, 2, 3, 4], slots, create_loaders_method=loaders)
    assert trained == [alone[4, "no"]] * 4


def test_state_of_one_job_s_accelerator_is_not_put_back_for_the_next():
    def loader():
        return torch.utils.data.DataLoader(accelerate_script.data(), batch_size=4)

    def train(precision):
        if precision == "no":
            Accelerator(cpu=True, mixed_precision="no")
        current_job().loaders(loader)
        return Accelerator(cpu=True, mixed_precision=precision).mixed_precision

    assert sweep(train, ["no", "bf16"], 1) == ["no", "bf16"]


def test_a_sweep_inside_a_job_has_its_own_states():
    def inner(steps):
        return Accelerator(cpu=True, gradient_accumulation_steps=steps).gradient_state.num_steps

    def train(steps):
        outer = Accelerator(cpu=True, gradient_accumulation_steps=steps)
        Path(str(steps)).mkdir()
        found = sweep(inner, [7, 8], 2, best_model_file_name=f"{steps}/model.pt")
        return [*found, outer.gradient_state.num_steps, GradientState().num_steps]

    assert sweep(train, [2, 3], 2) == [[7, 8, 2, 2], [7, 8, 3, 3]]


def test_a_thread_of_no_job_finds_the_process_s_state():
    with states_apart(pytest.fail, slots=2):
        with enter_scope(JobScope(None)):
            Accelerator(cpu=True)
            assert GradientState._shared_state
        assert not GradientState._shared_state


def test_the_best_model_is_built_again_without_touching_the_process_s_state(tmp_path):
    def make(at):
        return Accelerator(cpu=True).prepare(torch.nn.Linear(1, 1)), at

    result = torch_autotrain(
        make,
        lambda _device, _loaders, model, at, save_best, _prefix: save_best(model, at),
        make_model_fit_params=[("at", [1, 2])],
        best_model_device="cpu",
        progress=False,
    )
    assert result.best_model is not None
    assert AcceleratorState._shared_state == {}


@pytest.mark.parametrize(("slots", "times"), [(1, 0), (2, 1)])
def test_an_unknown_version_is_named_once(slots, times):
    plain = GradientState._shared_state
    GradientState._shared_state = ThreadLocalSharedDict()
    notices = Notices()
    try:
        sweep(lambda _job: None, [1, 2, 3], slots, observers=[notices])
        assert isinstance(vars(GradientState)["_shared_state"], ThreadLocalSharedDict)
    finally:
        GradientState._shared_state = plain
    said = [message for message in notices.messages if "accelerate" in message]
    assert len(said) == times
    assert all("not known" in message and "one slot" in message for message in said)
