"""Changes that a job makes to the interpreter's settings are undone at its end."""

import builtins
import os
import sys

import pytest
import torch
from spoilers import as_before, clear_path, leave_for_a_deleted_folder, lower_limit  # noqa: F401

from junky_core.autotrain import torch_autotrain
from junky_core.record.reader import load_state

JOBS = 4
BAD = 1


pytestmark = pytest.mark.usefixtures("as_before")


def replace_path():
    sys.path = None


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize(
    "spoil", [clear_path, replace_path, lower_limit, leave_for_a_deleted_folder]
)
def test_other_jobs_and_the_record_are_right(tmp_path, spoil, slots, fails):
    path, limit = list(sys.path), sys.getrecursionlimit()

    def train(device, loaders, model, job, save_best, log_prefix):
        save_best(model, job / 10)
        if job == BAD:
            spoil()
            if fails:
                raise ValueError("bad")

    result = torch_autotrain(
        lambda job: (torch.nn.Linear(2, 1), job),
        train,
        make_model_fit_params=[("job", range(JOBS))],
        devices={"cpu": slots},
        sweep_dir="sweep",
        max_retries=0,
        report=True,
    )
    assert sys.path == path
    assert sys.getrecursionlimit() == limit
    assert len(result.stats) == JOBS - fails
    assert result.best_model_score == (JOBS - 1) / 10
    state = load_state(tmp_path / "sweep")
    assert state.ended == "completed"
    assert [num for num, job in state.by_num.items() if job.status == "failed"] == [BAD] * fails
    assert {"model.pt", "report.html", "leaderboard.csv"} <= {*os.listdir(tmp_path / "sweep")}


def test_what_a_job_adds_is_kept(tmp_path):
    limit = sys.getrecursionlimit()

    def train(device, loaders, model, save_best, log_prefix):
        sys.path.insert(0, str(tmp_path / "more"))
        sys.setrecursionlimit(limit + 1)
        save_best(model, 1.0)

    torch_autotrain(lambda: torch.nn.Linear(2, 1), train, sweep_dir=tmp_path / "sweep")
    assert sys.path[0] == str(tmp_path / "more")
    assert sys.getrecursionlimit() == limit + 1


@pytest.mark.parametrize("slots", [1, 2])
def test_a_job_that_replaces_open_costs_only_the_report(tmp_path, slots, monkeypatch, capsys):
    monkeypatch.setattr(builtins, "open", open)  # to be put back at the end

    def refuse(*args, **kwargs):
        raise RuntimeError("no open")

    def train(device, loaders, model, job, save_best, log_prefix):
        save_best(model, job / 10)
        if job == BAD:
            builtins.open = refuse

    result = torch_autotrain(
        lambda job: (torch.nn.Linear(2, 1), job),
        train,
        make_model_fit_params=[("job", range(JOBS))],
        devices={"cpu": slots},
        sweep_dir="sweep",
        report=True,
    )
    monkeypatch.undo()
    assert "the report could not be written: RuntimeError: no open" in capsys.readouterr().out
    assert (len(result.stats), result.best_model_score) == (JOBS, (JOBS - 1) / 10)
    assert load_state(tmp_path / "sweep").ended == "completed"
    assert (tmp_path / "sweep" / "model.pt").exists()
