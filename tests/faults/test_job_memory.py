"""After a job has failed, nothing of it is held in memory."""

import gc
import os
import threading
import weakref

import pytest
import torch
from sizes import LONG

from junky_core.autotrain import torch_autotrain
from junky_core.job.standalone import current_job

JOBS = 2_000 if LONG else 24
MIB = 1 << 20


class Diverged(Exception):
    def __init__(self, model, loss):
        super().__init__("diverged", loss)
        self.model, self.loss = model, loss

    def __str__(self):
        return f"loss {self.loss[0].item()}"


def by_assert(model, loss):
    assert torch.isfinite(loss).all(), loss


def by_attribute(model, loss):
    raise Diverged(model, loss)


def by_cause(model, loss):
    try:
        by_assert(model, loss)
    except AssertionError as error:
        raise RuntimeError(model) from error


def by_context(model, loss):
    try:
        by_assert(model, loss)
    finally:
        raise RuntimeError("while clearing up")


def by_local_class(model, loss):
    class Local(ValueError):
        last = model

        def __str__(self):
            return f"loss {loss}"

    raise Local(Local)


def by_missing_attribute(model, loss):
    model.held = loss
    return model.no_such_attribute


def by_loaders(model, loss):
    def factory(_model):
        raise ValueError(loss)

    current_job().loaders(factory, model)


def by_shared(model, loss):
    def factory(_model):
        raise ValueError(loss)

    current_job().shared(factory, model)


def by_thread(model, loss):
    errors = []

    def work():
        try:
            by_assert(model, loss)
        except AssertionError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    raise errors[0]


WAYS = [
    by_assert,
    by_attribute,
    by_cause,
    by_context,
    by_loaders,
    by_local_class,
    by_missing_attribute,
    by_shared,
    by_thread,
]


def resident_mib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / MIB


@pytest.mark.parametrize("fail", WAYS)
def test_failed_jobs_free_their_tensors(tmp_path, fail):
    held = []

    def make_model(job):
        return torch.nn.Linear(2, 1), job

    def train(device, loaders, model, job, save_best, log_prefix):
        if job == JOBS - 1:
            gc.collect()
            left.append(sum(ref() is not None for ref in held))
            save_best(model, 1.0)
            return
        loss = torch.full((100,), float("nan"))
        held.append(weakref.ref(loss))
        held.append(weakref.ref(model))
        fail(model, loss)

    left = []
    result = torch_autotrain(
        make_model,
        train,
        make_model_fit_params=[("job", range(JOBS))],
        devices="cpu",
        sweep_dir=tmp_path,
        max_retries=0,
        fail_fast=None,
    )
    assert len(result.failed) == JOBS - 1
    assert left == [0]
    assert len(held) == 2 * (JOBS - 1)
    assert all(failed.error and failed.traceback for failed in result.failed)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc")
def test_memory_does_not_grow_with_failed_jobs(tmp_path):
    resident = []

    def train(device, loaders, model, job, save_best, log_prefix):
        if job in (JOBS // 4, JOBS - 1):
            resident.append(resident_mib())
        if job == JOBS - 1:
            return
        loss = torch.full((2 * MIB,), float("nan"))  # 8 MiB
        WAYS[job % 4](model, loss)

    torch_autotrain(
        lambda job: (torch.nn.Linear(2, 1), job),
        train,
        make_model_fit_params=[("job", range(JOBS))],
        devices="cpu",
        sweep_dir=tmp_path,
        max_retries=1,
        fail_fast=None,
    )
    assert resident[1] - resident[0] < 30  # held, they would be 8 MiB for each of 18 jobs
