"""Jobs that run at the same time see only their own state: many jobs on 16 slots, each checking repeatedly."""

import concurrent.futures
import logging
import os
import threading
from pathlib import Path

import hydra.utils
import pytest
import yaml
from hydra.core.hydra_config import HydraConfig
from launching import multirun
from omegaconf import OmegaConf
from sizes import LONG

from hydra_plugins.hydra_junky_launcher._folders import folders_per_thread

ROUNDS = 4 if LONG else 1
JOBS, SLOTS, LOOKS = (200, 16, 200) if LONG else (20, 16, 12)
LOGGING = ["default", "custom", "verbose", "disabled", "stdout"]

log = logging.getLogger("stress.job")
quiet = logging.getLogger("stress.debug")

CONFIG = {
    "num": 0,
    "early": "${num}",
    "hydra": {
        "job": {"env_set": {"JUNKY_STRESS_VARIABLE": "set"}},
        "sweep": {"subdir": "job-${hydra.job.num}"},
    },
}


class Mixups:
    def __init__(self):
        self.found = []
        self.running = 0
        self.most = 0
        self.lock = threading.Lock()

    def check(self, num, what, got, expected):
        if got != expected:
            with self.lock:
                self.found.append((num, what, got, expected))

    def enter(self, step):
        with self.lock:
            self.running += step
            self.most = max(self.most, self.running)


def look(mixups, num, base, chdir, late):
    """Check once everything that must be this job's own."""
    cfg = HydraConfig.get()
    folder = str(base / f"job-{num}")
    mixups.check(num, "num", cfg.job.num, num)
    mixups.check(num, "id", cfg.job.id, str(num))
    mixups.check(num, "overrides", list(cfg.overrides.task), [f"num={num}"])
    mixups.check(num, "output_dir", cfg.runtime.output_dir, folder)
    mixups.check(num, "original cwd", hydra.utils.get_original_cwd(), ORIGINAL)
    mixups.check(num, "absolute path", hydra.utils.to_absolute_path("x"), f"{ORIGINAL}/x")
    mixups.check(num, "late interpolation", late.num, num)
    mixups.check(num, "folder", os.getcwd(), folder if chdir else ORIGINAL)
    mixups.check(num, "variable", os.environ["JUNKY_STRESS_VARIABLE"], "set")


ORIGINAL = os.getcwd()


def make_task(mixups, base, chdir):
    def task(cfg):
        mixups.enter(1)
        num = cfg.num
        late = OmegaConf.create({"num": "${hydra:job.num}"})
        for turn in range(LOOKS):
            look(mixups, num, base, chdir, late)
            log.info("job %d line %d", num, turn)
            quiet.debug("debug of job %d line %d", num, turn)
            if chdir:
                Path("here").write_text(str(num))
                mixups.check(
                    num, "file in its folder", Path(base / f"job-{num}/here").read_text(), str(num)
                )
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _: look(mixups, num, base, chdir, late), range(10)))
            list(pool.map(lambda n: log.info("job %d thread line %d", num, n), range(10)))
        mixups.enter(-1)
        return num

    return task


def load(path):
    return yaml.load(path.read_text(), yaml.CSafeLoader)


def lines_of(text):
    """Return who wrote each line, and how many."""
    return sorted(line.rpartition(" - ")[2] for line in text.splitlines())


CUSTOM = {
    "version": 1,
    "formatters": {"own": {"format": "%(name)s - %(message)s"}},
    "handlers": {
        "mine": {
            "class": "logging.FileHandler",
            "formatter": "own",
            "filename": "${hydra.runtime.output_dir}/mine-${hydra.job.num}.txt",
        }
    },
    "root": {"level": "INFO", "handlers": ["mine"]},
    "disable_existing_loggers": False,
}


@pytest.mark.long
@pytest.mark.parametrize("round_", range(ROUNDS))
@pytest.mark.parametrize("logging_", LOGGING)
def test_no_job_sees_state_of_another(tmp_path, logging_, round_, capsys):
    chdir = folders_per_thread() and (round_ + LOGGING.index(logging_)) % 2 == 0
    mixups = Mixups()
    config = OmegaConf.to_container(OmegaConf.create(CONFIG))
    overrides = [
        "hydra.launcher.devices=cpu*" + str(SLOTS),
        "num=" + ",".join(map(str, range(JOBS))),
        f"hydra.job.chdir={chdir}",
    ]
    if logging_ == "custom":
        config["hydra"]["job_logging"] = CUSTOM
    elif logging_ == "verbose":
        overrides.append("hydra.verbose=stress.debug")
    elif logging_ != "default":
        overrides.append(f"hydra/job_logging={logging_}")
    base = tmp_path / "sweep"
    returns = multirun(make_task(mixups, base, chdir), overrides, config, tmp_path)

    assert mixups.found == []
    assert mixups.most > 1
    assert [ret.return_value for ret in returns] == list(range(JOBS))
    assert [ret.hydra_cfg.hydra.job.num for ret in returns] == list(range(JOBS))
    out = capsys.readouterr().out
    everything = []
    for num in range(JOBS):
        folder = base / f"job-{num}"
        assert load(folder / ".hydra/config.yaml")["num"] == num
        assert load(folder / ".hydra/hydra.yaml")["hydra"]["job"]["num"] == num
        assert load(folder / ".hydra/overrides.yaml") == [f"num={num}"]
        own = [f"job {num} line {turn}" for turn in range(LOOKS)]
        own += [f"job {num} thread line {n}" for n in range(10)]
        if logging_ == "verbose":
            own += [f"debug of job {num} line {turn}" for turn in range(LOOKS)]
        everything += own
        logs = {p.name: p for p in folder.iterdir() if p.suffix in (".log", ".txt")}
        if logging_ in ("disabled", "stdout"):
            assert logs == {}
            continue
        if logging_ == "custom":  # Hydra merges it with the default, whose handler opens its file
            assert logs.pop("app.log").read_text() == ""
        ((name, path),) = logs.items()
        assert name == (f"mine-{num}.txt" if logging_ == "custom" else "app.log")
        assert lines_of(path.read_text()) == sorted(own)
    shown = [line.rpartition(" - ")[2] for line in out.splitlines() if "line" in line]
    assert sorted(shown) == ([] if logging_ in ("custom", "disabled") else sorted(everything))
    assert "JUNKY_STRESS_VARIABLE" not in os.environ
    assert os.getcwd() == ORIGINAL
