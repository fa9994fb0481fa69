"""Compose configs of jobs fast, with the same result as Hydra.

Hydra composes each job from its files, which takes tens of milliseconds. Jobs of
a sweep mostly make the same config-group choices and differ in a few values. So
Hydra composes each distinct set of choices once, without the values; each job is
a copy of that, in which its values are set as Hydra sets them:

    overrides of a job          optimizer=sgd    width=64       +tag=a
    what each one is            choice           value          value
    template (by Hydra, once)   optimizer=sgd
    job (a copy of it)                           width=64       +tag=a

The result is equal because Hydra works in this order too. Hydra composes the
whole job where it might differ: overrides of ``hydra`` itself, special forms,
keys that lead through an interpolation or a list, overrides whose keys lie
inside one another. A template is made for the second job of a set of choices. It
is used only if it gives the first job the config that Hydra composed. After any
error Hydra composes the job, so the error is Hydra's.

Config files that change during a sweep are not read again for choices already made.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.hydra_junky_launcher._quick import copy_config, overrides_dirname, same_config

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

__all__ = ["JobComposer", "composer_of"]

log = logging.getLogger(__name__)

_KEPT = 256  # sets of choices; a template takes some 300 KB


class _Part(NamedTuple):
    """One override of a job, and whether it is a choice: an option or a deletion."""

    override: Override
    chooses: bool


class JobComposer:
    """Composes the configs of the jobs of a sweep, whose own config is given. Thread-safe."""

    def __init__(self, config_loader: ConfigLoader, master_config: DictConfig) -> None:
        self._loader = config_loader
        self._master = master_config
        # Guards all below; Hydra's parsers are not thread-safe either.
        self._lock = threading.RLock()
        self._parser = OverridesParser.create(config_loader=config_loader)
        self._part = functools.lru_cache(maxsize=8192)(self._classify)
        self._groups_in = functools.lru_cache(maxsize=None)(self._list_groups)
        # By set of choices: the first job and its config; from the second job on, a
        # template, or None if a template would differ from Hydra.
        self._known = OrderedDict[tuple[Any, ...], Any]()

    def is_group(self, name: str) -> bool:
        """Return whether ``name``, as ``db`` or ``db/engine``, is a config group of the app."""
        parent, _, last = name.rpartition("/")
        with self._lock, contextlib.suppress(OSError):  # no file can have that name
            return last in self._groups_in(parent)
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
            except Exception as error:  # noqa: BLE001 - Hydra composes it below, and raises its own error
                log.debug("%s is left to Hydra: %r", lines, error)
                config = None
            return self._by_hydra(lines) if config is None else config

    def _by_hydra(self, lines: Sequence[str]) -> DictConfig:
        return self._loader.load_sweep_config(self._master, list(lines))

    def _from_template(self, lines: list[str]) -> DictConfig | None:
        """Return the config of a job, or ``None`` if Hydra has to compose it."""
        parts = [part for line in lines if (part := self._part(line)) is not None]
        if len(parts) < len(lines) or _overlap(parts):
            return None
        choices = tuple(part.override.input_line for part in parts if part.chooses)
        if choices not in self._known:
            config = self._by_hydra(lines)  # one job alone is not worth a template
            self._known[choices] = parts, copy_config(config)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
            return config
        self._known.move_to_end(choices)
        known = self._known[choices]
        if isinstance(known, tuple):
            self._known[choices] = None  # if no template can be made
            known = self._known[choices] = self._make_template(choices, *known)
        return None if known is None else known.fill(parts, self._master)

    def _make_template(
        self, choices: Sequence[Any], parts: Sequence[_Part], first: DictConfig
    ) -> _Template | None:
        template = _Template(self._by_hydra(choices))
        filled = template.fill(parts, first)
        copies_env = first.hydra.job.env_copy  # each job's own, read when it is composed
        if filled is not None and not copies_env and same_config(filled, first):
            return template
        log.debug("Hydra composes each job with %s: a template differs", choices)
        return None

    def _list_groups(self, parent: str) -> frozenset[str]:
        hydra = self._master.hydra
        overrides: Any = OmegaConf.to_container(hydra.overrides.hydra)
        options = self._loader.get_group_options
        with warnings.catch_warnings():  # Hydra warns of a .yml file when it loads one
            warnings.filterwarnings("ignore", "Support for .yml files", UserWarning)
            return frozenset(options(parent, ObjectType.GROUP, hydra.job.config_name, overrides))

    def _classify(self, line: str) -> _Part | None:
        """Return what an override does, or ``None`` if Hydra has to handle it."""
        override = self._parser.parse_override(line)
        name = override.key_or_group
        if not name or name.partition(".")[0].partition("/")[0] == "hydra":
            return None
        if override.is_sweep_override() or getattr(override, "is_value_path", False):
            return None
        if override.is_delete():
            return _Part(override, chooses=True)
        if override.type not in (OverrideType.CHANGE, OverrideType.ADD, OverrideType.FORCE_ADD):
            return None
        if self.is_group(name):
            return None if isinstance(override.value(), dict) else _Part(override, chooses=True)
        return None if override.package is not None else _Part(override, chooses=False)


# By config loader and config; a composer keeps both alive, so no id is used twice.
_composers = weakref.WeakValueDictionary[tuple[int, int], JobComposer]()
_composers_lock = threading.Lock()  # guards _composers


def composer_of(config_loader: ConfigLoader, master_config: DictConfig) -> JobComposer:
    """Return the composer of a sweep: the same one for its sweeper and its launcher."""
    key = id(config_loader), id(master_config)
    with _composers_lock:
        return _composers.setdefault(key, JobComposer(config_loader, master_config))


class _Template:
    """What Hydra composed for the choices alone, to be copied and filled with values."""

    def __init__(self, config: DictConfig) -> None:
        config.hydra.overrides.task = []
        self._config = config
        self._raw = OmegaConf.to_container(config, resolve=False)

    def fill(self, parts: Sequence[_Part], cached_by: DictConfig) -> DictConfig | None:
        """Return the config of a job, or ``None`` if Hydra has to compose it.

        Args:
            parts: The job's overrides, in their order.
            cached_by: The config whose cached resolver results are used.
        """
        values = [part.override for part in parts if not part.chooses]
        if not all(map(self._is_open, values)):
            return None
        config: DictConfig = copy_config(self._config)
        for override in values:
            _set_value(config, override)
        hydra = config.hydra
        overrides = [part.override for part in parts]
        for override in overrides:
            hydra.overrides.task.append(override.input_line)
        if overrides_dirname is not None:
            names = hydra.job.config.override_dirname
            hydra.job.override_dirname = overrides_dirname(
                [part.override for part in parts], **names
            )
        hydra.runtime.cwd = os.getcwd()  # noqa: PTH109 - as Hydra writes it
        OmegaConf.copy_cache(cached_by, config)
        return config

    def _is_open(self, override: Override) -> bool:
        """Return whether the path to a value leads through plain mappings only."""
        *way, last = override.key_or_group.split(".")
        adds = override.type is not OverrideType.CHANGE
        node: Any = self._raw
        for name in way:
            if not isinstance(node, dict):  # a list, or an interpolation, or nothing
                return False
            if name not in node:
                return adds
            node = node[name]
        if not isinstance(node, dict):
            return False
        if last not in node:
            return adds
        # Merging and adding look at the value that an interpolation resolves to.
        merges = adds or isinstance(override.value(), (dict, list))
        return not merges or "${" not in str(node[last])


def _set_value(config: DictConfig, override: Override) -> None:
    """Set a value as Hydra sets it; raise an error if Hydra would refuse it."""
    key, value = override.key_or_group, override.value()
    only_new = override.is_add() and not isinstance(value, (dict, list))
    if only_new and OmegaConf.select(config, key, throw_on_missing=False) is not None:
        raise ValueError(f"{key} is there already")
    adds = override.type is not OverrideType.CHANGE
    OmegaConf.update(config, key, value, merge=True, force_add=adds)


def _overlap(parts: Sequence[_Part]) -> bool:
    """Return whether one override lies inside another, so their order matters."""
    names = [p.override.key_or_group for p in parts if p.override.is_delete() or not p.chooses]
    inside = any(name.startswith(f"{other}.") for name in names for other in names)
    return inside or len({*names}) < len(names)
