"""Run each measurement in a separate process, and keep the figures."""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import probes

REPOSITORY = Path(__file__).resolve().parent.parent


class Failed(Exception):
    """A measured process failed; its last lines say why."""


@dataclass(frozen=True)
class Child:
    """What a measured process used and reported."""

    wall_s: float
    cpu_s: float  # of it and its children
    peak_rss: int  # bytes; of it or its largest child
    figures: dict
    first_job_s: float | None  # from the start of the process to that of its first job
    started: float


@dataclass(frozen=True)
class Row:
    """One line of the table; empty strings where there is nothing to say."""

    what: str
    figure: str
    ratio: str = ""
    target: str = ""
    met: bool | None = None


@dataclass
class Section:
    """The table of one benchmark."""

    title: str
    rows: list[Row] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True)
class Options:
    """How much to measure."""

    quick: bool
    rounds: int


def child(arguments, *, env=None, timeout_s=1800, check=None):
    """Run ``python *arguments`` in an empty folder; return what it used.

    ``check(folder)`` may look at what it left there.
    """
    folder = Path(tempfile.mkdtemp(prefix="junky-bench-"))
    try:
        return _child(folder, arguments, env or {}, timeout_s, check)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _child(folder, arguments, env, timeout_s, check):
    result, first_job, output = folder / "result", folder / "first", folder / "output"
    work = folder / "work"
    work.mkdir()
    full = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    full.update(env)
    full["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), *filter(None, [full.get("PYTHONPATH")])])
    full[probes.RESULT_FILE] = str(result)
    if full.get(probes.FIRST_JOB_FILE):
        full[probes.FIRST_JOB_FILE] = str(first_job)
    started, clock = time.time(), time.perf_counter()
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=work,
            env=full,
            stdout=stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # so that its worker processes end with it
        )
        timer = threading.Timer(timeout_s, _kill, [process.pid])
        timer.start()
        try:
            # wait4 and not wait: it tells what this child used, and no other. The parent must stay
            # small, for Linux counts the memory of the moment of the fork as the child's.
            _pid, status, usage = os.wait4(process.pid, 0)
        finally:
            timer.cancel()
            _kill(process.pid)  # on Ctrl-C the child itself, else what it left behind
    wall_s = time.perf_counter() - clock
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        tail = output.read_text(errors="replace").splitlines()[-12:]
        why = (
            f"exceeded its time limit of {timeout_s} s" if wall_s >= timeout_s else "\n".join(tail)
        )
        raise Failed(f"{' '.join(map(str, arguments))}: exit {process.returncode}\n{why}")
    if check is not None:
        check(work)
    return Child(
        wall_s=wall_s,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_rss=usage.ru_maxrss * 1024,
        figures=json.loads(result.read_text()) if result.exists() else {},
        first_job_s=float(first_job.read_text()) - started if first_job.exists() else None,
        started=started,
    )


def _kill(group):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def interleaved(contestants, rounds, *, once=()):
    """Call each contestant ``rounds`` times, in turns; return name -> results.

    Those in ``once`` take part in the first round only. One that fails is not called again; its
    entry is the reason, a string.
    """
    results = {name: [] for name in contestants}
    for at in range(rounds):
        names = list(contestants)
        for name in names if at % 2 == 0 else names[::-1]:
            if isinstance(results[name], str) or (at and name in once):
                continue
            progress(f"{name}, round {at + 1} of {rounds}")
            try:
                began = time.perf_counter()
                results[name].append(contestants[name]())
                progress(f"    {time.perf_counter() - began:.1f} s")
            except Failed as error:
                progress(f"FAILED: {error}")
                lines = str(error).splitlines()
                results[name] = f"failed: {lines[-1][:200]}"
    return results


def missing(*modules):
    """Return why a contestant cannot take part, ``""`` if it can."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    return f"skipped: {', '.join(absent)} not installed (the extra [bench])" if absent else ""


def progress(text):
    """Tell who watches what is being done."""
    with contextlib.suppress(OSError):
        print(f"  {text}", file=sys.stderr, flush=True)


median = statistics.median
