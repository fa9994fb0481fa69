"""``JobReturn``s hold no configs, but give the same ones as Hydra's."""

import contextlib
import gc
import pickle
import sys

import pytest
import torch
from hydra.core.utils import JobReturn
from launching import multirun
from omegaconf import DictConfig, OmegaConf

JOBS = 4
CONFIG = {"a": 0, "deep": {"b": [1, 2], "c": "${a}"}}
OVERRIDES = ["a=0,1,2,3", "+hydra.job.env_set.JUNKY_A=x"]
ALONE = ["hydra.launcher.max_retries=0", "hydra.launcher.fail_fast=null"]


def finish(cfg):
    return 0.5


def fail(cfg):
    raise ValueError("bad", torch.ones(1))


def leave(cfg):
    sys.exit(f"job {cfg.a}")


def change_and_fail(cfg):
    cfg.deep.c = "changed"
    fail(cfg)


def returns_of(task, folder, launcher="junky", *more):
    returns = []
    with contextlib.suppress(Exception):  # the sweeper raises for failed jobs
        multirun(
            task,
            [*OVERRIDES, *(ALONE if launcher == "junky" else []), *more],
            CONFIG,
            folder,
            launcher=launcher,
            sweep_dir=folder.parent / "sweep",
            collect=returns,
        )
    return returns


def described(ret):
    hydra_cfg = OmegaConf.to_container(ret.hydra_cfg)
    del hydra_cfg["hydra"]["launcher"], hydra_cfg["hydra"]["runtime"]["choices"]
    del hydra_cfg["hydra"]["runtime"]["config_sources"], hydra_cfg["hydra"]["overrides"]["hydra"]
    del hydra_cfg["hydra"]["job"]["env_set"]  # its form differs between versions of Hydra
    return ret.status, ret.overrides, ret.working_dir, ret.task_name, ret.cfg, hydra_cfg


def job_num(config, sweep_dir):
    with contextlib.suppress(Exception):  # not that of a job
        if config.hydra.sweep.dir == str(sweep_dir):  # other tests' configs may still be there
            return config.hydra.job.num


@pytest.mark.parametrize("task", [finish, fail, leave])
def test_returns_of_many_jobs_hold_no_configs(tmp_path, task):
    returns = returns_of(task, tmp_path / "junky")
    gc.collect()
    held = [
        job_num(found, tmp_path / "sweep")
        for found in gc.get_objects()
        if type(found) is DictConfig
    ]
    assert len(returns) == JOBS
    assert not {*held} & {*range(JOBS - 1)}  # a thread may still hold that of the last one


@pytest.mark.parametrize("task", [finish, fail, change_and_fail])
def test_configs_are_those_that_hydra_keeps(tmp_path, task):
    ours = returns_of(task, tmp_path / "junky")
    theirs = returns_of(task, tmp_path / "basic", "basic")
    assert len(ours) == JOBS
    assert [described(ret) for ret in ours] == [described(ret) for ret in theirs]


@pytest.mark.parametrize("task", [finish, fail])
def test_returns_can_be_pickled(tmp_path, task, monkeypatch):
    (ret, *_) = returns_of(task, tmp_path / "junky")
    for plugin in ("launcher", "sweeper"):  # Hydra imports the modules of plugins once more
        conf = OmegaConf.get_type(ret.hydra_cfg.hydra[plugin])
        monkeypatch.setattr(sys.modules[conf.__module__], conf.__name__, conf)
    again = pickle.loads(pickle.dumps(ret))
    assert type(again) is JobReturn
    assert described(again) == described(ret)
    assert str(ret._return_value) in str(again._return_value)
