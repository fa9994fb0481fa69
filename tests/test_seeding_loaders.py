"""Reused loaders start each job from the state they were built in."""

import functools
import random

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    TensorDataset,
    WeightedRandomSampler,
)

from junky_core.job.seeding import JobStreams, LoaderState

DATA = TensorDataset(torch.arange(16))


def epochs(loader, count=2):
    return [[batch[0].tolist() for batch in loader] for _ in range(count)]


class Drawing(Dataset):
    """Augments with its own generator."""

    def __init__(self, rng, draw):
        self.rng = rng
        self.draw = draw

    def __len__(self):
        return 8

    def __getitem__(self, at):
        return torch.tensor([at + float(self.draw(self.rng))])


class Slotted(Dataset):
    __slots__ = ("rng",)

    def __init__(self):
        self.rng = random.Random(1)

    def __len__(self):
        return 8

    def __getitem__(self, at):
        return torch.tensor([self.rng.random()])


class Streaming(IterableDataset):
    def __init__(self):
        self.rng = np.random.default_rng(2)

    def __iter__(self):
        for _ in range(5):
            yield torch.tensor([self.rng.random()])


class Counting(Sampler):
    """A sampler that starts each epoch where the last one ended."""

    def __init__(self):
        self.start = 0

    def __len__(self):
        return 4

    def __iter__(self):
        for _ in range(4):
            yield self.start % 16
            self.start += 1


def in_a_closure():
    rng = np.random.RandomState(3)
    return DataLoader(DATA, collate_fn=lambda rows: [rows[0][0] + rng.rand()])


def in_a_partial():
    return DataLoader(
        DATA,
        collate_fn=functools.partial(
            lambda rows, rng: [rows[0][0] + rng.random()], rng=random.Random(4)
        ),
    )


class Augment:
    def __init__(self):
        self.generator = torch.Generator().manual_seed(7)

    def collate(self, rows):
        return [rows[0][0] + torch.rand(1, generator=self.generator)]


FACTORIES = {
    "loader's generator": lambda: DataLoader(
        DATA, 4, shuffle=True, generator=torch.Generator().manual_seed(1)
    ),
    "sampler's generator": lambda: DataLoader(
        DATA, 4, sampler=RandomSampler(DATA, generator=torch.Generator().manual_seed(1))
    ),
    "weighted": lambda: DataLoader(
        DATA,
        4,
        sampler=WeightedRandomSampler([1.0] * 16, 16, generator=torch.Generator().manual_seed(1)),
    ),
    "batch sampler": lambda: DataLoader(
        DATA,
        batch_sampler=BatchSampler(
            RandomSampler(DATA, generator=torch.Generator().manual_seed(1)), 4, False
        ),
    ),
    "random.Random": lambda: DataLoader(Drawing(random.Random(1), lambda r: r.random())),
    "numpy Generator": lambda: DataLoader(Drawing(np.random.default_rng(1), lambda r: r.random())),
    "numpy RandomState": lambda: DataLoader(
        Drawing(np.random.RandomState(1), lambda r: r.standard_normal())
    ),
    "slots": lambda: DataLoader(Slotted()),
    "iterable": lambda: DataLoader(Streaming()),
    "counting sampler": lambda: DataLoader(DATA, sampler=Counting()),
    "closure": in_a_closure,
    "partial": in_a_partial,
    "method": lambda: DataLoader(DATA, collate_fn=Augment().collate),
}


@pytest.mark.parametrize("name", FACTORIES)
def test_each_job_sees_what_the_first_one_saw(name):
    loader = FACTORIES[name]()
    state = LoaderState.capture(loader)
    first = epochs(loader)
    assert first[0] != first[1]
    for _ in range(2):
        state.restore()
        assert epochs(loader) == first


@pytest.mark.parametrize(
    "wrap",
    [
        lambda loader: (loader, None),
        lambda loader: [[loader]],
        lambda loader: {"train": loader},
        lambda loader: {"train": {"a": (loader,)}},
    ],
)
def test_loaders_in_any_form(wrap):
    loader = FACTORIES["loader's generator"]()
    state = LoaderState.capture(wrap(loader))
    first = epochs(loader)
    state.restore()
    assert epochs(loader) == first


def test_cycles_and_long_lists_end():
    dataset = Drawing(random.Random(1), lambda r: r.random())
    dataset.me = dataset
    dataset.samples = [(torch.zeros(1), at) for at in range(100_000)]
    loader = DataLoader(dataset)
    loader.owner = [loader]
    state = LoaderState.capture(loader)
    first = epochs(loader, 1)
    state.restore()
    assert epochs(loader, 1) == first


def test_distributed_sampler_goes_back_to_its_epoch():
    sampler = DistributedSampler(DATA, num_replicas=1, rank=0)
    state = LoaderState.capture(DataLoader(DATA, sampler=sampler))
    sampler.set_epoch(5)
    state.restore()
    assert sampler.epoch == 0


def test_global_streams_are_left_to_the_job():
    # A generator argument may be the default one, and scikit-learn hands out NumPy's global object.
    loader = DataLoader(DATA, 4, sampler=RandomSampler(DATA, generator=torch.default_generator))
    loader.rng = np.random.mtrand._rand
    loader.python = random._inst
    with JobStreams(0).thread():
        loader.stand_in = torch.random.default_generator
        loader.numpy_stand_in = np.random.mtrand._rand
        state = LoaderState.capture(loader)
    before = torch.get_rng_state(), random.random(), np.random.rand()
    random_state = random.getstate()
    with JobStreams(0).thread():
        drawn = torch.rand(1), random.random(), np.random.rand()
        state.restore()
        assert torch.rand(1) != drawn[0]
        assert random.random() != drawn[1]
        assert np.random.rand() != drawn[2]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == random_state


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_start_the_same_way_in_each_job(persistent):
    class Noise(Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, at):
            return at + torch.rand(1)

    loader = DataLoader(Noise(), 2, shuffle=True, num_workers=2, persistent_workers=persistent)
    state = LoaderState.capture(loader)
    seen = []
    for _ in range(2):
        state.restore()
        with JobStreams(3).thread():
            seen.append([batch.tolist() for _ in range(2) for batch in loader])
    torch.manual_seed(3)
    state.restore()
    plain = [batch.tolist() for _ in range(2) for batch in loader]
    state.restore()
    assert loader._iterator is None
    assert seen == [plain, plain]


def test_nothing_to_remember():
    for loaders in (None, (), 5, "text", iter([1])):
        LoaderState.capture(loaders).restore()


def test_a_loader_abandoned_during_an_epoch():
    loader = FACTORIES["loader's generator"]()
    state = LoaderState.capture(loader)
    first = epochs(loader, 1)
    state.restore()
    next(iter(loader))
    state.restore()
    assert epochs(loader, 1) == first
