"""Under Hydra too, changes that a job makes to the interpreter's settings are undone at its end."""

import os
import sys

import pytest
import torch
from launching import multirun
from spoilers import as_before, clear_path, leave_for_a_deleted_folder, lower_limit  # noqa: F401

from junky_core import current_job
from junky_core.errors import SweepFailed
from junky_core.record.reader import load_state

JOBS = 4
BAD = 1


pytestmark = pytest.mark.usefixtures("as_before")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("spoil", [clear_path, lower_limit, leave_for_a_deleted_folder])
def test_other_jobs_and_the_record_are_right(tmp_path, spoil, slots, fails):
    path, limit = list(sys.path), sys.getrecursionlimit()

    def task(cfg):
        current_job().save_best(torch.nn.Linear(2, 1), cfg.a / 10)
        if cfg.a == BAD:
            spoil()
            if fails:
                raise ValueError("bad")

    overrides = [
        f"a={','.join(map(str, range(JOBS)))}",
        "hydra/sweeper=junky",
        "hydra.launcher.max_retries=0",
        f"hydra.launcher.devices=cpu*{slots}",
        "hydra.launcher.report=true",
    ]
    if fails:
        with pytest.raises(SweepFailed, match="bad"):
            multirun(task, overrides, {"a": 0}, tmp_path)
    else:
        multirun(task, overrides, {"a": 0}, tmp_path)
    assert sys.path == path
    assert sys.getrecursionlimit() == limit
    assert os.getcwd() == str(tmp_path)
    state = load_state(tmp_path / "sweep")
    assert state.ended == "completed"
    assert [num for num, job in state.by_num.items() if job.status == "failed"] == [BAD] * fails
    assert {"model.pt", "report.html", "leaderboard.csv"} <= {*os.listdir(tmp_path / "sweep")}
