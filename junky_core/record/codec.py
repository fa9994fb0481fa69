"""One event as one line of a journal, and back again.

A line is strict JSON, so that ``jq`` and ``pandas.read_json(lines=True)`` read
it. JSON cannot hold everything that Python can, so a field whose value it would
change stands twice: in the nearest form JSON has, and under ``<field>_exact``
with what was lost put into words:

    value                   "value"            "value_exact"
    --------------------    ---------------    -----------------------------
    (1, 2)                  [1, 2]             {"__tuple__": [1, 2]}
    float("nan")            null               {"__float__": "nan"}
    {1: "a"}                {"1": "a"}         {"__dict__": [[1, "a"]]}
    2**70                   1.18e+21           {"__int__": "1180591620717..."}

A parameter that is none of these (a class, a path) is kept as its text,
``{"__repr__": "..."}``; a *returned value* that holds one is left out
(``"value": null, "value_omitted": true``), as is one that takes more than
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
_MAX_INT = 2**63  # beyond it readers of JSON round, or refuse (pandas)
_MAX_DEPTH = 100

_TAGS = frozenset({"__tuple__", "__float__", "__dict__", "__int__", "__repr__"})
_TEXTS = frozenset({"traceback", "error", "message", "reason"})
# Of each event: a field, its exact form's name, which values are right without a look, and what it
# must be. Tuples, for reading a journal spends much of its time here.
_FIELDS = {
    name: [
        (field, f"{field}_exact", type_.always, type_)
        for field, type_ in {"time": TIME, **kind.fields}.items()
    ]
    for name, kind in EVENT_TYPES.items()
}

_encoder = json.JSONEncoder(ensure_ascii=True, allow_nan=False, check_circular=False)


class FieldError(ValueError):
    """A field of a record is missing or not what it should be; the message says which."""


class _CannotHold(Exception):
    """JSON cannot hold the value, or it is too large."""


def encode_event(event: Event, *, lean: bool = False) -> bytes | None:
    r"""Return the line of ``event``, newline included; ``None`` if a journal does not note it.

    With ``lean``, tracebacks and returned values are left out, for when there
    is no room.

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
        elif value is None:
            record[field] = None
        elif type(value) is str:
            if field in _TEXTS:
                value = cut(value, 200 if lean else MAX_TOLD)
            record[field] = value
        elif field == "devices":
            record[field] = [str(device) for device in value]
        elif field == "superseded":
            record[field] = list(value)
        else:
            _put(record, field, value)
    line = _encoder.encode(record)
    if "\\ud" in line:  # perhaps half of a surrogate pair, which no UTF-8 file can hold
        line = _encoder.encode(_clean_text(record))
    return line.encode("ascii") + b"\n"


def decode_field(record: Mapping[str, Any], field: str) -> Any:
    """Return a field of a record as the Python value it was.

    >>> decode_field({"value": [1], "value_exact": {"__tuple__": [1]}}, "value")
    (1,)
    """
    exact = f"{field}_exact"
    return _decode(record[exact]) if exact in record else record.get(field)


def event_of(record: Mapping[str, Any]) -> Event | None:
    """Return a record as the event it was, with stand-ins for fields that it does not have.

    Fields that are not known are passed over. ``None`` if it is an event that this release does
    not know, or lacks what it was about.

    Raises:
        FieldError: A field is not what this release would write, or is missing.

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
    except TypeError:  # a field is missing that has no stand-in
        for field, type_ in kind.fields.items():
            if type_.needed and field not in values:
                raise FieldError(f"it lacks {field}") from None
        return None


def _put(record: dict[str, Any], field: str, value: Any) -> None:
    try:
        if _is_plain(value):
            record[field] = value
            return
        plain, exact = _plain(value), _exact(value)
    except MemoryError:
        raise
    except BaseException as error:  # somebody's broken mapping, one that another thread changes
        if is_ctrl_c(error):
            raise
        plain = exact = {"__repr__": _repr(value)}
    record[field] = plain
    if exact != plain:
        record[f"{field}_exact"] = exact


def _put_value(record: dict[str, Any], value: Any, *, lean: bool) -> None:
    """Put what a job returned, if JSON can hold it."""
    try:
        if lean:
            raise _CannotHold
        budget = _Budget(MAX_VALUE_BYTES)
        faithful = _is_plain(value, budget)
        plain = value if faithful else _plain(value, budget, strict=True)
        if len(_encoder.encode(plain)) > MAX_VALUE_BYTES:
            raise _CannotHold
        exact = plain if faithful else _exact(value)
    except BaseException as error:  # a container that another thread changes, a broken __len__
        if is_ctrl_c(error):
            raise
        record["value"] = None
        record["value_omitted"] = True
        return
    record["value"] = plain
    if exact is not plain and exact != plain:
        record["value_exact"] = exact


class _Budget:
    """Counts how much of a value has been walked, and ends the walk of a huge one."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise _CannotHold


def _is_plain(value: Any, budget: _Budget | None = None, depth: int = 0) -> bool:
    """Return whether JSON gives back just this value, types included."""
    kind = type(value)
    if value is None or kind is bool:
        return True
    if kind is str:
        if budget is not None:
            budget.take(len(value))
        return True
    if kind is int:
        return bool(-_MAX_INT <= value < _MAX_INT)
    if kind is float:
        return math.isfinite(value)
    if depth > _MAX_DEPTH:
        return False
    if kind is list:
        if budget is not None:
            budget.take(2 * len(value))
        return all(_is_plain(item, budget, depth + 1) for item in value)
    if kind is dict:
        if budget is not None:
            budget.take(4 * len(value))
        for key, item in value.items():
            if type(key) is not str or not _is_plain(item, budget, depth + 1):
                return False
        return not (len(value) == 1 and next(iter(value)) in _TAGS)
    return False


def _plain(
    value: Any, budget: _Budget | None = None, depth: int = 0, *, strict: bool = False
) -> Any:
    """Return the nearest value that JSON can hold; with ``strict``, raise for an object."""
    if budget is not None:
        budget.take(1)  # the items of a container may never end
    value = _number(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if budget is not None:
            budget.take(len(value))
        return str(value)
    if isinstance(value, int):
        if -_MAX_INT <= value < _MAX_INT:
            return int(value)
        return float(value) if abs(value) < 10**300 else None
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if depth <= _MAX_DEPTH:
        if isinstance(value, Mapping):
            if budget is not None:
                budget.take(4 * len(value))
            return {
                _key_text(key, strict=strict): _plain(item, budget, depth + 1, strict=strict)
                for key, item in value.items()
            }
        no_list = (bytes, bytearray, memoryview, *((range,) if strict else ()))
        if isinstance(value, Sequence) and not isinstance(value, no_list):
            if budget is not None:
                budget.take(2 * len(value))
            return [_plain(item, budget, depth + 1, strict=strict) for item in value]
    if strict:
        raise _CannotHold
    return {"__repr__": _repr(value)}


def _exact(value: Any, depth: int = 0) -> Any:
    """Return the value in JSON with tags for what JSON lacks; the inverse of ``_decode``."""
    value = _number(value)
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value) if -_MAX_INT <= value < _MAX_INT else {"__int__": hex(value)}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"__float__": repr(float(value))}
    if depth <= _MAX_DEPTH:
        if isinstance(value, Mapping):
            pairs = [(_exact(k, depth + 1), _exact(v, depth + 1)) for k, v in value.items()]
            texts = all(type(key) is str for key, _ in pairs)
            if texts and not (len(pairs) == 1 and pairs[0][0] in _TAGS):
                return dict(pairs)
            return {"__dict__": [list(pair) for pair in pairs]}
        if isinstance(value, tuple):
            return {"__tuple__": [_exact(item, depth + 1) for item in value]}
        if isinstance(value, Sequence) and not isinstance(
            value, (bytes, bytearray, memoryview, range)
        ):
            return [_exact(item, depth + 1) for item in value]
    return {"__repr__": _repr(value)}


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


def _number(value: Any) -> Any:
    """Turn a number of numpy into Python's own; anything else is returned as it is."""
    if (
        type(value).__module__.partition(".")[0] == "numpy"
        and getattr(value, "ndim", None) == 0
        and hasattr(value, "item")
    ):
        item = value.item()
        if isinstance(item, (bool, int, float, str)):
            return item
    return value


def _key_text(key: Any, *, strict: bool) -> str:
    """Return a mapping's key as JSON writes it."""
    key = _number(key)
    if isinstance(key, str):
        return str(key)
    if key is None or isinstance(key, (bool, int, float)):
        return json.dumps(key)
    if strict and not isinstance(key, tuple):
        raise _CannotHold
    return _repr(key)


def _repr(value: Any) -> str:
    return cut(repr_of(value), _MAX_REPR)


def _shown(value: Any) -> str:
    try:
        return repr(value)[:60]
    except (ValueError, RecursionError):  # a number of 5,000 digits, a deep list
        return f"a {type(value).__name__}"


def _clean_text(value: Any) -> Any:
    """Write out halves of surrogate pairs, which no encoding can hold; all else stays."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_clean_text(key): _clean_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean_text(item) for item in value]
    return value
