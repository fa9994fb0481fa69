"""What the fields of a journal's records must be, so that whoever reads them can rely on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from junky_core.record.codec import decode_field

__all__ = ["KNOWN_EVENTS", "fault_of"]

_LAST_TIME = 253_402_214_400.0  # the end of the year 9999: no calendar goes further
_LONGEST_S = 1e10
_MAX_WHOLE = 2**63
_MAX_DEPTH = 210  # twice what is written: a tuple or a mapping may take two levels

Check = Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_whole(value: Any) -> bool:
    return type(value) is int and -_MAX_WHOLE <= value < _MAX_WHOLE


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 10**300)


def _is_time(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= _LAST_TIME


def _is_duration(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= _LONGEST_S


def _is_seed(value: Any) -> bool:
    return value is None or (type(value) is int and abs(value) < 2**64)


def _is_table(value: Any) -> bool:
    return type(value) is dict and all(type(key) is str for key in value) and _is_shallow(value)


def _is_spec(value: Any) -> bool:
    fixed = value.get("fixed") if _is_table(value) else ()
    return fixed is None or (type(fixed) is dict and all(map(_is_text, fixed.values())))


def _is_list_of_wholes(value: Any) -> bool:
    return type(value) is list and all(map(_is_whole, value))


def _is_list_of_texts(value: Any) -> bool:
    return type(value) is list and all(type(one) is str for one in value)


def _is_direction(value: Any) -> bool:
    return value in ("maximize", "minimize")


def _is_text_or_none(value: Any) -> bool:
    return value is None or _is_text(value)


def _is_whole_or_none(value: Any) -> bool:
    return value is None or _is_whole(value)


def _is_number_or_none(value: Any) -> bool:
    return value is None or _is_number(value)


_TEXT, _WHOLE, _FLAG = (_is_text, "a text"), (_is_whole, "a whole number"), (_is_flag, "a flag")
_NUMBER, _TABLE = (_is_number, "a number"), (_is_table, "an object")
_SCORE = (_is_number_or_none, "a number or null")
_COUNT = (_is_whole_or_none, "a whole number or null")
_LABEL = (_is_text_or_none, "a text or null")
_SECONDS = (_is_duration, "a number of seconds")
_ATTEMPT = {"name": _TEXT, "slot": _WHOLE, "device": _TEXT, "attempt": _WHOLE}
_BEST: dict[str, tuple[Check, str]] = {
    "job": _WHOLE,
    "name": _TEXT,
    "score": _NUMBER,
    "path": _TEXT,
    "sha256": _TEXT,
}

# Fields that must be there.
_NEEDED: dict[str, dict[str, tuple[Check, str]]] = {
    "sweep_started": {"sweep_id": _TEXT},
    "job_started": {"job": _WHOLE, "key": _TEXT, "params": _TABLE, **_ATTEMPT},
    "score_improved": {"job": _WHOLE, "name": _TEXT, "score": _NUMBER},
    "best_saving": _BEST,
    "best_saved": _BEST,
    "attempt_failed": {
        "job": _WHOLE,
        "error": _TEXT,
        "traceback": _TEXT,
        "duration_s": _SECONDS,
        **_ATTEMPT,
    },
    "job_finished": {
        "job": _WHOLE,
        "params": _TABLE,
        "score": _SCORE,
        "duration_s": _SECONDS,
        **_ATTEMPT,
    },
    "job_failed": {
        "job": _WHOLE,
        "params": _TABLE,
        "score": _SCORE,
        "duration_s": _SECONDS,
        "error": _TEXT,
        "traceback": _TEXT,
        **_ATTEMPT,
    },
    "sweep_ended": {"reason": _TEXT},
}
# Fields that an older journal may lack.
_OPTIONAL: dict[str, dict[str, tuple[Check, str]]] = {
    "sweep_started": {
        "kind": _TEXT,
        "total": _COUNT,
        "resumed": _FLAG,
        "already_finished": _WHOLE,
        "devices": (_is_list_of_texts, "a list of texts"),
        "threads_per_slot": _COUNT,
        "seed": (_is_seed, "a whole number or null"),
        "direction": (_is_direction, "maximize or minimize"),
        "max_retries": _WHOLE,
        "spec": (_is_spec, "an object, whose fixed is one of texts"),
        "superseded": (_is_list_of_wholes, "a list of whole numbers"),
    },
    "job_started": {"info": _TABLE},
    "score_improved": {"overall": _FLAG},
    "attempt_failed": {"kind": _TEXT, "retry": _FLAG},
    "job_finished": {"value": (lambda _value: True, ""), "value_omitted": _FLAG},
    "slot_closed": {"slot": _WHOLE, "device": _TEXT, "reason": _TEXT},
    "notice": {"level": _TEXT, "message": _TEXT},
    "sweep_ended": {
        "finished": _WHOLE,
        "failed": _WHOLE,
        "left": _WHOLE,
        "duration_s": _SECONDS,
        "best_job": _COUNT,
        "best_name": _LABEL,
        "best_score": _SCORE,
        "best_path": _LABEL,
    },
}
_FIELDS = {
    event: [
        (field, f"{field}_exact", *check, field in _NEEDED.get(event, {}))
        for field, check in {
            "time": (_is_time, "a time in seconds"),
            **_NEEDED.get(event, {}),
            **_OPTIONAL.get(event, {}),
        }.items()
    ]
    for event in {**_NEEDED, **_OPTIONAL}
}
KNOWN_EVENTS = tuple(_FIELDS)


def fault_of(record: Mapping[str, Any]) -> str:
    """Return what is wrong with a record's fields, ``""`` if nothing is.

    Events and fields that are not known are passed over.

    >>> fault_of({"event": "job_finished", "job": "1"})
    "its job is '1', which is not a whole number"
    """
    for field, exact, is_right, what, needed in _FIELDS.get(record["event"], ()):
        if exact in record:
            try:
                value = decode_field(record, field)
            except (ValueError, TypeError, OverflowError, RecursionError) as error:
                return f"its {exact} cannot be read: {error}"
        elif field in record:
            value = record[field]
        elif needed:
            return f"it lacks {field}"
        else:
            continue
        if not is_right(value):
            return f"its {field} is {_shown(value)}, which is not {what}"
    return ""


def _is_shallow(value: Any, depth: int = 0) -> bool:
    """Return whether a value is no deeper nested than what a journal holds."""
    if isinstance(value, dict):
        return depth < _MAX_DEPTH and all(_is_shallow(one, depth + 1) for one in value.values())
    if isinstance(value, (list, tuple)):
        return depth < _MAX_DEPTH and all(_is_shallow(one, depth + 1) for one in value)
    return True


def _shown(value: Any) -> str:
    try:
        return repr(value)[:60]
    except (ValueError, RecursionError):  # a number of 5,000 digits, a deep list
        return f"a {type(value).__name__}"
