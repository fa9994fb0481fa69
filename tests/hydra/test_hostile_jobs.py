"""Under Hydra too, an object of a job affects only that job, and none is kept."""

import gc
import sys
import threading
import weakref

import pytest
import torch
from hostile import RAISED, Hostile, hostile_error, strange_exceptions
from hydra.core.utils import JobStatus
from launching import multirun

from junky_core import current_job
from junky_core.errors import SweepFailed
from junky_core.record.reader import load_state

JOBS = 6
BAD = 3
OVERRIDES = [f"a={','.join(map(str, range(JOBS)))}", "hydra.launcher.max_retries=0"]
TWO = "hydra.launcher.devices=cpu*2"


def failing_run(task, folder, *more, **options):
    returns = []
    with pytest.raises(SweepFailed) as caught:
        multirun(task, [*OVERRIDES, TWO, *more], {"a": 0}, folder, collect=returns, **options)
    return returns, caught.value


def check_only_that_job_failed(task, folder, *more):
    returns, error = failing_run(task, folder, "hydra/sweeper=junky", *more)
    assert [ret.status for ret in returns] == [
        JobStatus.FAILED if num == BAD else JobStatus.COMPLETED for num in range(JOBS)
    ]
    assert [result.num for result in error.failed] == [BAD]
    jobs = load_state(folder / "sweep").by_num
    assert [num for num, job in jobs.items() if job.status != "finished"] == [BAD]
    return returns[BAD], error.failed[0]


def task_failing_by(raise_it):
    def task(cfg):
        if cfg.a == BAD:
            raise_it()
        return cfg.a / 10

    return task


@pytest.mark.parametrize("error", [ValueError, SystemExit])
@pytest.mark.parametrize("base", [Exception, BaseException, RuntimeError, SystemExit])
def test_an_exception_that_raises_on_any_access_fails_only_its_job(tmp_path, base, error):
    def raise_it():
        raise hostile_error(error, base)

    ret, failed = check_only_that_job_failed(task_failing_by(raise_it), tmp_path)
    assert failed.error
    assert isinstance(ret._return_value, BaseException)


@pytest.mark.parametrize("make", strange_exceptions())
def test_a_strange_exception_fails_only_its_job(tmp_path, make):
    def raise_it():
        raise make()

    check_only_that_job_failed(task_failing_by(raise_it), tmp_path)


@pytest.mark.parametrize("error", [SystemExit, ValueError])
def test_exit_with_a_hostile_code_fails_its_job_alone(tmp_path, error):
    task = task_failing_by(lambda: sys.exit(Hostile(error)))
    _, failed = check_only_that_job_failed(task, tmp_path)
    assert failed.error == f"junky_core.errors.JobExited: job #{BAD} called sys.exit(<Hostile>)"


@pytest.mark.parametrize("error", [error for error in RAISED if issubclass(error, Exception)])
@pytest.mark.parametrize("launcher", ["junky", "basic"])
def test_returned_value_whose_number_cannot_be_read_has_no_score(tmp_path, error, launcher):
    value = Hostile(error)

    def task(cfg):
        return value if cfg.a == BAD else cfg.a / 10

    overrides = OVERRIDES if launcher == "junky" else OVERRIDES[:1]
    returns = multirun(
        task, [*overrides, "hydra/sweeper=junky"], {"a": 0}, tmp_path, launcher=launcher
    )
    assert returns[BAD].return_value is value
    assert all(ret.status is JobStatus.COMPLETED for ret in returns)


def test_returned_value_whose_number_ends_the_job_fails_it_alone(tmp_path):
    def task(cfg):
        return Hostile(SystemExit) if cfg.a == BAD else cfg.a / 10

    check_only_that_job_failed(task, tmp_path)


def by_args(model, loss):
    assert torch.isfinite(loss).all(), loss


def by_attribute(model, loss):
    error = ValueError("x")
    error.model, error.loss = model, loss
    raise error


def by_exit(model, loss):
    sys.exit(loss)


def by_missing_attribute(model, loss):
    model.held = loss
    return model.no_such_attribute


def by_loaders(model, loss):
    def factory(_model):
        raise ValueError(loss)

    current_job().loaders(factory, model)


def by_local_class(model, loss):
    class Local(ValueError):
        last = model

        def __str__(self):
            return f"loss {loss}"

    raise Local(Local)


@pytest.mark.parametrize(
    "fail",
    [by_args, by_attribute, by_exit, by_loaders, by_local_class, by_missing_attribute],
)
@pytest.mark.parametrize("sweeper", ["junky", "basic"])
def test_failed_jobs_free_their_tensors(tmp_path, fail, sweeper):
    held, left, lock = [], [], threading.Lock()

    def task(cfg):
        if cfg.a == JOBS - 1:
            gc.collect()
            left.append(sum(ref() is not None for ref in held))
            return 1.0
        model, loss = torch.nn.Linear(2, 1), torch.full((100,), float("nan"))
        with lock:
            held.extend([weakref.ref(model), weakref.ref(loss)])
        fail(model, loss)

    returns = []
    with pytest.raises(Exception):
        multirun(
            task,
            [*OVERRIDES, f"hydra/sweeper={sweeper}", "hydra.launcher.fail_fast=null"],
            {"a": 0},
            tmp_path,
            collect=returns,
        )
    assert left == [0]
    assert len(held) == 2 * (JOBS - 1)
    assert [ret.status for ret in returns[:-1]] == [JobStatus.FAILED] * (JOBS - 1)
    assert all(str(ret._return_value) for ret in returns[:-1])


def test_job_return_raises_the_class_that_the_job_raised(tmp_path):
    class Diverged(Exception):
        pass

    def raise_it():
        raise Diverged(torch.ones(1), 3)

    ret, failed = check_only_that_job_failed(task_failing_by(raise_it), tmp_path)
    with pytest.raises(Diverged, match=r"tensor\(\[1\.\]\)") as caught:
        ret.return_value
    assert caught.value.args[1] == 3
    assert isinstance(failed.exception, Diverged)
