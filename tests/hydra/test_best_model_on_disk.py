"""Through Hydra: the best job that is named is the one whose model is on disk."""

import errno
import gc
import logging
import os

import pytest
import torch
import yaml
from launching import multirun

import junky_core.job.best as best_module
from junky_core import BestModelError, current_job
from junky_core.errors import SweepFailed
from junky_core.record.reader import read_journal

CONFIG = {"x": 0}
JOBS = ["hydra/sweeper=junky", "x=1,2,4,3"]  # the score is x/10


def job(cfg):
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, cfg.x / 10)
    current_job().save_best(model, cfg.x / 10)
    current_job()._best.flush()  # one write for each job that leads
    return cfg.x / 10


@pytest.fixture
def failing_disk(monkeypatch):
    """Make the writes of the best model with these numbers fail."""
    failing, count = set(), 0
    plain = best_module.write_atomically

    def write(path, content, **kwargs):
        nonlocal count
        count += 1
        if count - 1 in failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(path, content, **kwargs)

    monkeypatch.setattr(best_module, "write_atomically", write)
    return failing


def results(folder):
    return yaml.safe_load((folder / "sweep" / "optimization_results.yaml").read_text())


def on_disk(folder):
    return torch.load(folder / "sweep" / "model.pt", weights_only=True)["weight"].item()


def last_record(folder):
    return list(read_journal(folder / "sweep"))[-1]


def test_results_log_and_journal_name_the_job_on_disk(tmp_path, failing_disk, caplog):
    failing_disk.update(range(2, 1000))
    caplog.set_level(logging.INFO)
    with pytest.raises(BestModelError, match="job 1 with the score") as caught:
        multirun(job, JOBS, CONFIG, tmp_path)
    assert on_disk(tmp_path) == pytest.approx(0.2)
    told = results(tmp_path)
    assert (told["best_job_num"], told["best_evaluated_result"]) == (1, pytest.approx(0.2))
    assert told["best_evaluated_params"] == {"x": 2}
    assert told["model_path"] == str(tmp_path / "sweep" / "model.pt")
    assert "Best job: #1, score 0.2" in caplog.text
    assert (last_record(tmp_path)["best_job"], last_record(tmp_path)["left"]) == (1, 1)
    assert caught.value.result.best_model_params == {"x": 2}
    assert len(caught.value.result.stats) == 4


def test_no_job_is_named_where_no_model_is_on_disk(tmp_path, failing_disk, caplog):
    failing_disk.update(range(1000))
    with pytest.raises(BestModelError, match="no model of this sweep is"):
        multirun(job, JOBS, CONFIG, tmp_path)
    assert results(tmp_path)["best_job_num"] is None
    assert results(tmp_path)["model_path"] is None
    assert "No model is on disk" in caplog.text


def test_all_batches_run_before_the_error(tmp_path, failing_disk):
    failing_disk.update(range(2, 1000))
    with pytest.raises(BestModelError):
        multirun(job, [*JOBS, "x=1,2,4,3,5,6", "hydra.sweeper.max_batch_size=2"], CONFIG, tmp_path)
    started = [r for r in read_journal(tmp_path / "sweep") if r["event"] == "job_started"]
    assert len(started) == 6


def test_a_disk_that_works_again_in_a_later_batch_is_not_an_error(tmp_path, failing_disk):
    failing_disk.update(range(2, 1000))

    def last_one_frees_the_disk(cfg):
        if cfg.x == 3:
            failing_disk.clear()
        return job(cfg)

    one_each = [*JOBS, "hydra.sweeper.max_batch_size=1"]
    multirun(last_one_frees_the_disk, one_each, CONFIG, tmp_path)
    assert results(tmp_path)["best_job_num"] == 2
    assert on_disk(tmp_path) == pytest.approx(0.4)


def test_another_sweeper_gets_the_error_too(tmp_path, failing_disk):
    failing_disk.update(range(2, 1000))
    with pytest.raises(BestModelError):
        multirun(job, ["x=1,2,4,3"], CONFIG, tmp_path)


def test_failed_jobs_are_named_in_addition_to_the_lost_model(tmp_path, failing_disk, caplog):
    failing_disk.update(range(2, 1000))

    def some_fail(cfg):
        if cfg.x == 3:
            raise ValueError("three")
        return job(cfg)

    with pytest.raises(BestModelError):
        multirun(some_fail, JOBS, CONFIG, tmp_path)
    assert "ValueError: three" in caplog.text
    assert results(tmp_path)["failed_jobs"] == [3]


def test_a_model_that_could_not_be_loaded_fails_its_job_alone(tmp_path):
    class Odd(torch.nn.Linear):
        def get_extra_state(self):
            return lambda: None

    def some_odd(cfg):
        if cfg.x != 4:
            return job(cfg)
        current_job().save_best(Odd(1, 1), 0.4)

    with pytest.raises(SweepFailed, match="weights_only=True"):
        multirun(some_odd, [*JOBS, "hydra.launcher.max_retries=0"], CONFIG, tmp_path)
    assert results(tmp_path)["best_job_num"] == 3
    assert on_disk(tmp_path) == pytest.approx(0.3)


def test_the_model_of_another_job_is_not_reported_as_the_best_jobs(tmp_path, caplog):
    """A job that only returns a number leads: it has no model, and none is named."""

    def some_save(cfg):
        return job(cfg) if cfg.x < 3 else cfg.x / 10

    multirun(some_save, JOBS, CONFIG, tmp_path)
    told = results(tmp_path)
    assert (told["best_job_num"], told["model_path"]) == (2, None)
    assert "holds that of job #1" in caplog.text


def test_the_job_that_saved_a_lost_model_runs_again_and_no_other(tmp_path, caplog):
    """The jobs that rank first only return a number."""
    ran = []

    def some_save(cfg):
        ran.append(cfg.x)
        return job(cfg) if cfg.x < 3 else cfg.x / 10

    multirun(some_save, JOBS, CONFIG, tmp_path)
    (tmp_path / "sweep" / "model.pt").unlink()
    ran.clear()
    multirun(some_save, [*JOBS, "hydra.launcher.resume=true"], CONFIG, tmp_path)
    assert ran == [2]
    assert on_disk(tmp_path) == pytest.approx(0.2)


def test_a_lost_model_that_is_not_trained_again_is_an_error(tmp_path):
    multirun(job, JOBS, CONFIG, tmp_path)
    (tmp_path / "sweep" / "model.pt").unlink()
    resumed = ["hydra/sweeper=junky", "hydra.launcher.resume=true"]
    gc.disable()  # the folder is free again even if the garbage collector does not run
    try:
        with pytest.raises(BestModelError, match="job 2 is no longer in"):
            multirun(job, [*resumed, "x=1,2,3"], CONFIG, tmp_path)
    finally:
        gc.enable()
    assert results(tmp_path)["model_path"] is None
    multirun(job, [*resumed, "x=1,4", "hydra.sweeper.max_batch_size=1"], CONFIG, tmp_path)
    assert results(tmp_path)["best_job_num"] == 2
    assert on_disk(tmp_path) == pytest.approx(0.4)
