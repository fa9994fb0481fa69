"""Faster replacements for what Hydra does for each job, with the same results.

Most of the time of an empty job goes into five copies of its config (20 ms under
Hydra, 1.5 ms here), three YAML files (6 ms, here 2 ms) and parsing ``${...}`` each
time that it is resolved (0.2 ms).

This module owns the private names of Hydra and OmegaConf that this takes:

- of each node what OmegaConf's own ``__deepcopy__`` methods use: ``_content`` (what
  it holds), ``_parent`` (what holds it), ``_metadata`` (declared types, flags, cached
  values), ``_flags_cache`` (computed again when it is ``None``); and ``_value()``;
- ``_save_config``, which writes the files in ``.hydra``; ``_set_parent``, used as in
  Hydra's ``set_config``; ``get_overrides_dirname`` of a private module.

Tests compare the outcome with theirs. Attributes that they no longer have are not replaced,
and nodes of unknown types are left to ``copy.deepcopy``.
"""

from __future__ import annotations

import contextlib
import copy
import enum
import errno
import functools
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import omegaconf.base
import yaml
from hydra._internal import config_loader_impl
from hydra.core import utils as hydra_utils
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, Node, OmegaConf, UnionNode, flag_override, nodes

from junky_core.job.patches import replaced

__all__ = ["copy_config", "overrides_dirname", "patches", "quick_hydra", "same_config", "yaml_text"]

log = logging.getLogger(__name__)

# 1.3 writes the folder name that overrides give into the config, 1.4 makes it when asked for.
overrides_dirname: Callable[..., str] | None = getattr(
    config_loader_impl, "get_overrides_dirname", None
)

_KNOWN = {DictConfig, ListConfig, UnionNode, nodes.AnyNode, nodes.BooleanNode, nodes.BytesNode}
_KNOWN |= {nodes.EnumNode, nodes.FloatNode, nodes.IntegerNode, nodes.PathNode, nodes.StringNode}
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


def copy_config(config: Any, shared: Any = None) -> Any:
    """Return what ``copy.deepcopy`` returns for a config, or for a part of one.

    Args:
        config: Never changed.
        shared: A value of ``config`` that the copy is to hold as it is.
    """
    try:
        return _copy(config, config._parent, shared)  # noqa: SLF001 - a part keeps its parent
    except NotImplementedError:
        return copy.deepcopy(config)


def _copy(node: Any, parent: Any, shared: Any = None) -> Any:
    if type(node) not in _KNOWN:
        raise NotImplementedError(type(node))
    new = object.__new__(type(node))
    state = vars(node).copy()
    metadata = state["_metadata"]
    state["_metadata"] = own = object.__new__(type(metadata))
    facts = own.__dict__ = vars(metadata).copy()
    if facts["flags"] is not None:
        facts["flags"] = facts["flags"].copy()
    if "_content" in state:  # what a value node holds is shared
        cache, content = facts["resolver_cache"], state["_content"]
        facts["resolver_cache"] = copy.deepcopy(cache) if cache else defaultdict(dict)
        if type(content) is dict:
            state["_content"] = {
                key: child if child is shared else _copy(child, new)
                for key, child in content.items()
            }
        elif type(content) is list:
            state["_content"] = [_copy(child, new) for child in content]
        elif content is not None and type(content) is not str:  # a union's node
            state["_content"] = _copy(content, new)
    state["_parent"] = parent
    state["_flags_cache"] = None
    object.__setattr__(new, "__dict__", state)  # a DictConfig's own __setattr__ sets keys
    return new


def same_config(one: Any, other: Any) -> bool:
    """Return whether two configs are the same in all that OmegaConf keeps about them.

    Values and their types, raw interpolations, order of keys, the types that
    nodes are declared with, flags (struct, readonly) and resolver caches.
    """
    if type(one) is not type(other):
        return False
    if isinstance(one, Node):
        facts = vars(one._metadata), vars(other._metadata)  # noqa: SLF001 - types, flags, cache
        return facts[0] == facts[1] and same_config(one._value(), other._value())  # noqa: SLF001 - unresolved
    if isinstance(one, dict):
        return list(one) == list(other) and all(same_config(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_config, one, other))
    return bool(one == other or (one != one and other != other))  # noqa: PLR0124 - NaN


def patches() -> Iterator[tuple[Any, str, Any]]:
    """Yield what to replace while jobs run: holder, name, new value; if the holder has it."""
    for holder, name, value in (
        (hydra_utils, "copy", SimpleNamespace(**{**vars(copy), "deepcopy": _deepcopy})),
        (hydra_utils, "_save_config", _save_config),  # private; writes the files in .hydra
        (HydraConfig, "set_config", _set_config),
    ):
        if hasattr(holder, name):
            yield holder, name, value
    parse = getattr(omegaconf.base, "parse", None)
    if parse is not None:  # the tree is only read when ${...} is resolved
        yield omegaconf.base, "parse", functools.lru_cache(maxsize=1024)(parse)


@contextlib.contextmanager
def quick_hydra() -> Iterator[None]:
    """Keep the replacements in place inside the ``with`` block."""
    with contextlib.ExitStack() as stack:
        for owner, name, new in patches():
            stack.enter_context(replaced(owner, name, new))
        yield


def _deepcopy(value: Any, memo: Any = None) -> Any:
    """Return what ``copy.deepcopy`` returns, but share the ``hydra`` node of a whole config.

    ``run_job`` deletes that node from its copy at once.
    """
    if memo is not None or not isinstance(value, (DictConfig, ListConfig)):
        return copy.deepcopy(value, memo)
    whole = isinstance(value, DictConfig) and "hydra" in value and len(value) > 1
    return copy_config(value, shared=value.hydra if whole else None)


def _set_config(self: HydraConfig, cfg: DictConfig) -> None:
    """Set the config as ``HydraConfig.set_config`` does.

    ``run_job`` calls it twice: to find the job's folder, and when it has written
    that into the config. The first time, nothing is copied.
    """
    hydra = cfg.hydra
    OmegaConf.set_readonly(hydra, True)
    final = not OmegaConf.is_missing(hydra.runtime, "output_dir")
    masked = DictConfig({})
    with flag_override(masked, "no_deepcopy_set_nodes", True):
        masked.hydra = copy_config(hydra) if final else hydra
    masked.hydra._set_parent(cfg)  # noqa: SLF001 - as Hydra does
    # A single assignment: each job has its own ``cfg``. Hydra declares another type.
    self.cfg = masked  # type: ignore[assignment]


def _save_config(cfg: DictConfig, filename: str, output_dir: Path) -> None:
    """Write the file as Hydra's ``_save_config`` does; but a full disk does not fail the job."""
    path = output_dir / filename
    text = yaml_text(cfg)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        log.warning("%s could not be written: %s. The job runs without it", path, error.strerror)
        with contextlib.suppress(OSError):
            path.unlink()  # leave no partial file


def yaml_text(config: Any) -> str:
    """Return what ``OmegaConf.to_yaml(config)`` returns."""
    data = _plain(config)
    options: Any = {"default_flow_style": False, "allow_unicode": True, "sort_keys": False}
    try:
        return str(yaml.dump(data, Dumper=_Dumper, **options))
    except yaml.YAMLError:  # _Dumper does not know how to write it
        return OmegaConf.to_yaml(config)


def _plain(node: Any) -> Any:
    """Return what ``OmegaConf.to_container(node, resolve=False, enum_to_str=True)`` returns."""
    value = node._value()  # noqa: SLF001 - unresolved
    if type(value) is dict:
        return {_name_of(key): _plain(child) for key, child in value.items()}
    if type(value) is list:
        return [_plain(child) for child in value]
    return _name_of(value)


def _name_of(value: Any) -> Any:
    return value.name if isinstance(value, enum.Enum) else value


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes with libyaml the same text as PyYAML, which OmegaConf 2.3 uses."""

    def represent_text(self, text: str) -> Any:
        """Write a text, in quotes if it looks like something else."""
        if not _is_plain(text):
            raise yaml.YAMLError(text)
        style = "'" if _reads_as_other(text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    def represent_dict(self, data: Any) -> Any:
        """Write a mapping whose keys each fit in a line."""
        if not all(0 < len(str(key)) <= 100 and "\n" not in str(key) for key in data):
            raise yaml.YAMLError(data)
        return super().represent_dict(data)


_Dumper.add_representer(str, _Dumper.represent_text)
_Dumper.add_representer(dict, _Dumper.represent_dict)


@functools.lru_cache(maxsize=4096)
def _is_plain(text: str) -> bool:
    """Return whether a text needs no escapes: there libyaml breaks lines in other places."""
    if not text.isascii() and max(text) >= "\ud800":
        return False
    return text.replace("\n", "").isprintable() and not re.search(r" \n|\n ", text)


@functools.lru_cache(maxsize=4096)
def _reads_as_other(text: str) -> bool:
    """Return whether OmegaConf quotes a text because it looks like a boolean or a number."""
    if text.lower() in {"y", "yes", "n", "no", "true", "false", "on", "off"}:
        return text in (text.lower(), text.upper(), text.capitalize())
    for number in (int, float):
        with contextlib.suppress(ValueError):
            number(text)
            return True
    return False
