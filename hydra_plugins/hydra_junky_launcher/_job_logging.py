"""A job's logging, set up as ``dictConfig`` would, when the configuration is of the plain kind.

Hydra's own ``hydra.job_logging`` (``default``, ``stdout``, ``none``) asks for a
formatter, handlers to a stream and to a file, and the root logger's level and
handlers. ``dictConfig`` takes 1 ms for that: it converts the configuration,
Hydra checks each class against its policy, and each of some hundred loggers is
told that it is not disabled. :func:`configure_quickly` makes the same objects:

| ``dictConfig``, step by step    | here |
| ------------------------------- | --- |
| Hydra's policy for the classes  | asked for the first job; later ones differ in file names only |
| formatters; handlers, by name   | the same |
| each logger is not disabled     | those that are |
| the root's level and handlers   | the same |

Anything else in a configuration, and any error, leaves it to ``dictConfig``.
"""

from __future__ import annotations

import copy
import logging
import logging.config
import re
import sys
import weakref
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.nodes import InterpolationResultNode

from hydra_plugins.hydra_junky_launcher._copies import VALUES, pristine
from hydra_plugins.hydra_junky_launcher._isolation import enable_loggers, in_job

__all__ = ["configure_quickly", "resolve_quickly"]

_TOP = {"version", "formatters", "handlers", "root", "disable_existing_loggers"}
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
_TAKEN_BY: dict[str, tuple[type[logging.Handler], set[str]]] = {
    "logging.StreamHandler": (logging.StreamHandler, {"stream"}),
    "logging.FileHandler": (logging.FileHandler, {"filename", "mode", "encoding", "delay"}),
}
_SHAPES_KEPT = 100
_RESOLVED = VALUES | {InterpolationResultNode}  # the latter: text with ${...} in it
_CONVERTED = re.compile(r"[a-z]+://")  # ext://, cfg://: what dictConfig looks up


def configure_quickly(plain: Callable[..., None]) -> Callable[..., None]:
    """Return a stand-in for Hydra's ``configure_logging``, which is quick where it can be."""
    accepted: set[str] = set()

    def configure_logging(config: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        shape = _shape(config) if in_job() else None
        if shape is None:
            plain(config, *args, **kwargs)
            return
        shape = f"{shape} {args} {kwargs}"
        if shape in accepted:
            try:
                _configure(config)
            except Exception:  # noqa: BLE001 - dictConfig meets it again, and names the place
                plain(config, *args, **kwargs)
            return
        plain(config, *args, **kwargs)
        if len(accepted) < _SHAPES_KEPT:
            accepted.add(shape)

    return configure_logging


def resolve_quickly(
    plain: Callable[..., None], configure_logging: Callable[..., None]
) -> Callable[..., None]:
    """Return a stand-in for Hydra's ``configure_log``: it resolves what is to be resolved only."""

    def configure_log(log_config: Any, verbose_config: Any = False, **extra: Any) -> None:
        quick = verbose_config is False and set(extra) <= {"execution_whitelist"}
        source = pristine(log_config) if quick and type(log_config) is DictConfig else None
        outline = None if source is None else _outline(source)
        if outline is None:
            plain(log_config, verbose_config, **extra)
            return
        data, interpolations = outline
        conf = copy.deepcopy(data)
        try:
            for *way, key in interpolations:
                node: Any = log_config
                place = conf
                for name in way:
                    node, place = node._get_node(name), place[name]  # noqa: SLF001
                place[key] = _value_of(node._get_node(key)._dereference_node())  # noqa: SLF001
        except Exception:  # noqa: BLE001 - Hydra meets it again, and tells where
            plain(log_config, verbose_config, **extra)
            return
        if conf["root"] is not None:
            configure_logging(conf, *extra.values())

    return configure_log


def _value_of(node: Any) -> Any:
    if type(node) not in _RESOLVED:
        raise TypeError(type(node))
    return node._value()  # noqa: SLF001


_Outline = tuple[dict[str, Any], list[tuple[Any, ...]]]
# By id of a template's node: that node, while it lives, and its outline.
_outlines: dict[int, tuple[weakref.ref[DictConfig], _Outline | None]] = {}


def _outline(source: DictConfig) -> _Outline | None:
    """Return plain data and the ways to the interpolations in it, ``None`` if it is not so plain.

    Args:
        source: Never changed.
    """
    key = id(source)
    kept = _outlines.get(key)
    if kept is None or kept[0]() is not source:
        data: Any = OmegaConf.to_container(source, resolve=False)
        ways: list[tuple[Any, ...]] = []
        usable = isinstance(data, dict) and "root" in data and _find_ways(source, (), ways)
        gone = weakref.ref(source, lambda _ref: _outlines.pop(key, None))
        kept = _outlines[key] = gone, (data, ways) if usable else None
    return kept[1]


def _find_ways(node: Any, way: tuple[Any, ...], found: list[tuple[Any, ...]]) -> bool:
    """List the values below a node that are interpolations; ``False`` if there is more to it."""
    if node._is_interpolation():  # noqa: SLF001
        found.append(way)
        return type(node) in VALUES and bool(way)
    content = node.__dict__.get("_content")
    if type(node) is DictConfig and isinstance(content, dict):
        return all(_find_ways(child, (*way, key), found) for key, child in content.items())
    if type(node) is ListConfig and isinstance(content, list):
        return all(type(child) in VALUES and not child._is_interpolation() for child in content)  # noqa: SLF001
    return type(node) in VALUES or content is None


def _shape(config: dict[str, Any]) -> str | None:
    """Return all of a configuration but the names of files, ``None`` if it is not plain."""
    if logging.config.dictConfigClass is not logging.config.DictConfigurator:
        return None
    if not (config.keys() <= _TOP and config.get("disable_existing_loggers") is False):
        return None
    root, handlers, formatters = (config.get(key) for key in ("root", "handlers", "formatters"))
    if not (isinstance(root, dict) and root.keys() <= {"level", "handlers"}):
        return None
    if not (_are_dicts(handlers) and _are_dicts(formatters) and config.get("version") == 1):
        return None
    assert isinstance(handlers, dict)
    assert isinstance(formatters, dict)
    for formatter in formatters.values():
        if not formatter.keys() <= {"format", "datefmt"}:
            return None
    shown = {}
    for name, handler in handlers.items():
        _, taken = _TAKEN_BY.get(handler.get("class"), (None, set()))
        if not taken or not handler.keys() <= taken | {"class", "formatter", "level"}:
            return None
        if "stream" in handler and handler["stream"] not in _STREAMS:
            return None
        file_name = handler.get("filename", "")
        if not isinstance(file_name, str) or _CONVERTED.match(file_name):
            return None
        shown[name] = {**handler, "filename": None, "stream": handler.get("stream", "")[6:]}
    shape = repr((root, shown, formatters))
    return None if _CONVERTED.search(shape) else shape


def _are_dicts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(inner, dict) for inner in value.values())


def _configure(config: dict[str, Any]) -> None:
    logging.config._clearExistingHandlers()  # type: ignore[attr-defined]  # noqa: SLF001
    formatters = {
        name: logging.Formatter(given.get("format"), given.get("datefmt"))
        for name, given in config["formatters"].items()
    }
    handlers = {name: _handler(name, config, formatters) for name in sorted(config["handlers"])}
    enable_loggers()
    root = logging.getLogger()
    given = config["root"]
    if given.get("level") is not None:
        root.setLevel(given["level"])
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    for name in given.get("handlers") or ():
        root.addHandler(handlers[name])


def _handler(
    name: str, config: dict[str, Any], formatters: dict[str, logging.Formatter]
) -> logging.Handler:
    given = dict(config["handlers"][name])
    kind, _ = _TAKEN_BY[given.pop("class")]
    formatter, level = given.pop("formatter", None), given.pop("level", None)
    if "stream" in given:
        given["stream"] = getattr(sys, given["stream"].rpartition(".")[2])
    handler = kind(**given)
    if formatter:
        handler.setFormatter(formatters[formatter])
    if level is not None:
        handler.setLevel(level)
    handler.name = name
    return handler
