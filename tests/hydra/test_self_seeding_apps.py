"""Apps that seed themselves get on any number of slots what they get under the Basic launcher."""

import random
import threading

import gymnasium
import numpy as np
import pytest
import torch
from launching import multirun
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, random_split

from junky_core import current_job

SEEDS = [1, 2, 3, 1]
pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)


def seed_all(seed):
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


class Augmented(Dataset):
    """Draws from all three libraries, in any process."""

    def __len__(self):
        return 24

    def __getitem__(self, at):
        noise = [random.gauss(0, 0.1), np.random.normal(0, 0.1), torch.randn(()).item()]
        return torch.tensor([float(at % 3), *noise]), at % 3


def fit(loader, turn, epochs=2):
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    losses = []
    for _ in range(epochs):
        for inputs, targets in loader:
            turn()
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs + random.gauss(0, 0.01)), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return [*losses, *(value.sum().item() for value in model.state_dict().values())]


def plain(cfg, turn):
    torch.rand(3), random.random(), np.random.rand()  # from the process-wide streams
    turn()
    seed_all(cfg.seed)
    turn()
    return fit(DataLoader(Augmented(), 6, shuffle=True), turn)


def torch_alone(cfg, turn):
    torch.manual_seed(cfg.seed)
    np.random.rand(), random.random()
    data = TensorDataset(torch.randn(24, 4), torch.randint(0, 3, (24,)))
    train, _ = random_split(data, [18, 6])
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 3))
    out = []
    for inputs, _targets in DataLoader(train, 6, shuffle=True):
        turn()
        out.append(model(inputs).sum().item())
    return out


def one_generator_each(cfg, turn):
    random.seed(cfg.seed)
    turn()
    drawn = [random.random()]
    np.random.seed(cfg.seed)
    turn()
    return [*drawn, random.random(), np.random.rand(), np.random.randn()]


def workers(cfg, turn):
    seed_all(cfg.seed)
    turn()
    return fit(DataLoader(Augmented(), 6, shuffle=True, num_workers=2), turn)


def init_worker(number):
    np.random.seed((torch.initial_seed() + number) % 2**32)
    random.seed(torch.initial_seed())


def workers_that_seed(cfg, turn):
    seed_all(cfg.seed)
    turn()
    loader = DataLoader(
        Augmented(), 6, num_workers=2, worker_init_fn=init_worker, persistent_workers=True
    )
    return fit(loader, turn)


def workers_of_a_job_that_seeds_torch_alone(cfg, turn):
    torch.manual_seed(cfg.seed)
    turn()
    loader = DataLoader(Augmented(), 6, shuffle=True, num_workers=2)
    return [inputs.sum().item() for inputs, _ in loader]


def threads(cfg, turn):
    seed_all(cfg.seed)
    got = []
    thread = threading.Thread(
        target=lambda: got.append(fit(DataLoader(Augmented(), 6, shuffle=True), turn))
    )
    thread.start()
    thread.join()
    return [*got[0], torch.rand(1).item(), random.random(), np.random.rand()]


def each_epoch(cfg, turn):
    out = []
    for epoch in range(3):
        torch.manual_seed(cfg.seed + epoch)
        turn()
        out.append(torch.rand(2).tolist())
    return out


def states(cfg, turn):
    torch.manual_seed(cfg.seed)
    state = torch.get_rng_state()
    turn()
    out = [torch.rand(1).item()]
    turn()
    torch.set_rng_state(state)
    out.append(torch.rand(1).item())
    with torch.random.fork_rng():
        torch.manual_seed(cfg.seed + 5)
        turn()
        out.append(torch.rand(1).item())
    turn()
    return [*out, torch.rand(1).item(), torch.initial_seed()]


def inference(cfg, turn):
    with torch.inference_mode():
        torch.manual_seed(cfg.seed)
        turn()
        out = [torch.rand(1).item()]
    turn()
    return [*out, torch.rand(1).item()]


def make_loaders():
    data = TensorDataset(torch.randn(24, 4), torch.randint(0, 3, (24,)))
    generator = torch.Generator().manual_seed(7)
    return DataLoader(data, 6, shuffle=True), DataLoader(data, 6, shuffle=True, generator=generator)


def loaders_after_seeding(cfg, turn):
    seed_all(cfg.seed)
    turn()
    first, second = current_job().loaders(make_loaders)
    return fit(first, turn) + fit(second, turn)


def loaders_before_seeding(cfg, turn):
    _, loader = current_job().loaders(make_plain_loaders)
    seed_all(cfg.seed)
    turn()
    return fit(loader, turn)


def make_plain_loaders():
    data = TensorDataset(torch.arange(96.0).reshape(24, 4) / 96, torch.arange(24) % 3)
    generator = torch.Generator().manual_seed(7)
    return DataLoader(data, 6), DataLoader(data, 6, shuffle=True, generator=generator)


def make_data():
    return torch.randn(6)


def shared_data(cfg, turn):
    torch.manual_seed(cfg.seed)
    turn()
    return [*current_job().shared(make_data).tolist(), torch.rand(1).item()]


def seeding_factory(cfg, turn):
    def make():
        torch.manual_seed(5)
        return torch.rand(2)

    made = current_job().loaders(make)
    turn()
    return [*made.tolist(), torch.rand(1).item()]


def cartpole(cfg, turn):
    """REINFORCE."""
    seed_all(cfg.seed)
    env = gymnasium.make("CartPole-v1")
    env.action_space.seed(cfg.seed)
    policy = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(policy.parameters(), 0.01)
    returns = []
    for episode in range(4):
        turn()
        observation, _ = env.reset(seed=cfg.seed if episode == 0 else None)
        log_probs, rewards = [], []
        for _ in range(60):
            if random.random() < 0.1:
                action = torch.tensor(np.random.randint(2))
            distribution = torch.distributions.Categorical(
                logits=policy(torch.as_tensor(observation))
            )
            action = distribution.sample()
            log_probs.append(distribution.log_prob(action))
            observation, reward, over, cut, _ = env.step(action.item())
            rewards.append(reward)
            if over or cut:
                break
        loss = -torch.stack(log_probs).sum() * sum(rewards)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        returns.append((sum(rewards), loss.item()))
    return [returns, [value.sum().item() for value in policy.parameters()]]


APPS = [
    plain,
    torch_alone,
    one_generator_each,
    workers,
    workers_that_seed,
    workers_of_a_job_that_seeds_torch_alone,
    threads,
    each_epoch,
    states,
    inference,
    loaders_after_seeding,
    loaders_before_seeding,
    shared_data,
    seeding_factory,
    cartpole,
]


@pytest.fixture(autouse=True)
def one_torch_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # on a slot too
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sweep(app, folder, launcher, slots=1):
    barrier = threading.Barrier(slots)

    def task(cfg):
        try:
            return app(cfg, lambda: barrier.wait(60))
        except BaseException:
            barrier.abort()
            raise

    overrides = [f"seed={','.join(map(str, SEEDS))}"]
    if launcher == "junky":
        overrides.append(f"hydra.launcher.devices=cpu*{slots}")
    returns = multirun(task, overrides, {"seed": 0}, folder, launcher)
    return [job.return_value for job in returns]


@pytest.mark.parametrize("app", APPS, ids=lambda app: app.__name__)
def test_as_under_the_basic_launcher(app, tmp_path):
    expected = sweep(app, tmp_path / "basic", "basic")
    for slots in (1, 2):
        assert sweep(app, tmp_path / f"slots{slots}", "junky", slots) == expected


def test_on_as_many_slots_as_jobs(tmp_path):
    expected = sweep(plain, tmp_path / "basic", "basic")
    assert sweep(plain, tmp_path / "junky", "junky", len(SEEDS)) == expected
