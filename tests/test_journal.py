import collections
import dataclasses
import errno
import json
import math
import os
import shutil
import subprocess
import sys
import threading
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from junky_core.errors import JournalError, SweepFolderError
from junky_core.events import (
    AttemptFailed,
    BestSaved,
    BestSaving,
    JobFailed,
    JobFinished,
    JobStarted,
    Notice,
    ScoreReported,
    SlotClosed,
    SweepEnded,
    SweepStarted,
)
from junky_core.record import journal as journal_module
from junky_core.record.codec import MAX_VALUE_BYTES, decode_field, encode_event, event_of
from junky_core.record.folder import SweepFolder
from junky_core.record.journal import Journal
from junky_core.record.lines import seal
from junky_core.record.reader import load_state, read_journal


def started(**kwargs):
    return SweepStarted(**{"sweep_id": "abc", "kind": "python", "total": 3, "seed": 7, **kwargs})


def job_started(num, *, slot=1, n=None, attempt=1, **params):
    return JobStarted(
        job=num,
        key=f"k{num}",
        params=params,
        name=f"Thread-{slot}_{num if n is None else n}",
        slot=slot,
        device="cpu",
        attempt=attempt,
    )


def finished(num, score=0.5, value=None, **params):
    return JobFinished(
        job=num,
        name=f"Thread-1_{num}",
        params=params,
        slot=1,
        device="cpu",
        attempt=1,
        score=score,
        duration_s=0.1,
        value=value,
    )


def failed(num, score=None, **params):
    return JobFailed(
        job=num,
        name=f"Thread-1_{num}",
        params=params,
        slot=1,
        device="cpu",
        attempt=2,
        score=score,
        error="ValueError: bad",
        traceback="Traceback\nValueError: bad",
        duration_s=0.1,
    )


def best(kind, num=0, sha="00", score=0.5):
    return kind(job=num, name=f"Thread-1_{num}", score=score, path="/x/model.pt", sha256=sha)


@pytest.fixture
def begun(path):
    """A journal that has begun."""
    return write(path, [started()])


def notice(text="hello"):
    return Notice(level="info", message=text)


ALL = [
    started(spec={"fit": [["a", [1, 2]]]}, devices=("cpu", "cpu")),
    job_started(0, a=1),
    ScoreReported(
        job=0,
        name="Thread-1_0",
        score=0.5,
        improved=True,
        overall=True,
        best_score=0.5,
        best_name="Thread-1_0",
    ),
    best(BestSaving),
    best(BestSaved),
    finished(0, a=1, value={"loss": [0.1, 0.2]}),
    job_started(1, a=2),
    AttemptFailed(
        job=1,
        name="Thread-1_1",
        slot=1,
        device="cpu",
        attempt=1,
        kind="error",
        error="ValueError: bad",
        traceback="Traceback (most recent call last):\n  File x\nValueError: bad",
        duration_s=0.2,
        retry=True,
    ),
    failed(1, a=2),
    SlotClosed(slot=1, device="cpu", reason="poisoned"),
    notice(),
    SweepEnded(reason="completed", finished=1, failed=1, left=0, duration_s=1.0, best_job=0),
]


def write(path, events=ALL, **kwargs):
    with Journal(path, **kwargs) as journal:
        for event in events:
            journal.on_event(event)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.jsonl"


def value_back(value):
    return decode_field(json.loads(encode_event(finished(0, value=value))), "value")


def param_back(value):
    return decode_field(json.loads(encode_event(job_started(0, p=value))), "params")["p"]


# -- form ----------------------------------------------------------------------------------------


def test_each_event_is_one_line_with_its_name(path):
    records = [json.loads(line) for line in write(path).read_text().splitlines()]
    assert [r["event"] for r in records] == [
        "sweep_started",
        "job_started",
        "score_improved",
        "best_saving",
        "best_saved",
        "job_finished",
        "job_started",
        "attempt_failed",
        "job_failed",
        "slot_closed",
        "notice",
        "sweep_ended",
    ]
    assert records[0]["journal_version"] == 1
    assert records[0]["spec"] == {"fit": [["a", [1, 2]]]}
    assert records[0]["seed"] == 7
    assert records[0]["devices"] == ["cpu", "cpu"]
    assert records[5]["value"] == {"loss": [0.1, 0.2]}
    assert "ValueError: bad" in records[7]["traceback"]
    assert all(isinstance(r["time"], float) for r in records)


@pytest.mark.parametrize("event", ALL, ids=lambda event: type(event).__name__)
def test_each_event_comes_back(event):
    back = event_of(json.loads(encode_event(event)))
    if isinstance(event, ScoreReported):  # a journal does not say what was best before
        event = dataclasses.replace(event, best_score=None, best_name=None)
    if isinstance(event, SweepStarted):
        back = dataclasses.replace(back, devices=tuple(back.devices), superseded=())
    assert back == event


def test_fields_that_an_older_journal_lacks_have_defaults():
    assert event_of({"event": "sweep_started", "time": 1.0, "sweep_id": "s"}).total is None
    assert event_of({"event": "sweep_ended", "time": 1.0, "reason": "timeout"}).reason == "timeout"
    assert event_of({"event": "of_a_later_release", "time": 1.0}) is None


def test_a_score_that_is_no_improvement_is_not_recorded(path):
    report = ScoreReported(
        job=0,
        name="Thread-1_0",
        score=0.1,
        improved=False,
        overall=False,
        best_score=0.5,
        best_name="Thread-1_0",
    )
    assert encode_event(report) is None


NASTY = [
    (1, 2),
    float("nan"),
    float("-inf"),
    2**70,
    -(2**63) - 1,
    "\ud800 lone",
    "😀\u2028\x00\n",
    {1: "a", (2, 3): None},
    {"__tuple__": [1]},
    b"bytes",
    np.float32(0.5),
    np.int64(3),
    json.JSONDecoder,
    {1, 2},
    range(3),
    [[(1, float("nan"))]],
]


@pytest.mark.parametrize("value", NASTY, ids=repr)
def test_pandas_and_strict_json_read_any_values(path, value):
    write(path, [started(spec={"x": value}), job_started(0, p=value), finished(0, value=value)])
    frame = pd.read_json(path, lines=True)
    assert list(frame["event"]) == ["sweep_started", "job_started", "job_finished"]

    def refuse(token):
        raise AssertionError(token)

    for line in path.read_bytes().splitlines():
        json.loads(line, parse_constant=refuse)


def test_pandas_reads_scores_as_numbers(path):
    write(path, [started(), finished(0, 0.5), finished(1, float("nan")), finished(2, None)])
    scores = pd.read_json(path, lines=True)["score"].iloc[1:]
    assert scores.tolist()[0] == 0.5
    assert scores.isna().tolist() == [False, True, True]


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        1.0,
        -0.0,
        1e-320,
        "x",
        [],
        {},
        (),
        (1, (2, [3])),
        {"a": (1,)},
        2**70,
        -(2**80),
        10**400,
        float("inf"),
        {1: 2, None: 3, (1, 2): 4},
        {"__repr__": "x"},
        {"__tuple__": (1,)},
        {"__dict__": {"__float__": "nan"}},
    ],
    ids=repr,
)
def test_values_and_params_come_back_as_they_were(value):
    for back in (param_back(value), value_back(value)):
        assert back == value
        assert type(back) is type(value)
        assert repr(back) == repr(value)


def test_nan_comes_back():
    assert math.isnan(param_back(float("nan")))
    assert math.isnan(value_back((float("nan"),))[0])


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=9) | st.integers(), inner, max_size=4)
        | st.sampled_from(["__tuple__", "__dict__", "__repr__", "__float__", "__int__"]).map(
            lambda tag: {tag: 1}
        )
    ),
    max_leaves=10,
)


@given(json_like)
def test_any_nested_value_comes_back(value):
    assert repr(param_back(value)) == repr(value)
    assert repr(value_back(value)) == repr(value)


def test_the_nearest_form_is_what_json_makes_of_a_value():
    record = json.loads(encode_event(finished(0, value=(0.5, {"n": (1, 2)}))))
    assert record["value"] == [0.5, {"n": [1, 2]}]
    record = json.loads(encode_event(finished(0, value=[0.5, {"n": 1}])))
    assert "value_exact" not in record


def test_param_that_json_cannot_hold_is_kept_as_text():
    record = json.loads(encode_event(job_started(0, act=json.JSONDecoder, lr=0.1)))
    assert record["params"] == {"act": {"__repr__": repr(json.JSONDecoder)}, "lr": 0.1}


def test_a_broken_repr_is_harmless():
    class Broken:
        def __repr__(self):
            raise RuntimeError

    assert "Broken" in param_back(Broken())["__repr__"]


@pytest.mark.parametrize(
    "value",
    [
        object(),
        np.ones(2),
        b"x",
        {1},
        range(2),
        {"model": object()},
        [0.1, object()],
    ],
    ids=lambda value: type(value).__name__,
)
def test_value_that_json_cannot_hold_is_left_out(value):
    record = json.loads(encode_event(finished(0, value=value)))
    assert record["value"] is None
    assert record["value_omitted"] is True


def test_numbers_of_numpy_are_numbers():
    assert value_back({"a": np.float64(0.5), "b": np.int64(2), "c": np.bool_(True)}) == {
        "a": 0.5,
        "b": 2,
        "c": True,
    }


@pytest.mark.parametrize(
    "value", ["x" * (MAX_VALUE_BYTES + 1), [0.123] * 40_000, list(range(10**6))]
)
def test_huge_value_is_left_out(value):
    record = json.loads(encode_event(finished(0, value=value)))
    assert record["value_omitted"] is True


def test_endless_value_is_left_out():
    value = []
    value.append(value)
    assert json.loads(encode_event(finished(0, value=value)))["value_omitted"] is True


def test_named_tuples_and_other_mappings_are_taken_as_tuples_and_dicts():
    class Point(NamedTuple):
        x: int
        y: int

    point = Point(1, 2)
    assert value_back(point) == point
    assert value_back(collections.OrderedDict(a=1)) == {"a": 1}


def test_long_traceback_keeps_both_ends():
    text = "start" + "x" * 10**6 + "end"
    event = AttemptFailed(
        job=0,
        name="Thread-1_0",
        slot=1,
        device="cpu",
        attempt=1,
        kind="error",
        error="E",
        traceback=text,
        duration_s=0.0,
        retry=False,
    )
    record = json.loads(encode_event(event))
    assert record["traceback"].startswith("start")
    assert record["traceback"].endswith("end")
    assert len(record["traceback"]) < 70_000


# -- writing -------------------------------------------------------------------------------------


def test_line_is_in_the_file_when_on_event_returns(path):
    with Journal(path) as journal:
        journal.on_event(started())
        assert json.loads(path.read_text())["event"] == "sweep_started"


def test_killed_process_loses_no_line(path):
    code = """
import os, signal, sys
from junky_core.events import Notice, SweepStarted
from junky_core.record.journal import Journal
journal = Journal(sys.argv[1])
journal.on_event(SweepStarted(sweep_id="a", kind="python", total=1))
for i in range(100):
    journal.on_event(Notice(level="info", message=str(i)))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code, path], timeout=60).returncode == -9
    lines = path.read_text().splitlines()[1:]
    assert [json.loads(line)["message"] for line in lines] == [str(i) for i in range(100)]


def test_threads_do_not_mix_their_lines(path, begun):
    barrier = threading.Barrier(8)
    with Journal(path) as journal:

        def work(k):
            barrier.wait(60)
            for i in range(200):
                journal.on_event(notice(f"{k} {i} " + "x" * 500))

        threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    lines = [json.loads(line)["message"].split()[:2] for line in path.read_text().splitlines()[1:]]
    assert len(lines) == 1600
    for k in range(8):
        assert [int(i) for who, i in lines if int(who) == k] == list(range(200))


def test_continues_at_the_end_of_a_file(path):
    write(path, [started()])
    write(path, [notice()])
    assert [r["event"] for r in read_journal(path)] == ["sweep_started", "notice"]


def test_flushes_to_disk_within_a_second_and_not_each_line(path, begun, monkeypatch):
    flushed = threading.Event()
    count = []
    fsync = os.fsync

    def note(descriptor):
        fsync(descriptor)
        if threading.current_thread().name == "junky-journal":
            count.append(1)
            flushed.set()

    monkeypatch.setattr(os, "fsync", note)
    with Journal(path, fsync_every_s=0.5) as journal:
        for _ in range(50):
            journal.on_event(notice())
        assert flushed.wait(60)
        assert len(count) < 25


def test_flushes_before_a_best_model_takes_its_place(path, monkeypatch):
    count = []
    fsync = os.fsync
    with Journal(path, fsync_every_s=60) as journal:
        journal.on_event(started())
        monkeypatch.setattr(os, "fsync", lambda fd: (count.append(os.fstat(fd).st_size), fsync(fd)))
        journal.on_event(best(BestSaving))
        assert count == [path.stat().st_size]


def test_closing_ends_the_thread_and_takes_no_more(path):
    journal = Journal(path)
    journal.on_event(started())
    assert journal.close()
    journal.on_event(notice())
    assert journal.close()
    assert not journal._thread.is_alive()
    assert len(path.read_text().splitlines()) == 1


def test_refuses_a_path_that_cannot_be_written(tmp_path):
    with pytest.raises(SweepFolderError, match="cannot write the journal"):
        Journal(tmp_path)


def test_refuses_to_continue_a_file_that_is_not_a_journal(path):
    path.write_text("my own notes")
    with pytest.raises(SweepFolderError, match="not the journal of a sweep"):
        Journal(path)
    assert path.read_text() == "my own notes"


def test_events_before_the_start_are_written_after_it(path):
    write(path, [notice("early"), notice("too"), started(), notice("late")])
    assert [r.get("message") for r in read_journal(path)] == [None, "early", "too", "late"]


def test_sweep_that_never_started_leaves_an_empty_file(path):
    write(path, [notice("early")])
    assert path.read_bytes() == b""


# -- a torn or damaged file ----------------------------------------------------------------------


@pytest.mark.parametrize("records", [1, 2, len(ALL)])
def test_cut_at_every_byte_of_the_last_record(tmp_path, records):
    whole = write(tmp_path / "whole", ALL[:records]).read_bytes()
    lines = whole.splitlines(keepends=True)
    before = len(whole) - len(lines[-1])
    for cut in range(before, len(whole) + 1):
        path = tmp_path / "journal.jsonl"
        path.write_bytes(whole[:cut])
        expected = records if cut >= len(whole) - 1 else records - 1
        assert len(list(read_journal(path))) == expected
        assert SweepFolder(tmp_path).holds_sweep() == (expected > 0)
        first = ALL[0] if expected == 0 else notice("after")
        write(path, [first])  # what a resumed sweep does
        events = [r["event"] for r in read_journal(path)]
        assert len(events) == expected + 1
        assert path.read_bytes().endswith(b"\n")
        assert len(path.read_bytes().splitlines()) == expected + 1


def test_zeros_at_the_end_are_a_torn_line(path):
    write(path)
    path.write_bytes(path.read_bytes() + b"\0" * 5000)
    assert len(list(read_journal(path))) == len(ALL)
    write(path, [notice()])
    assert len(list(read_journal(path))) == len(ALL) + 1
    assert b"\0" not in path.read_bytes()


def test_torn_line_longer_than_a_block(path):
    write(path)
    path.write_bytes(path.read_bytes() + b'{"event": "notice", "message": "' + b"x" * 300_000)
    assert len(list(read_journal(path))) == len(ALL)
    write(path, [notice()])
    assert len(list(read_journal(path))) == len(ALL) + 1


@pytest.mark.parametrize("number", range(1, len(ALL)))
@pytest.mark.parametrize("damage", ["half", "garbage", "list"])
def test_damage_in_the_middle_names_the_line(path, number, damage):
    lines = write(path).read_bytes().splitlines(keepends=True)
    line = lines[number - 1]
    lines[number - 1] = {
        "half": line[: len(line) // 2] + b"\n",
        "garbage": b"\xff\xfe\n",
        "list": b"[1]\n",
    }[damage]
    path.write_bytes(b"".join(lines))
    with pytest.raises(JournalError, match=rf"line {number}:"):
        list(read_journal(path))
    with pytest.raises(JournalError, match=rf"line {number}:"):
        load_state(path)


def test_unknown_version_is_refused(path):
    write(path, [started()])
    path.write_text(path.read_text().replace('"journal_version": 1', '"journal_version": 99'))
    with pytest.raises(JournalError, match="version 99"):
        list(read_journal(path))


@pytest.mark.parametrize("text", ["hello\n", "hello", '{"a": 1}\n', '{"event": "x"}\n'])
def test_a_file_that_is_not_a_journal_is_refused(path, text):
    path.write_text(text)
    with pytest.raises(JournalError):
        list(read_journal(path))


def test_record_that_lacks_a_field_is_damage(path):
    write(path, [started()])
    path.write_bytes(path.read_bytes() + seal(b'{"event": "job_finished", "job": 0}\n', 2))
    with pytest.raises(JournalError, match=r"line 2: .*lacks name"):
        load_state(path)


def test_unknown_events_are_skipped(path):
    write(path)
    line = seal(b'{"event": "weather", "time": 1}\n', len(ALL) + 1)
    path.write_bytes(path.read_bytes() + line)
    assert len(load_state(path).by_num) == 2


def test_missing_file_is_a_file_not_found_error(path):
    with pytest.raises(FileNotFoundError):
        list(read_journal(path))


# -- what it adds up to --------------------------------------------------------------------------


def test_state_of_one_session(path):
    state = load_state(write(path))
    assert (state.sweep_id, state.kind, state.seed, len(state.sessions)) == ("abc", "python", 7, 1)
    assert state.ended == "completed"
    one, two = state.jobs[0], state.jobs[1]
    assert (one.status, one.score, one.value) == ("finished", 0.5, {"loss": [0.1, 0.2]})
    assert (one.params, one.name, one.attempts, one.slot) == ({"a": 1}, "Thread-1_0", 1, 1)
    assert (two.status, two.error, two.attempts) == ("failed", "ValueError: bad", 2)
    assert state.highest_num == 1
    assert state.slot_counters == {1: 2}


def test_empty_and_torn_first_record_make_an_empty_state(path):
    path.write_bytes(b"")
    assert load_state(path).highest_num == -1
    path.write_bytes(b'{"event": "sweep_st')
    assert load_state(path).sessions == []


def test_state_over_resumed_sessions(path):
    write(path, [started(), job_started(0), finished(0), job_started(1), failed(1), job_started(2)])
    state = load_state(path)
    assert state.jobs[2].status == "running"
    assert state.ended is None
    write(
        path,
        [
            started(resumed=True, spec={"b": 1}),
            job_started(1, slot=2, n=0),
            finished(1, 0.7),
            job_started(2, slot=2, n=5),
            failed(2),
            job_started(3),
        ],
    )
    state = load_state(path)
    assert len(state.sessions) == 2
    assert state.spec == {"b": 1}
    assert {k: j.status for k, j in state.jobs.items()} == {
        0: "finished",
        1: "finished",
        2: "failed",
        3: "running",
    }
    assert state.jobs[1].error == ""
    assert state.slot_counters == {1: 4, 2: 6}
    assert state.best_job().num == 1
    assert state.jobs[0].finished_times == 1


def test_params_and_values_come_back_exactly_from_the_file(path):
    params = {"shape": (3, 4), "none": None, "nan": float("inf")}
    write(path, [started(), job_started(0, **params), finished(0, value=(1, 2), **params)])
    job = load_state(path).jobs[0]
    assert job.params == params
    assert job.value == (1, 2)


def test_score_that_is_nan_is_not_no_score(path):
    write(path, [started(), job_started(0), finished(0, float("nan"))])
    assert math.isnan(load_state(path).jobs[0].score)


def test_minimize_ranks_the_lowest_score_first(path):
    write(
        path,
        [
            started(direction="minimize"),
            job_started(0),
            finished(0, 0.9),
            job_started(1),
            finished(1, 0.1),
        ],
    )
    assert load_state(path).best_job().num == 1


def test_best_file_is_found_by_its_hash_even_if_only_best_saving_was_recorded(path, tmp_path):
    import hashlib

    one, two = b"one", b"two"
    sha = {data: hashlib.sha256(data).hexdigest() for data in (one, two)}
    write(
        path,
        [
            started(),
            best(BestSaving, 0, sha[one]),
            best(BestSaved, 0, sha[one]),
            best(BestSaving, 1, sha[two], 0.8),
        ],
    )
    state = load_state(path)
    model = tmp_path / "model.pt"
    assert state.match_best_file(model) is None
    model.write_bytes(one)
    assert (state.match_best_file(model).job, state.match_best_file(model).saved) == (0, True)
    model.write_bytes(two)
    assert (state.match_best_file(model).score, state.match_best_file(model).saved) == (0.8, False)
    model.write_bytes(b"other")
    assert state.match_best_file(model) is None
    assert len(state.saves) == 2


# -- a disk that refuses -------------------------------------------------------------------------


@pytest.fixture
def told():
    return []


@pytest.fixture
def full_disk(monkeypatch):
    """A disk with room for so many bytes; None: no limit."""

    class Disk:
        room = None
        error = errno.ENOSPC

    write_plain = os.write

    def write_some(descriptor, data):
        if Disk.room is None:
            return write_plain(descriptor, data)
        if Disk.room == 0:
            raise OSError(Disk.error, os.strerror(Disk.error))
        done = write_plain(descriptor, bytes(data[: Disk.room]))
        Disk.room -= done
        return done

    monkeypatch.setattr(os, "write", write_some)
    return Disk


@pytest.mark.parametrize("room", [0, 1, 40])
def test_full_disk_keeps_lines_and_writes_them_when_there_is_room(path, told, full_disk, room):
    with Journal(path, on_trouble=told.append, fsync_every_s=60) as journal:
        journal.on_event(started())
        before = path.read_bytes()
        full_disk.room = room
        journal.on_event(notice("1"))
        journal.on_event(notice("2"))
        assert path.read_bytes() == before  # no part of a line is left
        assert len(told) == 1
        assert "No space left" in told[0]
        assert str(path) in told[0]
        full_disk.room = None
        journal.on_event(notice("3"))
    assert [r.get("message") for r in read_journal(path)] == [None, "1", "2", "3"]
    assert len(told) == 2
    assert "complete" in told[1]


def test_full_disk_is_tried_again_without_events(path, told, full_disk):
    recovered = threading.Event()

    def tell(message):
        told.append(message)
        if "complete" in message:
            recovered.set()

    with Journal(path, on_trouble=tell, fsync_every_s=0.02) as journal:
        full_disk.room = 0
        journal.on_event(started())
        full_disk.room = None
        assert recovered.wait(60)
        assert path.read_text()


def test_lines_that_are_never_written_are_reported_at_the_end(path, told, full_disk):
    journal = Journal(path, on_trouble=told.append)
    full_disk.room = 0
    journal.on_event(started())
    assert journal.close() is False
    assert "1 record could not be written" in told[-1]


def test_listener_may_emit_events_itself(path, full_disk):
    journal = Journal(path, on_trouble=lambda text: journal.on_event(notice(text)))
    journal.on_event(started())
    full_disk.room = 0
    journal.on_event(notice("1"))
    full_disk.room = None
    journal.close()
    events = [r["event"] for r in read_journal(path)]
    assert events[:3] == ["sweep_started", "notice", "notice"]


def test_part_that_cannot_be_removed_now_is_removed_later(path, full_disk, monkeypatch):
    with Journal(path, fsync_every_s=60) as journal:
        journal.on_event(started())
        full_disk.room = 10

        def refuse(*_args):
            raise OSError(errno.EIO, "I/O error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "ftruncate", refuse)
            journal.on_event(notice("1"))
        assert len(list(read_journal(path))) == 1  # torn, and tolerated
        full_disk.room = None
        journal.on_event(notice("2"))
    assert [r.get("message") for r in read_journal(path)] == [None, "1", "2"]


def test_an_event_is_kept_when_memory_is_full(path, monkeypatch):
    with Journal(path) as journal:
        journal.on_event(started())

        def refuse(*_args, **_kwargs):
            raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(journal_module, "encode_event", refuse)
            journal.on_event(finished(0, a=1))
        journal.on_event(notice())
    assert [r["event"] for r in read_journal(path)] == ["sweep_started", "job_finished", "notice"]


def test_waiting_lines_leave_out_values_when_they_are_many(path, full_disk, monkeypatch):
    monkeypatch.setattr(journal_module, "_FULL_PENDING_BYTES", 1000)
    with Journal(path) as journal:
        journal.on_event(started())
        full_disk.room = 0
        for num in range(20):
            journal.on_event(finished(num, value="x" * 500))
        full_disk.room = None
    jobs = load_state(path).by_num
    assert len(jobs) == 20
    assert jobs[0].value == "x" * 500
    assert jobs[19].value is None
    assert list(read_journal(path))[-1]["value_omitted"]


# -- a folder that goes away ---------------------------------------------------------------------


@pytest.mark.parametrize("what", ["file", "folder"])
def test_deleted_file_or_folder_is_created_again_with_its_content(tmp_path, what, told):
    path = tmp_path / "sweep" / "journal.jsonl"
    with Journal(path, on_trouble=told.append) as journal:
        journal.on_event(started())
        journal.on_event(notice("1"))
        path.unlink() if what == "file" else shutil.rmtree(path.parent)
        journal.on_event(notice("2"))
        journal.on_event(notice("3"))
    assert [r.get("message") for r in read_journal(path)] == [None, "1", "2", "3"]
    assert os.listdir(path.parent) == ["journal.jsonl"]


def test_lines_wait_while_the_folder_cannot_be_created_again(tmp_path, told):
    path = tmp_path / "sweep" / "journal.jsonl"
    with Journal(path, on_trouble=told.append, fsync_every_s=60) as journal:
        journal.on_event(started())
        shutil.rmtree(path.parent)
        path.parent.write_text("a file in its place")
        journal.on_event(notice("1"))
        assert len(told) == 1
        path.parent.unlink()
        journal.on_event(notice("2"))
    assert [r.get("message") for r in read_journal(path)] == [None, "1", "2"]


def test_another_file_in_its_place_is_renamed(path):
    with Journal(path) as journal:
        journal.on_event(started())
        other = path.with_name("new")
        other.write_text("edited")
        other.replace(path)
        journal.on_event(notice("1"))
    assert len(list(read_journal(path))) == 2
    assert path.with_name("journal.jsonl.other").read_text() == "edited"


def test_a_folder_taken_by_another_sweep_is_not_touched(tmp_path, told):
    folder = SweepFolder(tmp_path / "sweep")
    with folder.lock():
        journal = Journal(folder.journal_path, on_trouble=told.append, reclaim=folder.reclaim)
        journal.on_event(started())
        shutil.rmtree(folder.path)
        with SweepFolder(folder.path).lock():
            journal.on_event(notice("1"))
            assert "another sweep is running" in told[0]
            assert not folder.journal_path.exists()
        journal.on_event(notice("2"))
        journal.close()
    assert [r.get("message") for r in read_journal(folder.path)] == [None, "1", "2"]
