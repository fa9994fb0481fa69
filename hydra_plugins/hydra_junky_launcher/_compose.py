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

import copy
import enum
import functools
import logging
import os
import pathlib
import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, ValueType
from omegaconf import Container, DictConfig, ListConfig, Node, OmegaConf, ValueNode

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

__all__ = ["JobComposer", "copy_config", "same_config"]

log = logging.getLogger(__name__)

_TEMPLATES = 256  # sets of choices that are kept; a template is some 15 KB
_SET_TYPES = (OverrideType.CHANGE, OverrideType.ADD, OverrideType.FORCE_ADD)
# Values that a copy through pickle gives back as they were; others may have an identity.
_PLAIN_TYPES = (str, int, float, bool, bytes, type(None), pathlib.Path, enum.Enum)
# 1.3 writes the folder name that overrides give into the config, 1.4 makes it when asked for.
_dirname: Callable[..., str] | None = getattr(config_loader_impl, "get_overrides_dirname", None)
_apply: Callable[..., None] | None = getattr(ConfigLoaderImpl, "_apply_overrides_to_config", None)


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
        self._groups: Callable[[str], bool] | None = self._group_test()
        self._classify = functools.lru_cache(maxsize=8192)(self._classify_anew)
        # For a set of choices: the first job's overrides and config, then its template, or None
        # where templates do not work.
        self._first: OrderedDict[tuple[str, ...], tuple[list[str], bytes]] = OrderedDict()
        self._templates: OrderedDict[tuple[str, ...], _Template | None] = OrderedDict()

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Return the config of a job, as ``config_loader.load_sweep_config`` would.

        Raises:
            Exception: Whatever Hydra raises for these overrides.
        """
        lines = list(overrides)
        with self._lock:
            try:
                config = self._quickly(lines)
            except Exception as error:  # noqa: BLE001 - Hydra is asked below, and its error counts
                log.debug("%s is left to Hydra: %r", lines, error)
                config = None
            return self._by_hydra(lines) if config is None else config

    def _by_hydra(self, lines: list[str]) -> DictConfig:
        return self._loader.load_sweep_config(self._master, list(lines))

    def _quickly(self, lines: list[str]) -> DictConfig | None:
        """Return the config, or ``None`` where Hydra has to compose it."""
        if self._groups is None:
            return None
        parts = [self._classify(line) for line in lines]
        if any(part is None for part in parts):
            return None
        known = [part for part in parts if part is not None]
        if _overlap(known):
            return None
        choices = tuple(line for line, part in zip(lines, known, strict=True) if part.chooses)
        values = [part for part in known if not part.chooses]
        template = self._template(choices, lines, values)
        if template is None:
            return None
        return template.fill(lines, values, self._master)

    def _template(
        self, choices: tuple[str, ...], lines: list[str], values: Sequence[_Part]
    ) -> _Template | None:
        if choices in self._templates:
            self._templates.move_to_end(choices)
            return self._templates[choices]
        first = self._first.pop(choices, None)
        if first is None:
            # One job alone is not worth a template. Its config will tell if a template is right.
            config = self._by_hydra(lines)
            self._first[choices] = (lines, _dump(config))
            if len(self._first) > _TEMPLATES:
                self._first.popitem(last=False)
            return _Made(config)
        template = _Template.make(self._by_hydra(list(choices)))
        if template is not None:
            expected: DictConfig = pickle.loads(first[1])  # noqa: S301 - our own bytes
            parts = [self._classify(line) for line in first[0]]
            filled = template.fill(
                first[0], [p for p in parts if p is not None and not p.chooses], expected
            )
            if filled is None or not same_config(filled, expected):
                log.debug("Templates are of no use for %s: Hydra composes each job", choices)
                template = None
        self._templates[choices] = template
        if len(self._templates) > _TEMPLATES:
            self._templates.popitem(last=False)
        return template
