"""Models built with accelerate's ``init_empty_weights`` by several jobs."""

import threading

import pytest
import torch
from torch import nn

from junky_core import torch_autotrain

pytest.importorskip("accelerate", reason="needs the extra huggingface")

import accelerate
from accelerate import init_empty_weights


@pytest.fixture(autouse=True)
def torch_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = nn.Module.register_parameter, accelerate.big_modeling.init_on_device
    yield
    assert (nn.Module.register_parameter, accelerate.big_modeling.init_on_device) == before


def sweep(train, slots):
    result = torch_autotrain(
        lambda at: (nn.Linear(1, 1), at),
        lambda _device, _loaders, _model, at, _save, _prefix: train(at),
        make_model_fit_params=[("at", list(range(slots)))],
        devices=f"cpu*{slots}",
        max_retries=0,
        progress=False,
    )
    assert not result.failed, result.failed[0].traceback
    return [value for *_, value in sorted(result.stats, key=lambda row: row[2]["at"])]


def test_a_model_that_another_job_builds_at_the_same_time_is_not_empty():
    begun, built = threading.Event(), threading.Event()

    def train(at):
        if at == 0:
            with init_empty_weights():
                begun.set()
                assert built.wait(30)
                return nn.Linear(2, 2).weight.is_meta
        assert begun.wait(30)
        model = nn.Linear(2, 2)
        built.set()
        return model.weight.is_meta

    assert sweep(train, 2) == [True, False]


def test_jobs_that_build_empty_models_at_the_same_time_leave_nothing_behind():
    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()

    def train(at):
        if at == 0:
            with init_empty_weights():
                first_in.set()
                second_in.wait(0.3)  # it never is: the second waits for its turn
                made = nn.Linear(2, 2)
            first_out.set()
        else:
            assert first_in.wait(30)
            with init_empty_weights():
                second_in.set()
                assert first_out.wait(30)
                made = nn.Linear(2, 2)
        return made.weight.is_meta

    assert sweep(train, 2) == [True, True]
    assert not nn.Linear(2, 2).weight.is_meta


def test_blocks_nest():
    def train(_at):
        with accelerate.big_modeling.init_on_device(torch.device("meta")), init_empty_weights():
            return nn.Linear(2, 2).weight.is_meta

    assert sweep(train, 2) == [True, True]
