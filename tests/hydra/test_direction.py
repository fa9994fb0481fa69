"""A sweep has one direction, given to the sweeper or the launcher, ours or others."""

import csv
import enum
import logging

import pytest
import torch
from hydra import compose, initialize
from hydra.core.hydra_config import HydraConfig
from launching import ON_1_4, as_before, multirun
from omegaconf import OmegaConf

from hydra_plugins.hydra_junky_launcher._direction import one_direction
from junky_core import current_job
from junky_core.errors import ConfigError
from junky_core.job import standalone


class Direction(enum.Enum):  # as Optuna's sweeper has it
    minimize = 1
    maximize = 2


def conf(**keys):
    return OmegaConf.create(keys, flags={"allow_objects": True})


# --- A sweep -------------------------------------------------------------------------------------


def saves_its_model(cfg):
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, cfg.a)
    current_job().save_best(model, cfg.a)
    return cfg.a


@pytest.mark.parametrize(
    "given",
    [
        ["hydra.launcher.direction=minimize"],
        ["hydra.sweeper.direction=minimize"],
        ["hydra.sweeper.direction=minimize", "hydra.launcher.direction=Minimize"],
        ["hydra.launcher.direction=[minimize]"],
    ],
)
def test_one_direction_gives_one_answer_everywhere(given, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    overrides = ["hydra/sweeper=junky", *given, "a=5,3,9"]
    multirun(saves_its_model, overrides, {"a": 0}, tmp_path)
    folder = tmp_path / "sweep"
    results = OmegaConf.load(folder / "optimization_results.yaml")
    assert (results.direction, results.best_job_num, results.best_evaluated_result) == (
        "minimize",
        1,
        3,
    )
    assert torch.load(folder / "model.pt", weights_only=True)["weight"].item() == 3
    assert "Best job: #1, score 3" in caplog.text
    rows = csv.DictReader((folder / "leaderboard.csv").read_text().splitlines())
    assert [float(row["score"]) for row in rows] == [3, 5, 9]
    assert "direction: minimize" in (folder / "autotrain.log").read_text()


@pytest.mark.parametrize(
    "given",
    [
        ["hydra.sweeper.direction=maximize", "hydra.launcher.direction=minimize"],
        ["hydra.sweeper.direction=minimize", "hydra.launcher.direction=maximize"],
        ["hydra.sweeper.direction=minimize", "hydra.launcher.direction=[maximize,minimize]"],
        [
            "hydra.sweeper.direction=minimize",
            "hydra.launcher.direction=maximize",
            "hydra.sweeper.dry_run=true",
        ],
    ],
)
def test_two_directions_are_refused_before_anything_is_made(given, tmp_path):
    def never(_cfg):
        raise AssertionError("no job may run")

    with pytest.raises(ConfigError, match="one direction") as caught:
        multirun(never, ["hydra/sweeper=junky", *given, "a=1,2"], {"a": 0}, tmp_path)
    assert "hydra.sweeper.direction" in str(caught.value)
    assert "hydra.launcher.direction" in str(caught.value)
    assert not (tmp_path / "sweep").exists()


def test_the_launchers_own_direction_counts_under_a_sweeper_without_one(tmp_path):
    overrides = ["hydra.launcher.direction=minimize", "a=5,3,9"]
    multirun(saves_its_model, overrides, {"a": 0}, tmp_path)
    assert torch.load(tmp_path / "sweep" / "model.pt", weights_only=True)["weight"].item() == 3


def test_jobs_under_another_launcher_save_by_the_sweepers_direction(tmp_path, monkeypatch):
    monkeypatch.setattr(standalone, "_standalone_jobs", {})

    def task(_cfg):
        job = current_job()
        return [job.save_best(torch.nn.Linear(1, 1), score) for score in (5.0, 3.0, 9.0)]

    overrides = ["hydra/sweeper=junky", "hydra.sweeper.direction=minimize", "hydra.job.chdir=true"]
    (job,) = multirun(task, overrides, {"a": 0}, tmp_path, launcher="basic")
    assert job.return_value == [True, True, False]


def test_a_single_run_has_the_direction_of_a_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(standalone, "_standalone_jobs", {})
    base = {} if ON_1_4 else {"version_base": None}
    with as_before():
        with initialize(config_path=None, **base):
            config = compose(
                None,
                overrides=["hydra/sweeper=junky", "hydra.sweeper.direction=minimize"],
                return_hydra_config=True,
            )
        HydraConfig.instance().set_config(config)
        job = current_job()
        saved = [job.save_best(torch.nn.Linear(1, 1), score) for score in (5.0, 3.0, 9.0)]
    assert saved == [True, True, False]


# --- The keys of any sweeper ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sweeper", "direction"),
    [
        (None, "maximize"),
        (conf(), "maximize"),
        (conf(direction=None), "maximize"),
        (conf(direction="???"), "maximize"),
        (conf(direction="MINIMIZE"), "minimize"),
        (conf(direction=Direction.minimize), "minimize"),
        (conf(direction="Direction.minimize"), "minimize"),
        (conf(direction="StudyDirection.MINIMIZE"), "minimize"),
        (conf(direction=["minimize", "maximize"]), "minimize"),
        (conf(direction=[Direction.minimize]), "minimize"),
        (conf(direction=[]), "maximize"),
        (conf(optim={"maximize": False}), "minimize"),  # Nevergrad's
        (conf(optim={"maximize": True}), "maximize"),
        (conf(optim="adam"), "maximize"),
        (conf(ax_config={"experiment": {"minimize": True}}), "minimize"),  # Ax's
        (conf(ax_config={"experiment": {"minimize": False}}), "maximize"),
    ],
)
def test_the_launcher_follows_any_sweeper(sweeper, direction):
    assert one_direction(sweeper, conf(direction=None)) == direction
    assert one_direction(sweeper, {}) == direction


@pytest.mark.parametrize(
    "sweeper",
    [
        conf(direction=Direction.minimize),
        conf(direction=["minimize", "maximize"]),
        conf(optim={"maximize": False}),
        conf(ax_config={"experiment": {"minimize": True}}),
    ],
)
def test_a_launcher_that_differs_from_any_sweeper_is_refused(sweeper):
    assert one_direction(sweeper, {"direction": "minimize"}) == "minimize"
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.\S+ says minimize"):
        one_direction(sweeper, {"direction": "maximize"})


@pytest.mark.parametrize("value", ["sideways", 1, True, {"a": 1}, ["up"], "${nowhere}"])
@pytest.mark.parametrize("whose", ["sweeper", "launcher"])
def test_a_wrong_direction_is_named(value, whose):
    nodes = {"sweeper": conf(), "launcher": conf(), whose: conf(direction=value)}
    with pytest.raises(ConfigError, match=rf"hydra\.{whose}\.direction"):
        one_direction(**nodes)
