"""Under Hydra too, worker processes of the jobs' loaders end with the sweep."""

import contextlib
import multiprocessing
import sys

import pytest
import torch
from hydra.core.utils import JobStatus
from launching import multirun
from torch.utils.data import DataLoader

from junky_core import current_job
from junky_core.errors import SweepFailed, SweepInterrupted

WORKERS = 2
OVERRIDES = ["a=0,1,2,3", "hydra.launcher.max_retries=0", "hydra.launcher.devices=cpu*2"]


def make_loader(data_size=4):
    return DataLoader(torch.arange(data_size), 2, num_workers=WORKERS, persistent_workers=True)


def fail(a):
    raise ValueError(f"bad {a}")


def interrupt(a):
    if a == 2:
        raise KeyboardInterrupt


@pytest.mark.parametrize("sweeper", ["basic", "junky"])
@pytest.mark.parametrize(
    ("then", "error"),
    [
        (lambda a: None, None),
        (sys.exit, SweepFailed),
        (fail, SweepFailed),
        (interrupt, SweepInterrupted),
    ],
    ids=["finish", "exit", "fail", "Ctrl-C"],
)
def test_workers_end_with_the_sweep(tmp_path, then, error, sweeper):
    running = []

    def task(cfg):
        loader = current_job().loaders(make_loader)
        assert sum(len(batch) for batch in loader) == 4
        running.append(len(multiprocessing.active_children()))
        then(cfg.a)

    overrides = [*OVERRIDES, f"hydra/sweeper={sweeper}"]
    if error is None:
        multirun(task, overrides, {"a": 0}, tmp_path)
    elif error is SweepInterrupted:
        with pytest.raises(error):
            multirun(task, overrides, {"a": 0}, tmp_path)
    else:
        returns = []
        with contextlib.suppress(Exception):  # the sweeper may raise it
            multirun(task, overrides, {"a": 0}, tmp_path, collect=returns)
        assert JobStatus.FAILED in [ret.status for ret in returns]
    assert WORKERS <= max(running) <= 2 * WORKERS
    assert multiprocessing.active_children() == []
