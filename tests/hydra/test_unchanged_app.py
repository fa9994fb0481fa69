"""Unmodified apps run with just two overrides, or two lines.

The apps are in ``apps/``, each with its configs; they run in separate processes.
"""

import csv
import dataclasses
import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest
import warm_start
import yaml
from omegaconf import OmegaConf

from hydra_plugins.hydra_junky_launcher._job_config import set_device
from junky_core.__main__ import main as junky
from junky_core.errors import ConfigError

APPS = Path(__file__).parent / "apps"
TWO_OVERRIDES = ["hydra/sweeper=junky", "hydra/launcher=junky"]
TWO_SLOTS = "hydra.launcher.devices=cpu*2"


def run(folder, *overrides, status=0):
    """Run ``app.py`` in ``folder`` with ``--multirun``; return all it wrote to the console."""
    done = warm_start.run(
        ["app.py", "--multirun", "hydra.sweep.dir=sweep", *overrides],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"},
        timeout=300,
    )
    out = done.stdout + done.stderr
    assert done.returncode == status, out
    return out


def copied(app, folder):
    shutil.copytree(APPS / app, folder, dirs_exist_ok=True)
    return folder


def events(folder, kind):
    lines = (folder / "sweep" / "journal.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def scores(folder):
    """Return the score of each job, by number."""
    with (folder / "sweep" / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["status"] for row in rows} == {"finished"}
    assert [row["rank"] for row in rows] == [str(1 + at) for at in range(len(rows))]
    return {int(row["job"]): float(row["score"]) for row in rows}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A sweep of the plain app: its folder and what it wrote to the console."""
    folder = copied("plain", tmp_path_factory.mktemp("plain"))
    out = run(
        folder,
        *TWO_OVERRIDES,
        TWO_SLOTS,
        "hydra.launcher.device_key=trainer.device",
        "hydra.launcher.report=true",
        "trainer.device=nowhere",
        "fails_once_at=16",
        "model.width=8,16,32",
    )
    return folder, out


def test_jobs_run_on_the_slots(plain):
    begun = events(plain[0], "job_started")
    assert {event["slot"] for event in begun} == {1, 2}
    assert {event["job"] for event in begun} == {0, 1, 2}


def test_the_slot_s_device_reaches_the_app(plain):
    for num in range(3):
        config = yaml.safe_load((plain[0] / f"sweep/{num}/.hydra/config.yaml").read_text())
        assert config["trainer"]["device"] == "cpu"


def test_a_job_that_failed_runs_again(plain):
    (failed,) = events(plain[0], "attempt_failed")
    assert failed["job"] == 1
    assert "out of luck" in failed["traceback"]
    assert [e["attempt"] for e in events(plain[0], "job_started") if e["job"] == 1] == [1, 2]
    assert {e["job"] for e in events(plain[0], "job_finished")} == {0, 1, 2}


def test_the_returned_number_is_the_score(plain):
    folder, out = plain
    for num, score in scores(folder).items():
        logged = (folder / f"sweep/{num}/app.log").read_text()
        assert f"accuracy {score:.4f} on cpu" in logged
    assert "Best job: #" in out


def test_each_job_has_its_own_log_and_folder(plain):
    for num in range(3):
        log = (plain[0] / f"sweep/{num}/app.log").read_text()
        lines = [line for line in log.splitlines() if "] - epoch" in line]
        assert [line.split("] - ")[1] for line in lines] == [
            f"epoch {epoch} of job {num}" for epoch in range(3)
        ]
        assert (plain[0] / f"sweep/{num}/weights.pt").stat().st_size > 0


def test_results_are_written(plain):
    folder = plain[0] / "sweep"
    results = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    by_job = scores(plain[0])
    best = max(by_job, key=by_job.get)
    assert results["best_job_num"] == best
    assert results["best_evaluated_result"] == by_job[best]
    assert f"model.width={(8, 16, 32)[best]}" in results["best_overrides"]
    assert "<html" in (folder / "report.html").read_text()
    assert not (folder / "model.pt").exists()  # such an app saves its models itself


def test_the_command_line_reads_it(plain, capsys, tmp_path):
    sweep = str(plain[0] / "sweep")
    assert junky(["leaderboard", sweep]) == 0
    assert "model.width" in capsys.readouterr().out
    assert junky(["watch", "--once", sweep]) == 0
    assert "3/3 done" in capsys.readouterr().out
    assert junky(["report", sweep, "-o", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").exists()


def test_it_is_resumed(plain, tmp_path):
    folder = tmp_path / "app"
    shutil.copytree(plain[0], folder)
    before = scores(folder)
    run(
        folder,
        *TWO_OVERRIDES,
        TWO_SLOTS,
        "hydra.launcher.resume=true",
        "hydra.launcher.device_key=trainer.device",
        "trainer.device=nowhere",
        "fails_once_at=16",
        "model.width=8,16,32,64",
    )
    begun = [event["job"] for event in events(folder, "job_started")]
    assert begun[len(events(plain[0], "job_started")) :] == [3]
    after = scores(folder)
    assert after.items() >= before.items()
    assert set(after) == {0, 1, 2, 3}


def test_two_lines_in_the_defaults_list_are_enough(tmp_path):
    folder = copied("plain", tmp_path)
    config = folder / "conf" / "config.yaml"
    text = config.read_text()
    config.write_text(
        text.replace(
            "  - _self_\n",
            "  - override hydra/sweeper: junky\n  - override hydra/launcher: junky\n  - _self_\n",
        )
        + "hydra:\n"
        "  sweeper:\n"
        "    fit_params:\n"
        "      - {optimizer: adam, optimizer.lr: [1e-2, 1e-3]}\n"
        "      - {optimizer: sgd, optimizer.momentum: [0.9]}\n"
    )
    assert (folder / "app.py").read_bytes() == (APPS / "plain" / "app.py").read_bytes()
    out = run(folder, "epochs=1")
    assert set(scores(folder)) == {0, 1, 2}
    assert "optimizer.momentum" in out


@pytest.mark.parametrize(
    ("held", "device", "then"),
    [
        ("cpu", "cuda:1", "cuda:1"),
        ("???", "cuda:1", "cuda:1"),
        ("${nowhere}", "cuda:1", "cuda:1"),
        (None, "cpu", "cpu"),
        (0, "cuda:1", "cuda:1"),
        ([0], "cuda:1", [1]),
        ([0], "cpu", [0]),
        (["cuda:0"], "cuda:1", ["cuda:1"]),
        ([], "cpu", ["cpu"]),
        ("${as_list}", "cuda:1", "cuda:1"),
    ],
)
def test_the_value_of_a_device_key(held, device, then):
    config = OmegaConf.create({"trainer": {"devices": held}, "as_list": [0]})
    OmegaConf.set_readonly(config, True)
    set_device(config, "trainer.devices", device, 0)
    assert config.trainer.devices == then
    assert OmegaConf.is_readonly(config)


def test_a_device_key_of_a_type_that_no_device_fits_is_an_error():
    @dataclasses.dataclass
    class Trainer:
        devices: int = 1

    config = OmegaConf.create({"trainer": OmegaConf.structured(Trainer)})
    with pytest.raises(
        ConfigError, match=r"device_key=trainer\.devices: the config's schema does not accept 'cpu'"
    ):
        set_device(config, "trainer.devices", "cpu", 0)


# --- Lightning -----------------------------------------------------------------------------------

WIDTHS = "model.width=8,16,32,64"


@pytest.fixture(scope="module")
def lightning(tmp_path_factory):
    """A sweep of the Lightning app, with its progress bars: folder and console."""
    if importlib.util.find_spec("lightning") is None:
        pytest.skip("needs the package lightning")
    folder = copied("lightning", tmp_path_factory.mktemp("lightning"))
    out = run(
        folder,
        *TWO_OVERRIDES,
        TWO_SLOTS,
        "hydra.launcher.max_retries=0",
        "hydra.launcher.device_key=trainer.accelerator",
        "trainer.accelerator=nowhere",
        WIDTHS,
    )
    return folder, out


def test_lightning_trains_on_slots(lightning):
    folder, _ = lightning
    assert {event["slot"] for event in events(folder, "job_started")} == {1, 2}
    assert not events(folder, "attempt_failed")
    assert set(scores(folder)) == {0, 1, 2, 3}


def test_lightning_writes_to_each_job_s_own_folder(lightning):
    folder, _ = lightning
    for num in range(4):
        job = folder / "sweep" / str(num)
        (checkpoint,) = job.glob("*.ckpt")
        assert f"best checkpoint {checkpoint}" in (job / "app.log").read_text()
        assert (job / "lightning_logs" / "version_0" / "metrics.csv").exists()


def test_lightning_shows_a_bar_for_each_job(lightning):
    _, out = lightning
    assert out.count("Epoch 1/1") == 4


def test_lightning_scores_of_an_app_that_seeds_itself_are_those_of_hydra_s_own_launcher(
    lightning, tmp_path
):
    folder = copied("lightning", tmp_path)
    run(folder, "hydra/launcher=basic", "hydra/sweeper=junky", WIDTHS)
    results = yaml.safe_load((folder / "sweep" / "optimization_results.yaml").read_text())
    by_job = scores(lightning[0])
    assert results["best_evaluated_result"] == max(by_job.values())
    for num in range(4):
        metrics = Path("sweep", str(num), "lightning_logs", "version_0", "metrics.csv")
        assert (lightning[0] / metrics).read_text() == (folder / metrics).read_text()


def test_lightning_ends_at_its_time_limit(tmp_path):
    if importlib.util.find_spec("lightning") is None:
        pytest.skip("needs the package lightning")
    folder = copied("lightning", tmp_path)
    # Endless, but for the time-out; it comes at the earliest when the first batch is trained.
    endless = ["trainer.max_epochs=-1", "trainer.enable_progress_bar=false"]
    out = run(folder, *TWO_OVERRIDES, "hydra.launcher.job_timeout_s=0.1", *endless, status=1)
    (failed,) = events(folder, "attempt_failed")
    assert failed["kind"] == "timeout"
    assert "exceeded its time limit" in out


# --- Hugging Face -------------------------------------------------------------------------------

ACCUMULATION = (1, 2, 3, 4)


def test_accelerate_on_four_slots_trains_as_the_app_alone_does(tmp_path):
    if importlib.util.find_spec("accelerate") is None:
        pytest.skip("needs the package accelerate")
    folder = copied("huggingface", tmp_path)
    jobs = [(steps, precision) for steps in ACCUMULATION for precision in ("no", "bf16")]
    overrides = "accumulation=1,2,3,4", "precision=no,bf16"
    run(folder, *TWO_OVERRIDES, "hydra.launcher.devices=cpu*4", *overrides)
    swept = scores(folder)
    losses = {}
    for num, (steps, precision) in enumerate(jobs):
        command = ["app.py", f"accumulation={steps}", f"precision={precision}"]
        done = warm_start.checked(command, cwd=folder, modules=(*warm_start.MODULES, "accelerate"))
        losses[num] = float((done.stdout + done.stderr).rpartition("loss ")[2].split()[0])
    assert swept == losses
    assert len(set(losses.values())) == len(jobs)
