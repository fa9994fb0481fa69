"""The same through Hydra: kill, signal and resume ``python train.py --multirun``."""

import json
import os
import random
import signal
import time

import pytest
import torch
import warm_start
import yaml
from sizes import LONG

from junky_core.record.reader import load_state

KILLS = 30 if LONG else 3
APP = """
import json, os, time
import hydra, torch
from junky_core import current_job

@hydra.main(config_path=None, config_name="config", version_base="1.3")
def main(cfg):
    with open(os.environ["STARTS"], "a") as file:
        file.write(json.dumps([cfg.a, cfg.b]) + "\\n")
    model = torch.nn.Linear(2, 1)
    while cfg.a * 5 + cfg.b >= int(os.environ["ENDLESS_FROM"]):
        model(torch.ones(1, 2))
        time.sleep(0.005)
    for epoch in range(3):
        time.sleep(float(os.environ["EPOCH_S"]))
        model(torch.ones(1, 2))
        score = ((cfg.a * 7919 + cfg.b * 104729) % 1009 + epoch / 10) / 1009
        with torch.no_grad():
            model.weight.fill_(score)
        current_job().save_best(model, score)
    return score

if __name__ == "__main__":
    from hydra.core.config_store import ConfigStore
    ConfigStore.instance().store(name="config", node={
        "a": 0, "b": 0,
        "defaults": ["_self_", {"override hydra/launcher": "junky"},
                     {"override hydra/sweeper": "junky"}],
    })
    main()
"""


def start(tmp_path, folder, *overrides, epoch_s=0.0, endless_from=30):
    app = tmp_path / "app.py"
    app.write_text(APP)
    return App(
        [
            app,
            "--multirun",
            f"hydra.sweep.dir={folder}",
            "hydra.launcher.devices=cpu*2",
            "a=range(6)",
            "b=range(5)",
            *overrides,
        ],
        tmp_path / "output",
        {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "EPOCH_S": str(epoch_s),
            "ENDLESS_FROM": str(endless_from),
            "STARTS": str(tmp_path / "starts"),
        },
    )


class App:
    """An app that runs, and prints to a file."""

    def __init__(self, command, output, env):
        self.output = output
        with output.open("w") as file:
            self.process = warm_start.start(command, file, file, env=env)

    def end(self):
        """Wait for its end; return its exit status and what it printed."""
        return self.process.wait(180), self.output.read_text()


def finish(app):
    status, out = app.end()
    assert status == 0, out


def wait_for_jobs(tmp_path, count):
    deadline = time.monotonic() + 180
    path = tmp_path / "starts"
    while time.monotonic() < deadline:
        if path.exists() and len(path.read_text().splitlines()) >= count:
            return
        time.sleep(0.02)
    raise AssertionError("no job started")


def best_of(folder):
    results = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    return {key: results[key] for key in results if key.startswith("best_")}


def check(tmp_path, folder, plain):
    state = load_state(folder)
    assert [job.finished_times for job in state.by_num.values()] == [1] * 30
    best = state.best_job()
    weights = torch.load(folder / "model.pt", weights_only=True)
    assert torch.equal(weights["weight"], torch.full((1, 2), best.score))
    assert best_of(folder) == best_of(plain)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    home = tmp_path_factory.mktemp("plain")
    finish(start(home, home / "sweep"))
    return home / "sweep"


@pytest.mark.long
def test_kill_and_resume(tmp_path, plain):
    folder, rng = tmp_path / "sweep", random.Random(0)
    repeated = 0
    for number in range(KILLS + 1):
        before = set()
        if (folder / "journal.jsonl").exists():
            before = {j.num for j in load_state(folder).by_num.values() if j.status == "finished"}
            params = [list(load_state(folder).by_num[n].params.values()) for n in before]
        starts = tmp_path / "starts"
        seen = len(starts.read_text().splitlines()) if starts.exists() else 0
        app = start(tmp_path, folder, "hydra.launcher.resume=true", epoch_s=0.05)
        if number == KILLS:
            finish(app)
        else:
            if len(before) < 30:
                wait_for_jobs(tmp_path, seen + 1)
            time.sleep(rng.uniform(0, 4.5 / KILLS))
            app.process.kill()
            app.end()
        if before:
            ran = [json.loads(line) for line in starts.read_text().splitlines()[seen:]]
            repeated += sum(
                [str(v) for v in r] in [[str(v) for v in p] for p in params] for r in ran
            )
    assert repeated == 0
    check(tmp_path, folder, plain)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signal_and_resume(tmp_path, plain, signum):
    folder = tmp_path / "sweep"
    app = start(tmp_path, folder, endless_from=2)
    wait_for_jobs(tmp_path, 4)
    app.process.send_signal(signum)
    status, out = app.end()
    assert status == 128 + signum, out
    assert "hydra.launcher.resume=true" in out
    finish(start(tmp_path, folder, "hydra.launcher.resume=true"))
    check(tmp_path, folder, plain)


def test_new_sweep_does_not_overwrite_one_and_foreign_folder_is_refused(tmp_path, plain):
    status, out = start(tmp_path, plain).end()
    assert status == 1
    assert "hydra.launcher.resume=true" in out
    status, out = start(tmp_path, plain, "a=100,101", "hydra.launcher.resume=true").end()
    assert status == 1
    assert "holds another sweep" in out


FULL_DISK_APP = """
import os
import hydra, torch
from junky_core import current_job

@hydra.main(config_path=None, config_name="config", version_base="1.3")
def main(cfg):
    if cfg.a == 3:
        try:
            with open(os.environ["FILLER"], "wb", buffering=0) as file:
                while True:
                    file.write(bytes(1024))
        except OSError:
            pass
    current_job().save_best(torch.nn.Linear(60, 60), cfg.a)
    with open(os.environ["RAN"], "a") as file:
        file.write(f"{cfg.a}\\n")

if __name__ == "__main__":
    from hydra.core.config_store import ConfigStore
    ConfigStore.instance().store(name="config", node={
        "a": 0,
        "defaults": ["_self_", {"override hydra/launcher": "junky"},
                     {"override hydra/sweeper": "junky"}],
    })
    main()
"""


def test_training_continues_when_the_disk_is_full(tmp_path, small_disk):
    """No job fails for its config files; the end says what is not on disk."""
    app = tmp_path / "app.py"
    app.write_text(FULL_DISK_APP)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "FILLER": str(small_disk / "filler"),
        "RAN": str(tmp_path / "ran"),
    }
    command = [app, "--multirun", "a=range(10)"]
    command.append(f"hydra.sweep.dir={small_disk}/sweep")
    ended = warm_start.run(command, env=environment)
    assert (tmp_path / "ran").read_text().split() == [str(a) for a in range(10)]
    assert ended.returncode == 1
    assert "Job 9 with the score 9 leads, and its weights are not on disk" in ended.stderr
    assert "0 failed" in ended.stdout
    assert "The results could not be written" in ended.stdout + ended.stderr
    assert "Results: " not in ended.stdout
    (small_disk / "filler").unlink()
    warm_start.checked(
        [*command, "hydra.launcher.resume=true"], env={**environment, "FILLER": "/dev/full"}
    )
    assert best_of(small_disk / "sweep")["best_job_num"] == 9
