"""hydra.launcher.executor=processes: what jobs in worker processes need from Hydra, and leave.

What they leave where all is well is compared in ``test_same_as_basic``.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import types
import warnings
from pathlib import Path

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobStatus
from hydra.errors import CompactHydraException
from launching import ON_1_4, multirun
from omegaconf import OmegaConf

from junky_core import current_job
from junky_core.errors import ConfigError, JobError
from junky_core.executors.processes.fork_server import is_supported
from junky_core.record.reader import load_state

pytestmark = [
    pytest.mark.skipif(not is_supported(), reason="the fork server is for Linux"),
    pytest.mark.usefixtures("shared_server"),
]

PROCESSES = "hydra.launcher.executor=processes"
TWO = "hydra.launcher.devices=cpu*2"
ONCE = "hydra.launcher.max_retries=0"
LIMIT_S = 120
register = OmegaConf.register_resolver if ON_1_4 else OmegaConf.register_new_resolver


def run(task, overrides, tmp_path, config=None, **kwargs):
    return multirun(task, [PROCESSES, *overrides], {"a": 0, **(config or {})}, tmp_path, **kwargs)


def collected(task, overrides, tmp_path, **kwargs):
    """Run a sweep that fails; return all its ``JobReturn``s and what the sweeper raised."""
    returns = []
    with pytest.raises(Exception) as caught:
        run(task, overrides, tmp_path, collect=returns, **kwargs)
    return returns, caught.value


def values(returns):
    return [ret.return_value for ret in returns]


def never(_cfg):
    raise AssertionError("no job may run")


def run_app(tmp_path, text, *overrides, name="app.py"):
    (tmp_path / name).write_text(text)
    return subprocess.run(
        [
            *(sys.executable, "-W", "ignore", name, "--multirun", "hydra/launcher=junky"),
            *(PROCESSES, f"hydra.sweep.dir={tmp_path / 'sweep'}", *overrides),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


# --- What jobs need of the launching process -----------------------------------------------------

GUARDED = """
import functools, json, logging, os
from dataclasses import dataclass, field
import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

log = logging.getLogger(__name__)

@dataclass
class Db:
    driver: str = "mysql"

@dataclass
class Config:
    a: int = 0
    doubled: str = "${double:${a}}"
    db: Db = field(default_factory=Db)

def decorated(function):
    @functools.wraps(function)
    def wrapper(cfg):
        return function(cfg) + 1
    return wrapper

@hydra.main(config_path=None, config_name="config", version_base="1.3")
@decorated
def main(cfg):
    log.debug("job %s", cfg.a)
    with open(os.path.join(HydraConfig.get().runtime.output_dir, "told.json"), "w") as file:
        json.dump({
            "doubled": cfg.doubled, "driver": cfg.db.driver, "type": OmegaConf.get_type(cfg.db).__name__,
            "same": OmegaConf.get_type(cfg.db) is Db, "pid": os.getpid(),
            "launcher": os.environ["LAUNCHED_BY"],
        }, file)
    return cfg.a

if __name__ == "__main__":
    os.environ["LAUNCHED_BY"] = str(os.getpid())
    ConfigStore.instance().store(name="config", node=Config)
    ConfigStore.instance().store(group="db", name="pg", node=Db(driver="pg"))
    OmegaConf.register_new_resolver("double", lambda value: str(value) * 2)
    main()
"""


def test_what_a_script_registers_under_its_guard_is_there(tmp_path):
    done = run_app(
        tmp_path, GUARDED, TWO, "a=1,2,3", "+db=pg", "hydra.verbose=__main__", "hydra/sweeper=junky"
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("sweep/*/told.json"))]
    assert [one["doubled"] for one in told] == ["11", "22", "33"]
    assert [one["driver"] for one in told] == ["pg"] * 3
    assert all(one["same"] and one["type"] == "Db" for one in told)
    assert all(one["pid"] != int(one["launcher"]) for one in told)
    best = OmegaConf.load(tmp_path / "sweep" / "optimization_results.yaml")
    assert best.best_evaluated_result == 4  # the decorator adds 1
    assert "[__main__][DEBUG] - job 3" in (tmp_path / "sweep" / "2" / "app.log").read_text()


UNGUARDED = """
import hydra
from hydra.experimental.callback import Callback

class Starts(Callback):
    def on_multirun_start(self, config, **kwargs):
        with open("starts.txt", "a") as file:
            file.write("start\\n")

@hydra.main(config_path=None, version_base="1.3")
def main(cfg):
    return 1

main()
"""


def test_a_script_without_a_guard_is_refused_before_anything_is_written(tmp_path):
    done = run_app(
        tmp_path, UNGUARDED, "+a=1,2", "+hydra.callbacks.starts._target_=__main__.Starts"
    )
    assert done.returncode != 0
    assert 'Put the call under: if __name__ == "__main__":' in done.stderr
    assert "app.py" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "starts.txt").read_text() == "start\n"
    assert not list(tmp_path.glob("sweep/0"))


LOCK = threading.Lock()


def use_lock(cfg):
    with LOCK:
        return cfg.a


def test_a_function_of_a_module_is_sent_by_name(tmp_path):
    assert values(run(use_lock, ["a=1,2"], tmp_path)) == [1, 2]


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("closure", r"the task function .*variable 'held'.* is a lock"),
        ("resolver", r"the resolver 'locked' .*lock"),
    ],
)
def test_what_cannot_be_sent_is_named_before_anything_is_written(tmp_path, what, named):
    held = threading.Lock()
    task = never
    if what == "closure":

        def task(cfg):
            return held

    def before_sweep():
        if what == "resolver":
            register("locked", lambda: held, replace=True)

    try:
        with pytest.raises(CompactHydraException, match=named) as caught:
            run(task, ["a=1,2"], tmp_path, before_sweep=before_sweep)
    finally:
        OmegaConf.clear_resolver("locked")
    assert "hydra.launcher.executor=threads" in str(caught.value)
    assert isinstance(caught.value, ConfigError)
    left = {path.name for path in (tmp_path / "sweep").glob("*")}
    assert left <= {"multirun.yaml"}  # Hydra's own sweeper writes it first


# --- Settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("hydra.launcher.executor=rya", "executor is 'rya'; it must be 'threads' or 'processes'"),
        ("hydra.launcher.kill_after_s=0", "kill_after_s is 0.0; it must be seconds above 0"),
        ("hydra.launcher.preload=[no_such_module]", "no module named no_such_module"),
        ("hydra.launcher.preload=[3]", "3 is not the name of a module"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused(tmp_path, override, said):
    with pytest.raises(CompactHydraException, match=r"hydra\.launcher") as caught:
        run(never, ["a=1,2", override], tmp_path)
    assert said in str(caught.value)


def imported(cfg):
    return "wave" in sys.modules


def test_preload(tmp_path, monkeypatch):
    monkeypatch.undo()  # with a server of its own, which has not imported it yet
    assert values(run(imported, ["a=1", "hydra.launcher.preload=[wave]"], tmp_path)) == [True]


def test_a_module_to_preload_that_cannot_be_imported_is_named(tmp_path, monkeypatch):
    (tmp_path / "broken_to_preload.py").write_text("raise OSError('no such camera')")
    monkeypatch.undo()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CompactHydraException, match=r"broken_to_preload.* no such camera"):
        run(never, ["a=1", "hydra.launcher.preload=broken_to_preload"], tmp_path)


def device_of(cfg):
    return cfg.trainer.device


def test_device_key(tmp_path):
    returns = run(
        device_of,
        ["a=1,2", TWO, "hydra.launcher.device_key=trainer.device"],
        tmp_path,
        config={"trainer": {"device": None}},
    )
    assert values(returns) == ["cpu", "cpu"]
    assert [ret.cfg.trainer.device for ret in returns] == ["cpu", "cpu"]


# --- One job after another -----------------------------------------------------------------------


def environment(cfg):
    return os.environ.get("ONE"), os.environ.get("OTHER"), os.getpid()


def test_env_set_may_differ_between_jobs(tmp_path):
    returns = run(
        environment,
        ["a=1,2,3", TWO, "+hydra.job.env_set.ONE='${hydra.job.num}'", "+hydra.job.env_set.OTHER=x"],
        tmp_path,
    )
    assert [value[:2] for value in values(returns)] == [("0", "x"), ("1", "x"), ("2", "x")]
    assert "ONE" not in os.environ


def leave_things_behind(cfg):
    found = {
        "folder": os.getcwd(),
        "config": HydraConfig.get().job.num,
        "one": os.environ.get("ONE"),
        "registered": OmegaConf.has_resolver("of_a_job"),
        "pid": os.getpid(),
    }
    register("of_a_job", lambda: cfg.a)  # without replace=True
    HydraConfig.instance().cfg = None
    os.chdir("/")
    logging.getLogger("app").info("a line of job %s", cfg.a)
    return found


def test_what_a_job_leaves_does_not_reach_the_next(tmp_path):
    overrides = ["a=1,2,3", "+hydra.job.env_set.ONE='${hydra.job.num}'"]
    found = values(run(leave_things_behind, overrides, tmp_path, logs=True))
    assert len({one.pop("pid") for one in found}) == 1
    here = os.getcwd()
    assert found == [
        {"folder": here, "config": num, "one": str(num), "registered": False} for num in range(3)
    ]
    for num in range(3):
        lines = (tmp_path / "sweep" / str(num) / "app.log").read_text().splitlines()
        assert [line.rpartition("- ")[2] for line in lines] == [f"a line of job {num + 1}"]


def relative(cfg):
    Path("here.txt").write_text("x")
    return os.getcwd()


def test_chdir(tmp_path):
    found = values(run(relative, ["a=1,2,3", TWO, "hydra.job.chdir=true"], tmp_path))
    assert found == [str(tmp_path / "sweep" / str(num)) for num in range(3)]
    assert len(list(tmp_path.glob("sweep/*/here.txt"))) == 3


def pid(cfg):
    return os.getpid()


@pytest.mark.parametrize("sweeper", ["basic", "junky"])
def test_all_batches_of_a_sweep_have_the_same_workers(tmp_path, sweeper):
    returns = run(
        pid,
        ["a=1,2,3,4,5", f"hydra/sweeper={sweeper}", "hydra.sweeper.max_batch_size=2", TWO],
        tmp_path,
    )
    found = values(returns)
    assert len(found) == 5
    assert len(set(found)) <= 2
    assert os.getpid() not in found


def test_no_worker_is_left(tmp_path):
    (found,) = values(run(pid, ["a=1"], tmp_path))
    end = time.monotonic() + LIMIT_S
    while Path(f"/proc/{found}").exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert not Path(f"/proc/{found}").exists()


# --- What comes back -----------------------------------------------------------------------------


def change_config(cfg):
    OmegaConf.set_struct(cfg, False)
    cfg.a = "changed"
    if cfg.get("only_here"):
        module = sys.modules["only_here"] = types.ModuleType("only_here")
        exec("class OnlyHere: pass", vars(module))
        cfg._set_flag("allow_objects", True)
        cfg.a = module.OnlyHere()
    if "object" in cfg:
        cfg._set_flag("allow_objects", True)
        cfg.object = threading.Lock()
    return 1


def test_a_config_that_the_job_changed_comes_back_as_it_is(tmp_path):
    (ret,) = run(change_config, ["a=1"], tmp_path)
    assert ret.cfg == {"a": "changed"}
    assert ret.hydra_cfg.hydra.job.num == 0


@pytest.mark.parametrize("config", [{"object": None}, {"only_here": True}])
def test_a_config_that_cannot_be_sent_back_comes_back_as_it_was(tmp_path, capsys, config):
    (ret,) = run(change_config, ["a=1"], tmp_path, config=config)
    assert ret.cfg == {"a": 1, **config}
    assert ret.return_value == 1
    assert (
        "Job #0 has put something into its config that cannot be sent back"
        in capsys.readouterr().out
    )


class Unpicklable(Exception):
    def __init__(self, text, held):
        super().__init__(text)
        self.held = held


def end_badly(cfg):
    if cfg.how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if cfg.how == "exit":
        os._exit(3)
    if cfg.how == "unpicklable":
        raise Unpicklable("no way", threading.Lock())
    if cfg.how == "error":
        raise ValueError("bad") from KeyError("cause")
    if cfg.how == "sys.exit":
        sys.exit(2)
    return cfg.how


@pytest.mark.parametrize(
    ("how", "kind", "said"),
    [
        ("segfault", JobError, "killed by SIGSEGV"),
        ("exit", JobError, "exit status 3"),
        ("unpicklable", JobError, "no way"),
        ("error", ValueError, "bad"),
        ("sys.exit", Exception, r"sys.exit\(2\)"),
    ],
)
def test_a_job_that_ends_badly_ends_alone(tmp_path, how, kind, said):
    returns, raised = collected(
        end_badly, [f"how={how},well,fine", ONCE], tmp_path, config={"how": ""}
    )
    with pytest.raises(kind, match=said):
        returns[0].return_value
    assert isinstance(raised, kind)
    assert [ret.status for ret in returns] == [JobStatus.FAILED, *[JobStatus.COMPLETED] * 2]
    assert values(returns[1:]) == ["well", "fine"]
    assert returns[0].overrides == [f"how={how}"]


def test_the_error_that_the_sweeper_raises_shows_the_lines_of_the_job(tmp_path):
    _, raised = collected(end_badly, ["how=error", ONCE], tmp_path, config={"how": ""})
    shown = "".join(traceback.format_exception(type(raised), raised, raised.__traceback__))
    assert "in end_badly" in shown
    assert "KeyError: 'cause'" in shown


def never_ends(cfg):
    if cfg.a == 1:
        sum(iter(int, 1))  # native code: no cancellation point
    return cfg.a


def test_a_job_that_is_past_its_time_is_killed(tmp_path):
    limits = ["hydra.launcher.job_timeout_s=2", "hydra.launcher.kill_after_s=0.2"]
    returns, _ = collected(never_ends, ["a=2,1", *limits], tmp_path)
    assert [ret.status for ret in returns] == [JobStatus.COMPLETED, JobStatus.FAILED]
    with pytest.raises(JobError, match="killed"):
        returns[1].return_value


def save_best(cfg):
    model = torch.nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(cfg.a)
    current_job().save_best(model, cfg.a)
    return float(cfg.a)


def test_the_best_model_and_scores(tmp_path):
    run(save_best, ["a=1,3,2", TWO, "hydra/sweeper=junky"], tmp_path)
    weights = torch.load(tmp_path / "sweep" / "model.pt", weights_only=True)
    assert float(weights["weight"]) == 3


def draw(cfg):
    return torch.rand(2).tolist()


def test_seeded_jobs_are_those_of_threads(tmp_path):
    seeded = ["a=1,2,3", TWO, "hydra.launcher.seed=5"]
    found = values(run(draw, seeded, tmp_path / "processes"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        threads = multirun(draw, seeded, {"a": 0}, tmp_path / "threads")
    assert found == values(threads)


# --- Resume --------------------------------------------------------------------------------------

KILLED = """
import os, sys, time
import hydra

@hydra.main(config_path=None, config_name="config", version_base="1.3")
def main(cfg):
    with open("runs.txt", "a") as file:
        file.write(f"{cfg.a} {os.getpid()}\\n")
    while cfg.a == 3 and not os.path.exists("go"):
        time.sleep(0.01)
    return cfg.a

if __name__ == "__main__":
    from hydra.core.config_store import ConfigStore
    ConfigStore.instance().store(name="config", node={"a": 0})
    main()
"""


def test_a_sweep_whose_driver_was_killed_is_resumed(tmp_path):
    (tmp_path / "app.py").write_text(KILLED)
    command = [
        *(sys.executable, "-W", "ignore", "app.py", "--multirun", "hydra/launcher=junky"),
        *(PROCESSES, f"hydra.sweep.dir={tmp_path / 'sweep'}", "a=1,2,3,4"),
    ]
    runs = tmp_path / "runs.txt"
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as driver:
        end = time.monotonic() + LIMIT_S
        while not (runs.exists() and "3 " in runs.read_text()) and time.monotonic() < end:
            time.sleep(0.02)
        driver.kill()
    worker = int(runs.read_text().split()[-1])
    while Path(f"/proc/{worker}").exists() and time.monotonic() < end:
        time.sleep(0.02)
    (tmp_path / "go").touch()
    done = subprocess.run(
        [*command, "hydra.launcher.resume=true"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in runs.read_text().splitlines()] == ["1", "2", "3", "3", "4"]
    state = load_state(tmp_path / "sweep" / "journal.jsonl")
    assert {job.status for job in state.by_num.values()} == {"finished"}
