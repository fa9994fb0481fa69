"""Configs of jobs, composed fast: equal to what Hydra composes, or composed by Hydra.

Hydra composes each job from its files anew (tens of milliseconds). Jobs of a
sweep mostly make the same config-group choices and differ in a few values. So
for each distinct set of choices Hydra composes once, without the values; each
job is then a copy of that, in which Hydra's own code sets the job's values.

    overrides of a job          optimizer=sgd    width=64       +tag=a
    what each one is            choice           value          value
    template (by Hydra, once)   optimizer=sgd
    job (a copy of it)                           width=64       +tag=a

That is equal to Hydra's result because Hydra itself works in this order: the
defaults list is made from the choices alone, then values are set one by one.
Where it might not be equal, Hydra composes the whole job:

- an override of ``hydra`` itself, one Hydra has a special form for, or one that
  it refuses (so that the error is Hydra's);
- a value whose key leads through an interpolation, which could name anything;
- two overrides of which one lies inside the other (``model={...}``,
  ``model.width=3``) or that delete.

Two more nets: the second job of a set of choices is what a template is made
for, and the template is used only if the first job, which Hydra composed, comes
out the same from it; and any error on the way leaves the job to Hydra.

Files that change while a sweep runs are not read again for choices already
made.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import re
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import Container, DictConfig, Node, OmegaConf

from hydra_plugins.hydra_junky_launcher._copies import (
    append_texts,
    copy_config,
    copy_resolver_cache,
    copy_template,
)

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

__all__ = ["JobComposer", "composer_of", "same_config"]

log = logging.getLogger(__name__)

_KEPT = 256  # sets of choices; a template takes some 300 KB
_SET_TYPES = (OverrideType.CHANGE, OverrideType.ADD, OverrideType.FORCE_ADD)
# 1.3 writes the folder name that overrides give into the config, 1.4 makes it when asked for.
_dirname: Callable[..., str] | None = getattr(config_loader_impl, "get_overrides_dirname", None)
_apply: Callable[..., None] | None = getattr(ConfigLoaderImpl, "_apply_overrides_to_config", None)


# Overrides that differ from others of their key in the value alone, by kind of value.
_PLAIN = re.compile(
    r"(?P<key>\+{0,2}[A-Za-z_][A-Za-z0-9_.]*)="
    r"(?:(?P<int>-?(?:0|[1-9][0-9]{0,17}))|(?P<float>-?(?:0|[1-9][0-9]*)\.[0-9]+)"
    r"|(?P<word>[A-Za-z][A-Za-z_]*))",
    re.ASCII,
)
_PLAIN_VALUES: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "word": str}
_NO_WORDS = ("=null", "=true", "=false", "=nan", "=inf")
_KNOWN_FIELDS = {
    "type", "key_or_group", "value_type", "_value", "package", "input_line", "config_loader",
}  # fmt: skip


@dataclass(frozen=True)
class _Part:
    """One override of a job, and what it does.

    Attributes:
        override: As Hydra parsed it; never changed.
        name: The key without sign and package.
        chooses: It belongs to the set of choices: a config-group option, a deletion.
        deletes: It is a deletion.
    """

    override: Override
    name: str
    chooses: bool
    deletes: bool


class JobComposer:
    """Composes the configs of a sweep's jobs.

    Safe to use from several threads; they take turns.

    Args:
        config_loader: Hydra's.
        master_config: The sweep's own composed config.
    """

    def __init__(self, config_loader: ConfigLoader, master_config: DictConfig) -> None:
        self._loader = config_loader
        self._master = master_config
        self._lock = threading.RLock()  # guards all below; Hydra's parsers want one thread, too
        self._known_groups = functools.lru_cache(maxsize=None)(
            _group_test(config_loader, master_config)
        )
        self._parser = OverridesParser.create(config_loader=config_loader)
        self._samples: dict[tuple[str, str], Override] = {}  # by key and kind of value
        self._part = functools.lru_cache(maxsize=8192)(self._classify)
        # By set of choices: the first job and its config; then a template, or None where
        # templates are of no use.
        self._firsts: OrderedDict[tuple[str, ...], tuple[list[str], DictConfig]] = OrderedDict()
        self._templates: OrderedDict[tuple[str, ...], _Template | None] = OrderedDict()

    def is_group(self, name: str) -> bool:
        """Tell whether ``name``, as ``db`` or ``db/engine``, is a config group of the app."""
        with self._lock:
            try:
                return self._known_groups(name)
            except OSError:  # no file can have that name
                return False

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Return the config of a job, as ``config_loader.load_sweep_config`` would.

        Raises:
            Exception: Whatever Hydra raises for these overrides.
        """
        lines = list(overrides)
        with self._lock:
            try:
                config = self._from_template(lines)
            except Exception as error:  # noqa: BLE001 - Hydra is asked below, and its error counts
                log.debug("%s is left to Hydra: %r", lines, error)
                config = None
            return self._by_hydra(lines) if config is None else config

    def _by_hydra(self, lines: Sequence[str]) -> DictConfig:
        return self._loader.load_sweep_config(self._master, list(lines))

    def _from_template(self, lines: list[str]) -> DictConfig | None:
        """Return the config of a job, or ``None`` if Hydra has to compose it."""
        parts = self._parts(lines)
        if parts is None:
            return None
        choices = tuple(line for line, part in zip(lines, parts, strict=True) if part.chooses)
        if choices in self._templates:
            self._templates.move_to_end(choices)
            template = self._templates[choices]
        elif choices in self._firsts:
            template = self._make_template(choices)
        else:
            # One job alone is not worth a template. Its config will tell if one is right.
            config = self._by_hydra(lines)
            _keep(self._firsts, choices, (lines, copy_config(config)))
            return config
        return None if template is None else template.fill(lines, parts, self._master)

    def _make_template(self, choices: tuple[str, ...]) -> _Template | None:
        lines, first = self._firsts.pop(choices)
        template = _Template.make(self._by_hydra(choices))
        parts = self._parts(lines)
        if template is not None and parts is not None:
            filled = template.fill(lines, parts, first)
            if filled is not None and not same_config(filled, first):
                log.debug("Hydra composes each job with %s: a template differs", choices)
                template = None
        _keep(self._templates, choices, template)
        return template

    def _parts(self, lines: Sequence[str]) -> list[_Part] | None:
        """Return what each override does, or ``None`` if they are Hydra's business."""
        if _apply is None:
            return None
        parts: list[_Part] = []
        for line in lines:
            part = self._part(line)
            if part is None:
                return None
            parts.append(part)
        return None if _overlap(parts) else parts

    def _parse(self, line: str) -> Override:
        """Return what Hydra parses, which it need not do again for another plain value of a key."""
        match = _PLAIN.fullmatch(line)
        if match is None or line.lower().endswith(_NO_WORDS):
            return self._parser.parse_override(line)
        kind = str(match.lastgroup)
        text = match[kind]
        value = _PLAIN_VALUES[kind](text)
        sample = self._samples.get((match["key"], kind))
        if sample is not None:
            return dataclasses.replace(sample, _value=value, input_line=line)
        override = self._parser.parse_override(line)
        others = {k: v for k, v in vars(override).items() if k not in _KNOWN_FIELDS}
        same = type(override._value) is type(value) and override._value == value  # noqa: SLF001
        if same and override.input_line == line and not any(others.values()):
            self._samples[match["key"], kind] = override
        return override

    def _classify(self, line: str) -> _Part | None:
        override = self._parse(line)
        name = override.key_or_group
        if not name or name.partition(".")[0].partition("/")[0] == "hydra":
            return None
        if override.is_sweep_override() or getattr(override, "is_value_path", False):
            return None
        if override.is_delete():
            return _Part(override, name, chooses=True, deletes=True)
        if override.type not in _SET_TYPES:
            return None
        if self._known_groups(name):
            if isinstance(override.value(), dict):
                return None
            return _Part(override, name, chooses=True, deletes=False)
        if override.package is not None:
            return None
        return _Part(override, name, chooses=False, deletes=False)


# By config loader and config; a composer holds on to both, so that no id is used again.
_composers: weakref.WeakValueDictionary[tuple[int, int], JobComposer] = (
    weakref.WeakValueDictionary()
)
_composers_lock = threading.Lock()  # guards _composers


def composer_of(config_loader: ConfigLoader, master_config: DictConfig) -> JobComposer:
    """Return the composer of a sweep: the same one for its sweeper and its launcher."""
    key = (id(config_loader), id(master_config))
    with _composers_lock:
        composer = _composers.get(key)
        if composer is None:
            composer = _composers[key] = JobComposer(config_loader, master_config)
        return composer


class _Template:
    """The config of one set of choices, to be copied and filled with values.

    Args:
        config: What Hydra composed for the choices alone.
        dirname: Settings of 1.3's ``hydra.job.override_dirname``.
        line: A node of the list of a job's overrides.
    """

    def __init__(self, config: DictConfig, dirname: dict[str, Any], line: Node) -> None:
        self._config = config  # never changed
        self._dirname = dirname
        self._line = line
        self._cwd = config.hydra.runtime.cwd
        self._open: dict[tuple[str, bool, bool], bool] = {}

    @classmethod
    def make(cls, config: DictConfig) -> _Template | None:
        """Return a template, or ``None`` if jobs need what only Hydra's own code does."""
        if config.hydra.job.env_copy:  # read from the environment for each job
            return None
        dirname = OmegaConf.to_container(config.hydra.job.config.override_dirname, resolve=False)
        assert isinstance(dirname, dict)
        if "${" in str(dirname):
            return None
        task = config.hydra.overrides.task
        del task[:]
        task.append("")
        line = task._get_node(0)  # noqa: SLF001
        del task[:]
        wanted = ("kv_sep", "item_sep", "exclude_keys")
        return cls(config, {key: dirname[key] for key in wanted if key in dirname}, line)

    def fill(
        self, lines: Sequence[str], parts: Sequence[_Part], cached_by: DictConfig
    ) -> DictConfig | None:
        """Return the config of a job, or ``None`` if a value's place is not certain.

        Args:
            lines: The job's overrides, in their order.
            parts: What each of them does.
            cached_by: The config whose values of cached resolvers count.
        """
        values = [part for part in parts if not part.chooses]
        if not all(map(self._is_open, values)):
            return None
        assert _apply is not None
        config = copy_template(self._config)
        _apply([part.override for part in values], config)
        hydra = config.hydra
        append_texts(hydra.overrides.task, self._line, lines)
        if _dirname is not None:
            dirname = _dirname(overrides=[part.override for part in parts], **self._dirname)
            hydra.job._get_node("override_dirname")._set_value(dirname)  # noqa: SLF001
        cwd = os.getcwd()  # noqa: PTH109 - as Hydra writes it
        if cwd != self._cwd:
            hydra.runtime.cwd = cwd
        copy_resolver_cache(cached_by, config)
        return config

    def _is_open(self, part: _Part) -> bool:
        """Say whether the way to a value leads through plain mappings only."""
        holds = isinstance(part.override.value(), (dict, list))
        adds = part.override.type is not OverrideType.CHANGE
        key = (part.name, holds, adds)
        known = self._open.get(key)
        if known is None:
            known = self._open[key] = self._look(part.name.split("."), holds, adds)
        return known

    def _look(self, names: list[str], holds: bool, adds: bool) -> bool:
        content = self._config._value()  # noqa: SLF001
        for name in names[:-1]:
            if not isinstance(content, dict):  # a list, or an interpolation, or nothing
                return False
            child = content.get(name)
            if child is None:
                return adds
            content = child._value() if isinstance(child, DictConfig) else None  # noqa: SLF001
        if not isinstance(content, dict):
            return False
        child = content.get(names[-1])
        if child is None:
            return adds
        if child._is_interpolation():  # noqa: SLF001
            return not holds and not adds  # merging and adding look at what it stands for
        return not (holds and isinstance(child, Container) and "${" in _raw_text(child))


def same_config(one: Node, other: Node) -> bool:
    """Say whether two configs are the same in all that OmegaConf keeps about them.

    Values and their types, raw interpolations, order of keys, the types that
    nodes are declared with, flags (struct, readonly) and resolver caches.
    """
    pairs: list[tuple[Any, Any]] = [(one, other)]
    while pairs:
        left, right = pairs.pop()
        if type(left) is not type(right):
            return False
        if not isinstance(left, Node):
            if left != right and not (left != left and right != right):  # noqa: PLR0124 - NaN
                return False
            continue
        if vars(left._metadata) != vars(right._metadata):  # noqa: SLF001
            return False
        content, others = left._value(), right._value()  # noqa: SLF001
        if isinstance(content, dict) and isinstance(others, dict):
            if list(content) != list(others):
                return False
            pairs.extend(zip(content.values(), others.values(), strict=True))
        elif isinstance(content, list) and isinstance(others, list):
            if len(content) != len(others):
                return False
            pairs.extend(zip(content, others, strict=True))
        else:
            pairs.append((content, others))
    return True


def _group_test(config_loader: ConfigLoader, master_config: DictConfig) -> Callable[[str], bool]:
    """Return Hydra's own test for config groups."""
    name = master_config.hydra.job.config_name
    overrides: Any = OmegaConf.to_container(master_config.hydra.overrides.hydra)
    try:
        assert isinstance(config_loader, ConfigLoaderImpl)
        repository = CachingConfigRepository(config_loader.repository)
        config_loader._process_config_searchpath(  # noqa: SLF001 - no public way
            name, OverridesParser.create().parse_overrides(overrides), repository
        )
        return repository.group_exists
    except (AssertionError, AttributeError, TypeError):  # another loader, a later Hydra

        def has_options(group: str) -> bool:
            return bool(
                config_loader.get_group_options(
                    group, results_filter=None, config_name=name, overrides=overrides
                )
            )

        return has_options


def _overlap(parts: Sequence[_Part]) -> bool:
    """Say whether one override lies inside another, so that their order counts."""
    names = [part.name for part in parts if part.deletes or not part.chooses]
    seen = set(names)
    if len(seen) < len(names):
        return True
    for name in names:
        end = name.rfind(".")
        while end >= 0:
            if name[:end] in seen:
                return True
            end = name.rfind(".", 0, end)
    return False


def _raw_text(node: Container) -> str:
    return str(OmegaConf.to_container(node, resolve=False))


def _keep(kept: OrderedDict[tuple[str, ...], Any], choices: tuple[str, ...], what: Any) -> None:
    kept[choices] = what
    if len(kept) > _KEPT:
        kept.popitem(last=False)
