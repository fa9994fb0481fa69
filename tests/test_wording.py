"""Singular and plural in messages, and deleted keys."""

import re

import pytest
import torch

from junky_core import expand_fit_params, torch_autotrain
from junky_core.devices import parse_devices
from junky_core.errors import DeviceError, SweepFailed
from junky_core.jobs import JobResult
from junky_core.record.live_state import LiveState
from junky_core.values.wording import cell_text, count, pair_text
from junky_core.views.leaderboard import leaderboard_text, write_leaderboard_csv
from junky_core.views.live_view import plain_line
from junky_core.views.results import AutotrainResult


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 jobs"), (1, "1 job"), (2, "2 jobs"), (-1, "-1 jobs")]
)
def test_a_noun_agrees_with_its_number(number, text):
    assert count(number, "job") == text


def test_messages_use_the_singular_for_one_job(capsys, tmp_path, monkeypatch):
    def failing(*_):
        raise ValueError("always")

    monkeypatch.chdir(tmp_path)
    options = {"make_model_fit_params": [("a", [1])], "max_retries": 0}
    with pytest.raises(SweepFailed) as caught:
        torch_autotrain(lambda a: torch.nn.Linear(a, 1), failing, **options)
    assert "the only job failed. " in str(caught.value)
    assert "after 1 attempt:" in str(caught.value)
    with pytest.raises(SweepFailed, match=r"^the first job failed, so the sweep"):
        torch_autotrain(lambda a: torch.nn.Linear(a, 1), failing, fail_fast=1, **options)
    with pytest.raises(DeviceError, match="for 1 slot on it"):
        parse_devices("cpu:1")
    state = LiveState()
    state.finished = state.total = 1
    told = [str(caught.value), capsys.readouterr().out, repr(expand_fit_params({"a": 1}))]
    told.append(plain_line(state, 0.0))
    rows = [JobResult(n, f"n{n}", {}, "finished", 1.0) for n in range(2)]
    told.append(leaderboard_text(rows, "maximize", max_rows=1))
    for text in told:
        assert not re.search(r"\b1 (?:\w+ )?(?:jobs|combinations|attempts)\b|\(s\)", text), text


DELETED = {"~scheduler": None, "lr": None}


def test_a_deleted_key_has_no_value():
    assert [pair_text(*pair) for pair in DELETED.items()] == ["~scheduler", "lr=None"]
    assert [cell_text(*pair) for pair in DELETED.items()] == ["deleted", "None"]


def test_a_deleted_key_is_shown_as_deleted_in_every_table(tmp_path):
    rows = [
        JobResult(0, "Thread-1_0", {"~scheduler": None, "lr": 0.1}, "finished", 1.0),
        JobResult(1, "Thread-1_1", {"lr": 0.1}, "finished", 0.5),
        JobResult(2, "Thread-1_2", {"~scheduler": None, "lr": 0.2}, "failed", error="bad"),
    ]
    write_leaderboard_csv(tmp_path / "board.csv", rows, "maximize")
    result = AutotrainResult(
        best_model=None,
        best_model_name="Thread-1_0",
        best_model_score=1.0,
        best_model_params=dict(rows[0].params),
        stats=[],
        jobs=rows,
    )
    for text in (
        leaderboard_text(rows, "maximize"),
        (tmp_path / "board.csv").read_text(),
        result._repr_html_(),
        "\n".join(expand_fit_params([("~scheduler", [None]), ("lr", [1, 2])]).explain()),
    ):
        assert "~scheduler" in text
        assert "None" not in text
