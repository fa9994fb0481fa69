"""The keys in which a sweep differs from the one that its folder holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

__all__ = ["changes_text", "config_texts", "what_differs"]

_SHOWN = 10
_SHOWN_TEXT = 60  # characters of a value
_ABSENT = "absent"


def config_texts(config: DictConfig) -> dict[str, str]:
    """Return the values of a job's config by dotted key, as text, without the ``hydra`` node.

    >>> config_texts(OmegaConf.create({"lr": 0.1, "opt": {"name": "sgd", "args": []}, "hydra": {}}))
    {'lr': '0.1', 'opt.name': "'sgd'", 'opt.args': '[]'}
    """
    content: Any = OmegaConf.to_container(config, resolve=False)
    pairs: dict[str, str] = {}
    _flatten("", {key: value for key, value in content.items() if key != "hydra"}, pairs)
    return pairs


def _flatten(prefix: str, node: Any, pairs: dict[str, str]) -> None:
    if not isinstance(node, (dict, list)) or (prefix and not node):
        pairs[prefix] = repr(node)
        return
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        _flatten(f"{prefix}.{key}" if prefix else str(key), value, pairs)


def what_differs(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    asked: Iterable[Mapping[str, str]],
    *swept: Sequence[Mapping[str, Any]],
) -> str:
    """Return a sentence that names the keys that differ.

    Args:
        before: The ``spec`` in the journal: the command line's ``overrides``, and the
            ``config`` of a job, as :func:`config_texts` has it; older journals lack the latter.
        now: The ``spec`` of this run.
        asked: Configs of this run's jobs.
        swept: Parameters of the jobs before, and of this run's. A key that varies between
            jobs is named only if no other key differs.
    """
    config = before.get("config")
    if not isinstance(config, Mapping):
        return _of_overrides(before.get("overrides") or (), now.get("overrides") or ())
    changes = [_changes(config, other) for other in asked]
    closest = min(changes, key=len, default={})
    varying = {name for jobs in swept for name in _varying(jobs)}
    fixed = {
        key: change
        for key, change in closest.items()
        if not any(key == name or key.startswith(f"{name}.") for name in varying)
    }
    text = _changes_text(fixed or closest)
    return text and f"Their configs differ in {text}"


def changes_text(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return the keys in which two configs differ, with both values; ``""`` if in none.

    >>> changes_text({"lr": "0.1", "epochs": "3"}, {"lr": "0.2", "epochs": "3"})
    'lr (was 0.1, is 0.2)'
    """
    return _changes_text(_changes(before, now))


def _changes_text(changes: Mapping[str, tuple[str, str]]) -> str:
    shown = [f"{key} (was {_short(old)}, is {_short(new)})" for key, (old, new) in changes.items()]
    more = f", and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more


def _changes(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    keys = [*one, *(key for key in other if key not in one)]
    pairs = {key: (one.get(key, _ABSENT), other.get(key, _ABSENT)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _varying(jobs: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the keys, without sign, package and group's slashes, that jobs differ in."""
    first = jobs[0] if jobs else {}
    found = {name for job in jobs for name in {*job, *first} if job.get(name) != first.get(name)}
    return {name.lstrip("+~").partition("@")[0].replace("/", ".") for name in found}


def _of_overrides(before: Sequence[str], now: Sequence[str]) -> str:
    changed = [line for line in (*before, *now) if (line in before) != (line in now)]
    if not changed:
        return "Their command lines are the same: the config files have changed"
    keys = dict.fromkeys(line.partition("=")[0] for line in changed)
    return f"Their command lines differ in {', '.join(keys)}"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_TEXT else f"{text[:_SHOWN_TEXT]}..."
