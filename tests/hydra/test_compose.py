"""Configs composed fast are the configs that Hydra composes."""

import inspect
import os
import threading
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Dict, List, Optional

import pytest
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobRuntime
from hydra.types import RunMode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf, open_dict, read_write
from sizes import LONG

from hydra_plugins.hydra_junky_launcher._compose import JobComposer
from hydra_plugins.hydra_junky_launcher._quick import same_config

Plugins.instance()
pytestmark = pytest.mark.usefixtures("hydra_restore_singletons")


class Height(Enum):
    LOW = 1
    HIGH = 2


@dataclass
class Net:
    width: int = 8
    rate: float = 0.5
    name: str = "net"
    height: Height = Height.LOW
    maybe: Optional[int] = None
    sizes: List[int] = field(default_factory=lambda: [1, 2])
    table: Dict[str, int] = field(default_factory=lambda: {"a": 1})
    anything: Any = None
    half: float = "${.rate}"  # type: ignore[assignment]


FILES = {
    "config": """
defaults:
  - base_net
  - _self_
  - optimizer: adam
  - db: mysql
  - db@backup: sqlite
  - optional extra: null
  - schedule@run.schedule: const
  - override hydra/job_logging: disabled
seed: 0
text: hello
ref: ${optimizer.lr}
link: ${net}
deep: {a: {b: {c: 1}}, l: [1, {x: 2}], i: '${seed}'}
gap: ???
nothing: null
hydra:
  job:
    config:
      override_dirname:
        kv_sep: '='
        exclude_keys: [seed]
  sweep:
    subdir: ${hydra.job.num}
""",
    "optimizer/adam": "name: adam\nlr: 0.1\nbetas: [0.9, 0.99]",
    "optimizer/sgd": "defaults:\n  - /schedule@schedule: ${db}\n  - _self_\nname: sgd\nlr: 0.2",
    "optimizer/group": "# @package _global_\ndefaults:\n  - override /db: sqlite\nseed: 7\n",
    "db/mysql": "port: 1\nuser: ${oc.env:HOME}",
    "db/sqlite": "port: 2\nfile: ${text}.db",
    "extra/one": "# @package extra_package\nvalue: 1",
    "extra/two": "value: ${seed}",
    "schedule/const": "kind: const",
    "schedule/mysql": "kind: my",
    "schedule/sqlite": "kind: lite",
}

VALUES = [
    "seed=1", "seed=2", "seed=2.5", "seed=null", "seed='${net.width}'", "text=a", "text='b c'", "text=''",
    "text='${ref}'", "ref=1", "ref='${seed}'", "net.width=3", "net.width=abc", "net.width=4.0", "net.rate=2",
    "net.rate=1e-5", "net.height=HIGH", "net.height=NO", "net.maybe=5", "net.maybe=null", "net.sizes=[4]",
    "net.sizes=[x]", "net.table={b:2}", "+net.table.c=3", "net.table={b:x}", "net.anything={q:[1,{r:2}]}",
    "net.anything=[1,2]", "net.anything.q=1", "net.half=3", "+net.nope=1", "net={width:9}", "link.width=11",
    "deep.a.b.c=2", "deep.a.b={c:3}", "+deep.a.b={d:4}", "deep.a=null", "++deep.a.new=1", "+deep.a.x.y=1",
    "deep.l=[]", "deep.l.0=5", "deep.l.1.x=6", "deep.i=9", "deep.i.j=1", "deep={i:3}", "gap=1", "gap={a:1}",
    "nothing=1", "nothing.a=1", "+fresh=1", "+fresh={a:1}", "++fresh.b=2", "+seed=3", "++seed=4", "nope=1",
    "optimizer.lr=0.3", "optimizer.lr=0.4", "optimizer.betas=[1,2]", "+optimizer.mom=0.9", "optimizer={lr:5}",
    "db.port=9", "backup.port=8", "run.schedule.kind=z", "extra.value=3", "+list=[1,{a:'${seed}'}]",
    "~text", "~text=hello", "~deep.a", "~nothing", "~nope", "~net.table", "~optimizer.lr",
]  # fmt: skip
CHOICES = [
    "optimizer=sgd", "optimizer=adam", "optimizer=group", "optimizer=lion", "db=sqlite", "db@backup=mysql",
    "+db@third=sqlite", "+db@net.inner=mysql", "extra=one", "extra=two", "+extra@more=two", "~db", "~db@backup",
    "~optimizer=adam", "schedule@run.schedule=sqlite", "+optimizer=[adam,sgd]", "db=null", "++db=sqlite",
    "hydra.job.name=x", "hydra/job_logging=none", "hydra.sweep.subdir=y", "extra@x=one", "db={port:5}",
]  # fmt: skip


@pytest.fixture
def app(tmp_path):
    conf = tmp_path / "conf"
    for name, text in FILES.items():
        path = conf / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return App(tmp_path)


class App:
    def __init__(self, root):
        ConfigStore.instance().store(name="base_net", node={"net": Net})
        hydra = Hydra.create_main_hydra_file_or_module(
            calling_file=str(root / "app.py"),
            calling_module=None,
            config_path="conf",
            job_name="app",
        )
        JobRuntime.instance().set("name", "app")
        self.loader = hydra.config_loader
        self.hydra = hydra

    def master(self, *overrides):
        config = self.hydra.compose_config(
            "config", [*overrides], RunMode.MULTIRUN, with_log_configuration=False
        )
        GlobalHydra.instance().clear()
        return config


def outcome(compose, overrides):
    try:
        return compose(list(overrides))
    except Exception as error:
        return type(error), str(error), str(error.__cause__)


def assert_same(fast, plain):
    if isinstance(plain, tuple):
        assert fast == plain
    else:
        assert not isinstance(fast, tuple), fast
        assert same_config(fast, plain)
        assert OmegaConf.to_yaml(fast) == OmegaConf.to_yaml(plain)


JOBS = st.lists(
    st.tuples(
        st.lists(st.sampled_from(CHOICES), max_size=2, unique=True),
        st.lists(st.sampled_from(VALUES), max_size=4, unique=True),
        st.booleans(),
    ).map(lambda parts: parts[0] + parts[1] if parts[2] else parts[1] + parts[0]),
    min_size=1,
    max_size=5,
)


@settings(
    max_examples=60 if LONG else 5,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(jobs=JOBS, repeated=st.lists(st.sampled_from(VALUES), min_size=3, max_size=10))
def test_jobs_are_what_hydra_composes(app, jobs, repeated):
    master = app.master("hydra/sweeper=junky")
    composer = JobComposer(app.loader, master)
    # Jobs that make the same choices are the ones that templates are for.
    for overrides in jobs + [[job] for job in repeated] + [[*jobs[0], job] for job in repeated]:
        plain = outcome(lambda o: app.loader.load_sweep_config(master, o), overrides)
        assert_same(outcome(composer.compose, overrides), plain)


CHOSEN = [["optimizer=sgd", "db@backup=mysql"], []]


@pytest.mark.parametrize("choice", CHOSEN if LONG else CHOSEN[:1])
def test_each_value_set_in_a_template_equals_hydras(app, monkeypatch, choice):
    master = app.master()
    composer = JobComposer(app.loader, master)
    for warm in ("seed=1", "seed=2"):
        composer.compose([*choice, warm])
    plain = [
        outcome(lambda o: app.loader.load_sweep_config(master, o), [*choice, value])
        for value in VALUES
    ]
    counting = Counting(app.loader, monkeypatch)
    quick = []
    for value, expected in zip(VALUES, plain, strict=True):
        before = counting.count
        assert_same(outcome(composer.compose, [*choice, value]), expected)
        if counting.count == before:
            quick.append(value)
    # Ordinary overrides of sweeps do not fall back on Hydra.
    assert {"seed=1", "text='${ref}'", "ref=1", "net.rate=1e-5", "net.height=HIGH", "+fresh=1"} <= {
        *quick
    }
    assert {"net.sizes=[4]", "deep.a.b.c=2", "++deep.a.new=1", "optimizer.lr=0.3", "gap=1"} <= {
        *quick
    }
    assert not {"link.width=11", "~text", "nope=1", "deep={i:3}"} & {*quick}


class Counting:
    """A config loader's ``load_sweep_config``, counted."""

    def __init__(self, loader, monkeypatch):
        self.count = 0
        plain = loader.load_sweep_config

        def load(*args, **kwargs):
            self.count += 1
            return plain(*args, **kwargs)

        monkeypatch.setattr(loader, "load_sweep_config", load)


def test_hydra_composes_twice_for_any_number_of_jobs(app, monkeypatch):
    composer = JobComposer(app.loader, app.master())
    counting = Counting(app.loader, monkeypatch)
    for num in range(50):
        config = composer.compose(["optimizer=sgd", f"seed={num}", f"+tag=t{num}"])
        assert (config.seed, config.tag, config.optimizer.name) == (num, f"t{num}", "sgd")
    assert counting.count == 2


def test_jobs_share_nothing(app):
    composer = JobComposer(app.loader, app.master())
    jobs = [composer.compose([f"seed={num}"]) for num in range(4)]
    for job in jobs[:-1]:
        with read_write(job), open_dict(job):
            job.deep.l.append(3)
            job.hydra.job.name = "changed"
            del job["text"]
    assert jobs[-1].deep.l == [1, {"x": 2}]
    assert jobs[-1].hydra.job.name == "app"
    assert composer.compose(["seed=9"]).text == "hello"


def test_resolved_values_of_the_sweep_are_kept(app):
    calls = []
    register = OmegaConf.register_resolver  # in OmegaConf 2.3 it is something else
    if "use_cache" not in inspect.signature(register).parameters:
        register = OmegaConf.register_new_resolver
    register("counted", lambda: calls.append(1) or len(calls), use_cache=True, replace=True)
    master = app.master("hydra.job.name='${counted:}'")
    assert master.hydra.job.name == "1"
    composer = JobComposer(app.loader, master)
    assert [composer.compose([f"seed={num}"]).hydra.job.name for num in range(4)] == ["1"] * 4


def test_the_current_working_folder_is_recorded(app, tmp_path, monkeypatch):
    composer = JobComposer(app.loader, app.master())
    for num in range(3):
        composer.compose([f"seed={num}"])
    monkeypatch.chdir(tmp_path)
    assert composer.compose(["seed=4"]).hydra.runtime.cwd == os.getcwd()


def test_env_copy_is_read_for_each_job(app, monkeypatch):
    monkeypatch.setenv("JUNKY_TEST", "at first")
    composer = JobComposer(app.loader, app.master("hydra.job.env_copy=[JUNKY_TEST]"))
    for num in range(4):
        monkeypatch.setenv("JUNKY_TEST", str(num))
        assert composer.compose([f"seed={num}"]).hydra.job.env_set.JUNKY_TEST == str(num)


class Surprising:
    """A config loader that changes values, unlike Hydra's."""

    def __init__(self, loader):
        self.loader = loader

    def __getattr__(self, name):
        return getattr(self.loader, name)

    def load_sweep_config(self, master, overrides):
        config = self.loader.load_sweep_config(master, overrides)
        if overrides:
            with open_dict(config):
                config.surprise = len(overrides)
        return config


def test_a_template_that_differs_is_not_used(app):
    composer = JobComposer(Surprising(app.loader), app.master())
    for num in range(5):
        assert composer.compose([f"seed={num}"]).surprise == 1


def test_a_group_is_what_hydra_considers_one(app, tmp_path):
    (tmp_path / "conf" / "empty").mkdir()
    (tmp_path / "conf" / "only" / "below").mkdir(parents=True)
    (tmp_path / "conf" / "only" / "below" / "x.yaml").write_text("a: 1")
    composer = JobComposer(app.loader, app.master())
    names = (
        "db",
        "empty",
        "only",
        "only/below",
        "hydra",
        "hydra/launcher",
        "seed",
        "net",
        "db/mysql",
    )
    groups = [name for name in names if app.loader.repository.group_exists(name)]
    assert [name for name in names if composer.is_group(name)] == groups
    assert groups == ["db", "empty", "only", "only/below", "hydra", "hydra/launcher"]


def test_many_threads_may_compose(app):
    composer = JobComposer(app.loader, app.master())
    together = threading.Barrier(8)
    found = {}

    def work(num):
        together.wait()
        found[num] = [composer.compose([f"seed={num * 10 + i}"]).seed for i in range(5)]

    threads = [threading.Thread(target=work, args=(num,)) for num in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {num: [num * 10 + i for i in range(5)] for num in range(8)}
