import csv
import sys

import pytest

from junky_core.jobs import JobResult
from junky_core.values.wording import param_text
from junky_core.views.leaderboard import (
    duration_text,
    leaderboard_text,
    publish_leaderboard,
    ranked,
    varying_params,
    write_leaderboard_csv,
)


def job(num, score=0.5, status="finished", params=None, **facts):
    params = {"lr": 0.1 * num} if params is None else params
    facts = {"duration_s": 1.5, "slot": 1, "device": "cpu", **facts}
    return JobResult(num, f"Thread-1_{num}", params, status, score, **facts)


def test_ranks_best_first_then_not_finite_then_none_then_failed():
    results = [
        job(0, None),
        job(1, float("nan")),
        job(2, 0.1),
        job(3, 0.9, "failed"),
        job(4, 0.7),
        job(5, 0.7),
        job(6, None, "stopped"),
    ]
    assert [job.num for job in ranked(results, "maximize")] == [4, 5, 2, 1, 0, 6, 3]


def test_minimize_ranks_the_lowest_first():
    assert [one.num for one in ranked([job(0, 0.5), job(1, 0.1)], "minimize")] == [1, 0]


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ([{"a": 1, "b": 2}, {"a": 1, "b": 3}], ["b"]),
        ([{"a": 1}, {"a": 1, "b": 3}], ["b"]),
        ([{"a": 1}, {"a": 1.0}, {"a": True}], ["a"]),
        ([{"a": [1, [2]]}, {"a": [1, [2]]}], []),
        ([{"a": 1, "b": 2}], ["a", "b"]),
        ([], []),
    ],
)
def test_varying_params(params, names):
    assert varying_params(params) == names


def test_text_shows_varying_params_only():
    text = leaderboard_text([job(i, params={"same": 7, "lr": i}) for i in range(2)], "maximize")
    assert "lr" in text
    assert "same" not in text


def test_text_says_failures_with_the_last_line_of_their_error():
    failed = job(1, None, "failed", error="Traceback\nValueError: [red]bad[/red]", attempts=2)
    text = leaderboard_text([job(0), failed], "maximize")
    assert "job 1 (lr=0.1), 2 attempts: ValueError: [red]bad[/red]" in text
    assert "Traceback" not in text


def test_text_counts_what_it_leaves_out():
    results = [job(i, i) for i in range(50)] + [job(i, None, "failed") for i in range(50, 80)]
    lines = leaderboard_text(results, "maximize", max_rows=10).splitlines()
    assert "... and 40 more finished jobs" in lines
    assert "... and 20 more failed jobs" in lines


def test_text_fits_its_width_and_names_the_params_it_drops():
    params = [{f"parameter_{k}": i for k in range(9)} for i in range(3)]
    results = [job(i, params=params[i]) for i in range(3)]
    lines = leaderboard_text(results, "maximize", width=50).splitlines()
    assert max(map(len, lines)) <= 50
    assert "parameter_8" in " ".join(lines)


def test_text_holds_no_control_characters():
    results = [job(0, params={"a": "x\ny\x1b[31m"}), job(1, params={"a": 2})]
    text = leaderboard_text(results, "maximize")
    assert all(char == "\n" or char.isprintable() for char in text)


def test_text_of_nothing():
    assert leaderboard_text([], "maximize") == "no job finished"


def test_csv_holds_all_jobs_and_params(tmp_path):
    path = tmp_path / "leaderboard.csv"
    results = [
        job(0, 0.25, params={"lr": 1e-5, "opt": "a,b\nc", "score": 3}),
        job(1, None, "failed", params={"lr": None}, error='say "x"', attempts=2),
    ]
    write_leaderboard_csv(path, results, "maximize")
    with path.open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert (first["rank"], first["score"], first["lr"]) == ("1", "0.25", "1e-05")
    assert first["params.score"] == "3"
    assert (second["status"], second["rank"], second["score"]) == ("failed", "", "")
    assert (second["lr"], second["opt"]) == ("None", "")
    assert (second["retries"], second["error"]) == ("1", 'say "x"')


@pytest.mark.parametrize(
    ("value", "text"), [("adam", "adam"), ("", "''"), (" x", "' x'"), ("a\nb", r"'a\nb'"), (1, "1")]
)
def test_param_text(value, text):
    assert param_text(value) == text


def test_duration_text_rounds_up_into_the_next_unit():
    assert duration_text(3599.9) == "1:00 h"


def test_a_stdout_that_is_not_a_file_does_not_harm_the_sweep(tmp_path, monkeypatch):
    class Broken:
        def write(self, text):
            raise RuntimeError("not me")

    monkeypatch.setattr(sys, "stdout", Broken())
    publish_leaderboard([job(0)], "maximize", tmp_path, pytest.fail)
    assert (tmp_path / "leaderboard.csv").exists()


def test_the_text_is_text_in_a_notebook_too(monkeypatch):
    """In a Jupyter kernel, rich would send its output to the display, and the text would be empty."""
    import rich.console

    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    text = leaderboard_text(
        [JobResult(num=0, name="Thread-1_0", params={"a": 1}, status="finished", score=0.5)],
        "maximize",
    )
    assert "0.5" in text
