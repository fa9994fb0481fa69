"""The fast path of a job leaves the same results as Hydra and OmegaConf."""

import copy
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Dict, List, Optional, Union

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra.conf import HydraConf
from hydra.core import utils as hydra_utils
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from launching import multirun
from omegaconf import AnyNode, DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from hydra_plugins.hydra_junky_launcher._isolation import scratch_job
from hydra_plugins.hydra_junky_launcher._quick import (
    copy_config,
    patches,
    same_config,
    yaml_text,
)

Plugins.instance()


class Height(Enum):
    LOW = 1


# --- Copies --------------------------------------------------------------------------------------


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


class OwnNode(AnyNode):
    """A node of a type that OmegaConf does not have."""

    def __deepcopy__(self, memo):
        return OwnNode(self._value())


def a_config():
    content = {
        "a": 1,
        "b": {"c": [1, "x y", "${a}"], "e": {}, "l": []},
        "d": "???",
        "none": None,
        "text": "${a} and ${b}",
        "link": "${b}",
        "net": Net,
        "hydra": HydraConf,
    }
    config = OmegaConf.create(content, flags={"struct": True})
    OmegaConf.set_readonly(config.b, True)
    OmegaConf.set_cache(config, {"now": {"%Y": "2020"}})
    return config


@pytest.fixture
def config():
    config = a_config()
    yield config
    assert same_config(config, a_config())  # never changed


def test_a_copy_is_what_deepcopy_makes(config):
    assert same_config(copy_config(config), copy.deepcopy(config))
    assert same_config(copy_config(config), config)


def test_a_copy_shares_nothing(config):
    other = copy_config(config)
    with read_write(other), open_dict(other), read_write(other.b):
        other.b.c.append(1)
        other.hydra.job.num = 7
        other.net.sizes[0] = 9
        other.net.either = "s"
        other.net.table.a.b[0] = 2
        del other["a"]
    OmegaConf.set_readonly(other.net, True)
    OmegaConf.set_struct(other, False)
    OmegaConf.clear_cache(other)


def test_each_node_of_a_copy_has_its_own_flags_and_place(config):
    other = copy_config(config)
    pairs = [(config, other)]
    while pairs:
        one, two = pairs.pop()
        assert one is not two
        assert one._metadata is not two._metadata
        assert one._metadata.flags is not two._metadata.flags
        assert two._get_full_key(None) == one._get_full_key(None)
        assert two._get_root() is other
        content = one._value()
        if isinstance(content, dict):
            pairs += [(one._get_node(key), two._get_node(key)) for key in content]
        elif isinstance(content, list):
            pairs += [(one._get_node(at), two._get_node(at)) for at in range(len(content))]


def test_a_copy_resolves_within_itself(config):
    other = copy_config(config)
    other.a = 99
    assert (other.b.c[2], config.b.c[2]) == (99, 1)


def test_a_copy_of_a_part_keeps_its_parent(config):
    assert copy_config(config.b).c[2] == copy.deepcopy(config.b).c[2] == 1


def test_a_copy_may_share_one_value(config):
    other = copy_config(config, shared=config.hydra)
    assert other.hydra is config.hydra
    assert same_config(other, config)
    with open_dict(other):
        del other["hydra"]
    expected = copy.deepcopy(config)
    with open_dict(expected):
        del expected["hydra"]
    assert same_config(other, expected)


def test_nodes_of_other_types_are_left_to_deepcopy():
    config = DictConfig({})
    config._set_item_impl("x", OwnNode(3))
    assert type(copy_config(config)._get_node("x")) is OwnNode


def test_objects_are_shared_as_omegaconf_shares_them():
    odd = OmegaConf.create({"x": object()}, flags={"allow_objects": True})
    assert copy_config(odd).x is copy.deepcopy(odd).x is odd.x


def test_same_config_sees_types_flags_and_order():
    config = OmegaConf.create({"a": 1, "b": {"c": [1.0]}, "n": float("nan")})
    assert same_config(config, copy.deepcopy(config))
    assert not same_config(config, OmegaConf.create({"b": {"c": [1.0]}, "a": 1, "n": float("nan")}))
    other = copy.deepcopy(config)
    OmegaConf.set_struct(other, True)
    assert not same_config(config, other)
    other = copy.deepcopy(config)
    other.b.c[0] = True
    assert not same_config(config, other)


# --- What run_job calls --------------------------------------------------------------------------


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
        config.hydra.job.num, config.hydra.job.id = 0, "0"
    yield config
    GlobalHydra.instance().clear()


def found():
    return [(holder, name, getattr(holder, name)) for holder, name, _ in patches()]


def test_patches_stay_in_place_until_the_last_block_ends():
    before = found()
    assert {name for _, name, _ in before} == {"copy", "_save_config", "set_config", "parse"}
    with scratch_job(), scratch_job():
        assert all(getattr(holder, name) is not value for holder, name, value in before)
    assert found() == before


@pytest.mark.parametrize("output_dir", ["???", "/there"])
def test_set_config_leaves_what_hydras_leaves(job, output_dir):
    with read_write(job.hydra), open_dict(job.hydra):
        job.hydra.runtime.output_dir = output_dir
    other = copy.deepcopy(job)
    HydraConfig.instance().set_config(job)
    plain = HydraConfig.instance().cfg
    with scratch_job():
        HydraConfig.instance().set_config(other)
        quick = HydraConfig.instance().cfg
    assert same_config(quick, plain)
    assert same_config(other, job)
    assert quick.hydra._get_parent() is other


def test_the_config_that_a_job_sees_is_a_copy(job):
    job.hydra.runtime.output_dir = "/there"
    with scratch_job():
        HydraConfig.instance().set_config(job)
        with read_write(job.hydra):
            job.hydra.runtime.output_dir = "/elsewhere"
        assert HydraConfig.get().runtime.output_dir == "/there"


def test_the_copy_of_a_whole_config_is_without_hydra_what_deepcopy_makes(job):
    before = copy.deepcopy(job)
    expected = copy.deepcopy(job)
    with scratch_job():
        quick = hydra_utils.copy.deepcopy(job)
    assert same_config(quick, before)
    for config in (quick, expected):
        with read_write(config), open_dict(config):
            del config["hydra"]
    assert same_config(quick, expected)
    assert same_config(job, before)


def test_the_copy_of_the_hydra_part_is_its_own(job):
    HydraConfig.instance().set_config(job)
    part = HydraConfig.instance().cfg
    with scratch_job():
        quick = hydra_utils.copy.deepcopy(part)
    assert same_config(quick, part)
    assert quick.hydra is not part.hydra


def test_other_objects_are_copied_by_deepcopy():
    value = [[1], {"a": object}]
    with scratch_job():
        other = hydra_utils.copy.deepcopy(value)
        assert hydra_utils.copy.copy is copy.copy
    assert other == value
    assert other[0] is not value[0]


def test_interpolations_are_resolved_each_time():
    with scratch_job():
        config = OmegaConf.create({"a": 1, "b": "${a} and ${c.d}", "c": {"d": "${..a}"}})
        assert config.b == "1 and 1"
        config.a = 2
        assert config.b == "2 and 2"
        other = OmegaConf.create({"a": 3, "b": "${a} and ${c.d}", "c": {"d": 4}})
        assert other.b == "3 and 4"


def test_files_are_hydras(job, tmp_path):
    folders = tmp_path / "plain" / "new", tmp_path / "quick" / "new"
    parts = {"config.yaml": job, "overrides.yaml": job.hydra.overrides.task}
    for name, part in parts.items():
        hydra_utils._save_config(part, name, folders[0])
        with scratch_job():
            hydra_utils._save_config(part, name, folders[1])
        assert (folders[1] / name).read_bytes() == (folders[0] / name).read_bytes()


def test_an_error_other_than_of_the_disk_fails_the_job(tmp_path):
    (tmp_path / "file").write_text("")
    with scratch_job(), pytest.raises(NotADirectoryError):
        hydra_utils._save_config(OmegaConf.create({}), "config.yaml", tmp_path / "file" / "x")


# --- YAML ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, True, "1", 1.0, None, "null", [1], {"1": 1}, {1: "on"}, "on"])
def test_values_that_look_alike_are_written_apart(value):
    config = OmegaConf.create({"hydra": {"a": {"x": value}, "b": value}})
    assert yaml_text(config) == OmegaConf.to_yaml(config)


@pytest.mark.parametrize("value", [Height.LOW, Path("/a"), b"raw", {Height.LOW: 1}, {b"k": 1}])
def test_values_that_yaml_has_no_form_for_are_omegaconfs_business(value):
    config = OmegaConf.create({"a": value})
    assert yaml_text(config) == OmegaConf.to_yaml(config)


# fmt: off
WORDS = st.sampled_from([
    "a", "true", "Yes", "yEs", "y", "1e3", "1_0", "0x1", "null", "~", "", " ", "  ", "x y", "é", "文字 ", "😀",
    "\n", "\n\n", "\t", "'", '"', ": ", " #", "- ", "\\", "word " * 20, "x" * 90, "x" * 130, "\x85", "\u2028",
    "\ufeff", "\u200b", "\xad", "\xa0", "%", "@", "`", "{", "[", "!", "&", "*", "|", ">", "?", "=", "<<",
])
# fmt: on
TEXTS = (
    st.lists(WORDS, max_size=6).map("".join)
    | st.text(max_size=20)
    | st.text(st.characters(min_codepoint=32, max_codepoint=126) | st.just("\n"), max_size=250)
)
DATA = st.recursive(
    TEXTS | st.none() | st.booleans() | st.integers() | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=800, deadline=None)
@given(st.dictionaries(TEXTS, DATA, max_size=3), st.integers(0, 12))
def test_yaml_is_omegaconfs_byte_for_byte(data, depth):
    for _ in range(depth):
        data = {"deeper": data}
    try:
        config = OmegaConf.create(data)
        plain = OmegaConf.to_yaml(config)
    except (OmegaConfBaseException, ValueError, UnicodeError):  # a broken interpolation
        assume(False)
    assert yaml_text(config) == plain


# Slow functions, and which of their calls are slow.
SLOW_WAYS = [
    (ConfigLoaderImpl, "load_sweep_config", lambda *_, **__: True),
    (OmegaConf, "to_yaml", lambda *_, **__: True),
    (OmegaConf, "masked_copy", lambda *_, **__: True),
    (copy, "deepcopy", lambda value, *_, **__: OmegaConf.is_config(value)),
]


def test_each_job_uses_the_fast_path(tmp_path, monkeypatch):
    """If every job fell back to the slow functions, only the time would show it."""
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
