"""What Hydra does for each job, with the same outcome in a fraction of the time.

Most of the time that a short job takes under Hydra goes into copying configs
with ``copy.deepcopy`` and into writing them down with PyYAML's own emitter:

| Done by ``run_job``            | Hydra, ms | here, ms | how |
| ------------------------------ | --------- | -------- | --- |
| deep copy of a job's config    | 2.4       | 0.07     | :func:`copy_config` |
| ``HydraConfig.set_config``     | 2.1       | 0.07     | the same copier |
| ``hydra.yaml``                 | 2.9       | 0.3      | :func:`yaml_text`, libyaml |
| resolving ``${...}``           | 0.5 each  | 0.05     | parse trees are kept |

:func:`quick_run_job` puts these in the place of what ``run_job`` calls, for as
long as a launch lasts. Each has a way back to the plain thing where the outcome
could differ: an unknown kind of node, text that the two emitters might fold or
escape in different ways, a Hydra that no longer has the name.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import re
import threading
from collections import OrderedDict, defaultdict
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import yaml
from hydra.conf import HydraConf
from hydra.core import utils as hydra_utils
from hydra.core.hydra_config import HydraConfig
from omegaconf import (
    AnyNode,
    BooleanNode,
    BytesNode,
    DictConfig,
    EnumNode,
    FloatNode,
    IntegerNode,
    ListConfig,
    Node,
    OmegaConf,
    PathNode,
    StringNode,
    UnionNode,
)
from omegaconf import base as omegaconf_base
from omegaconf._utils import get_omega_conf_dumper

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator
    from pathlib import Path

__all__ = ["copy_config", "quick_run_job", "yaml_text"]

_VALUES = frozenset(
    {AnyNode, BooleanNode, BytesNode, EnumNode, FloatNode, IntegerNode, PathNode, StringNode}
)


class _UnknownNodeError(TypeError):
    """A node of a kind that the copier does not know."""


def copy_config(config: Any) -> Any:
    """Return what ``copy.deepcopy`` returns for a config, or for a part of one.

    The values themselves are shared, as OmegaConf's own copies share them. A
    copy of a part keeps the part's parent, for interpolations.
    """
    if isinstance(config, Node):
        with contextlib.suppress(_UnknownNodeError):
            return _copy_node(config, config._parent)  # noqa: SLF001
    return copy.deepcopy(config)


def _copy_node(node: Any, parent: Any) -> Any:
    kind = type(node)
    state = node.__dict__.copy()
    metadata = state["_metadata"]
    facts = metadata.__dict__.copy()
    if facts["flags"] is not None:
        facts["flags"] = facts["flags"].copy()
    new = object.__new__(kind)
    state["_parent"] = parent
    state["_flags_cache"] = None
    if kind not in _VALUES:
        content = state.get("_content", _UnknownNodeError)
        if "resolver_cache" in facts:
            cache = facts["resolver_cache"]
            facts["resolver_cache"] = copy.deepcopy(cache) if cache else defaultdict(dict)
        if kind is DictConfig and type(content) is dict:
            state["_content"] = {key: _copy_node(child, new) for key, child in content.items()}
        elif kind is ListConfig and type(content) is list:
            state["_content"] = [_copy_node(child, new) for child in content]
        elif kind is UnionNode and isinstance(content, Node):
            state["_content"] = _copy_node(content, new)
        elif kind not in (DictConfig, ListConfig, UnionNode) or not isinstance(
            content, (str, type(None))
        ):
            raise _UnknownNodeError(kind)
    copied = object.__new__(type(metadata))
    copied.__dict__.update(facts)
    state["_metadata"] = copied
    new.__dict__.update(state)  # at once: a node without all of it cannot even be shown
    return new


def _hydra_only(config: DictConfig) -> DictConfig:
    """Return what ``OmegaConf.masked_copy(config, "hydra")`` returns."""
    new = DictConfig({})  # as masked_copy has it: no flags, no type
    hydra = _copy_node(config._get_node("hydra"), new)  # noqa: SLF001
    new.__dict__["_content"]["hydra"] = hydra
    return new


def _set_config(self: HydraConfig, cfg: DictConfig) -> None:
    """Do as ``HydraConfig.set_config`` does."""
    OmegaConf.set_readonly(cfg.hydra, True)
    hydra_type = OmegaConf.get_type(cfg, "hydra")
    assert hydra_type is not None
    assert issubclass(hydra_type, HydraConf)
    try:
        masked = _hydra_only(cfg)
    except _UnknownNodeError:
        masked = OmegaConf.masked_copy(cfg, "hydra")
    self.cfg = masked  # type: ignore[assignment]  # Hydra declares it otherwise; one assignment: what ``cfg`` is may be a matter of the thread
    masked.hydra._set_parent(cfg)  # noqa: SLF001


class _QuickDumper(getattr(yaml, "CDumper", yaml.Dumper)):  # type: ignore[misc]
    """OmegaConf's way to write values, with libyaml's emitter where there is one."""


@functools.lru_cache(maxsize=1)
def _dumpers() -> tuple[type[yaml.Dumper], type[yaml.Dumper]]:
    plain = get_omega_conf_dumper()
    _QuickDumper.yaml_representers = plain.yaml_representers
    _QuickDumper.yaml_multi_representers = plain.yaml_multi_representers
    _QuickDumper.yaml_implicit_resolvers = plain.yaml_implicit_resolvers
    return plain, _QuickDumper


# Text that both emitters write in the same way: nothing to escape, and nowhere to break a line,
# which they may do differently: no blank, or none that could come near column 80.
_TAME = re.compile(r"[!-~]{1,100}")
_TAME_WITH_BLANKS = re.compile(r"[!-~ ]{1,30}")
_TAME_KEY_LENGTH = 24
_TAME_DEPTH = 8
_WILD_KEPT = 512
_wild_lock = threading.Lock()  # guards _wild_known
_wild_known: OrderedDict[Hashable, bool] = OrderedDict()


def yaml_text(config: Any) -> str:
    """Return what ``OmegaConf.to_yaml(config)`` returns.

    Of ``hydra.yaml``, most is the same for all jobs: each section below
    ``hydra`` is written once and remembered.
    """
    data = OmegaConf.to_container(config, resolve=False, enum_to_str=True)
    hydra = data.get("hydra") if isinstance(data, dict) and len(data) == 1 else None
    if not isinstance(hydra, dict) or not hydra:
        return _text_of(data)
    # In block style a mapping's text is that of its items, one after the other.
    head = "hydra:\n"
    sections = [_section_text(name, _Shown(section)) for name, section in hydra.items()]
    return head + "".join(text[len(head) :] for text in sections)


class _Shown:
    """Plain data that is known again by what it looks like: ``1``, ``True`` and ``'1'`` differ."""

    __slots__ = ("data", "text")

    def __init__(self, data: Any) -> None:
        self.data = data
        self.text = repr(data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Shown) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


@functools.lru_cache(maxsize=256)
def _section_text(name: Any, section: _Shown) -> str:
    return _text_of({"hydra": {name: section.data}})


def _text_of(data: Any) -> str:
    """Return the YAML of plain data.

    A set of texts that are not tame is written both ways the first time it
    comes up, and from then on by libyaml if that gave the same.
    """
    wild: list[Hashable] = []
    _find_wild(data, 0, wild)
    known = tuple(wild)
    with _wild_lock:
        same = _wild_known.get(known)
    plain, quick = _dumpers()
    if same:
        return _dump(data, quick)
    text = _dump(data, plain)
    if same is None:
        with _wild_lock:
            _wild_known[known] = text == _dump(data, quick)
            if len(_wild_known) > _WILD_KEPT:
                _wild_known.popitem(last=False)
    return text


def _find_wild(data: Any, depth: int, found: list[Hashable], key: str = "") -> None:
    """List texts that are not tame, with all that decides where in a line they stand."""
    if isinstance(data, str):
        near = depth <= _TAME_DEPTH and len(key) <= _TAME_KEY_LENGTH
        if not (_TAME.fullmatch(data) or (near and _TAME_WITH_BLANKS.fullmatch(data))):
            found.append((depth, key, data))
    elif isinstance(data, dict):
        for name, value in data.items():
            if not isinstance(name, str):
                _find_wild(value, depth + 1, found, str(name))
                continue
            if not _TAME.fullmatch(name):
                found.append((depth, None, name))
            _find_wild(value, depth + 1, found, name)
    elif isinstance(data, (list, tuple)):
        for value in data:
            _find_wild(value, depth + 1, found, key)


def _dump(data: Any, dumper: type[yaml.Dumper]) -> str:
    text: str = yaml.dump(
        data, default_flow_style=False, allow_unicode=True, sort_keys=False, Dumper=dumper
    )
    return text


def _save_config(cfg: DictConfig, filename: str, output_dir: Path) -> None:
    """Do as Hydra's ``_save_config`` does."""
    output_dir.mkdir(parents=True, exist_ok=True)
    with (output_dir / filename).open("w", encoding="utf-8") as file:
        file.write(yaml_text(cfg))


_installs_lock = threading.Lock()  # guards _installs and the patches
_installs = 0
_plain: dict[str, Any] = {}


@contextlib.contextmanager
def quick_run_job() -> Iterator[None]:
    """Let ``run_job`` copy and write configs the quick way inside the ``with`` block.

    Process-wide while it lasts, which harms nobody: the outcome is the same.
    Several blocks may overlap.
    """
    global _installs
    with _installs_lock:
        if _installs == 0:
            _install()
        _installs += 1
    try:
        yield
    finally:
        with _installs_lock:
            _installs -= 1
            if _installs == 0:
                _remove()


def _install() -> None:
    if getattr(hydra_utils, "copy", None) is copy:
        _plain["copy"] = copy
        names = {**vars(copy), "deepcopy": _deepcopy}
        hydra_utils.copy = SimpleNamespace(**names)  # type: ignore[assignment, attr-defined]
    if hasattr(hydra_utils, "_save_config"):
        _plain["_save_config"] = hydra_utils._save_config  # noqa: SLF001
        hydra_utils._save_config = _save_config  # noqa: SLF001
    parse = getattr(omegaconf_base, "parse", None)
    if parse is not None:
        # ${...} is parsed each time that it is resolved; who resolves it only reads the tree.
        _plain["parse"] = parse
        omegaconf_base.parse = functools.lru_cache(maxsize=1024)(parse)  # type: ignore[attr-defined]
    _plain["set_config"] = HydraConfig.set_config
    HydraConfig.set_config = _set_config  # type: ignore[method-assign]


def _remove() -> None:
    HydraConfig.set_config = _plain.pop("set_config")  # type: ignore[method-assign]
    if "parse" in _plain:
        omegaconf_base.parse = _plain.pop("parse")  # type: ignore[attr-defined]
    for name in list(_plain):
        setattr(hydra_utils, name, _plain.pop(name))


def _deepcopy(value: Any, memo: Any = None) -> Any:
    return copy_config(value) if memo is None else copy.deepcopy(value, memo)
