"""A sweep under hydra/launcher=junky leaves what it leaves under hydra/launcher=basic.

Each app is run with both, at the same path; folders are compared file by file, and ``JobReturn``s
field by field, but for times and the launcher's own entries.
"""

import logging
import os
import pickle
import re
import shutil
import sys
import zipfile
from dataclasses import dataclass, field

import hydra
import pytest
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobStatus
from hydra.experimental.callback import Callback
from launching import ON_1_4, multirun
from omegaconf import OmegaConf
from sizes import LONG

from junky_core.executors.processes.fork_server import is_supported

SLOTS = {"threads": 4, "processes": 2}
LINUX = pytest.mark.skipif(not is_supported(), reason="the fork server is for Linux")
OWN_FILES = re.compile(
    r"^(autotrain\.log|journal\.jsonl|leaderboard.*|model\.pt|\.junky\.lock|.*\.junky.*)$"
)
TIME = re.compile(r"\d{4}-\d\d-\d\d[ _T]\d\d[:\-]\d\d[:\-]\d\d[,.]?\d*")

log = logging.getLogger("app.module")
callback_log = logging.getLogger("app.callback")


class Recorder(Callback):
    """Keeps state between a job's start and its end, as many callbacks do."""

    def __init__(self, out, greeting="hello"):
        self.out = out
        self.greeting = greeting
        self.started = 0
        self.ended = 0
        self.jobs = []

    def on_multirun_start(self, config, **kwargs):
        self.note(config, f"multirun start {self.greeting}")

    def on_multirun_end(self, config, **kwargs):
        self.note(config, f"multirun end {self.started} {self.ended} {sorted(self.jobs)}")

    def on_job_start(self, config, *, task_function=None, **kwargs):
        self.started += 1
        self.num = config.hydra.job.num
        self.folder = config.hydra.runtime.output_dir
        assert HydraConfig.get().job.num == self.num
        assert callable(task_function)
        callback_log.info("start of job %s", self.num)

    def on_job_end(self, config, job_return, **kwargs):
        assert self.num == config.hydra.job.num
        self.ended += 1
        self.jobs.append(self.num)
        callback_log.info("end of job %s", self.num)
        with open(f"{self.folder}/callback.txt", "w") as file:
            file.write(f"{self.num} {job_return.status} {list(job_return.overrides)}")

    def note(self, config, text):
        os.makedirs(self.out, exist_ok=True)
        with open(f"{self.out}/multirun.txt", "a") as file:
            file.write(text + "\n")


class Net:
    def __init__(self, width, inner=None):
        self.width = width
        self.inner = inner


@dataclass
class Db:
    driver: str = "mysql"
    ports: list[int] = field(default_factory=lambda: [1, 2])


@dataclass
class Structured:
    db: Db = field(default_factory=Db)
    lr: float = 0.1


def plain_task(cfg):
    log.info("info %s", OmegaConf.to_yaml(cfg))
    log.debug("debug")
    logging.getLogger("other").warning("warning from %s", HydraConfig.get().job.num)
    with open(os.path.join(HydraConfig.get().runtime.output_dir, "out.txt"), "w") as file:
        file.write(
            f"{os.getcwd()} {hydra.utils.get_original_cwd()} {hydra.utils.to_absolute_path('a')}"
        )
    with open("relative.txt" if HydraConfig.get().job.chdir else os.devnull, "w") as file:
        file.write("here")
    return {"num": HydraConfig.get().job.num, "cfg": OmegaConf.to_container(cfg, resolve=True)}


def instantiate_task(cfg):
    net = hydra.utils.instantiate(cfg.net)
    log.info("net %s %s", type(net).__name__, net.width)
    return net.width + net.inner.width


def env_task(cfg):
    log.info("env %s %s", os.environ["JUNKY_TEST"], cfg.late)
    return os.environ["JUNKY_TEST"], cfg.late, os.environ.get("JUNKY_COPY")


def failing_task(cfg):
    log.info("before %s", cfg.a)
    if cfg.a == 1:
        raise ValueError(f"bad {cfg.a}")
    return cfg.a


def grouped(folder):
    conf = folder / "conf"
    for group, names in {"db": ["mysql", "pg"], "opt": ["adam", "sgd"]}.items():
        (conf / group).mkdir(parents=True, exist_ok=True)
        for name in names:
            (conf / group / f"{name}.yaml").write_text(f"name: {name}\nvalue: ${{base}}\n")
    (conf / "db" / "glob.yaml").write_text("# @package _global_\nbase: from_db\ndb: {name: glob}\n")


def in_package(folder):
    package = folder / "src" / "config_package"
    (package / "extra").mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("")
    (package / "extra" / "__init__.py").write_text("")
    for name in ("x", "y"):
        (package / "extra" / f"{name}.yaml").write_text(f"from_package: {name}\n")


def in_zip(folder):
    (folder / "src").mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "src" / "zipped.zip", "w") as archive:
        archive.writestr("zipped_package/__init__.py", "")
        archive.writestr("zipped_package/extra/__init__.py", "")
        for name in ("x", "y"):
            archive.writestr(f"zipped_package/extra/{name}.yaml", f"from_zip: {name}\n")


def structured_store():
    ConfigStore.instance().store(name="structured_schema", node=Structured)
    ConfigStore.instance().store(group="db", name="pg", node=Db(driver="pg"))


CONFIG = {"a": 0, "b": "x", "c": {"d": "${a}", "e": [1, 2]}, "seed": 7}
HYDRA_CALLBACKS = {
    "log": {"_target_": "hydra.experimental.callbacks.LogJobReturnCallback"},
    "pickle": {"_target_": "hydra.experimental.callbacks.PickleJobInfoCallback"},
}
CALLBACK = {
    "callbacks": {"rec": {"_target_": "test_same_as_basic.Recorder", "out": "${hydra.sweep.dir}"}}
}
GROUPS = {
    "defaults": [{"db": "mysql"}, {"opt": "adam"}, "_self_"],
    "base": "base",
    "db": {"value": "self"},
}

APPS = {
    "plain": (plain_task, CONFIG, ["a=1,2,3"], {}),
    "one job": (plain_task, CONFIG, ["a=1"], {}),
    "added keys": (plain_task, CONFIG, ["+new.key=1,2", "++a=5,6"], {}),
    "quoted values": (plain_task, CONFIG, ["b='a,b','c=d','${a}',\"q'q\"", "c.e=[1],[2,3]"], {}),
    "groups": (plain_task, GROUPS, ["db=mysql,pg", "opt=adam,sgd"], {"prepare": grouped}),
    "self first": (
        plain_task,
        {**GROUPS, "defaults": ["_self_", {"db": "mysql"}, {"opt": "adam"}]},
        ["db=mysql,pg,glob"],
        {"prepare": grouped},
    ),
    "self last": (plain_task, GROUPS, ["db=mysql,pg,glob"], {"prepare": grouped}),
    "group added": (plain_task, {"a": 1}, ["+db@first=mysql,pg", "+base=z"], {"prepare": grouped}),
    "instantiate": (
        instantiate_task,
        {
            "net": {
                "_target_": "test_same_as_basic.Net",
                "width": 1,
                "inner": {"_target_": "test_same_as_basic.Net", "width": 5},
            }
        },
        ["net.width=1,2"],
        {},
    ),
    "structured": (
        plain_task,
        {"defaults": ["structured_schema", "_self_"], "lr": 0.5},
        ["db=pg", "lr=1,2", "db.ports=[3],[4,5]"],
        {"before_sweep": structured_store, "fix": lambda o: [x for x in o if x != "db=pg"]},
    ),
    "subdir": (
        plain_task,
        {**CONFIG, "hydra": {"sweep": {"subdir": "n${hydra.job.num}/a=${a}"}}},
        ["a=1,2"],
        {},
    ),
    "override_dirname": (
        plain_task,
        {
            **CONFIG,
            "hydra": {
                "sweep": {
                    "subdir": "${hydra_override_dirname:}"
                    if ON_1_4
                    else "${hydra.job.override_dirname}"
                },
                "job": {"config": {"override_dirname": {"exclude_keys": ["seed"], "kv_sep": "-"}}},
            },
        },
        ["a=1,2", "seed=1"],
        {},
    ),
    "chdir": (plain_task, CONFIG, ["a=1,2", "hydra.job.chdir=true"], {}),
    "no output subdir": (plain_task, CONFIG, ["a=1,2", "hydra.output_subdir=null"], {}),
    "output subdir": (plain_task, CONFIG, ["a=1,2", "hydra.output_subdir=meta"], {}),
    "callbacks": (plain_task, {**CONFIG, "hydra": CALLBACK}, ["a=1,2,3,4,5"], {}),
    "hydra's callbacks": (
        plain_task,
        {
            **CONFIG,
            "hydra": {
                "callbacks": {} if ON_1_4 else HYDRA_CALLBACKS  # there they are gone or deprecated
            },
        },
        ["a=1,2,3,4"],
        {},
    ),
    "env_set": (
        env_task,
        {
            "a": 0,
            "late": "${oc.env:JUNKY_TEST,none}",
            "hydra": {
                "job": {
                    "env_set": {"JUNKY_TEST": "set:${oc.env:JUNKY_OLD}", "JUNKY_OLD": "changed"},
                    "env_copy": ["JUNKY_COPY"],
                },
                "sweep": {
                    "subdir": "${hydra.job.num}-${oc.env:JUNKY_TEST,unset}-${oc.env:JUNKY_OLD}"
                },
            },
        },
        ["a=1,2,3"],
        {},
    ),
    "disabled logging": (plain_task, CONFIG, ["a=1,2", "hydra/job_logging=disabled"], {}),
    "no logging": (plain_task, CONFIG, ["a=1,2", "hydra/job_logging=none"], {}),
    "stdout logging": (plain_task, CONFIG, ["a=1,2", "hydra/job_logging=stdout"], {}),
    "verbose": (plain_task, CONFIG, ["a=1,2", "hydra.verbose=app.module"], {}),
    "file handler of its own": (
        plain_task,
        {
            **CONFIG,
            "hydra": {
                "job_logging": {
                    "formatters": {"bare": {"format": "%(levelname)s %(message)s"}},
                    "handlers": {
                        "bare": {
                            "class": "logging.FileHandler",
                            "formatter": "bare",
                            "filename": "${hydra.runtime.output_dir}/bare-${hydra.job.num}.txt",
                            "mode": "w",
                        }
                    },
                    "loggers": {
                        "app.module": {"level": "DEBUG", "handlers": ["bare"], "propagate": False}
                    },
                    "root": {"level": "WARNING"},
                }
            },
        },
        ["a=1,2,3"],
        {},
    ),
    "package config source": (
        plain_task,
        {"defaults": [{"extra": "x"}, "_self_"], "hydra": {"searchpath": ["pkg://config_package"]}},
        ["extra=x,y"],
        {"prepare": in_package},
    ),
    "zip config source": (
        plain_task,
        {"defaults": [{"extra": "x"}, "_self_"], "hydra": {"searchpath": ["pkg://zipped_package"]}},
        ["extra=x,y"],
        {"prepare": in_zip},
    ),
    "one fails": (failing_task, {"a": 0}, ["a=0,1,2"], {"retries": 0, "fails": True}),
    "batches": (plain_task, CONFIG, ["a=1,2,3,4,5", "hydra.sweeper.max_batch_size=2"], {}),
    "sweeper params": (
        plain_task,
        {**CONFIG, "hydra": {"sweeper": {"params": {"a": "1,2", "b": "choice(x,y)"}}}},
        [],
        {},
    ),
}


# The others need a minute. Each of these shows something that worker processes do differently.
ON_PROCESSES = (
    "groups",
    "structured",
    "chdir",
    "callbacks",
    "env_set",
    "file handler of its own",
    "no logging",
    "one fails",
    "batches",
)


def tree(folder):
    """Return what a sweep left: text by path, without times and the launcher's own entries."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir():
            found[name] = "folder"
        elif OWN_FILES.match(path.name):
            continue
        elif path.suffix == ".pickle":
            found[name] = pickled(path)
        elif path.name in ("hydra.yaml", "multirun.yaml"):
            found[name] = without_launcher(yaml.load(path.read_text(), yaml.CSafeLoader))
        else:
            found[name] = TIME.sub("TIME", path.read_text())
    return found


def pickled(path):
    content = pickle.loads(path.read_bytes())
    if path.name == "job_return.pickle":
        return facts(content)
    return without_launcher(OmegaConf.to_container(content))


def without_launcher(plain):
    hydra_ = plain["hydra"]
    hydra_.pop("launcher")
    hydra_["runtime"]["choices"].pop("hydra/launcher")
    hydra_["overrides"]["hydra"] = [
        o
        for o in hydra_["overrides"]["hydra"]
        if not o.startswith(("hydra/launcher", "hydra.launcher"))
    ]
    return plain


def facts(ret):
    value = ret._return_value
    if ret.status is JobStatus.FAILED:
        value = (type(value), str(value))
    return {
        "overrides": ret.overrides,
        "cfg": None if ret.cfg is None else OmegaConf.to_container(ret.cfg),
        "hydra_cfg": without_launcher(OmegaConf.to_container(ret.hydra_cfg)),
        "working_dir": ret.working_dir,
        "task_name": ret.task_name,
        "status": ret.status,
        "value": value,
    }


@pytest.mark.usefixtures("shared_server")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Hydra's, for what the apps still use
@pytest.mark.parametrize(
    ("name", "executor"),
    [
        *((name, "threads") for name in APPS),
        *(
            pytest.param(name, "processes", marks=LINUX)
            for name in (APPS if LONG else ON_PROCESSES)
        ),
    ],
)
def test_same_as_basic(name, executor, tmp_path, monkeypatch, capsys):
    task, config, overrides, options = APPS[name]
    monkeypatch.setenv("JUNKY_OLD", "old")
    monkeypatch.setenv("JUNKY_COPY", "copied")
    monkeypatch.delenv("JUNKY_TEST", raising=False)
    options.get("prepare", lambda _folder: None)(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "src")
    monkeypatch.syspath_prepend(tmp_path / "src" / "zipped.zip")
    overrides = options.get("fix", lambda o: o)(overrides)
    sweep, basic = tmp_path / "sweep", tmp_path / "basic"
    both = []
    consoles = []
    trees = []
    for launcher, extra in (
        ("basic", []),
        (
            "junky",
            [
                f"hydra.launcher.devices=cpu*{SLOTS[executor]}",
                "hydra.launcher.max_retries=0",
                f"hydra.launcher.executor={executor}",
            ],
        ),
    ):
        environment = dict(os.environ)
        kwargs = {"launcher": launcher, "before_sweep": options.get("before_sweep", lambda: None)}
        returns = []
        if options.get("fails"):
            kwargs["collect"] = returns
            with pytest.raises(ValueError, match="bad 1"):
                multirun(task, [*overrides, *extra], config, tmp_path, logs=True, **kwargs)
        else:
            returns = multirun(task, [*overrides, *extra], config, tmp_path, logs=True, **kwargs)
        both.append([facts(ret) for ret in returns])
        consoles.append(capsys.readouterr().out)
        trees.append(tree(sweep))
        assert dict(os.environ) == environment
        if launcher == "basic":
            shutil.move(sweep, basic)
    for module in [m for m in sys.modules if m.startswith(("config_package", "zipped_package"))]:
        del sys.modules[module]
    assert trees[0].keys() == trees[1].keys()
    for path, content in trees[0].items():
        if executor == "processes" and path == "multirun.txt":
            continue  # each worker has its own copy of the callback, as under Hydra's joblib
        assert trees[1][path] == content, path
    assert both[0] == both[1]
    assert job_lines(consoles[0]) == job_lines(consoles[1])


def job_lines(console):
    """Return the lines that jobs logged, without times, in any order: jobs run side by side.

    Those of worker processes begin with the job's name.
    """
    lines = re.sub(r"(?m)^Thread-\d+_\d+: ", "", TIME.sub("TIME", console)).splitlines()
    return sorted(line for line in lines if line.startswith("[TIME]") and "[HYDRA]" not in line)
