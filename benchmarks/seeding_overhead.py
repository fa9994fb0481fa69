"""What separate random streams cost in a job's training step: its ratio to a plain step.

Of a job in a sweep in which none seeds, of a seeded one, and of one that does not seed beside one
that does.

    python benchmarks/seeding_overhead.py [--rounds 200] [--steps 10]

Steps with and without streams are timed in turns, in blocks of ``--steps``; the medians of the
blocks are compared. One torch thread, as a seeded sweep has by default; all of a step runs in the
calling thread, and its processor time is taken, which other processes disturb least.
"""

import argparse
import statistics
import time

import torch
from torch import nn

from junky_core.job.seeding import JobStreams, installed_streams


def make_step(dropouts, width, optimizer_class):
    layers = []
    for at in range(2):
        layers += [nn.Linear(64 if at == 0 else width, width), nn.ReLU()]
        if at < dropouts:
            layers.append(nn.Dropout(0.2))
    model = nn.Sequential(*layers, nn.Linear(width, 10))
    optimizer = optimizer_class(model.parameters(), lr=1e-3)
    inputs, targets = torch.randn(64, 64), torch.randint(0, 10, (64,))

    def step():
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()

    return step


def block_s(step, steps):
    start = time.thread_time()
    for _ in range(steps):
        step()
    return (time.thread_time() - start) / steps


def measure(step, streams, rounds, steps):
    plain, in_job = [], []
    block_s(step, steps)
    for at in range(rounds):
        # In turns, and the first of each pair changes, so that drift hits both alike.
        for inside in (False, True) if at % 2 else (True, False):
            if inside:
                with streams.thread():
                    in_job.append(block_s(step, steps))
            else:
                plain.append(block_s(step, steps))
    return statistics.median(plain), statistics.median(in_job)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, MLP 64-w-w-10, batch 64")
    with installed_streams(seeded=False):
        # In this order: once a job has seeded, torch's operators have kernels of ours.
        for what, seed in (("none seeds", None), ("seeded", 0), ("others seed", None)):
            for width in (64, 256):
                for optimizer in (torch.optim.SGD, torch.optim.Adam):
                    for dropouts in (0, 1, 2):
                        step = make_step(dropouts, width, optimizer)
                        plain, in_job = measure(
                            step, JobStreams(seed), options.rounds, options.steps
                        )
                        print(
                            f"{what:11} w={width:3} {optimizer.__name__:4} dropouts={dropouts}: "
                            f"plain {plain * 1e6:7.1f} us, in a job {in_job * 1e6:7.1f} us, "
                            f"ratio {in_job / plain:.3f}",
                            flush=True,
                        )


if __name__ == "__main__":
    main()
