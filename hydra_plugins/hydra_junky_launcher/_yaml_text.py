"""The YAML of a job's configs, byte for byte as ``OmegaConf.to_yaml`` writes it.

Three ways, the first that will do:

1. a section below ``hydra`` that is as it was in the template: its text is remembered;
2. :func:`_block` writes block style itself, straight from the nodes, if all that
   is in them is tame (nothing to escape, no line that might be broken); how a
   single text is quoted, it has OmegaConf's own dumper say, once;
3. OmegaConf's dumper, with libyaml's emitter where that is known to give the same.
"""

from __future__ import annotations

import functools
import re
import threading
import weakref
from collections import OrderedDict
from collections.abc import Hashable
from enum import Enum
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf._utils import get_omega_conf_dumper

from hydra_plugins.hydra_junky_launcher._copies import VALUES, pristine

__all__ = ["yaml_text"]


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
# Of these, what is most often new: whole numbers, and paths and overrides (nothing else looks so).
_NUMBER = re.compile(r"0|[1-9][0-9]{0,50}")
_PATH = re.compile(r"[A-Za-z/][A-Za-z0-9_./=,-]*[/=][A-Za-z0-9_./=,-]*")
_TAME_KEY_LENGTH = 24
_TAME_DEPTH = 8
_WILD_KEPT = 512
_wild_lock = threading.Lock()  # guards _wild_known
_wild_known: OrderedDict[Hashable, bool] = OrderedDict()


def yaml_text(config: Any) -> str:
    """Return what ``OmegaConf.to_yaml(config)`` returns."""
    content = config.__dict__["_content"]
    if type(config) is DictConfig and isinstance(content, dict) and list(content) == ["hydra"]:
        hydra = content["hydra"]
        sections = hydra.__dict__.get("_content")
        if type(hydra) is DictConfig and isinstance(sections, dict) and sections:
            # In block style a mapping's text is that of its items, one after the other.
            texts = [_section_text(name, section) for name, section in sections.items()]
            return "hydra:\n" + "".join(texts)
    try:
        return _root_text(config)
    except _WildError:
        return _text_of(_data(config))


def _data(config: Any) -> Any:
    return OmegaConf.to_container(config, resolve=False, enum_to_str=True)


# --- Sections of hydra.yaml ----------------------------------------------------------------------

# By id of a template's node: that node, while it lives, and its text.
_kept_texts: dict[int, tuple[weakref.ref[DictConfig], str]] = {}


def _section_text(name: Any, section: Any) -> str:
    source = pristine(section)
    if source is None:
        return _new_section_text(name, section)
    key = id(source)
    kept = _kept_texts.get(key)
    if kept is not None and kept[0]() is source:
        return kept[1]
    text = _new_section_text(name, source)
    gone = weakref.ref(source, lambda _ref: _kept_texts.pop(key, None))
    _kept_texts[key] = gone, text
    return text


def _new_section_text(name: Any, section: Any) -> str:
    try:
        return f"  {_key_text(name)}:{_value_text(section, '  ', name)}\n"
    except _WildError:
        plain = _data(section) if isinstance(section, (DictConfig, ListConfig)) else _raw(section)
        return _dumped_section(name, _Shown(plain))


def _raw(node: Any) -> Any:
    value = node._value()  # noqa: SLF001
    return value.name if isinstance(value, Enum) else value


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
def _dumped_section(name: Any, section: _Shown) -> str:
    return _text_of({"hydra": {name: section.data}})[len("hydra:\n") :]


# --- Tame configs --------------------------------------------------------------------------------


class _WildError(ValueError):
    """Something that :func:`_block` leaves to a real dumper."""


def _root_text(config: Any) -> str:
    text = _block(config, "", "")
    if text is None:
        raise _WildError
    return text + "\n"


def _block(node: Any, indent: str, key: str) -> str | None:
    """Return the lines of a collection, ``None`` if it has none: what is in it stands in a line.

    A list's lines stand no deeper than the key that it belongs to.
    """
    content = node.__dict__["_content"]
    kind = type(node)
    if kind is DictConfig and isinstance(content, dict):
        if not content:
            return "{}" if not indent and not key else None
        return "\n".join(
            [
                f"{indent}{_key_text(name)}:{_value_text(child, indent, name)}"
                for name, child in content.items()
            ]
        )
    if kind is ListConfig and isinstance(content, list):
        if not content:
            return "[]" if not indent and not key else None
        return "\n".join([f"{indent}- {_item_text(child, indent, key)}" for child in content])
    return None


def _value_text(node: Any, indent: str, key: str) -> str:
    """Return what follows a key's colon."""
    if type(node) in VALUES:
        return f" {_scalar_text(node._value(), indent, key)}"  # noqa: SLF001
    deeper = indent if type(node) is ListConfig else indent + "  "
    lines = _block(node, deeper, key)
    return f" {_inline_text(node, indent, key)}" if lines is None else f"\n{lines}"


def _item_text(node: Any, indent: str, key: str) -> str:
    """Return what follows a list item's dash; the first line of a collection does."""
    if type(node) in VALUES:
        return _scalar_text(node._value(), indent, key)  # noqa: SLF001
    deeper = indent + "  "
    lines = _block(node, deeper, key)
    return _inline_text(node, indent, key) if lines is None else lines[len(deeper) :]


def _inline_text(node: Any, indent: str, key: str) -> str:
    kind, content = type(node), node.__dict__["_content"]
    if kind not in (DictConfig, ListConfig):
        raise _WildError
    if content is None or isinstance(content, str):  # an interpolation, or ???
        return _scalar_text(content, indent, key)
    return "{}" if kind is DictConfig else "[]"


def _scalar_text(value: Any, indent: str, key: str) -> str:
    if isinstance(value, Enum):
        value = value.name
    kind = type(value)
    if kind is str:
        text, near_only = _quoted(value)
        if near_only and (len(indent) > 2 * _TAME_DEPTH or len(key) > _TAME_KEY_LENGTH):
            raise _WildError
        return text
    if kind is int:
        return str(value)
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is float:
        return _float_text(repr(value))  # 0.0 and -0.0 are equal
    raise _WildError


@functools.lru_cache(maxsize=4096)
def _quoted(text: str) -> tuple[str, bool]:
    """Return a text with the quotes that it needs, and whether it must stand near the margin."""
    tame = _TAME.fullmatch(text) is not None
    if text and not tame and not _TAME_WITH_BLANKS.fullmatch(text):
        raise _WildError
    if tame and _PATH.fullmatch(text):
        return text, False
    if _NUMBER.fullmatch(text):
        return f"'{text}'", False
    return _dumped_value(text), not tame


@functools.lru_cache(maxsize=1024)
def _float_text(shown: str) -> str:
    return _dumped_value(float(shown))


def _key_text(key: Any) -> str:
    if type(key) is not str or not key:
        raise _WildError
    text, near_only = _quoted(key)
    if near_only:
        raise _WildError
    return text


def _dumped_value(value: Any) -> str:
    return _dump({"k": value}, _dumpers()[1])[len("k: ") : -1]


# --- Everything else -----------------------------------------------------------------------------


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
