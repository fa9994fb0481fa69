"""Events of made-up sweeps, for tests of observers and views."""

import random

from junky_core.events import (
    AttemptFailed,
    JobFailed,
    JobFinished,
    JobStarted,
    ScoreReported,
    SweepEnded,
    SweepStarted,
)
from junky_core.record.codec import encode_event

ERROR = "RuntimeError: shapes <b>do not</b> match"


def started(total=3, time=1000.0, **more):
    facts = {"sweep_id": "s", "kind": "python", "devices": ["cpu", "cpu"], "seed": 0}
    return SweepStarted(time=time, total=total, **{**facts, **more})


def begin(job, time=1000.0, params=None, slot=1, attempt=1, name=None):
    return JobStarted(
        time=time,
        job=job,
        key=str(job),
        params={"lr": 0.1 * job} if params is None else params,
        name=name or f"Thread-{slot}_{job}",
        slot=slot,
        device="cpu",
        attempt=attempt,
    )


def score(job, value, time=1001.0, slot=1, name=None, improved=True):
    return ScoreReported(
        time=time,
        job=job,
        name=name or f"Thread-{slot}_{job}",
        score=value,
        improved=improved,
        overall=False,
        best_score=None,
        best_name=None,
    )


def finish(job, value, time=1002.0, params=None, slot=1, attempt=1, name=None):
    return JobFinished(
        time=time,
        job=job,
        name=name or f"Thread-{slot}_{job}",
        params={"lr": 0.1 * job} if params is None else params,
        slot=slot,
        device="cpu",
        attempt=attempt,
        score=value,
        duration_s=2.0,
        value=None,
    )


def attempt_failed(job, time=1002.0, slot=1, attempt=1, retry=True, kind="error"):
    return AttemptFailed(
        time=time,
        job=job,
        name=f"Thread-{slot}_{job}",
        slot=slot,
        device="cpu",
        attempt=attempt,
        kind=kind,
        error=ERROR,
        traceback=f"Traceback\n{ERROR}",
        duration_s=2.0,
        retry=retry,
    )


def fail(job, time=1002.0, params=None, slot=1, attempt=1, error=ERROR):
    return JobFailed(
        time=time,
        job=job,
        name=f"Thread-{slot}_{job}",
        params={"lr": 0.1 * job} if params is None else params,
        slot=slot,
        device="cpu",
        attempt=attempt,
        score=None,
        error=error,
        traceback=f"Traceback\n{error}",
        duration_s=2.0,
    )


def ended(time=1010.0, reason="completed", finished=0, failed=0, left=0):
    return SweepEnded(
        time=time, reason=reason, finished=finished, failed=failed, left=left, duration_s=10.0
    )


def big_sweep(count, slots=4, direction="maximize"):
    """Return the events of ``count`` jobs with conditional parameters, failures and idle gaps."""
    dice = random.Random(1)
    free = [1000.0] * slots
    events = []
    for job in range(count):
        slot = min(range(slots), key=free.__getitem__)
        begun = free[slot] + (dice.random() * 20 if dice.random() < 0.05 else 0.1)
        params = {"model": "mlp", "optimizer": dice.choice(["adam", "sgd"])}
        params["width"] = dice.choice([64, 128, 256])
        params["lr"] = 10 ** dice.uniform(-4, -1)
        if params["optimizer"] == "sgd":
            params["momentum"] = dice.choice([0, 0.5, 0.9])
        params["decay"] = dice.choice([None, 1e-4])
        over = free[slot] = begun + dice.uniform(5, 30)
        events.append(begin(job, begun, params, slot + 1))
        if dice.random() < 0.05:
            events.append(attempt_failed(job, over, slot + 1, retry=False))
            events.append(fail(job, over, params, slot + 1))
        else:
            value = params["width"] / 1000 + (params["optimizer"] == "adam") + dice.gauss(0, 0.01)
            events.append(score(job, value, over, slot + 1))
            events.append(finish(job, value, over, params, slot + 1))
    events.sort(key=lambda event: event.time)
    devices = ["cpu"] * slots
    return [
        started(count, devices=devices, direction=direction),
        *events,
        ended(max(free), finished=count),
    ]


def write_journal(path, events):
    lines = (encode_event(event) for event in events)
    path.write_bytes(b"".join(line for line in lines if line))
    return path
