"""Quick copies and quick YAML are what Hydra and OmegaConf make."""

import copy
import logging.config
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Dict, List, Optional, Union

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra.core import utils as hydra_utils
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from launching import multirun
from omegaconf import OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from hydra_plugins.hydra_junky_launcher import _quick, _returns
from hydra_plugins.hydra_junky_launcher._compose import same_config
from hydra_plugins.hydra_junky_launcher._copies import append_texts, copy_config, copy_hydra_only
from hydra_plugins.hydra_junky_launcher._quick import quick_run_job
from hydra_plugins.hydra_junky_launcher._yaml_text import yaml_text

Plugins.instance()


class Height(Enum):
    LOW = 1


@dataclass
class Net:
    width: int = 8
    height: Height = Height.LOW
    maybe: Optional[int] = None
    either: Union[int, str] = 3
    path: Path = Path("/tmp")
    raw: bytes = b"x"
    sizes: List[int] = field(default_factory=lambda: [1, 2])
    nothing: Optional[List[int]] = None
    table: Dict[str, Any] = field(default_factory=lambda: {"a": {"b": [1]}})


@pytest.fixture
def job(tmp_path, hydra_restore_singletons):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("a: 1\nb: {c: [1, 'x y', '${a}']}\nd: ???\n")
    hydra = Hydra.create_main_hydra_file_or_module(
        calling_file=str(tmp_path / "app.py"),
        calling_module=None,
        config_path="conf",
        job_name="app",
    )
    master = hydra.compose_config("config", [], RunMode.MULTIRUN, with_log_configuration=False)
    config = hydra.config_loader.load_sweep_config(master, ["a=3", "+t='x, y'"])
    with open_dict(config):
        config.net = Net
        config.hydra.job.num, config.hydra.job.id = 0, "0"
    yield config
    GlobalHydra.instance().clear()


def test_a_copy_is_what_deepcopy_makes(job):
    assert same_config(copy_config(job), copy.deepcopy(job))
    assert same_config(copy_config(job), job)


def test_a_copy_shares_nothing(job):
    before = OmegaConf.to_yaml(job)
    other = copy_config(job)
    with read_write(other), open_dict(other):
        other.b.c.append(1)
        other.hydra.job.num = 7
        other.net.sizes[0] = 9
        other.net.either = "s"
        del other["a"]
    OmegaConf.set_readonly(other.b, True)
    OmegaConf.set_struct(other, False)
    assert OmegaConf.to_yaml(job) == before
    assert not OmegaConf.is_readonly(job.b)
    assert OmegaConf.is_struct(job)


def test_a_copy_resolves_within_itself(job):
    other = copy_config(job)
    other.a = 99
    assert other.b.c[2] == 99
    assert job.b.c[2] == 3


def test_a_copy_of_a_part_keeps_its_parent(job):
    assert copy_config(job.b).c[2] == copy.deepcopy(job.b).c[2] == 3


def test_cached_values_are_copied_too(job):
    _ = job.hydra.sweep.dir
    other = copy_config(job)
    assert OmegaConf.get_cache(other) == OmegaConf.get_cache(job)
    OmegaConf.clear_cache(other)
    assert OmegaConf.get_cache(job)


def test_other_objects_are_left_to_deepcopy():
    assert copy_config({"a": [1]}) == {"a": [1]}
    odd = OmegaConf.create({"x": object()}, flags={"allow_objects": True})
    assert copy_config(odd).x is odd.x


def test_texts_are_appended_as_by_append(job):
    lines = ["a=1", "b=${c}", "???", "", "x='y z'", "null"]
    with read_write(job), open_dict(job):
        job.plain = []
        for texts in (job.hydra.overrides.task, job.plain):
            texts[:] = ["sample"]
            sample = texts._get_node(0)
            del texts[:]
            expected = copy.deepcopy(texts)
            for line in lines:
                expected.append(line)
            append_texts(texts, sample, lines)
            assert same_config(texts, expected)
            assert texts._get_node(1)._get_full_key(None) == expected._get_node(1)._get_full_key(
                None
            )


def test_the_hydra_part_is_what_masked_copy_makes(job):
    assert same_config(copy_hydra_only(job), OmegaConf.masked_copy(job, "hydra"))


def test_set_config_leaves_what_hydras_leaves(job):
    other = copy.deepcopy(job)
    HydraConfig.instance().set_config(job)
    plain = HydraConfig.instance().cfg
    with quick_run_job():
        HydraConfig.instance().set_config(other)
    quick = HydraConfig.instance().cfg
    assert same_config(quick, plain)
    assert same_config(other, job)
    assert quick.hydra._get_parent() is other
    assert same_config(copy_config(quick), copy.deepcopy(plain))


def test_patches_go_away():
    before = (hydra_utils.copy, hydra_utils._save_config, HydraConfig.set_config)
    with quick_run_job(), quick_run_job():
        assert hydra_utils.copy is not copy
    assert (hydra_utils.copy, hydra_utils._save_config, HydraConfig.set_config) == before


def test_yaml_of_a_job_is_omegaconfs(job, tmp_path):
    for _ in range(3):  # the first time both ways are tried
        assert yaml_text(job) == OmegaConf.to_yaml(job)
        assert yaml_text(job.hydra.overrides.task) == OmegaConf.to_yaml(job.hydra.overrides.task)
    with quick_run_job():
        hydra_utils._save_config(job, "x.yaml", tmp_path / "new")
    assert (tmp_path / "new" / "x.yaml").read_bytes() == OmegaConf.to_yaml(job).encode()


def test_sections_that_differ_in_type_only_are_not_taken_for_each_other():
    for value in (1, True, "1", 1.0, None, "null", [1], {"1": 1}):
        config = OmegaConf.create({"hydra": {"a": {"x": value}, "b": value}})
        assert yaml_text(config) == OmegaConf.to_yaml(config)


def test_interpolations_resolve_anew_each_time():
    with quick_run_job():
        config = OmegaConf.create({"a": 1, "b": "${a} and ${c.d}", "c": {"d": "${..a}"}})
        assert config.b == "1 and 1"
        config.a = 2
        assert config.b == "2 and 2"
        other = OmegaConf.create({"a": 3, "b": "${a} and ${c.d}", "c": {"d": 4}})
        assert other.b == "3 and 4"


WORDS = st.sampled_from(
    [
        "a",
        "true",
        "1e3",
        "null",
        "~",
        "",
        " ",
        "x y",
        "é",
        "😀",
        "\n",
        "\t",
        "'",
        '"',
        ": ",
        " #",
        "- ",
        "\\",
        "word " * 20,
        "x" * 90,
        "x" * 130,
        "\x85",
        "\u2028",
        "\ufeff",
        "%",
        "@",
        "`",
        "{",
        "[",
        "!",
        "&",
        "*",
        "|",
        ">",
        "?",
    ]
)
TEXTS = st.lists(WORDS, max_size=4).map("".join) | st.text(max_size=20)
DATA = st.recursive(
    TEXTS | st.none() | st.booleans() | st.integers() | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)


PRINTABLE = st.characters(min_codepoint=32, max_codepoint=126)
TAME = st.text(PRINTABLE, max_size=30) | st.text(PRINTABLE, max_size=100).map(
    lambda text: text.replace(" ", "_")
)
TAME_DATA = st.recursive(
    TAME | st.none() | st.booleans() | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TAME, inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(TAME, TAME_DATA, max_size=4), st.integers(0, 12))
def test_plain_text_may_stand_anywhere(data, depth):
    for _ in range(depth):
        data = {"deeper": data}
    try:
        config = OmegaConf.create(data)
    except (OmegaConfBaseException, ValueError):  # a broken interpolation
        assume(False)
    assert (
        yaml_text(OmegaConf.create({"a": 1})) == "a: 1\n"
    )  # from now on libyaml writes what holds only tame text
    assert yaml_text(config) == OmegaConf.to_yaml(config)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(TEXTS, DATA, max_size=3), st.booleans())
def test_yaml_is_omegaconfs_byte_for_byte(data, below_hydra):
    data = {"hydra": data} if below_hydra else data
    try:
        config = OmegaConf.create(data)
        plain = OmegaConf.to_yaml(config)
    except (OmegaConfBaseException, ValueError, UnicodeError):
        assume(False)
    assert yaml_text(config) == plain
    assert yaml_text(config) == plain


def test_the_first_config_of_a_job_is_made_for_who_reads_it(job, monkeypatch):
    def a_body():
        HydraConfig.instance().set_config(job)
        first = vars(HydraConfig.instance())["cfg"]
        read = HydraConfig.instance().cfg
        assert HydraConfig.instance().cfg is read
        with read_write(job.hydra.runtime):
            job.hydra.runtime.output_dir = "/there"
        HydraConfig.instance().set_config(job)
        return first, read, vars(HydraConfig.instance())["cfg"]

    monkeypatch.setattr(_quick, "_body_of_run_job", lambda: a_body.__code__)
    with quick_run_job():
        first, read, last = a_body()
    assert not OmegaConf.is_config(first)
    assert OmegaConf.is_missing(read.hydra.runtime, "output_dir")
    assert read.hydra._get_parent() is job
    assert last.hydra.runtime.output_dir == "/there"
    assert "cfg" not in vars(HydraConfig)


def test_this_run_job_is_known():
    assert _quick._body_of_run_job() is not None


@pytest.mark.parametrize(
    "key",
    ["a", "b.c", "b", "b.no", "a.no", "d", "late", "text", "net.height", "net.either", "one.more"],
)
def test_a_value_is_selected_as_omegaconf_selects_it(job, key):
    with open_dict(job):
        job.late, job.text, job.one = "${a}", "x${a}", "${b}"
    assert _returns._select(job, key) == OmegaConf.select(job, key)
    assert type(_returns._select(job, key)) is type(OmegaConf.select(job, key))


# What is slow, and which calls of it are.
SLOW_WAYS = [
    (ConfigLoaderImpl, "load_sweep_config", lambda *_, **__: True),
    (OmegaConf, "to_yaml", lambda *_, **__: True),
    (OmegaConf, "masked_copy", lambda *_, **__: True),
    (OmegaConf, "to_container", lambda *_, resolve=False, **__: resolve),
    (logging.config, "dictConfig", lambda *_, **__: True),
    (copy, "deepcopy", lambda value, *_, **__: OmegaConf.is_config(value)),
]


def test_each_job_goes_the_quick_way(tmp_path, monkeypatch):
    """A way back to the plain thing that every job takes would show in nothing but the time."""
    taken = Counter()

    def counted(name, plain, is_slow):
        def call(*args, **kwargs):
            taken[name] += bool(is_slow(*args, **kwargs))
            return plain(*args, **kwargs)

        return call

    for holder, name, is_slow in SLOW_WAYS:
        monkeypatch.setattr(holder, name, counted(name, getattr(holder, name), is_slow))

    def ways_of(jobs):
        taken.clear()
        folder = tmp_path / str(jobs)
        config = {"num": 0, "net": {"width": 3, "sizes": [1, 2]}}
        multirun(
            lambda cfg: cfg.num,
            ["hydra/sweeper=junky", f"num=range({jobs})", "net.width=3,4"],
            config,
            folder,
            logs=True,
        )
        assert (folder / "sweep" / "3" / "app.log").exists()
        return Counter(taken)

    assert ways_of(4) == ways_of(12)
