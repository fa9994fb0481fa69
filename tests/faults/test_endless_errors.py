"""Errors with endless text or control characters: log, journal and console stay small."""

from pathlib import Path

import pytest
import torch
import warm_start

from junky_core import parse_autotrain_log, torch_autotrain
from junky_core.errors import SweepFailed
from junky_core.record.reader import read_journal

LONG = "x" * 3_000_000
APP = Path(__file__).with_name("endless_app.py")


def run(folder, text, ok=1):
    def train(device, loaders, model, a, save_best, log_prefix):
        if a >= ok:
            raise ValueError(text)
        save_best(model, a)

    return torch_autotrain(
        lambda a: (torch.nn.Linear(1, 1), a),
        train,
        make_model_fit_params=[("a", [0, 1])],
        sweep_dir=folder,
        threads_per_slot=1,
    )


def test_an_endless_error_is_cut_and_kept_whole_in_the_sweeps_folder(tmp_path, capsys):
    result = run(tmp_path, LONG)
    out = capsys.readouterr().out
    assert len(out) < 100_000
    assert (tmp_path / "autotrain.log").stat().st_size < 100_000
    assert (tmp_path / "journal.jsonl").stat().st_size < 150_000
    assert (tmp_path / "leaderboard.csv").stat().st_size < 5_000
    files = sorted(tmp_path.glob("error-*.txt"))
    assert [file.name for file in files] == ["error-Thread-1_1.txt", "error-Thread-1_2.txt"]
    assert all(LONG in file.read_text() for file in files)
    assert str(files[-1]) in result.failed[0].traceback
    assert str(files[-1]) in out
    failed = next(r for r in read_journal(tmp_path) if r["event"] == "job_failed")
    assert str(files[-1]) in failed["traceback"]


def test_the_raised_error_shows_no_endless_cause(tmp_path):
    with pytest.raises(SweepFailed) as caught:
        run(tmp_path, LONG, ok=0)
    assert len(str(caught.value)) < 25_000
    assert caught.value.__cause__ is None
    assert str(caught.value.failed[0].exception) == LONG


def test_control_characters_reach_neither_log_nor_console(tmp_path, capsys):
    text = "a\x1b[2Jb\0c\rd\x9b31me\u202ef\x07"
    run(tmp_path, text)
    out = capsys.readouterr().out
    log = (tmp_path / "autotrain.log").read_bytes().decode()
    table = (tmp_path / "leaderboard.csv").read_bytes().decode()
    for shown in (out, log, table):
        assert not set("\x1b\0\x9b\u202e\x07") & set(shown)
        assert r"\x1b[2Jb\x00c" in shown
    assert "\r" not in log
    assert [row[3] for row in parse_autotrain_log(tmp_path, silent=True)] == [True, False]


@pytest.mark.parametrize("sweeper", ["basic", "junky"])
def test_an_endless_error_of_a_hydra_job(tmp_path, sweeper):
    command = [APP, "--multirun", "+a=0,1", f"hydra/sweeper={sweeper}"]
    done = warm_start.run([*command, "hydra/launcher=junky", "hydra.sweep.dir=sweep"], cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stdout) + len(done.stderr) < 200_000
    assert "\x1b" not in done.stdout + done.stderr
    files = sorted((tmp_path / "sweep" / "1").glob("error-*.txt"))
    assert len(files) == 2
    assert all("x" * 3_000_000 in file.read_text() for file in files)
    assert "the whole text is in" in done.stdout
    assert (tmp_path / "sweep" / "journal.jsonl").stat().st_size < 150_000
