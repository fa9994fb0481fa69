import io
import os
import shutil
import sys
import threading

import pytest

from junky_core.events import (
    AttemptFailed,
    JobFailed,
    JobFinished,
    JobStarted,
    Notice,
    ScoreReported,
    SlotClosed,
    SweepEnded,
    SweepStarted,
)
from junky_core.logs.text_log import FileWriter, SweepLog, params_text


class Text:
    """A writer that keeps each write."""

    def __init__(self):
        self.writes = []

    def write(self, text):
        self.writes.append(text)

    def close(self):
        pass


def started(job=0, name="Thread-1_0", params=None, attempt=1, slot=1):
    params = {"a": 50} if params is None else params
    return JobStarted(
        job=job, key="", params=params, name=name, slot=slot, device="cpu", attempt=attempt
    )


def scored(score, *, overall=True, improved=True, best=None, name="Thread-1_0", job=0, of=None):
    return ScoreReported(
        job=job,
        name=name,
        score=score,
        improved=improved,
        overall=overall,
        best_score=score if best is None else best,
        best_name=of or name,
    )


def finished(score=0.5, name="Thread-1_0", job=0, slot=1):
    return JobFinished(
        job=job,
        name=name,
        params={},
        slot=slot,
        device="cpu",
        attempt=1,
        score=score,
        duration_s=1.2344,
        value=None,
    )


def attempt_failed(retry, kind="error", attempt=1, traceback="Traceback:\n  line\nValueError: bad"):
    return AttemptFailed(
        job=0,
        name="Thread-1_0",
        slot=1,
        device="cpu",
        attempt=attempt,
        kind=kind,
        error="ValueError: bad\nmore",
        traceback=traceback,
        duration_s=1.0,
        retry=retry,
    )


def job_failed():
    return JobFailed(
        job=0,
        name="Thread-1_0",
        params={},
        slot=1,
        device="cpu",
        attempt=2,
        score=None,
        error="ValueError: bad",
        traceback="Traceback",
        duration_s=1.0,
    )


def lines_of(*events):
    text = Text()
    log = SweepLog(text)
    for event in events:
        log.on_event(event)
    return "".join(text.writes).splitlines()


def test_job_start_names_job_device_and_params():
    assert lines_of(started(params={"a": 50, "b": 0.1})) == [
        "Thread-1_0: job 0 on cpu",
        "Thread-1_0: (('a', 50), ('b', 0.1))",
    ]


def test_a_second_attempt_says_so():
    assert lines_of(started(attempt=2))[0] == "Thread-1_0: job 0 on cpu, attempt 2"


class Lines:
    def __repr__(self):
        return "first\n   second\r\nthird"


class Broken:
    def __repr__(self):
        raise RuntimeError("no repr")


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({}, "()"),
        ({"a": 1}, "(('a', 1),)"),
        ({"a": Lines()}, "(('a', first second third),)"),
        ({"a": Broken()}, "(('a', <Broken>),)"),
    ],
)
def test_params_are_one_line(params, text):
    assert params_text(params) == text


def test_overall_maximum():
    assert lines_of(scored(0.6129)) == ["Thread-1_0: new maximum score 0.6129: OVERALL MAXIMUM"]


def test_maximum_of_the_job_alone_shows_the_best():
    event = scored(0.5, overall=False, best=0.6, of="Thread-2_0")
    assert lines_of(event) == [
        "Thread-1_0: new maximum score 0.5 (less than maximum 0.6 of Thread-2_0)"
    ]


def test_minimize_writes_minimum():
    start = SweepStarted(sweep_id="x", kind="python", total=1, direction="minimize")
    lines = lines_of(start, scored(0.5), scored(0.4, overall=False, best=0.3, of="Thread-2_1"))
    assert lines[-2:] == [
        "Thread-1_0: new minimum score 0.5: OVERALL MINIMUM",
        "Thread-1_0: new minimum score 0.4 (more than minimum 0.3 of Thread-2_1)",
    ]


def test_a_score_that_is_no_improvement_is_not_logged():
    assert lines_of(scored(0.4, improved=False, overall=False, best=0.5)) == []


def test_a_score_that_is_not_finite_is_logged():
    event = scored(float("nan"), improved=False, overall=False)
    assert lines_of(event) == ["Thread-1_0: score nan (not finite)"]


@pytest.mark.parametrize(("score", "text"), [(0.5, "score 0.5"), (None, "no score")])
def test_finished(score, text):
    assert lines_of(finished(score)) == [f"Thread-1_0: finished: {text}, 1.234 s"]


def test_failure_quotes_its_traceback():
    assert lines_of(attempt_failed(retry=True)) == [
        "Thread-1_0: failed: ValueError: bad more (attempt 1, runs again at the end)",
        "Thread-1_0: | Traceback:",
        "Thread-1_0: |   line",
        "Thread-1_0: | ValueError: bad",
    ]


@pytest.mark.parametrize(
    ("retry", "kind", "ends"),
    [
        (True, "oom", "(attempt 1, out of memory, runs again alone at the end)"),
        (False, "error", "(attempt 1, given up)"),
        (False, "interrupted", "(attempt 1, not finished)"),
    ],
)
def test_failure_says_what_comes_next(retry, kind, ends):
    assert lines_of(attempt_failed(retry, kind))[0].endswith(ends)


def test_a_job_that_is_given_up_is_logged_once():
    lines = lines_of(attempt_failed(retry=False, attempt=2), job_failed())
    assert sum("given up" in line for line in lines) == 1


def test_a_retry_that_never_came_does_not_quote_the_traceback_again():
    lines = lines_of(attempt_failed(retry=True, attempt=2), job_failed())
    assert lines[-1] == "Thread-1_0: failed: ValueError: bad (attempt 2, given up)"
    assert sum("Traceback" in line for line in lines) == 1


def test_a_job_that_failed_without_an_attempt_is_logged():
    assert lines_of(job_failed())[0].endswith("failed: ValueError: bad (attempt 2, given up)")


def test_slot_end_counts_jobs():
    closed = SlotClosed(slot=1, device="cpu", reason="finished")
    assert lines_of(finished(), closed)[-1] == "Thread-1 finished: cpu (1 job)"


def test_a_closed_slot_is_logged_with_its_reason():
    closed = SlotClosed(slot=2, device="cpu", reason="Traceback\nValueError: bad\n")
    assert lines_of(closed) == [
        "Thread-2 closed: ValueError: bad",
        "Thread-2: | Traceback",
        "Thread-2: | ValueError: bad",
    ]
    closed = SlotClosed(slot=2, device="cpu", reason="out of luck")
    assert lines_of(closed) == ["Thread-2 closed: out of luck"]


def test_notice():
    assert lines_of(Notice(level="warning", message="a\nb")) == ["junky warning: a b"]


def test_the_header_shows_the_settings():
    lines = lines_of(
        SweepStarted(
            sweep_id="2026-x",
            kind="python",
            total=8,
            already_finished=3,
            devices=("cpu", "cuda:0"),
            threads_per_slot=1,
            seed=0,
        )
    )
    assert lines[1:3] == ["AUTOTRAIN STARTED", "================="]
    assert "sweep: 2026-x" in lines
    assert "jobs: 8 (and 3 already finished)" in lines
    assert "seed: 0" in lines
    assert "slots: Thread-1 on cpu, Thread-2 on cuda:0; 1 torch thread each" in lines


def test_end_names_the_best():
    ended = SweepEnded(
        reason="completed",
        finished=1,
        failed=0,
        left=0,
        duration_s=2.0,
        best_job=0,
        best_name="Thread-1_0",
        best_score=0.5,
        best_path="/x/model.pt",
    )
    lines = lines_of(started(), scored(0.5), finished(), ended)
    assert "AUTOTRAIN FINISHED" in lines
    assert lines[-5:] == [
        "best model name = Thread-1_0",
        "best model score = 0.5",
        "best model job = 0",
        "best model params = (('a', 50),)",
        "best model file = /x/model.pt",
    ]


def test_end_without_a_best():
    ended = SweepEnded(reason="interrupted", finished=0, failed=1, left=2, duration_s=2.0)
    lines = lines_of(ended)
    assert "AUTOTRAIN FINISHED (interrupted)" in lines
    assert lines[-1] == "no best model is on disk"


def test_one_event_is_one_write():
    text = Text()
    SweepLog(text).on_event(attempt_failed(retry=True))
    assert len(text.writes) == 1
    assert text.writes[0].endswith("\n")


def test_each_write_goes_to_the_current_stdout(monkeypatch):
    log = SweepLog()
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", first)
    log.on_event(finished(0.1))
    monkeypatch.setattr(sys, "stdout", second)
    log.on_event(finished(0.2))
    assert "0.1" in first.getvalue()
    assert "0.1" not in second.getvalue()
    assert "0.2" in second.getvalue()


@pytest.mark.parametrize("stream", [None, "closed"])
def test_a_missing_stdout_is_not_an_error(monkeypatch, stream):
    if stream == "closed":
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    SweepLog().on_event(finished())


def test_an_ascii_terminal_gets_escapes(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    SweepLog().on_event(started(params={"a": "ü"}))
    assert b"\\xfc" in raw.getvalue()


def test_appends_to_a_file(tmp_path):
    path = tmp_path / "autotrain.log"
    path.write_text("before\n")
    log = SweepLog(FileWriter(path))
    log.on_event(started(params={"a": "ü"}))
    assert path.read_text(encoding="utf-8").splitlines() == [
        "before",
        "Thread-1_0: job 0 on cpu",
        "Thread-1_0: (('a', 'ü'),)",
    ]
    log.close()


def test_continues_after_a_failed_write(tmp_path):
    folder = tmp_path / "sweep"
    log = SweepLog(FileWriter(folder / "autotrain.log"))
    log.on_event(finished(0.1))  # no such folder
    assert isinstance(log.last_error, OSError)
    folder.mkdir()
    log.on_event(finished(0.2))
    assert log.last_error is None
    assert "0.2" in (folder / "autotrain.log").read_text()
    log.close()


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be deleted there")
def test_a_deleted_file_is_created_again_with_its_folder_and_content(tmp_path):
    folder = tmp_path / "sweep"
    folder.mkdir()
    log = SweepLog(FileWriter(folder / "autotrain.log"))
    log.on_event(finished(0.1))
    shutil.rmtree(folder)
    log.on_event(finished(0.2))
    log.on_event(finished(0.3))
    log.close()
    lines = (folder / "autotrain.log").read_text().splitlines()
    assert [score for line in lines for score in ("0.1", "0.2", "0.3") if f" {score}," in line] == [
        "0.1",
        "0.2",
        "0.3",
    ]


def test_lines_of_parallel_slots_do_not_mix(tmp_path):
    path = tmp_path / "autotrain.log"
    log = SweepLog(FileWriter(path))
    together = threading.Barrier(4)

    def slot(k):
        together.wait()
        for n in range(50):
            log.on_event(started(job=n, name=f"Thread-{k}_{n}", params={"k": k}, slot=k))

    threads = [threading.Thread(target=slot, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    lines = path.read_text().splitlines()
    assert len(lines) == 400
    for job, params in zip(lines[::2], lines[1::2], strict=True):
        assert job.split(":")[0] == params.split(":")[0]
        assert params.endswith("),)")
