"""On a GPU: whose stream work goes to, and what it waits for."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from gpu_machine import (
    CUDA_ONLY,
    DEVICE,
    DEVICES,
    MODULE,
    SLOTS,
    launch,
    rounds_for,
    statuses,
    sweep,
)

from junky_core import current_job

pytestmark = SLOTS


def in_a_thread(function):
    got = []
    thread = threading.Thread(target=lambda: got.append(function()))
    thread.start()
    thread.join()
    return got[0]


def test_each_slot_and_its_jobs_threads_have_a_stream_of_their_own(tmp_path):
    together, found = threading.Barrier(4), {}

    def train(job, _model, _save_best):
        together.wait(60)
        found[job] = (MODULE.current_stream(), in_a_thread(MODULE.current_stream))

    assert statuses(sweep(tmp_path, train, jobs=4, slots=4)) == ["finished"] * 4
    assert all(own == in_thread for own, in_thread in found.values())
    streams = [own for own, _ in found.values()] + [MODULE.current_stream()]
    assert all(one != other for at, one in enumerate(streams) for other in streams[:at])


@pytest.mark.parametrize("side_stream", [False, True])
def test_what_the_main_thread_has_just_launched_is_waited_for(tmp_path, side_stream):
    made, seen, done = torch.zeros(1 << 20, device=DEVICE), [], []

    def train(_job, _model, _save_best):
        seen.append(float((made * 1.0).min()))

    rounds = rounds_for(3.0)
    MODULE.synchronize()
    with MODULE.stream(MODULE.Stream()) if side_stream else contextlib.nullcontext():
        launch(rounds)
        made.fill_(1.0)
        launched = MODULE.Event()
        launched.record()
        result = sweep(
            tmp_path, train, jobs=2, slots=2, at_start=lambda _job: done.append(launched.query())
        )
    assert statuses(result) == ["finished"] * 2
    assert done == [False, False], "the work was over before the jobs began: nothing was shown"
    assert seen == [1.0, 1.0]


def test_shared_data_are_whole_for_the_other_slots(tmp_path):
    together, seen, rounds = threading.Barrier(4), [], rounds_for(1.0)

    def make():
        data = torch.zeros(1 << 20, device=DEVICE)
        launch(rounds)
        return data.fill_(3.0)

    def train(_job, _model, _save_best):
        together.wait(60)
        seen.append(float((current_job().shared(make) * 1.0).min()))

    assert statuses(sweep(tmp_path, train, jobs=4, slots=4)) == ["finished"] * 4
    assert seen == [3.0] * 4


def test_the_time_of_a_job_counts_what_it_left_on_the_device(tmp_path):
    rounds = rounds_for(1.0)
    began, ended = (MODULE.Event(enable_timing=True) for _ in range(2))

    def train(_job, _model, _save_best):
        began.record()
        launch(rounds)
        ended.record()

    (job,) = sweep(tmp_path, train, jobs=1).jobs
    assert ended.query()
    assert job.duration_s > 0.9 * began.elapsed_time(ended) / 1000 > 0.1


def test_saved_weights_are_those_of_their_score(tmp_path):
    def train(job, model, save_best):
        for step in range(20):
            value = float(step * 4 + job)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.fill_(value)
                save_best(model, value)
                for parameter in model.parameters():
                    parameter.fill_(-1.0)

    result = sweep(tmp_path, train, jobs=4, slots=4, width=2048)
    assert result.best_model_score == 79.0
    weights = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(bool((weight == 79.0).all()) for weight in weights.values())


def test_weights_saved_by_a_thread_of_no_job_are_those_of_the_jobs_work(tmp_path):
    rounds = rounds_for(1.0)

    def train(_job, model, _save_best):
        with torch.no_grad():
            launch(rounds)
            score = torch.zeros((), device=DEVICE).fill_(5.0)
            for parameter in model.parameters():
                parameter.fill_(5.0)
        pool.submit(current_job().save_best, model, score).result()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()  # its thread is there before the sweep
        assert sweep(tmp_path, train, jobs=1).best_model_score == 5.0
    weights = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(bool((weight == 5.0).all()) for weight in weights.values())


@CUDA_ONLY
@pytest.mark.parametrize("device", DEVICES[-1:])
def test_a_bare_cuda_lands_on_the_slots_device(tmp_path, device):
    landed = []

    def train(_job, _model, _save_best):
        landed.append(torch.ones(1).cuda().device)
        landed.append(in_a_thread(lambda: torch.ones(1, device="cuda").device))

    sweep(tmp_path, train, jobs=1, device=device)
    assert landed == [torch.device(device)] * 2
