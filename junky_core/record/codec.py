"""Convert an event to a line of a journal, and back.

A line is strict JSON, so that ``jq`` and ``pandas.read_json(lines=True)`` can read
it. If JSON would change the value of a field, the field is written twice: in the
nearest form that JSON has, and under ``<field>_exact`` with tags that keep what
would be lost. (With the tags alone, ``jq max_by(.score)`` would find NaN.)

    value                   "value"            "value_exact"
    --------------------    ---------------    -----------------------------
    (1, 2)                  [1, 2]             {"__tuple__": [1, 2]}
    float("nan")            null               {"__float__": "nan"}
    {1: "a"}                {"1": "a"}         {"__dict__": [[1, "a"]]}
    2**70                   1.18e+21           {"__int__": "1180591620717..."}

A parameter of any other type (a class, a path) is written as its text,
``{"__repr__": "..."}``. A *returned value* that contains one is left out
(``"value": null, "value_omitted": true``), and so is one that takes more than
64 KiB.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from junky_core.events import Event, ScoreReported
from junky_core.record.event_types import EVENT_NAMES, EVENT_TYPES, TIME
from junky_core.values.texts import MAX_TOLD, cut
from junky_core.values.user_text import is_ctrl_c, repr_of

__all__ = [
    "JOURNAL_VERSION",
    "MAX_VALUE_BYTES",
    "FieldError",
    "decode_field",
    "encode_event",
    "event_of",
]

JOURNAL_VERSION = 1
MAX_VALUE_BYTES = 64 * 1024
_MAX_REPR = 10_000
_MAX_INT = 2**63  # JSON readers round larger integers, or refuse them (pandas)
_MAX_DEPTH = 100

_NO_LISTS = (bytes, bytearray, memoryview, range)
_TAGS = frozenset({"__tuple__", "__float__", "__dict__", "__int__", "__repr__"})
_TEXTS = frozenset({"traceback", "error", "message", "reason"})
# For each event and field: its name, the name of its exact form, a type whose values are all valid,
# and its type. Precomputed, because reading a journal spends much of its time here.
_FIELDS = {
    name: [
        (field, f"{field}_exact", type_.always, type_)
        for field, type_ in {"time": TIME, **kind.fields}.items()
    ]
    for name, kind in EVENT_TYPES.items()
}

_encoder = json.JSONEncoder(ensure_ascii=True, allow_nan=False, check_circular=False)


class FieldError(ValueError):
    """A field of a record is missing or not valid; the message says which."""


class _CannotHold(Exception):
    """JSON has no form for the value, or it is too large."""


def encode_event(event: Event, *, lean: bool = False) -> bytes | None:
    r"""Return the line for ``event``, with its newline; ``None`` if journals do not record it.

    With ``lean``, tracebacks are shortened and returned values left out, to save memory.

    >>> from junky_core.events import SlotClosed
    >>> encode_event(SlotClosed(time=1.5, slot=1, device="cpu", reason="x"))
    b'{"event": "slot_closed", "time": 1.5, "slot": 1, "device": "cpu", "reason": "x"}\n'
    """
    name = EVENT_NAMES.get(type(event))
    if name is None or (type(event) is ScoreReported and not event.improved):
        return None
    record: dict[str, Any] = {"event": name, "time": event.time}
    if name == "sweep_started":
        record["journal_version"] = JOURNAL_VERSION
    for field in EVENT_TYPES[name].fields:
        value = getattr(event, field)
        if field == "value":
            _put_value(record, value, lean=lean)
        elif field in _TEXTS:
            record[field] = cut(value, 200 if lean else MAX_TOLD)
        elif _is_scalar(value):
            record[field] = value
        elif field == "devices":
            record[field] = [str(device) for device in value]
        elif field == "superseded":
            record[field] = list(value)
        else:
            _put(record, field, value)
    line = _encoder.encode(record)
    if "\\ud" in line:  # perhaps a lone surrogate, which UTF-8 cannot encode
        line = _encoder.encode(_clean_text(record))
    return line.encode("ascii") + b"\n"


def decode_field(record: Mapping[str, Any], field: str) -> Any:
    """Return a field of a record as the original Python value.

    >>> decode_field({"value": [1], "value_exact": {"__tuple__": [1]}}, "value")
    (1,)
    """
    exact = f"{field}_exact"
    return _decode(record[exact]) if exact in record else record.get(field)


def event_of(record: Mapping[str, Any]) -> Event | None:
    """Return the event of a record, with defaults for missing fields.

    Unknown fields are ignored. Returns ``None`` if this release does not know the event, or if the
    record lacks a field that has no default.

    Raises:
        FieldError: A field is not valid, or a required one is missing.

    >>> event_of({"event": "notice", "time": 1.5, "level": "info", "message": "hello"})
    Notice(time=1.5, level='info', message='hello')
    >>> event_of({"event": "job_finished", "job": "1"})
    Traceback (most recent call last):
    junky_core.record.codec.FieldError: its job is '1', which is not a whole number
    """
    name = record["event"]
    kind = EVENT_TYPES.get(name)
    if kind is None:
        return None
    values = dict(kind.stand_ins)
    for field, exact, always, type_ in _FIELDS[name]:
        if field in record:
            value = record[field]
            if type(value) is always and exact not in record:
                values[field] = value
                continue
        elif exact not in record:
            continue
        if exact in record:
            try:
                value = _decode(record[exact])
            except (ValueError, TypeError, OverflowError, RecursionError) as error:
                raise FieldError(f"its {exact} cannot be read: {error}") from None
        if not type_.is_right(value):
            raise FieldError(f"its {field} is {_shown(value)}, which is not {type_.what}")
        values[field] = value
    try:
        return kind.event(**values)
    except TypeError:  # a missing field has no default
        for field, type_ in kind.fields.items():
            if type_.needed and field not in values:
                raise FieldError(f"it lacks {field}") from None
        return None


def _put(record: dict[str, Any], field: str, value: Any) -> None:
    """Put a field; what JSON has no form for is put as its text."""
    try:
        nearest, exact = _Encoding().both(value)
    except MemoryError:
        raise
    except BaseException as error:  # a mapping that is broken, or changed by another thread
        if is_ctrl_c(error):
            raise
        exact = nearest = _text_of(value)
    record[field] = nearest
    if nearest is not exact and nearest != exact:
        record[f"{field}_exact"] = exact


def _put_value(record: dict[str, Any], value: Any, *, lean: bool) -> None:
    """Put the value that a job returned, unless JSON has no form for it or it is too large."""
    try:
        if lean:
            raise _CannotHold
        nearest, exact = _Encoding(MAX_VALUE_BYTES).both(value)
        if len(_encoder.encode(nearest)) > MAX_VALUE_BYTES:
            raise _CannotHold
    except BaseException as error:  # a container that another thread changes, a broken __len__
        if is_ctrl_c(error):
            raise
        record["value"] = None
        record["value_omitted"] = True
        return
    record["value"] = nearest
    if nearest is not exact and nearest != exact:
        record["value_exact"] = exact


class _Encoding:
    """Turns a value into JSON, with tags for what JSON lacks; ``_decode`` is the inverse.

    Args:
        budget: About how many bytes the value may take; a larger one, or one for which JSON has no
            form, raises ``_CannotHold``. ``None``: any size, and the text of such a value.
    """

    def __init__(self, budget: int | None = None) -> None:
        self._strict = budget is not None
        self._left = budget or 0
        self._tagged = False

    def both(self, value: Any) -> tuple[Any, Any]:
        """Return the nearest form of the value in JSON, and the one with tags."""
        exact = self._encode(value, 0)
        return (_nearest(exact) if self._tagged else exact), exact

    def _encode(self, value: Any, depth: int) -> Any:
        if self._strict:  # the items of a container may be endless
            self._left -= len(value) if isinstance(value, str) else 1
            if self._left < 0:
                raise _CannotHold
        if _is_scalar(value):
            return value
        value = _number(value)
        if isinstance(value, str):
            return str(value)
        if isinstance(value, bool):
            return value
        if isinstance(value, int):
            return int(value) if -_MAX_INT <= value < _MAX_INT else self._tag("int", hex(value))
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else self._tag("float", repr(float(value)))
        if depth <= _MAX_DEPTH:
            if isinstance(value, Mapping):
                return self._mapping(value, depth + 1)
            if isinstance(value, Sequence) and not isinstance(value, _NO_LISTS):
                items = [self._encode(item, depth + 1) for item in value]
                return self._tag("tuple", items) if isinstance(value, tuple) else items
        if self._strict:
            raise _CannotHold
        return _text_of(value)

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> Any:
        encode = self._encode
        encoded = {}
        for key, item in value.items():
            if type(key) is not str:
                break
            encoded[key] = encode(item, depth)
        else:
            if len(encoded) != 1 or _TAGS.isdisjoint(encoded):
                return encoded
        pairs = [[encode(key, depth), encode(item, depth)] for key, item in value.items()]
        return self._tag("dict", pairs)

    def _tag(self, kind: str, content: Any) -> dict[str, Any]:
        self._tagged = True
        return {f"__{kind}__": content}


def _nearest(exact: Any) -> Any:
    """Return what an encoded value is in JSON without tags."""
    if isinstance(exact, list):
        return [_nearest(item) for item in exact]
    if not isinstance(exact, dict):
        return exact
    if len(exact) == 1:
        ((tag, inner),) = exact.items()
        if tag == "__tuple__":
            return _nearest(inner)
        if tag == "__float__":
            return None
        if tag == "__int__":
            number = int(inner, 16)
            return float(number) if abs(number) < 10**300 else None
        if tag == "__dict__":
            return {_key_text(key): _nearest(item) for key, item in inner}
        if tag == "__repr__":
            return exact
    return {key: _nearest(item) for key, item in exact.items()}


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((tag, inner),) = value.items()
        if tag == "__tuple__":
            return tuple(_decode(item) for item in inner)
        if tag == "__float__":
            return float(inner)
        if tag == "__int__":
            return int(inner, 16)
        if tag == "__dict__":
            return {_decode(key): _decode(item) for key, item in inner}
    return {key: _decode(item) for key, item in value.items()}


def _is_scalar(value: Any) -> bool:
    """Return whether ``value`` is a scalar that JSON keeps as it is, with its type."""
    kind = type(value)
    if kind is float:
        return math.isfinite(value)
    if kind is int:
        return bool(-_MAX_INT <= value < _MAX_INT)
    return kind is str or kind is bool or value is None


def _number(value: Any) -> Any:
    """Convert a NumPy scalar to a Python one; return anything else unchanged."""
    if (
        type(value).__module__.partition(".")[0] == "numpy"
        and getattr(value, "ndim", None) == 0
        and hasattr(value, "item")
    ):
        item = value.item()
        if isinstance(item, (bool, int, float, str)):
            return item
    return value


def _key_text(key: Any) -> str:
    """Return an encoded key of a mapping as JSON writes it."""
    if isinstance(key, str):
        return key
    if isinstance(key, dict) and "__repr__" in key:
        return str(key["__repr__"])
    value = _decode(key)
    is_scalar = value is None or isinstance(value, (bool, int, float))
    return json.dumps(value) if is_scalar else _repr(value)


def _text_of(value: Any) -> dict[str, str]:
    return {"__repr__": _repr(value)}


def _repr(value: Any) -> str:
    return cut(repr_of(value), _MAX_REPR)


def _shown(value: Any) -> str:
    try:
        return repr(value)[:60]
    except (ValueError, RecursionError):  # a number of 5,000 digits, a deep list
        return f"a {type(value).__name__}"


def _clean_text(value: Any) -> Any:
    """Escape lone surrogates, which no encoding can represent."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_clean_text(key): _clean_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean_text(item) for item in value]
    return value
