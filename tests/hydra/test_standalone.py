"""``current_job()`` with a Hydra config, but without a sweep of this project."""

import os
import threading

import pytest
import torch
from hydra import compose, initialize
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from launching import ON_1_4, multirun
from omegaconf import OmegaConf

from junky_core import current_job
from junky_core.job import standalone

Plugins.instance()  # what it registers is part of the restored state


@pytest.fixture
def composed(tmp_path, monkeypatch, hydra_restore_singletons):
    """Make the config of an app the one of this process, as a notebook does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(standalone, "_standalone_jobs", {})

    def make(*overrides):
        base = {} if ON_1_4 else {"version_base": None}
        with initialize(config_path=None, **base):
            config = compose(None, overrides=list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        return config

    return make


def test_a_config_composed_by_hand_has_no_folder(composed, tmp_path):
    composed("hydra/launcher=junky", "hydra.launcher.seed=3", "hydra.launcher.direction=minimize")
    job = current_job()
    assert (job.seed, job.device, job.num) == (3, torch.device("cpu"), 0)
    assert job.save_best(torch.nn.Linear(1, 1), 2.0)
    assert not job.save_best(torch.nn.Linear(1, 1), 3.0)
    assert (tmp_path / "model.pt").exists()


def test_the_settings_of_another_launcher_do_not_count(composed):
    composed()
    assert current_job().seed is None


def test_a_config_may_lack_hydras_own_keys(composed):
    composed()
    HydraConfig.instance().cfg = OmegaConf.create({"hydra": {"job": {"num": 7}}})
    assert current_job().num == 7
    assert current_job().seed is None


def open_files():
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def writers():
    """Return the threads that write best models and were not there before the test."""
    before = set(threading.enumerate())

    def found():
        return [
            thread
            for thread in threading.enumerate()
            if thread.name == "junky-best-model" and thread not in before
        ]

    return found


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc")
def test_jobs_of_another_launcher_leave_no_thread_and_no_open_file(tmp_path, monkeypatch, writers):
    monkeypatch.setattr(standalone, "_standalone_jobs", {})
    counts = []

    def task(cfg):
        assert current_job().save_best(torch.nn.Linear(1, 1), cfg.a)
        for thread in writers()[:-1]:
            thread.join(60)  # it was told to end
        counts.append((len(writers()), open_files()))

    multirun(task, ["a=1,2,3,4,5,6,7,8"], {"a": 0}, tmp_path, launcher="basic")
    for num in range(8):
        assert (tmp_path / "sweep" / str(num) / "model.pt").exists()
    assert set(counts) == {counts[0]}
    assert counts[0][0] == 1


def test_a_job_that_is_still_referenced_after_its_run_saves_its_best(composed, tmp_path, writers):
    composed()
    first = current_job()
    assert first.save_best(torch.nn.Linear(1, 1), 1.0)
    HydraConfig.instance().cfg = OmegaConf.create({"hydra": {"runtime": {"output_dir": "other"}}})
    second = current_job()
    assert second is not first
    assert not first.save_best(torch.nn.Linear(1, 1), 0.5)
    assert first.save_best(torch.nn.Linear(3, 1), 2.0)
    assert torch.load(tmp_path / "model.pt")["weight"].shape == (1, 3)
    for thread in writers():
        thread.join(60)
    assert not writers()


def test_entry_points_are_read_once(composed, monkeypatch):
    composed()
    current_job()

    def read(**_):
        raise AssertionError("read again")

    monkeypatch.setattr(standalone.metadata, "entry_points", read)
    assert current_job() is current_job()
