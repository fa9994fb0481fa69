"""Unusual inputs: each is refused with an error of this project.

The message names what was given and where; nothing is left behind on disk. What comes from Hydra's
command line is in ``tests/hydra/test_odd_overrides.py``.
"""

import os
import re
from fractions import Fraction

import numpy as np
import pytest
import torch

from junky_core import JunkyError, expand_fit_params, parse_autotrain_log, torch_autotrain
from junky_core.__main__ import main
from junky_core.values.user_text import repr_of, shown

BIG = 10**5000  # Python refuses to write a number of so many digits
DIGITS = "9" * 5000
LONG = "n" * 300  # longer than a name of a file may be


def make(**_params):
    return torch.nn.Linear(1, 1)


def train(_device, _loaders, model, save_best, _prefix):
    save_best(model, 1.0)


def nested(depth, leaf=()):
    value = list(leaf)
    for _ in range(depth):
        value = [value]
    return value


class NoRepr:
    def __repr__(self):
        raise RuntimeError("no repr")


def named(value):
    """Name a case the same way in every process."""
    return re.sub(r" at 0x\w+|[^\w<>\[\]{}(),.*:/=-]", "", ascii(shown(value)))[:40]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(call, *words):
    with pytest.raises(JunkyError) as caught:
        call()
    text = str(caught.value)
    assert len(text) < 2500, "the message repeats the input"
    for word in words:
        assert word in text
    assert os.listdir() == []


NUMBERS = [BIG, -BIG, 1.5, float("nan"), "1", b"1", [1], True, object(), np.array([1, 2])]


@pytest.mark.parametrize("value", NUMBERS, ids=named)
@pytest.mark.parametrize("name", ["max_retries", "seed", "threads_per_slot", "fail_fast"])
def test_wrong_numbers(name, value):
    if value is BIG and name in ("max_retries", "fail_fast"):
        torch_autotrain(make, train, **{name: value})  # as many as you like
        return
    refused(lambda: torch_autotrain(make, train, **{name: value}), name)


@pytest.mark.parametrize("value", [-BIG, "1", b"1", True, object(), 0, -1], ids=named)
@pytest.mark.parametrize("name", ["job_timeout_s", "sweep_timeout_s"])
def test_wrong_seconds(name, value):
    refused(lambda: torch_autotrain(make, train, **{name: value}), name)


@pytest.mark.parametrize(
    "devices",
    [
        *(BIG, f"cpu*{DIGITS}", f"auto*{DIGITS}", {"cpu": BIG}, {"cpu": -BIG}, {"cpu": 10**30}),
        *(
            "cpu*99999999",
            {"cpu": 99_999_999},
            ["cpu*1000", "cpu*1000"],
            "cpu*1025",
            {"cpu*2": 513},
        ),
        *(b"cpu", [b"cpu"], 5, None, "a\0b", LONG, f"cuda:{DIGITS}", nested(5000), object()),
        *(
            [None],
            {"cpu": 1.5},
            {"cpu": None},
            {5: 1},
            {b"cpu": 1},
            "cpu*²",
            "cpu*",
            "*2",
            "\udcff",
        ),
    ],
    ids=named,
)
def test_wrong_devices(devices):
    refused(lambda: torch_autotrain(make, train, devices=devices), "accepted forms")


def test_the_largest_number_of_slots_is_named():
    refused(lambda: torch_autotrain(make, train, devices="cpu*1025"), "1025 slots", "at most 1024")


PATHS = [5, 1.5, b"a", b"\xff", object(), ["a"], "a\0b", LONG, f"a/{LONG}/b", "x/" * 3000 + "x"]
PATHS += ["~nobody-here/x", "\ud800"]


@pytest.mark.parametrize("path", PATHS, ids=named)
def test_wrong_paths(path):
    refused(lambda: torch_autotrain(make, train, sweep_dir=path), "sweep_dir")
    refused(lambda: torch_autotrain(make, train, sweep_dir=path, resume=True), "sweep_dir")
    for folder in (None, "new"):
        refused(
            lambda folder=folder: torch_autotrain(
                make, train, best_model_file_name=path, sweep_dir=folder
            ),
            "best_model_file_name",
        )
    refused(lambda: parse_autotrain_log(path), "log_fn")


@pytest.mark.parametrize(
    "path", ["/proc/x/y", "/sys/x", "/dev/null/x", "/dev/null", "/", "n" * 254]
)
def test_a_best_model_that_cannot_be_written_leaves_no_sweep_folder(path):
    for folder in (None, "new/one"):
        refused(
            lambda folder=folder: torch_autotrain(
                make, train, best_model_file_name=path, sweep_dir=folder
            ),
            path[:20],
        )
    if not path.startswith("/"):
        refused(lambda: torch_autotrain(make, train, best_model_file_name=f"a/b/{path}"), path[:9])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("direction", value) for value in (BIG, b"maximize", None, "a\0b", ["maximize"])),
        *(("progress", value) for value in (BIG, "x", 2, np.array([1, 2]))),
        *(("report", value) for value in (BIG, "x", None, np.array([1, 2]))),
        *(("dry_run", value) for value in (BIG, "x", None, np.array([1, 2]))),
        *(("resume", value) for value in (BIG, None, np.array([1, 2]))),
        *(("observers", value) for value in (BIG, 5, [None], NoRepr(), iter([]))),
        *(("best_model_device", value) for value in (BIG, "a\0b", f"cpu*{DIGITS}", NoRepr())),
        *(("create_loaders_method", value) for value in (BIG, NoRepr())),
        *(("make_model_args", value) for value in (BIG, {BIG: 1}, NoRepr())),
        *(("train_args", value) for value in (BIG, "x", NoRepr())),
        *(("make_model_kwargs", value) for value in (BIG, {BIG: 1}, nested(5000), NoRepr())),
        *(("train_kwargs", value) for value in (BIG, {1: 2}, nested(5000), NoRepr())),
    ],
    ids=named,
)
def test_wrong_arguments(name, value):
    refused(lambda: torch_autotrain(make, train, **{name: value, "sweep_dir": "new"}), name)


@pytest.mark.parametrize("method", [BIG, NoRepr(), None], ids=named)
def test_wrong_methods(method):
    refused(lambda: torch_autotrain(method, train), "make_model_method")
    refused(lambda: torch_autotrain(make, method), "train_method")


@pytest.mark.parametrize("grid", [BIG, {BIG: [1]}, [(BIG, [1])], nested(5000, [1]), [("a", range(10**30))]],
                         ids=named)  # fmt: skip
def test_wrong_grids(grid):
    refused(lambda: expand_fit_params(grid), "fit_params")
    refused(lambda: torch_autotrain(make, train, make_model_fit_params=grid, sweep_dir="new"))


@pytest.mark.parametrize(
    "value",
    [
        BIG,
        [BIG],
        {BIG: 1},
        {"x": -BIG},
        nested(5000),
        {"x": nested(5000)},
        NoRepr(),
        Fraction(BIG, 3),
    ],
    ids=named,
)
def test_values_that_a_log_cannot_hold(value):
    grid = [("width", [value])]
    for dry_run in (True, False):
        refused(
            lambda dry_run=dry_run: torch_autotrain(
                make, train, make_model_fit_params=grid, sweep_dir="new", dry_run=dry_run
            ),
            "'width'",
        )


def test_a_grid_that_is_too_deep():
    grid = nested(5000, [("width", [1, 2])])
    refused(
        lambda: torch_autotrain(make, train, make_model_fit_params=grid, sweep_dir="new"),
        "nested more than 200 levels deep",
    )


def test_more_jobs_than_can_be_counted():
    grid = [(f"k{num}", [1, 2]) for num in range(70)]
    assert "<FitParams" in repr(expand_fit_params(grid))
    refused(lambda: torch_autotrain(make, train, make_model_fit_params=grid), str(2**70))


def test_a_preview_of_a_billion_jobs(capsys):
    torch_autotrain(make, train, make_model_fit_params=[("a", range(10**9))], dry_run=True)
    assert "1000000000 jobs" in capsys.readouterr().out


# --- Logs and the command line -------------------------------------------------------------------

LEAD = "Thread-1_0: (('a', 50),)\nThread-1_0: new maximum score 1: OVERALL MAXIMUM\n"
LOGS = {
    "thread of 5000 digits": LEAD.replace("Thread-1", f"Thread-{DIGITS}"),
    "number of 5000 digits": LEAD.replace("1_0", f"1_{DIGITS}"),
    "score of 5000 digits": LEAD.replace("score 1", f"score {DIGITS}"),
    "param of 5000 digits": LEAD.replace("50", DIGITS),
    "param 5000 deep": LEAD.replace("50", "[" * 5000 + "]" * 5000),
    "job of 5000 digits": f"AUTOTRAIN STARTED\nThread-1_0: job {DIGITS} on cpu\n{LEAD}",
    "jobs of 5000 digits": f"AUTOTRAIN STARTED\njobs: {DIGITS}\n{LEAD}",
    "cycles of 5000 digits": f"{LEAD}Thread-1 finished: cpu ({DIGITS} cycles)\n",
    "NUL": LEAD.replace("50", "'\0'"),
}


@pytest.mark.parametrize("name", LOGS)
def test_logs_with_odd_content_are_read(name, empty_folder, capsys):
    log = empty_folder / "x.log"
    log.write_text(LOGS[name])
    assert len(parse_autotrain_log(log)) == 1
    for command in ("leaderboard", "report"):
        assert main([command, str(log)]) in (0, 1)
    assert "Traceback" not in capsys.readouterr().err


EVENT = '{"event": "SweepStarted", '
JOURNALS = {
    "deep": f'{EVENT}"spec": {"[" * 5000}{"]" * 5000}}}\n',
    "time of 5000 digits": f'{EVENT}"time": {DIGITS}}}\n',
    "total of 5000 digits": f'{EVENT}"total": {DIGITS}}}\n',
    "NaN": f'{EVENT}"time": NaN}}\n',
    "text for a number": f'{EVENT}"total": "x"}}\n',
}


@pytest.mark.parametrize("name", JOURNALS)
def test_journals_with_odd_content_are_refused_or_read(name, empty_folder, capsys):
    journal = empty_folder / "journal.jsonl"
    journal.write_text(JOURNALS[name])
    for command in (["leaderboard"], ["report"], ["watch", "--once"]):
        assert main([command[0], str(empty_folder), *command[1:]]) in (0, 1, 2)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("command", ["leaderboard", "report", "watch"])
@pytest.mark.parametrize(
    "path", ["a\0b", LONG, f"a/{LONG}/b", "", "/", "/dev/null", "/dev/full", "/proc/x", "~nobody-here",
             "\udcff"], ids=named)  # fmt: skip
def test_paths_on_the_command_line(command, path, capsys):
    assert main([command, path]) == 2
    assert capsys.readouterr().err.startswith("junky: ")
    assert os.listdir() == []


@pytest.mark.parametrize("path", ["a\0b", LONG, "/proc/x/y", "/dev/null/x", "/"], ids=named)
@pytest.mark.parametrize(("command", "option"), [("report", "-o"), ("leaderboard", "--csv")])
def test_outputs_on_the_command_line(command, option, path, empty_folder, capsys):
    log = empty_folder / "x.log"
    log.write_text(LEAD)
    assert main([command, str(log), option, path]) == 2
    assert capsys.readouterr().err.startswith("junky: ")
    assert os.listdir() == ["x.log"]


@pytest.mark.parametrize("argv", [["leaderboard", "x", "-n", DIGITS], ["watch", "x", "--interval", "nan"],
                                  ["watch", "x", "--interval", DIGITS], ["leaderboard", "x", "-n", "1.5"]],
                         ids=named)  # fmt: skip
def test_numbers_on_the_command_line(argv):
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2


# --- What messages show --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [BIG, [BIG], NoRepr(), [NoRepr()], nested(5000), "x" * 10**6, {BIG: BIG}], ids=named
)
def test_messages_show_any_value_shortened(value):
    assert len(shown(value)) < 300
    assert repr_of(value)
