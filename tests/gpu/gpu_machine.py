"""The GPU that the tests of this folder run on, and work for it that takes a known time."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from junky_core import torch_autotrain
from junky_core.accelerators import device_module, visible_devices

ROOT = Path(__file__).resolve().parents[2]
DEVICES = visible_devices()
DEVICE = DEVICES[0] if DEVICES else "cpu"
MODULE = device_module(torch.device(DEVICE).type)
SIZE = 8192 if DEVICES else 256
SLOTS = [
    pytest.mark.gpu,
    pytest.mark.skipif(not hasattr(MODULE, "Stream"), reason="mps takes one slot"),
]
CUDA_ONLY = pytest.mark.skipif(not DEVICE.startswith("cuda"), reason="asks for CUDA's own calls")


def sweep(
    folder, train, jobs, slots=1, device=DEVICE, width=4, at_start=lambda _job: None, **settings
):
    """Run ``train(job, model, save_best)`` for jobs 0, 1, ... and return the result.

    ``at_start(job)`` is called before the model goes to the device.
    """

    def make(job):
        at_start(job)
        return nn.Linear(width, width), job

    return torch_autotrain(
        make,
        lambda _device, _loaders, model, job, save_best, _prefix: train(job, model, save_best),
        make_model_fit_params=[("job", list(range(jobs)))],
        devices={device: slots},
        best_model_file_name=folder / "model.pt",
        **{"fail_fast": None, "max_retries": 0, **settings},
    )


def statuses(result):
    return [job.status for job in result.jobs]


def launch(rounds):
    """Keep the current stream busy with ``rounds`` equal pieces of work; returns at once.

    Few and long ones: a device's queue takes about a thousand, then the caller has to wait.
    """
    matrix = torch.ones(SIZE, SIZE, device=DEVICE)
    for _ in range(rounds):
        matrix = (matrix @ matrix).clamp_(max=1.0)


def rounds_for(seconds, known={}):
    """Return how many rounds of :func:`launch` take the device about so long."""
    if DEVICE not in known:
        launch(2)  # the first ones load kernels
        MODULE.synchronize()
        rounds, took = 1, 0.0
        while took < 0.1:
            rounds *= 2
            began = time.perf_counter()
            launch(rounds)
            MODULE.synchronize()
            took = time.perf_counter() - began
        known[DEVICE] = rounds / took
    return int(seconds * known[DEVICE])


def run_child(code, folder, **environment):
    """Run ``code`` in a process of its own; return its last line of output."""
    paths = [str(ROOT), str(Path(__file__).parent)]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


@contextlib.contextmanager
def memory_limit(size):
    """Let this process have ``size`` bytes more of the GPU's memory than it holds."""
    MODULE.empty_cache()
    total = MODULE.get_device_properties(DEVICE).total_memory
    MODULE.set_per_process_memory_fraction((MODULE.memory_reserved() + size) / total)
    try:
        yield
    finally:
        MODULE.set_per_process_memory_fraction(1.0)
        MODULE.empty_cache()
