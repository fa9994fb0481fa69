"""``current_job()`` where a Hydra config is there, and no sweep of this project."""

import pytest
import torch
from hydra import compose, initialize
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from launching import ON_1_4
from omegaconf import OmegaConf

from junky_core import context, current_job

Plugins.instance()  # what it registers is part of the state that is put back


@pytest.fixture
def composed(tmp_path, monkeypatch, hydra_restore_singletons):
    """Make the config of an app the one of this process, as a notebook does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(context, "_standalone_jobs", {})

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
