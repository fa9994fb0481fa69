"""A seeded sweep gives each job what a plain script gives, on any slots, in any order."""

import hashlib
import random
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler, random_split

from junky_core.autotrain import torch_autotrain

SEED = 17
FIT_PARAMS = [("width", [6, 9]), ("dropout", [0.1, 0.4]), ("kind", ["mlp", "gru"])]


class Net(nn.Module):
    def __init__(self, width, dropout, kind):
        super().__init__()
        self.kind = kind
        if kind == "gru":
            self.body = nn.GRU(2, width, 2, dropout=dropout, batch_first=True)
        else:
            self.body = nn.Sequential(nn.Linear(8, width), nn.RReLU(), nn.Dropout(dropout))
        self.head = nn.Linear(width, 3)
        nn.init.orthogonal_(self.head.weight)

    def forward(self, x):
        if self.kind == "gru":
            return self.head(self.body(x.reshape(-1, 4, 2))[0][:, -1])
        return self.head(self.body(x))


def make_model(width, dropout, kind):
    model = Net(width, dropout, kind)
    return model, torch.optim.Adam(model.parameters(), 0.01)


def make_loaders(workers=0):
    data = TensorDataset(torch.randn(48, 8), torch.randint(0, 3, (48,)))
    train, validation = random_split(data, [36, 12])
    weighted = WeightedRandomSampler(torch.rand(36), 24)
    return (
        DataLoader(train, 12, shuffle=True, num_workers=workers),
        DataLoader(train, 12, shuffle=True, generator=torch.Generator().manual_seed(2)),
        DataLoader(train, 12, sampler=weighted),
        DataLoader(validation, 12),
    )


def digest(model):
    weights = hashlib.sha256()
    for value in model.state_dict().values():
        weights.update(value.numpy().tobytes())
    return weights.hexdigest()


def fit(loaders, model, optimizer):
    """Train, with random augmentation by three libraries; return score and weights."""
    *train_loaders, validation = loaders
    for loader in train_loaders:
        model.train()
        for x, y in loader:
            x = x + 0.1 * torch.randn_like(x) + random.gauss(0, 0.01)
            x = x * float(np.random.uniform(0.9, 1.1))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        loss = sum(nn.functional.cross_entropy(model(x), y).item() for x, y in validation)
    return -loss, digest(model)


def train(device, loaders, model, optimizer, best, log_prefix):
    score, weights = fit(loaders, model, optimizer)
    best(model, score)
    return score, weights


def results(result):
    return {tuple(params.items()): tuple(value) for _, _, params, value in result.stats}


def sweep(folder, fit_params=FIT_PARAMS, train_method=train, slots=1, loaders=make_loaders, **more):
    result = torch_autotrain(
        make_model,
        train_method,
        create_loaders_method=loaders,
        make_model_fit_params=fit_params,
        devices={"cpu": slots},
        best_model_file_name=folder / "model.pt",
        seed=SEED,
        **more,
    )
    assert not result.failed
    return results(result)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The results on one slot."""
    return sweep(tmp_path_factory.mktemp("reference"))


@pytest.fixture(autouse=True)
def one_torch_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_jobs_differ_from_each_other(reference):
    assert len(reference) == len(set(reference.values())) == 8


@pytest.mark.parametrize("slots", [2, 4, 8])
def test_on_any_number_of_slots(reference, slots, tmp_path):
    assert sweep(tmp_path, slots=slots) == reference


@pytest.mark.parametrize("slots", [1, 3])
def test_in_another_order(reference, slots, tmp_path):
    params = [(key, values[::-1]) for key, values in FIT_PARAMS[::-1]]
    got = sweep(tmp_path, params, slots=slots)
    order = [key for key, _ in FIT_PARAMS]
    got = {tuple((key, dict(job)[key]) for key in order): value for job, value in got.items()}
    assert got == reference


def test_a_job_alone(reference, tmp_path):
    params = [("width", [9]), ("dropout", [0.4]), ("kind", ["mlp"])]
    ((job, value),) = sweep(tmp_path, params).items()
    assert reference[job] == value


def test_a_job_that_died_and_ran_again(reference, tmp_path):
    died, lock = set(), threading.Lock()

    def dies_once(device, loaders, model, optimizer, best, log_prefix):
        key = (model.kind, model.head.in_features)
        with lock:
            dies = key not in died
            died.add(key)
        if dies:
            next(iter(loaders[0]))  # the next job finds the loaders used
            torch.manual_seed(0)
            raise ValueError("dies once")
        return train(device, loaders, model, optimizer, best, log_prefix)

    got = sweep(tmp_path, train_method=dies_once, slots=2, max_retries=1, fail_fast=None)
    assert len(died) == 4
    assert got == reference


def test_what_a_job_does_to_the_streams_ends_with_it(reference, tmp_path):
    def leaves_a_mess(device, loaders, model, optimizer, best, log_prefix):
        value = train(device, loaders, model, optimizer, best, log_prefix)
        torch.manual_seed(1)
        torch.seed()
        random.seed()
        np.random.seed()
        next(iter(loaders[1]))
        return value

    assert sweep(tmp_path, train_method=leaves_a_mess, slots=2) == reference


def test_with_another_thread_that_draws(reference, tmp_path):
    done = threading.Event()

    def noise():
        while not done.is_set():
            torch.randn(50)
            torch.manual_seed(4)
            random.random()
            np.random.rand()

    other = threading.Thread(target=noise)
    other.start()
    try:
        assert sweep(tmp_path, slots=2) == reference
    finally:
        done.set()
        other.join()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_with_loader_workers(reference, tmp_path):
    params = [("width", [6]), ("dropout", [0.1, 0.4]), ("kind", ["mlp"])]
    got = sweep(tmp_path, params, slots=2, loaders=lambda: make_loaders(workers=2))
    assert got == {job: reference[job] for job in got}


def prepared_loaders():
    """Loaders whose making draws nothing from any stream but its own."""
    generator = torch.Generator().manual_seed(5)
    data = TensorDataset(
        torch.randn(48, 8, generator=generator), torch.randint(0, 3, (48,), generator=generator)
    )
    train_set, validation = random_split(data, [36, 12], generator=generator)
    return (
        DataLoader(train_set, 12, shuffle=True),
        DataLoader(train_set, 12, sampler=WeightedRandomSampler([0.1, 0.9] * 18, 24)),
        DataLoader(validation, 12),
    )


def test_is_what_the_plain_script_gets(tmp_path):
    got = sweep(tmp_path, slots=4, loaders=prepared_loaders)
    for job, value in got.items():
        loaders = prepared_loaders()
        torch.manual_seed(SEED)
        random.seed(SEED)
        np.random.seed(SEED)
        model, optimizer = make_model(**dict(job))
        assert fit(loaders, model, optimizer) == value


def test_loaders_made_by_the_job_itself(tmp_path):
    def makes_its_own(device, loaders, model, optimizer, best, log_prefix):
        assert loaders == ()
        return train(device, prepared_loaders(), model, optimizer, best, log_prefix)

    got = sweep(tmp_path, train_method=makes_its_own, slots=2, loaders=None)
    assert got == sweep(tmp_path / "again", slots=1, loaders=prepared_loaders)


def test_threads_that_a_job_starts_draw_from_it(tmp_path):
    def in_a_thread(device, loaders, model, optimizer, best, log_prefix):
        value = []
        other = threading.Thread(target=lambda: value.append(fit(loaders, model, optimizer)))
        other.start()
        other.join()
        best(model, value[0][0])
        return value[0]

    got = sweep(tmp_path, train_method=in_a_thread, slots=2, loaders=prepared_loaders)
    torch.set_num_threads(1)
    assert got == sweep(tmp_path / "again", slots=1, loaders=prepared_loaders)


def test_the_process_keeps_its_own_streams(tmp_path):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    functions = random.random, np.random.rand, torch.random.default_generator
    sweep(tmp_path, [("width", [6]), ("dropout", [0.1]), ("kind", ["mlp"])])
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert before[2] == np.random.get_state()[1].tolist()
    assert functions == (random.random, np.random.rand, torch.random.default_generator)


def test_a_sweep_that_was_resumed(reference, tmp_path):
    failing = True

    def fails_half_way(device, loaders, model, optimizer, best, log_prefix):
        value = train(device, loaders, model, optimizer, best, log_prefix)
        if failing and model.head.in_features == 9:
            raise ValueError("fails in the first run")
        return value

    def run(**more):
        return torch_autotrain(
            make_model,
            fails_half_way,
            create_loaders_method=make_loaders,
            make_model_fit_params=FIT_PARAMS,
            devices={"cpu": 2},
            sweep_dir=tmp_path,
            seed=SEED,
            max_retries=0,
            fail_fast=None,
            **more,
        )

    first = run()
    assert len(first.failed) == 4
    failing = False
    second = run(resume=True)
    assert not second.failed
    assert results(second) == reference
