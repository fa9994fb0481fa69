"""Attempts and their ends as plain data, for workers in other processes.

The plain form is a dict of ``None``, ``bool``, ``int``, ``float``, ``str``,
``bytes``, lists and dicts with texts as keys. Users' objects (parameters,
payload, returned value, exception) are pickled to ``bytes``:

    attempt   {"job": {"num", "key", "score", "params": bytes, "payload": bytes, "info": bytes},
               "number", "name", "score"}
    end       {"kind": text of an EndKind, "duration_s", "score", "serial", "error", "traceback",
               "host_memory", "loaders_elsewhere", "closes_slot", "location": lists for tuples,
               "value": bytes, "value_is_repr", "exception": bytes or None,
               "report": bytes or None}

An attempt that cannot be pickled is an error, before anything is sent. An end
always gets through: a value that cannot be pickled arrives as its ``repr``, an
exception that cannot as a :class:`~junky_core.errors.JobError` with its text.

>>> from junky_core.jobs import Attempt, Job
>>> attempt = Attempt(Job(3, {"lr": 0.1}), 2, "Thread-1_4")
>>> attempt_of(plain_attempt(attempt)) == attempt
True
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Hashable
from typing import Any

from junky_core.errors import ConfigError, JobError
from junky_core.executors.contract import AttemptEnd
from junky_core.jobs import Attempt, Job
from junky_core.values.user_text import class_name, dict_text, error_line, is_ctrl_c, repr_of

__all__ = ["attempt_of", "end_of", "plain_attempt", "plain_end"]

Dumps = Callable[[Any], bytes]
Loads = Callable[[bytes], Any]


def plain_attempt(attempt: Attempt, dumps: Dumps = pickle.dumps) -> dict[str, Any]:
    """Return an attempt as plain data.

    Args:
        attempt: The attempt.
        dumps: Pickles users' objects (``cloudpickle.dumps`` takes more than ``pickle.dumps``).

    Raises:
        ConfigError: The job's parameters or payload cannot be pickled.
    """
    job = attempt.job
    pickled = {}
    for name in ("params", "payload", "info"):
        try:
            value = getattr(job, name)
            pickled[name] = dumps(dict(value) if name != "payload" else value)
        except Exception as error:
            raise ConfigError(
                f"job {job.num} cannot be sent to another process, because its {name} cannot be "
                f"pickled: {error_line(error)}. Its parameters: {dict_text(job.params)}"
            ) from error
    plain_job = {"num": job.num, "key": job.key, "score": job.score, **pickled}
    return {
        "job": plain_job,
        "number": attempt.number,
        "name": attempt.name,
        "score": attempt.score,
    }


def attempt_of(plain: dict[str, Any], loads: Loads = pickle.loads) -> Attempt:
    """Return the attempt of its plain form."""
    job = plain["job"]
    return Attempt(
        Job(
            num=job["num"],
            params=loads(job["params"]),
            payload=loads(job["payload"]),
            key=job["key"],
            info=loads(job["info"]),
            score=job["score"],
        ),
        plain["number"],
        plain["name"],
        plain["score"],
    )


def plain_end(end: AttemptEnd, dumps: Dumps = pickle.dumps, loads: Loads = pickle.loads) -> Any:
    """Return the end of an attempt as plain data.

    Args:
        end: The end.
        dumps: Pickles what the job returned or raised.
        loads: Its inverse, to see whether that can be had back.
    """
    value = _pickled(end.value, dumps, loads)
    is_repr = value is None
    if value is None:
        value = dumps(repr_of(end.value))
    exception = None
    if end.exception is not None:
        exception = _pickled(end.exception, dumps, loads) or dumps(
            JobError(end.error or class_name(end.exception))
        )
    return {
        "kind": end.kind.value,
        "duration_s": end.duration_s,
        "score": end.score,
        "serial": end.serial,
        "error": end.error,
        "traceback": end.traceback,
        "host_memory": end.host_memory,
        "loaders_elsewhere": end.loaders_elsewhere,
        "closes_slot": end.closes_slot,
        "location": _lists(end.location),
        "value": value,
        "value_is_repr": is_repr,
        "exception": exception,
        "report": end.report,
    }


def end_of(plain: dict[str, Any], loads: Loads = pickle.loads) -> AttemptEnd:
    """Return the end of its plain form."""
    facts = {**plain, "location": _tuples(plain["location"])}
    try:
        facts["value"] = loads(plain["value"])
    except Exception as error:  # noqa: BLE001 - of a class that only the other process has
        facts["value"] = f"<value that cannot be loaded: {error_line(error)}>"
        facts["value_is_repr"] = True
    if plain["exception"] is not None:
        try:
            facts["exception"] = loads(plain["exception"])
        except Exception:  # noqa: BLE001 - likewise
            facts["exception"] = JobError(plain["error"])
    return AttemptEnd(**facts)


def _pickled(value: Any, dumps: Dumps, loads: Loads) -> bytes | None:
    """Return ``value`` pickled, ``None`` if it cannot be, or cannot be had back."""
    try:
        pickled = dumps(value)
        # An exception whose __init__ takes other arguments can be pickled, but not loaded.
        same = not isinstance(value, BaseException) or type(loads(pickled)) is type(value)
    except BaseException as error:  # anybody's __reduce__
        if is_ctrl_c(error):
            raise
        return None
    return pickled if same else None


def _lists(location: Hashable) -> Any:
    return [_lists(item) for item in location] if isinstance(location, tuple) else location


def _tuples(location: Any) -> Hashable:
    return tuple(_tuples(item) for item in location) if isinstance(location, list) else location
