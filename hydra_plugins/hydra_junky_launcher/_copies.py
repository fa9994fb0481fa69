"""Copies of configs: what ``copy.deepcopy`` makes of them, in a fraction of the time.

A job's config is copied five times on its way through Hydra, and most of it is
the ``hydra`` node (130 nodes), of which a job changes a handful and reads few
more. So a copy of a template (:func:`copy_template`) has, below ``hydra``,
mappings that are copied when they are first looked at, level by level:

    template          hydra ── job ── config, env_set, name ...      never changed
                        │ └─── help ── header, template ...
    a job's config    hydra ── job ── (later)                        hydra.job.id was set
                        └─── (later: help)                           nobody has looked

Copies of such a copy stay as late (:func:`copy_config`), since the template
they come from stays as it is. Whoever looks sees no difference: the mapping
fills itself in before it answers anything. That a section is still unfilled also
tells, at no cost, that it is as it was in the template (:func:`pristine`).
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

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

__all__ = [
    "VALUES",
    "append_texts",
    "copy_config",
    "copy_hydra_only",
    "copy_resolver_cache",
    "copy_task",
    "copy_template",
    "pristine",
]

VALUES = frozenset(
    {AnyNode, BooleanNode, BytesNode, EnumNode, FloatNode, IntegerNode, PathNode, StringNode}
)


_new = object.__new__
_set = object.__setattr__  # a DictConfig's own sets keys


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


def copy_template(config: DictConfig) -> DictConfig:
    """Return a copy whose ``hydra`` node is filled in when it is looked at.

    Args:
        config: From now on never changed.
    """
    with contextlib.suppress(_UnknownNodeError):
        return _copy_top(config, lambda key: _copy_later if key == "hydra" else _copy_node)
    return copy.deepcopy(config)


def copy_task(config: DictConfig) -> DictConfig:
    """Return a copy whose ``hydra`` node is empty, for who deletes that at once."""
    with contextlib.suppress(_UnknownNodeError):
        return _copy_top(config, lambda key: _copy_empty if key == "hydra" else _copy_node)
    return copy.deepcopy(config)


def copy_hydra_only(config: DictConfig) -> DictConfig:
    """Return what ``OmegaConf.masked_copy(config, "hydra")`` returns."""
    try:
        new = DictConfig({})  # as masked_copy has it: no flags, no type
        hydra = _copy_node(config._get_node("hydra"), new)  # noqa: SLF001
    except _UnknownNodeError:
        return OmegaConf.masked_copy(config, "hydra")
    new.__dict__["_content"]["hydra"] = hydra
    return new


def append_texts(texts: ListConfig, sample: Node, lines: Iterable[str]) -> None:
    """Do as ``texts.append(line)`` does for each line.

    Args:
        texts: An empty list.
        sample: What appending some text made of it.
        lines: Texts.
    """
    content = texts.__dict__["_content"]
    for at, line in enumerate(lines):
        node = _copy_node(sample, texts)
        node._metadata.key = at  # noqa: SLF001
        node.__dict__["_val"] = line
        content.append(node)


def pristine(node: Any) -> DictConfig | None:
    """Return the template's node that a node is a yet unfilled copy of, ``None`` if it is not."""
    content = node.__dict__.get("_content")
    return content.source if type(content) is _LaterDict else None


def _copy_top(config: DictConfig, how: Callable[[Any], Callable[[Any, Any], Any]]) -> DictConfig:
    if type(config) is not DictConfig or type(config.__dict__["_content"]) is not dict:
        raise _UnknownNodeError(type(config))
    new: DictConfig = _shell(config, config._parent)  # noqa: SLF001
    content = config.__dict__["_content"]
    new.__dict__["_content"] = {key: how(key)(child, new) for key, child in content.items()}
    return new


def _copy_later(node: Any, parent: Any) -> Any:
    kind = type(node)
    content = node.__dict__.get("_content")
    if kind is DictConfig and type(content) is dict:
        new = _shell(node, parent)
        new.__dict__["_content"] = _LaterDict(node, new)
        return new
    if kind is ListConfig and type(content) is list:
        new = _shell(node, parent)
        new.__dict__["_content"] = [_copy_later(child, new) for child in content]
        return new
    return _copy_node(node, parent)


def _copy_empty(node: Any, parent: Any) -> Any:
    new = _shell(node, parent)
    if isinstance(node, DictConfig) and isinstance(node.__dict__["_content"], dict):
        new.__dict__["_content"] = {}
    return new


def _shell(node: Any, parent: Any) -> Any:
    """Return a copy of a node that still shares its content."""
    new = _new(type(node))
    state = _state(node, parent)
    facts = state["_metadata"].__dict__
    if "resolver_cache" in facts:
        facts["resolver_cache"] = _copy_cache(facts["resolver_cache"])
    _set(new, "__dict__", state)  # at once: a node without all of it cannot even be shown
    return new


def _state(node: Any, parent: Any) -> dict[str, Any]:
    """Return the attributes of a copy of a node."""
    state: dict[str, Any] = node.__dict__.copy()
    metadata = state["_metadata"]
    facts = metadata.__dict__.copy()
    if facts["flags"] is not None:
        facts["flags"] = facts["flags"].copy()
    state["_metadata"] = copied = _new(type(metadata))
    copied.__dict__ = facts
    state["_parent"] = parent
    state["_flags_cache"] = None
    return state


def _copy_cache(cache: Any) -> Any:
    """Return a copy of what cached resolvers gave: by resolver, by arguments."""
    if type(cache) is defaultdict and cache.default_factory is dict:
        if not cache:  # of each node but the root
            return defaultdict(dict)
        known = [type(value) is str for found in cache.values() for value in found.values()]
        if all(known):  # ${now:}, mostly; keys cannot change
            return defaultdict(dict, {name: dict(found) for name, found in cache.items()})
    return copy.deepcopy(cache)


def copy_resolver_cache(from_config: DictConfig, to_config: DictConfig) -> None:
    """Do as ``OmegaConf.copy_cache`` does."""
    cache = _copy_cache(from_config._metadata.resolver_cache)  # noqa: SLF001
    to_config._metadata.resolver_cache = cache  # noqa: SLF001


def _copy_node(node: Any, parent: Any) -> Any:
    kind = type(node)
    if kind in VALUES:
        new = _new(kind)
        new.__dict__ = _state(node, parent)
        return new
    new = _shell(node, parent)
    state = new.__dict__
    content = state.get("_content", _UnknownNodeError)
    if kind is DictConfig and type(content) is dict:
        state["_content"] = {key: _copy_node(child, new) for key, child in content.items()}
    elif kind is DictConfig and type(content) is _LaterDict:
        state["_content"] = content.copy_for(new)
    elif kind is ListConfig and type(content) is list:
        state["_content"] = [_copy_node(child, new) for child in content]
    elif kind is UnionNode and isinstance(content, Node):
        state["_content"] = _copy_node(content, new)
    elif kind not in (DictConfig, ListConfig, UnionNode) or not isinstance(
        content, (str, type(None))
    ):
        raise _UnknownNodeError(kind)
    return new


class _LaterDict(dict[Any, Any]):
    """The content of a ``DictConfig``, copied from its source when it is first looked at.

    Attributes:
        source: The node to copy from, ``None`` once that is done.
    """

    __slots__ = ("_owner", "source")
    _lock = threading.RLock()  # guards the filling of all of them

    def __init__(self, source: DictConfig, owner: DictConfig) -> None:
        self._owner: DictConfig | None = owner
        self.source: DictConfig | None = source

    def fill(self) -> None:
        with self._lock:
            source = self.source
            if source is not None:
                content = source.__dict__["_content"]
                owner = self._owner
                dict.update(
                    self, {key: _copy_later(child, owner) for key, child in content.items()}
                )
                self.source = self._owner = None  # only now: others answer without the lock

    def copy_for(self, owner: DictConfig) -> dict[Any, Any]:
        source = self.source
        if source is not None:
            return _LaterDict(source, owner)
        return {key: _copy_node(child, owner) for key, child in dict.items(self)}

    def __reduce_ex__(self, _protocol: Any) -> tuple[Any, ...]:  # copies and pickles are plain
        return dict, (), None, None, iter(self.items())

    def __or__(self, other: Any) -> Any:
        return dict(self) | other

    def __ror__(self, other: Any) -> Any:
        return other | dict(self)


def _filled_first(name: str) -> Callable[..., Any]:
    plain = getattr(dict, name)

    def method(self: _LaterDict, *args: Any, **kwargs: Any) -> Any:
        if self.source is not None:
            self.fill()
        return plain(self, *args, **kwargs)

    return method


def _methods() -> Iterator[str]:
    yield from ("__contains__", "__delitem__", "__eq__", "__getitem__", "__ior__", "__iter__")
    yield from ("__len__", "__ne__", "__repr__", "__reversed__", "__setitem__", "clear", "copy")
    yield from ("get", "items", "keys", "pop", "popitem", "setdefault", "update", "values")


for _name in _methods():
    setattr(_LaterDict, _name, _filled_first(_name))
