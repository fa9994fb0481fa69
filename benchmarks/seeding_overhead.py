"""What separate random streams cost a job: the ratio of its steps to plain ones.

Of a job in a sweep in which none seeds, of a seeded one, of one that does not seed beside one
that does, and of the same when other jobs lend states or fork as well.

    python benchmarks/seeding_overhead.py [--rounds 200] [--steps 10]

Blocks of ``--steps`` with and without streams are timed in pairs; the median of the pairs' ratios
is taken. One torch thread, as a seeded sweep has by default; all of a step runs in the
calling thread, and its processor time is taken, which other processes disturb least.
"""

import argparse
import statistics
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from junky_core.job.seeding import JobStreams, installed_streams
from junky_core.job.seeding._operators import SHARED, register


def training_step(model, optimizer_class, inputs):
    optimizer = optimizer_class(model.parameters(), lr=1e-3)
    targets = torch.randint(0, 10, (len(inputs),))

    def step():
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()

    return step


def mlp(dropouts, width):
    layers = []
    for at in range(2):
        layers += [nn.Linear(64 if at == 0 else width, width), nn.ReLU()]
        if at < dropouts:
            layers.append(nn.Dropout(0.2))
    return nn.Sequential(*layers, nn.Linear(width, 10))


def cnn():
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout2d(0.1)),
        *(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2)),
        nn.Linear(256, 10),
    )


def inference_step(model, inputs):
    def step():
        with torch.inference_mode():
            model(inputs)

    return step


def epoch(loader):
    def step():
        for _ in loader:
            pass

    return step


def cases():
    inputs = torch.randn(64, 64)
    for width in (64, 256):
        for optimizer in (torch.optim.SGD, torch.optim.Adam):
            for dropouts in (0, 1, 2):
                name = f"MLP w={width:3} {optimizer.__name__:4} dropouts={dropouts}"
                yield name, training_step(mlp(dropouts, width), optimizer, inputs)
    yield "CNN SGD dropouts=2", training_step(cnn(), torch.optim.SGD, torch.randn(32, 1, 14, 14))
    yield "inference w= 64 eval", inference_step(mlp(1, 64).eval(), inputs)
    yield "inference w= 64 dropouts=1", inference_step(mlp(1, 64), inputs)
    data = TensorDataset(torch.randn(512, 64))
    yield "epoch of a loader that shuffles", epoch(DataLoader(data, 64, shuffle=True))


def block_s(step, steps):
    start = time.thread_time()
    for _ in range(steps):
        step()
    return (time.thread_time() - start) / steps


def measure(step, streams, rounds, steps):
    plain, ratios = [], []
    block_s(step, steps)
    for at in range(rounds):
        took = {}
        # In turns, and the first of each pair changes, so that drift hits both alike.
        for inside in (False, True) if at % 2 else (True, False):
            if inside:
                with streams.thread():
                    took[inside] = block_s(step, steps)
            else:
                took[inside] = block_s(step, steps)
        plain.append(took[False])
        ratios.append(took[True] / took[False])
    return statistics.median(plain), statistics.median(ratios)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, MLP 64-w-w-10, batch 64")
    with installed_streams(seeded=False):
        # In this order: what torch's operators have of ours by then is there for good.
        for what in ("none seeds", "seeded", "others seed", "and lend"):
            if what == "and lend":
                register(SHARED)
            seed = 0 if what == "seeded" else None
            for name, step in cases():
                plain, ratio = measure(step, JobStreams(seed), options.rounds, options.steps)
                print(
                    f"{what:11} {name:31} plain {plain * 1e6:7.1f} us, ratio {ratio:.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
