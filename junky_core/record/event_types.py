"""The events that a journal records: their names, their fields, and the types of the fields.

To add an event or a field, extend this table: :mod:`junky_core.record.codec` uses it to write,
check and read records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from junky_core.events import (
    AttemptFailed,
    BestSaved,
    BestSaving,
    Event,
    JobFailed,
    JobFinished,
    JobStarted,
    Notice,
    ScoreReported,
    SlotClosed,
    SweepEnded,
    SweepStarted,
)
from junky_core.jobs import Direction

__all__ = ["EVENT_NAMES", "EVENT_TYPES", "TIME", "EventType", "FieldType"]

_LAST_TIME = 253_402_214_400.0  # the end of the year 9999: no calendar goes further
_LONGEST_S = 1e10
_MAX_WHOLE = 2**63
_MAX_DEPTH = 210  # twice what the codec writes: a tuple or a mapping may take two levels


@dataclass(frozen=True, slots=True)
class FieldType:
    """The type of a field of a record.

    Attributes:
        is_right: Whether a decoded value is valid.
        what: What is expected, for messages.
        always: A Python type whose values are all valid, and need no check.
        needed: Whether a record without the field is damaged; older journals may lack other fields.
    """

    is_right: Callable[[Any], bool]
    what: str
    always: type | None = None
    needed: bool = True

    def optional(self) -> FieldType:
        """Return the type for a field that a record may lack."""
        return replace(self, needed=False)

    def or_null(self) -> FieldType:
        """Return the type for a field that may be ``None``."""
        is_right = self.is_right
        return replace(
            self,
            is_right=lambda value: value is None or is_right(value),
            what=f"{self.what} or null",
        )


@dataclass(frozen=True, slots=True)
class EventType:
    """An event in a journal.

    Attributes:
        name: Its name in a record.
        event: The event's class.
        fields: The recorded fields, by name, in order.
        stand_ins: Values for fields of ``event`` that a record lacks and that have no default.
    """

    name: str
    event: type[Event]
    fields: Mapping[str, FieldType]
    stand_ins: Mapping[str, Any] = field(default_factory=dict)


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
    return type(value) is int and abs(value) < 2**64


def _is_table(value: Any) -> bool:
    return type(value) is dict and set(map(type, value)) <= {str} and _is_shallow(value)


def _is_spec(value: Any) -> bool:
    fixed = value.get("fixed") if _is_table(value) else ()
    return fixed is None or (type(fixed) is dict and all(map(_is_text, fixed.values())))


def _is_list_of_wholes(value: Any) -> bool:
    return type(value) is list and all(map(_is_whole, value))


def _is_list_of_texts(value: Any) -> bool:
    return type(value) is list and all(type(one) is str for one in value)


def _is_direction(value: Any) -> bool:
    return value in tuple(Direction)


def _is_shallow(value: Any, depth: int = 0) -> bool:
    """Return whether a container is nested no deeper than a journal's writer allows."""
    if depth >= _MAX_DEPTH:
        return False
    for one in value.values() if isinstance(value, dict) else value:
        if isinstance(one, (dict, list, tuple)) and not _is_shallow(one, depth + 1):
            return False
    return True


_TEXT, _FLAG = FieldType(_is_text, "a text", str), FieldType(_is_flag, "a flag", bool)
_WHOLE, _NUMBER = FieldType(_is_whole, "a whole number"), FieldType(_is_number, "a number", float)
_TABLE = FieldType(_is_table, "an object")
_SCORE, _COUNT, _LABEL = _NUMBER.or_null(), _WHOLE.or_null(), _TEXT.or_null()
_SECONDS = FieldType(_is_duration, "a number of seconds")
_ANY = FieldType(lambda _value: True, "")

TIME = FieldType(_is_time, "a time in seconds", needed=False)  # of every event
_ATTEMPT = {"job": _WHOLE, "name": _TEXT, "slot": _WHOLE, "device": _TEXT, "attempt": _WHOLE}
_BEST = {"job": _WHOLE, "name": _TEXT, "score": _NUMBER, "path": _TEXT, "sha256": _TEXT}
_ERROR = {"error": _TEXT, "traceback": _TEXT}
_ENDING = {"score": _SCORE, "duration_s": _SECONDS, "params": _TABLE}

_TYPES = (
    EventType(
        "sweep_started",
        SweepStarted,
        {
            "sweep_id": _TEXT,
            "kind": _TEXT.optional(),
            "total": _COUNT.optional(),
            "resumed": _FLAG.optional(),
            "already_finished": _WHOLE.optional(),
            "devices": FieldType(_is_list_of_texts, "a list of texts", needed=False),
            "threads_per_slot": _COUNT.optional(),
            "seed": FieldType(_is_seed, "a whole number", needed=False).or_null(),
            "direction": FieldType(_is_direction, "maximize or minimize", needed=False),
            "max_retries": _WHOLE.optional(),
            "spec": FieldType(_is_spec, "an object, whose fixed is one of texts", needed=False),
            "superseded": FieldType(_is_list_of_wholes, "a list of whole numbers", needed=False),
        },
        {"kind": "", "total": None},
    ),
    EventType(
        "job_started",
        JobStarted,
        {
            "job": _WHOLE,
            "key": _TEXT,
            **_ATTEMPT,  # "job" again, which keeps its place
            "params": _TABLE,
            "info": _TABLE.optional(),
        },
    ),
    EventType(
        "score_improved",
        ScoreReported,
        {"job": _WHOLE, "name": _TEXT, "score": _NUMBER, "overall": _FLAG.optional()},
        {"improved": True, "overall": False, "best_score": None, "best_name": None},
    ),
    EventType("best_saving", BestSaving, _BEST),
    EventType("best_saved", BestSaved, _BEST),
    EventType(
        "attempt_failed",
        AttemptFailed,
        {
            **_ATTEMPT,
            "kind": _TEXT.optional(),
            "retry": _FLAG.optional(),
            "duration_s": _SECONDS,
            **_ERROR,
        },
        {"kind": "error", "retry": False},
    ),
    EventType(
        "job_finished",
        JobFinished,
        {**_ATTEMPT, **_ENDING, "value": _ANY.optional()},
        {"value": None},
    ),
    EventType("job_failed", JobFailed, {**_ATTEMPT, **_ENDING, **_ERROR}),
    EventType(
        "slot_closed",
        SlotClosed,
        {"slot": _WHOLE.optional(), "device": _TEXT.optional(), "reason": _TEXT.optional()},
    ),
    EventType("notice", Notice, {"level": _TEXT.optional(), "message": _TEXT.optional()}),
    EventType(
        "sweep_ended",
        SweepEnded,
        {
            "reason": _TEXT,
            "finished": _WHOLE.optional(),
            "failed": _WHOLE.optional(),
            "left": _WHOLE.optional(),
            "duration_s": _SECONDS.optional(),
            "best_job": _COUNT.optional(),
            "best_name": _LABEL.optional(),
            "best_score": _SCORE.optional(),
            "best_path": _LABEL.optional(),
        },
        {"finished": 0, "failed": 0, "left": 0, "duration_s": 0.0},
    ),
)
EVENT_TYPES = {one.name: one for one in _TYPES}
EVENT_NAMES = {one.event: one.name for one in _TYPES}
