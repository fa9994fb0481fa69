"""A job draws the numbers that a plain script with its seed draws."""

import random
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.data import (
    DataLoader,
    Dataset,
    RandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)

from junky_core.job.seeding import JobStreams, current_streams, installed_streams, loader_streams

SEED = 11


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# Each draws in a different way, calls turn() between draws, and returns the numbers.
WORKLOADS = {}


def workload(function):
    WORKLOADS[function.__name__] = function
    return function


@workload
def factories(turn):
    drawn = []
    for draw in (
        lambda: torch.rand(3),
        lambda: torch.randn(3),
        lambda: torch.randint(0, 100, (3,)),
        lambda: torch.randperm(9),
        lambda: torch.rand_like(torch.ones(2)),
        lambda: torch.randn_like(torch.ones(2)),
        lambda: torch.randint_like(torch.ones(2), 50),
        lambda: torch.normal(0.0, 1.0, (3,)),
        lambda: torch.normal(torch.ones(3), torch.ones(3)),
        lambda: torch.randn(2, 2, dtype=torch.complex64),
        lambda: torch.rand(3, dtype=torch.float64),
        lambda: torch.randn(17, dtype=torch.bfloat16),
    ):
        drawn.append(draw())
        turn()
    return drawn


@workload
def in_place(turn):
    drawn = []
    for name, args in {
        "normal_": (),
        "uniform_": (),
        "bernoulli_": (0.4,),
        "random_": (),
        "exponential_": (),
        "cauchy_": (),
        "geometric_": (0.3,),
        "log_normal_": (),
    }.items():
        drawn.append(getattr(torch.empty(33), name)(*args))
        turn()
    return drawn


@workload
def sampling(turn):
    weights = torch.arange(1.0, 9.0)
    drawn = []
    for draw in (
        lambda: torch.multinomial(weights, 3),
        lambda: torch.multinomial(weights, 20, replacement=True),
        lambda: torch.bernoulli(weights / 9),
        lambda: torch.poisson(weights),
        lambda: torch.binomial(weights, torch.full((8,), 0.5)),
        lambda: torch.distributions.Normal(0.0, 1.0).sample((3,)),
        lambda: torch.distributions.Dirichlet(weights).sample(),
        lambda: torch.distributions.Gamma(weights, 1.0).sample(),
        lambda: torch.distributions.Categorical(weights).sample((3,)),
    ):
        drawn.append(draw())
        turn()
    return drawn


@workload
def initialisation(turn):
    drawn = []
    for name in (
        "uniform_",
        "normal_",
        "trunc_normal_",
        "xavier_uniform_",
        "xavier_normal_",
        "kaiming_uniform_",
        "kaiming_normal_",
        "orthogonal_",
    ):
        drawn.append(getattr(nn.init, name)(torch.empty(5, 4)))
        turn()
    drawn.append(nn.init.sparse_(torch.empty(5, 4), 0.5))
    return drawn


@workload
def default_layers(turn):
    drawn = []
    for make in (
        lambda: nn.Linear(4, 5),
        lambda: nn.Conv2d(2, 3, 3),
        lambda: nn.Embedding(4, 3),
        lambda: nn.LSTM(3, 4, 2),
        lambda: nn.MultiheadAttention(8, 2),
        lambda: nn.TransformerEncoderLayer(8, 2, 16),
        lambda: nn.Bilinear(2, 3, 4),
    ):
        drawn += [p.detach() for p in make().parameters()]
        turn()
    return drawn


@workload
def dropouts(turn):
    drawn = []
    for make, shape in (
        (nn.Dropout, (5, 6)),
        (nn.AlphaDropout, (5, 6)),
        (nn.FeatureAlphaDropout, (5, 6, 3)),
        (nn.Dropout1d, (5, 6, 3)),
        (nn.Dropout2d, (5, 6, 3, 3)),
        (nn.Dropout3d, (5, 6, 3, 3, 2)),
    ):
        for gradient in (False, True):
            drawn.append(make(0.4)(torch.ones(shape, requires_grad=gradient)).detach())
            turn()
    x = torch.ones(9)
    F.dropout(x, 0.5, inplace=True)
    return [*drawn, x]


@workload
def recurrent(turn):
    drawn = []
    for make in (nn.RNN, nn.LSTM, nn.GRU):
        layer = make(3, 4, num_layers=3, dropout=0.5)
        turn()
        x = torch.ones(5, 2, 3)
        drawn.append(layer(x)[0].detach())
        turn()
        packed = nn.utils.rnn.pack_padded_sequence(x, [5, 3])
        drawn.append(layer(packed)[0].data.detach())
        turn()
    return drawn


@workload
def attention(turn):
    q, k, v = (torch.ones(2, 2, 4, 8, requires_grad=True) for _ in range(3))
    drawn = [F.scaled_dot_product_attention(q, k, v, dropout_p=0.5)]
    turn()
    drawn.append(F.scaled_dot_product_attention(q, k, v, dropout_p=0.5, is_causal=True))
    turn()
    layer = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
    for weights in (True, False):
        drawn.append(layer(q[0], q[0], q[0], need_weights=weights)[0])
        turn()
    drawn.append(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)(q[0]))
    turn()
    sum(d.sum() for d in drawn).backward()
    return [d.detach() for d in drawn] + [q.grad]


@workload
def gumbel_and_rrelu(turn):
    x = torch.linspace(-1, 1, 12).reshape(3, 4).requires_grad_()
    drawn = [F.gumbel_softmax(x)]
    turn()
    drawn.append(F.gumbel_softmax(x, hard=True))
    turn()
    drawn.append(F.rrelu(x, training=True))
    turn()
    drawn.append(nn.RReLU(inplace=True)(x * 1.0))
    drawn.append(F.fractional_max_pool2d(torch.rand(1, 1, 8, 8), 2, output_size=3))
    drawn[2].sum().backward()
    return [d.detach() for d in drawn] + [x.grad]


@workload
def augmentation(turn):
    images = torch.linspace(0, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
    drawn = []
    for _ in range(3):
        flip = torch.rand(2) < 0.5
        images = torch.where(flip[:, None, None, None], images.flip(-1), images)
        turn()
        top, left = torch.randint(0, 3, (2,)).tolist()
        turn()
        images = F.pad(images, (2, 2, 2, 2))[..., top : top + 8, left : left + 8]
        images = images + 0.1 * torch.randn_like(images)
        if random.random() < 0.5:
            images = images * random.uniform(0.8, 1.2)
        turn()
        images = images + float(np.random.normal())
        drawn.append(images)
    return drawn


@workload
def splits_and_samplers(turn):
    data = TensorDataset(torch.arange(20))
    one, two = random_split(data, [12, 8])
    drawn = [torch.tensor(one.indices), torch.tensor(two.indices)]
    turn()
    for sampler in (
        WeightedRandomSampler(torch.arange(1.0, 21.0), 15),
        WeightedRandomSampler(torch.arange(1.0, 21.0), 15, replacement=False),
        RandomSampler(data),
        RandomSampler(data, replacement=True, num_samples=9),
    ):
        drawn.append(torch.tensor(list(sampler)))
        turn()
    return drawn


@workload
def shuffling_loaders(turn):
    data = TensorDataset(torch.arange(20))
    drawn = []
    for generator in (None, torch.Generator().manual_seed(3)):
        loader = DataLoader(data, batch_size=6, shuffle=True, generator=generator)
        for _ in range(2):
            for (batch,) in loader:
                drawn.append(batch)
                turn()
    return drawn


class Noisy(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, at):
        return at + torch.rand(2), random.random(), np.random.rand()


@workload
def loader_workers(turn):
    drawn = []
    for persistent in (False, True):
        loader = DataLoader(
            Noisy(), batch_size=2, shuffle=True, num_workers=2, persistent_workers=persistent
        )
        for _ in range(2):
            turn()
            for tensors, one, two in loader:
                drawn += [tensors, one, two]
    return drawn


@workload
def recomputation(turn):
    drawn = []
    for reentrant in (True, False):
        layer = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5))
        x = torch.ones(4, 6, requires_grad=True)
        y = checkpoint(layer, x, use_reentrant=reentrant)
        turn()
        torch.rand(3)
        y.sum().backward()
        turn()
        drawn += [y.detach(), x.grad, layer[0].weight.grad, torch.rand(2)]
    return drawn


@workload
def weight_averaging(turn):
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2))
    averaged = torch.optim.swa_utils.AveragedModel(model)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    loader = DataLoader(TensorDataset(torch.randn(16, 4)), batch_size=8, shuffle=True)
    for _ in range(3):
        for (x,) in loader:
            optimizer.zero_grad()
            model(x).pow(2).sum().backward()
            optimizer.step()
            turn()
        averaged.update_parameters(model)
    torch.optim.swa_utils.update_bn((x for (x,) in loader), averaged)
    return [v.detach().clone() for v in averaged.state_dict().values()]


@workload
def reseeding(turn):
    drawn = [torch.rand(1)]
    torch.manual_seed(5)
    turn()
    drawn += [torch.rand(1), torch.tensor(torch.initial_seed())]
    state = torch.get_rng_state()
    turn()
    drawn.append(torch.rand(1))
    torch.set_rng_state(state)
    turn()
    drawn.append(torch.rand(1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        turn()
        drawn.append(torch.rand(1))
    drawn.append(torch.rand(1))
    return drawn


@workload
def lightning_seed_everything(turn):
    random.seed(21)
    turn()
    np.random.seed(21)
    turn()
    torch.manual_seed(21)
    torch.cuda.manual_seed_all(21)
    turn()
    return [torch.rand(2), random.random(), np.random.rand(2), random.gauss(0, 1)]


@workload
def python_and_numpy(turn):
    drawn = []
    items = list(range(9))
    for draw in (
        random.random,
        lambda: random.uniform(1, 2),
        lambda: random.randint(0, 99),
        lambda: random.gauss(0, 1),
        lambda: random.gauss(0, 1),
        lambda: random.choice(items),
        lambda: random.sample(items, 3),
        lambda: random.shuffle(items) or list(items),
        lambda: random.getrandbits(40),
        lambda: np.random.rand(3),
        lambda: np.random.randn(3),
        lambda: np.random.permutation(9),
        lambda: np.random.choice(9, 3),
        lambda: np.random.sample(2),
        lambda: np.random.mtrand._rand.randint(0, 99),
    ):
        drawn.append(draw())
        turn()
    return drawn


def as_plain(value):
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), value.tolist())
    return value.tolist() if isinstance(value, np.ndarray) else value


def same(one, other):
    return [as_plain(v) for v in one] == [as_plain(v) for v in other]


def seed_all(seed):
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def plain_script(function, seed):
    """The numbers of a script without a sweep."""
    seed_all(seed)
    return function(lambda: None)


forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@forks
@pytest.mark.parametrize(
    ("threads", "self_seeding"), [(1, False), (2, False), (4, False), (2, True)]
)
@pytest.mark.parametrize("name", WORKLOADS)
def test_jobs_at_the_same_time_draw_what_a_plain_script_draws(name, threads, self_seeding):
    function = WORKLOADS[name]
    # Two jobs have the same seed, the others their own: all take turns after each draw.
    seeds = [SEED, SEED, 0, 7][:threads]
    expected = {seed: plain_script(function, seed) for seed in seeds}
    process_wide = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    barrier = threading.Barrier(threads)

    def job(seed):
        torch.set_num_threads(1)
        try:
            with JobStreams(None if self_seeding else seed).thread():
                if self_seeding:
                    seed_all(seed)
                return function(lambda: barrier.wait(60))
        except BaseException:
            barrier.abort()
            raise

    got = {}
    # No ThreadPoolExecutor: a DataLoader worker that is forked from its threads fails when it ends.
    slots = [
        threading.Thread(target=lambda at=at, seed=seed: got.update({at: job(seed)}))
        for at, seed in enumerate(seeds)
    ]
    with installed_streams(seeded=not self_seeding):
        for slot in slots:
            slot.start()
        for slot in slots:
            slot.join()
    for at, seed in enumerate(seeds):
        assert same(got[at], expected[seed]), seed
    assert torch.equal(process_wide[0], torch.get_rng_state())
    assert process_wide[1] == random.getstate()
    assert process_wide[2] == np.random.get_state()[1].tolist()


@pytest.mark.parametrize("name", ["dropouts", "recurrent", "python_and_numpy"])
def test_other_threads_of_the_process_do_not_disturb(name):
    function = WORKLOADS[name]
    expected = plain_script(function, SEED)
    done, started = threading.Event(), threading.Event()

    def noise():
        while not done.is_set():
            torch.rand(10)
            random.random()
            np.random.rand()
            torch.manual_seed(1)
            started.set()

    other = threading.Thread(target=noise)
    with installed_streams():
        other.start()
        started.wait(60)
        try:
            for _ in range(3):
                with JobStreams(SEED).thread():
                    assert same(function(lambda: None), expected)
        finally:
            done.set()
            other.join()


def test_jobs_in_any_order_on_one_thread():
    jobs = [(name, seed) for name in ("dropouts", "python_and_numpy") for seed in (0, 1, 2**40)]
    expected = {job: plain_script(WORKLOADS[job[0]], job[1]) for job in jobs}
    random.Random(4).shuffle(jobs)
    for name, seed in jobs:
        with JobStreams(seed).thread():
            assert same(WORKLOADS[name](lambda: None), expected[name, seed])


@pytest.mark.parametrize("seed", [0, 2**32 + 5, 2**63, -3])
def test_any_seed_that_torch_takes(seed):
    expected = plain_script(WORKLOADS["augmentation"], seed)
    with JobStreams(seed).thread():
        assert same(WORKLOADS["augmentation"](lambda: None), expected)


def test_threads_of_a_job_share_its_streams():
    torch.manual_seed(SEED)
    expected = [torch.rand(2).tolist() for _ in range(2)]
    streams, drawn = JobStreams(SEED), []

    def part():
        with streams.thread():
            drawn.append(torch.rand(2).tolist())

    with streams.thread():
        drawn.append(torch.rand(2).tolist())
        other = threading.Thread(target=part)
        other.start()
        other.join()
    assert drawn == expected


def test_streams_can_be_entered_again_inside_themselves():
    torch.manual_seed(SEED)
    expected = torch.rand(3).tolist()
    streams = JobStreams(SEED)
    drawn = []
    with streams.thread():
        drawn.append(torch.rand(1).item())
        with streams.thread():
            drawn.append(torch.rand(1).item())
        drawn.append(torch.rand(1).item())
        assert current_streams() is streams
    torch.manual_seed(SEED)
    assert drawn == [torch.rand(1).item() for _ in range(3)]
    assert expected is not None
    assert current_streams() is None


def test_an_exception_leaves_the_streams():
    with pytest.raises(ValueError, match="mine"), JobStreams(1).thread():
        raise ValueError("mine")
    assert current_streams() is None
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(1), expected)


def test_torch_seed_reseeds_this_job_randomly():
    process_wide = torch.get_rng_state()
    streams = JobStreams(0)
    with streams.thread():
        first, second = torch.seed(), torch.seed()
        assert torch.initial_seed() == second
        drawn = torch.rand(3)
    assert first != second
    assert torch.equal(torch.get_rng_state(), process_wide)
    torch.manual_seed(second)
    assert torch.equal(torch.rand(3), drawn)


def test_rng_is_the_jobs_own():
    streams = JobStreams(9)
    with streams.thread():
        random.random()
        first = streams.rng.random()
        torch.rand(1)
        second = streams.rng.random()
    mine = random.Random(9)
    assert [first, second] == [mine.random(), mine.random()]
    assert streams.rng is streams.rng


def test_loader_streams_are_the_same_for_each_slot_and_not_the_jobs():
    def draw():
        return torch.rand(3).tolist(), random.random(), np.random.rand()

    drawn = []
    for _ in range(2):
        with loader_streams(3):
            drawn.append(draw())
    with JobStreams(3).thread():
        in_job = draw()
    with loader_streams(4):
        other_seed = draw()
    assert drawn[0] == drawn[1]
    assert not set(map(str, drawn[0])) & set(map(str, in_job))
    assert not set(map(str, drawn[0])) & set(map(str, other_seed))


def test_a_factory_in_the_middle_of_a_job_draws_nothing_from_its_streams():
    with JobStreams(3).thread():
        expected = torch.rand(1), torch.rand(1), random.random()
    with JobStreams(3).thread():
        got = [torch.rand(1)]
        with loader_streams(3):
            torch.rand(5)
            random.random()
        got += [torch.rand(1), random.random()]
    assert same(got, expected)
