"""What the benchmarks of the executors run: the measured processes, and the jobs in them.

As a script: ``python -m benchmarks.executors_work WHAT ARGUMENTS``.
"""

import hashlib
import multiprocessing
import os
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks import probes
from junky_core import torch_autotrain

SEED = 7


def speed(seconds):
    """Report how many steps of a tiny network take so long."""
    torch.set_num_threads(1)
    train_tiny(None, (), make_tiny(0), _save_nothing, "", 50)
    began, ended = train_tiny(None, (), make_tiny(0), _save_nothing, "", 2_000)
    probes.report(steps=round(float(seconds) * 2_000 / (ended - began)))


def tiny(executor, slots, steps):
    """Train 8 tiny networks; report the seconds from the first one's start to the last one's end.

    ``executor``: that of ``torch_autotrain``, or ``bare`` for processes without it.
    """
    jobs, slots, steps = 8, int(slots), int(steps)
    train_tiny(None, (), make_tiny(0), _save_nothing, "", 50)  # what torch imports late is there
    if executor == "bare":
        spans = _bare_processes(slots, jobs, steps)
    else:
        result = torch_autotrain(
            make_tiny,
            train_tiny,
            make_model_fit_params=[("num", range(jobs))],
            train_args=(steps,),
            devices={"cpu": slots},
            threads_per_slot=1,
            executor=executor,
        )
        spans = [value for *_, value in result.stats]
    assert len(spans) == jobs, spans
    began, ended = zip(*spans, strict=True)
    probes.report(
        seconds=max(ended) - min(began), shortest=min(end - begin for begin, end in spans)
    )


def make_tiny(num):  # noqa: ARG001 - they differ by number alone
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def train_tiny(_device, _loaders, model, save_best, _log_prefix, steps):
    """Return when it began and ended, by the clock that all processes share."""
    began = time.monotonic()
    images, classes = torch.randn(64, 64), torch.randint(10, (64,))
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), classes)
        loss.backward()
        optimizer.step()
    save_best(model, -loss.item())
    return began, time.monotonic()


def _save_nothing(_model, _score):
    pass


def _bare_processes(count, jobs, steps):
    context = multiprocessing.get_context("spawn")
    warm, spans = context.Barrier(count), context.SimpleQueue()
    shares = [jobs // count] * count
    workers = [
        context.Process(target=_bare_work, args=(warm, spans, share, steps)) for share in shares
    ]
    for worker in workers:
        worker.start()
    got = [spans.get() for _ in range(sum(shares))]
    for worker in workers:
        worker.join()
    return got


def _bare_work(warm, spans, jobs, steps):
    torch.set_num_threads(1)
    train_tiny(None, (), make_tiny(0), _save_nothing, "", 50)
    warm.wait()
    for num in range(jobs):
        spans.put(train_tiny(None, (), make_tiny(num), _save_nothing, "", steps))


def worker(count, seed):
    """Start workers one after another; report how soon each is ready, and its own memory."""
    from junky_core.devices import parse_devices
    from junky_core.executors.contract import AttemptSettings
    from junky_core.executors.processes.executor import ProcessExecutor
    from junky_core.jobs import Attempt, Job

    slots = parse_devices(f"cpu*{count}")
    folder = Path.cwd()
    settings = AttemptSettings(threads_per_slot=1, seed=SEED if seed == "seed" else None)
    executor = ProcessExecutor(slots, _Noted(folder), settings, _Link())
    ready = []
    began = time.perf_counter()
    with executor.running(len(slots)):
        for slot in slots:
            problem = executor.worker(slot).open()
            ready.append(time.perf_counter() - began)
            assert not problem, problem
            began = time.perf_counter()
        idle = [_private_bytes(folder, slot) for slot in slots]
        for slot in slots:
            executor.worker(slot).execute(Attempt(Job(slot.index, {}), 1, f"Thread-{slot.index}_0"))
        used = [_private_bytes(folder, slot) for slot in slots]
    executor.close()
    probes.report(ready=ready, idle=idle, used=used)


class _Noted:
    """Writes down which process a slot has; its jobs train a tiny network."""

    def __init__(self, folder):
        self.folder = folder

    def open_slot(self, slot):
        (self.folder / f"slot-{slot.spec.index}").write_text(str(os.getpid()))

    def run(self, _attempt, _job):
        return train_tiny(None, (), make_tiny(0), _save_nothing, "", 200)

    def keep(self, _attempt, _exception):
        pass


class _Link:
    """The way up from an executor, where nobody listens."""

    def __init__(self):
        from junky_core.job.best import BestModel

        self.best = BestModel("model.pt")

    def emit(self, event):
        pass

    def warn(self, message):
        raise RuntimeError(message)

    def open_slot(self, slot):
        pass

    def close_slot(self, slot, reason):
        pass


def _private_bytes(folder, slot):
    pid = (folder / f"slot-{slot.index}").read_text()
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    private = [line.split()[1] for line in lines if line.startswith("Private_")]
    return 1024 * sum(int(size) for size in private)


def job(executor, jobs):
    """Run jobs that do nothing, one after another; report the ms from one to the next."""
    result = torch_autotrain(
        make_nothing,
        when,
        make_model_fit_params=[("num", range(int(jobs)))],
        executor=executor,
    )
    times = sorted(value for *_, value in result.stats)[int(jobs) // 10 :]  # once it runs evenly
    probes.report(ms=(times[-1] - times[0]) / (len(times) - 1) * 1e3)


def make_nothing(num):  # noqa: ARG001 - they differ by number alone
    return nn.Linear(2, 2)


def when(*_):
    return time.monotonic()


def save(executor, width, saves):
    """Save ever better models; report how long training waited, and how long a copy takes."""
    result = torch_autotrain(
        make_large,
        train_and_save,
        make_model_fit_params=[("width", [int(width)])],
        train_args=(int(saves),),
        executor=executor,
    )
    ((*_, (size, copies, waits)),) = result.stats
    assert Path("model.pt").stat().st_size >= size
    probes.report(size=size, copies=copies, waits=waits)


def make_large(width):
    return nn.Linear(width, width, bias=False)


def train_and_save(_device, _loaders, model, save_best, _log_prefix, saves):
    """Return the bytes of the weights, and the seconds of each copy and of each save."""
    copies, waits = [], []
    for score in range(saves):
        probes.burn(1.0)
        began = time.perf_counter()
        copy = {name: value.clone() for name, value in model.state_dict().items()}
        copied = time.perf_counter()
        del copy
        saving = time.perf_counter()
        save_best(model, score)
        waits.append(time.perf_counter() - saving)
        copies.append(copied - began)
    return sum(value.nbytes for value in model.state_dict().values()), copies, waits


def seeds():
    """Train 24 seeded networks in each way; report how many differ from the plain script's."""
    from benchmarks import digits_work

    torch.set_num_threads(1)
    data = digits_work.prepared()
    plain = {}
    for params in digits_work.grid():
        torch.manual_seed(SEED)
        random.seed(SEED)
        np.random.seed(SEED)
        plain[_key(params)] = train_seeded(
            None, data, *digits_work.make_model(**params), _save_nothing, ""
        )
    differing = {}
    for executor in ("threads", "processes"):
        result = torch_autotrain(
            digits_work.make_model,
            train_seeded,
            digits_work.prepared,
            make_model_fit_params=digits_work.FIT_PARAMS,
            devices={"cpu": 2},
            seed=SEED,
            executor=executor,
        )
        got = {_key(params): value for _name, _score, params, value in result.stats}
        differing[executor] = sum(got.get(key) != value for key, value in plain.items())
    probes.report(jobs=len(plain), distinct=len(set(plain.values())), **differing)


def train_seeded(_device, data, model, optimizer, save_best, _log_prefix):
    """Train for one epoch; return what tells one result from another, to the last bit."""
    from benchmarks import digits_work

    score = digits_work.fit(model, optimizer, data, save_best, epochs=1)
    weights = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
    drawn = (torch.rand(1).item(), random.random(), np.random.rand())
    return hashlib.sha256(weights).hexdigest(), score, drawn


def _key(params):
    return tuple(sorted(params.items()))


if __name__ == "__main__":
    WHAT = {
        "speed": speed, "tiny": tiny, "worker": worker, "job": job, "save": save, "seeds": seeds,
    }  # fmt: skip
    WHAT[sys.argv[1]](*sys.argv[2:])
