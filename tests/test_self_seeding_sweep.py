"""Jobs of ``torch_autotrain`` that seed themselves, and their effect on others."""

import random
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from junky_core.autotrain import torch_autotrain
from junky_core.job.seeding import _globals

SEEDS = [1, 2, 3, 4]


@pytest.fixture(autouse=True)
def one_torch_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def seed_all(seed):
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def make_model(seed):
    seed_all(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 2))


def make_loader():
    data = TensorDataset(torch.arange(48.0).reshape(12, 4) / 48, torch.arange(12) % 2)
    return DataLoader(data, 4, shuffle=True)


def fit(loader, model, turn):
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    losses = []
    for _ in range(3):
        for inputs, targets in loader:
            turn()
            inputs = inputs + random.gauss(0, 0.1) + float(np.random.normal(0, 0.1))
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def sweep(folder, slots, train, make=make_model, seeds=SEEDS, **more):
    """Return what ``train`` returned, by job."""
    result = torch_autotrain(
        make,
        train,
        create_loaders_method=make_loader,
        make_model_fit_params=[("seed", seeds)],
        devices={"cpu": slots},
        threads_per_slot=1,
        best_model_file_name=folder / "model.pt",
        **more,
    )
    assert not result.failed
    return {params["seed"]: value for _, _, params, value in result.stats}


def plain_script():
    return {seed: fit(make_loader(), make_model(seed), lambda: None) for seed in SEEDS}


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_jobs_get_what_the_plain_script_gets(slots, tmp_path):
    barrier = threading.Barrier(slots)

    def train(device, loader, model, best, log_prefix):
        losses = fit(loader, model, lambda: barrier.wait(60))
        best(model, losses[-1])
        return losses

    assert sweep(tmp_path, slots, train) == plain_script()


def test_a_job_that_died_and_ran_again(tmp_path):
    died = set()

    def train(device, loader, model, best, log_prefix):
        key = model[0].bias[0].item()
        losses = fit(loader, model, lambda: None)
        if key not in died:
            died.add(key)
            raise ValueError("dies once")
        best(model, losses[-1])
        return losses

    got = sweep(tmp_path, 2, train, max_retries=1, fail_fast=None)
    assert len(died) == 4
    assert got == plain_script()


def draw_all():
    return torch.rand(2).tolist(), random.random(), np.random.rand()


def process_wide():
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


def test_the_main_thread_sees_nothing_of_it(tmp_path):
    def train(device, loader, model, best, log_prefix):
        best(model, 1.0)
        return draw_all()

    def make(seed):
        seed_all(seed)
        torch.seed()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
        random.setstate(random.getstate())
        return make_model(seed)

    before, functions = process_wide(), (random.random, np.random.rand, torch.Generator.seed)
    sweep(tmp_path, 2, train, make)
    assert process_wide() == before
    assert functions == (random.random, np.random.rand, torch.Generator.seed)


def test_a_later_job_of_the_slot_sees_nothing_of_it(tmp_path):
    def train(device, loader, model, best, log_prefix):
        best(model, 1.0)
        return draw_all()

    def make(seed):
        if seed == 1:
            seed_all(9)
        return nn.Identity()

    seed_all(5)
    expected = draw_all()
    seed_all(5)
    assert sweep(tmp_path, 1, train, make, [1, 2])[2] == expected


def test_jobs_that_never_seed_differ(tmp_path):
    def train(device, loader, model, best, log_prefix):
        best(model, 1.0)
        torch.get_rng_state(), random.getstate(), np.random.get_state()
        return draw_all()

    def make(seed):
        return nn.Identity()

    drawn = sweep(tmp_path, 2, train, make).values()
    for one in zip(*drawn, strict=True):
        assert len(set(map(str, one))) == len(SEEDS)


def test_a_torch_without_the_needed_functions_warns_once_and_runs(tmp_path, monkeypatch, capsys):
    def lacks(*_args):
        raise RuntimeError("no such means")

    def train(device, loader, model, best, log_prefix):
        best(model, 1.0)

    monkeypatch.setattr(_globals, "methods_per_job", lacks)
    sweep(tmp_path, 2, train)
    said = capsys.readouterr().out
    assert said.count("jobs that seed themselves disturb each other") == 1
    assert "no such means" in said


@pytest.mark.parametrize("slots", [1, 2])
def test_a_sweep_inside_a_job_draws_from_that_job(slots, tmp_path):
    barrier = threading.Barrier(slots)

    def draws(device, loader, model, best, log_prefix):
        best(model, 1.0)
        return loader, draw_all()

    def inner(seed):
        def make(number):
            torch.rand(1)
            return nn.Identity()

        result = torch_autotrain(
            make,
            draws,
            create_loaders_method=lambda: torch.rand(2).tolist(),
            make_model_fit_params=[("number", [1, 2])],
            best_model_file_name=tmp_path / f"inner{seed}.pt",
        )
        return [value for *_, value in result.stats], draw_all()

    def train(device, loader, model, best, log_prefix):
        barrier.wait(60)
        best(model, 1.0)
        return inner(model.seed)

    def make(seed):
        seed_all(seed)
        model = nn.Identity()
        model.seed = seed
        return model

    got = sweep(tmp_path, slots, train, make, [1, 2])
    for seed, value in got.items():
        seed_all(seed)
        assert value == inner(seed)


def test_operators_of_higher_order_work_in_jobs(tmp_path):
    """``torch.cond`` does not use fall-backs: our dispatch key must not reach it."""

    def train(device, loaders, model, save_best, log_prefix):
        value = torch.ones(2)
        made = torch.cond(value.sum() > 1, lambda x: x + 1, lambda x: x - 1, (value,))
        save_best(model, made.sum().item())

    result = torch_autotrain(
        lambda: torch.nn.Linear(1, 1), train, sweep_dir=tmp_path, max_retries=0
    )
    assert result.best_model_score == 4.0
