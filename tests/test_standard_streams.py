import os
import subprocess
import sys

import pytest
from sweep_events import begin, ended, finish, started, write_journal

from junky_core.views.history import load_history

SCRIPT = """
import sys, threading, torch
from junky_core import torch_autotrain

def make(a):
    return torch.nn.Linear(1, 1)

def train(device, loaders, model, save_best, prefix):
    for step in range(200):
        print(prefix + "x" * 200, flush=step % 2 == 0)
    save_best(model, 1.0)

result = torch_autotrain(make, train, make_model_fit_params=[("a", [1, 2, 3])], devices="cpu*2",
                         sweep_dir=sys.argv[1], max_retries=0)
print("done")
sys.exit(0 if len(result.stats) == 3 else 3)
"""
APP = """
import hydra, torch
from junky_core import current_job

@hydra.main(config_path=None, config_name=None, version_base=None)
def main(cfg):
    for step in range(200):
        print("x" * 200, flush=step % 2 == 0)
    current_job().save_best(torch.nn.Linear(1, 1), 1.0)
    return 1.0

main()
"""
WAYS = [">&-", ">&- 2>&-", "| head -n 1", "| true"]


def run(command, way):
    """Run a shell command with its output closed in one of several ways."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{command} {way}"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_closed_output_ends_no_sweep(way, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    folder = tmp_path / "sweep"
    done = run(f"{sys.executable} {tmp_path}/script.py {folder}", way)
    assert (done.returncode, done.stderr) == (0, "")
    history = load_history(folder)
    assert (history.ended, history.count("finished")) == ("completed", 3)
    assert (folder / "model.pt").exists()


@pytest.mark.parametrize("way", WAYS)
def test_a_closed_output_ends_no_hydra_sweep(way, tmp_path):
    (tmp_path / "app.py").write_text(APP)
    folder = tmp_path / "sweep"
    words = f"hydra/sweeper=junky hydra/launcher=junky hydra.sweep.dir={folder}"
    words += " hydra.launcher.devices=cpu*2 hydra.launcher.max_retries=0 +a=1,2,3"
    done = run(f"{sys.executable} -W ignore {tmp_path}/app.py --multirun {words}", way)
    assert done.returncode == 0, done.stderr
    assert load_history(folder).count("finished") == 3
    assert (folder / "optimization_results.yaml").exists()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("command", ["leaderboard", "report", "watch --once"])
def test_a_closed_output_is_no_error_of_the_command_line(command, way, tmp_path):
    events = [started(2), begin(0), finish(0, 0.5), begin(1), finish(1, 0.7), ended(finished=2)]
    write_journal(tmp_path / "journal.jsonl", events)
    done = run(f"{sys.executable} -m junky_core {command} {tmp_path}", way)
    assert (done.returncode, done.stderr) == (0, "")


def test_streams_are_the_same_afterwards(monkeypatch):
    from junky_core.logs.standard_streams import unbreakable_streams

    monkeypatch.setattr(sys, "stdout", sys.__stdout__)
    with unbreakable_streams():
        assert sys.stdout.fileno() == sys.__stdout__.fileno()
        assert sys.stdout is not sys.__stdout__
    assert sys.stdout is sys.__stdout__


def test_a_full_disk_is_still_an_error(monkeypatch):
    from junky_core.logs.standard_streams import unbreakable_streams

    with open("/dev/full", "w") as full, pytest.raises(OSError, match="space"):
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(sys, "__stdout__", full)
        try:
            with unbreakable_streams():
                print("x")
                sys.stdout.flush()
        finally:
            monkeypatch.undo()
            os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())
