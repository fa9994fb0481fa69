r"""Keys and values of the grammar, written as Hydra overrides.

An override must carry a value exactly as it is in the file:

| value | text | why |
| --- | --- | --- |
| ``adam``, ``data/a.csv`` | as it is | reads best, and lexes as one string |
| any other string | ``'...'`` | in quotes, the grammar's characters mean nothing |
| ``1``, ``1e-05``, ``-inf``, ``true``, ``null`` | as it is | the lexer knows them |
| lists, mappings | ``[...]``, ``{k:...}`` | recursively; keys cannot be quoted, only escaped |

``${x}`` and ``\${x}`` are ordinary text here; OmegaConf interprets them when
the job reads its config.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from hydra_plugins.hydra_junky_sweeper._errors import HydraFitParamsError
from junky_core.values.user_text import shown

__all__ = [
    "NO_KEY",
    "bare_key",
    "check_key",
    "is_hydra_key",
    "names_something",
    "override_text",
    "same_value",
    "value_text",
]

_SIGN = re.compile(r"\+\+|\+|~")
# One identifier, or several tokens that Hydra joins into one string.
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(?:[./][A-Za-z0-9_-]+)*")
NO_KEY = (
    "is not a Hydra override key. Keys look like lr, optimizer.lr, a config group"
    " (optimizer, db@backup), +new.key, ++key or ~key."
)
_WORDS = frozenset({"true", "false", "null", "inf", "nan"})  # what the lexer takes for a value
_KEY_SPECIALS = re.compile(r"[\\()\[\]{}:=, \t]")


def bare_key(key: str) -> str:
    """Return ``key`` without its sign: ``+a``, ``++a``, ``~a`` and ``a`` are one key.

    >>> bare_key("++optimizer.lr")
    'optimizer.lr'
    """
    sign = _SIGN.match(key)
    return key[sign.end() :] if sign else key


def is_hydra_key(key: str) -> bool:
    """Return whether ``key`` configures Hydra itself, which no job can do."""
    name = bare_key(key)
    return name == "hydra" or name.startswith(("hydra.", "hydra/", "hydra@"))


def names_something(key: str) -> bool:
    """Return whether a key names a key of a config, or a config group.

    ``""`` is the global package to Hydra, ``@x`` a package with no group, ``hydra`` Hydra itself.
    """
    return bare_key(key).partition("@")[0] not in ("", "hydra")


def check_key(key: str) -> None:
    """Raise a clear error unless Hydra reads ``key`` as a key.

    Raises:
        HydraFitParamsError: ``key`` is not an override key; the message shows the forms.
    """
    try:
        parsed = _parser().parse_override(f"{key}=0")
        legal = parsed.get_key_element() == key and names_something(key)
    except (HydraException, RecursionError):
        legal = False
    if not legal:
        raise HydraFitParamsError(f"{shown(key)} in hydra.sweeper.fit_params {NO_KEY}")


def override_text(key: str, value: Any) -> str:
    """Return the override that sets ``key`` to ``value``.

    Args:
        key: An override key, its sign included. ``~key`` with ``None`` deletes
            whatever is there; with another value it deletes that value only.
        value: Plain data, as a config file holds it.

    Raises:
        HydraFitParamsError: No override can carry ``value``; the message names
            the key and the value.

    >>> override_text("lr", 1e-05), override_text("+tag", "a, b"), override_text("~sched", None)
    ('lr=1e-05', "+tag='a, b'", '~sched')
    """
    if value is None and key.startswith("~"):
        return key
    try:
        return f"{key}={value_text(value)}"
    except RecursionError:
        raise HydraFitParamsError(
            f"{key!r} in hydra.sweeper.fit_params: its value is nested too deeply for an override"
        ) from None
    except _CannotCarryError as error:
        raise HydraFitParamsError(
            f"{key!r} in hydra.sweeper.fit_params: no Hydra override can carry the value"
            f" {shown(value)}: {error}"
        ) from None


class _CannotCarryError(ValueError):
    """Why no override can carry a value; the caller adds the key."""


def value_text(value: Any) -> str:
    """Return text that Hydra's override grammar reads as exactly ``value``.

    Raises:
        ValueError: There is no such text; the message says why.
    """
    if type(value) is str:
        return _string_text(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if type(value) in (int, float):
        return repr(value)
    if isinstance(value, Mapping):
        items = (f"{_mapping_key_text(k)}:{value_text(v)}" for k, v in value.items())
        return "{" + ",".join(items) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(value_text, value)) + "]"
    raise _CannotCarryError(
        f"overrides carry strings, numbers, booleans, null, lists and mappings,"
        f" and {value!r} is of type {type(value).__module__}.{type(value).__qualname__}"
    )


def _string_text(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    if text == "???":
        raise _CannotCarryError("'???' means a missing value to OmegaConf")
    # Fewer escapes read better; Hydra's own writer knows the rules for backslashes.
    quote = Quote.double if "'" in text and '"' not in text else Quote.single
    return QuotedString(text, quote).with_quotes()


def _mapping_key_text(key: Any) -> str:
    if type(key) is str and _PLAIN.fullmatch(key) and key.lower() not in _WORDS:
        return key
    return _odd_mapping_key_text(key, repr(key))


@functools.lru_cache(maxsize=1024)
def _odd_mapping_key_text(key: Any, shown: str) -> str:
    # `shown` is for the cache: 1, 1.0 and True are equal, and so are 0.0 and -0.0.
    kind = type(key)
    if kind is str:
        text = _KEY_SPECIALS.sub(r"\\\g<0>", key)
    elif kind in (int, float):
        text = shown
    elif kind is bool:
        text = "true" if key else "false"
    else:
        raise _CannotCarryError(f"the mapping key {key!r} is not a string, number or boolean")
    # Hydra allows few characters here and no quotes, so let Hydra check it.
    try:
        value = _parser().parse_override(f"k={{{text}:0}}").value()
    except HydraException:
        value = None
    back = next(iter(value)) if isinstance(value, dict) and len(value) == 1 else None
    if type(back) is not kind or repr(back) != shown:
        raise _CannotCarryError(f"Hydra's grammar has no way to write the mapping key {shown}")
    return text


def same_value(left: Any, right: Any) -> bool:
    """Return whether a value from the command line and one from the grammar mean the same.

    Numbers compare by value, because ``lr=1`` means the ``1.0`` of the file;
    booleans are not numbers here. All else compares by type and content.
    """
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return left == right or (left != left and right != right)  # noqa: PLR0124 - both NaN
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same_value(left[k], right[k]) for k in left)
    if _is_list(left) and _is_list(right):
        return len(left) == len(right) and all(map(same_value, left, right))
    return type(left) is type(right) and bool(left == right)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


@functools.lru_cache(maxsize=1)
def _parser() -> OverridesParser:
    return OverridesParser.create()
