import pytest
from sweep_events import attempt_failed, begin, ended, fail, finish, score, started, write_journal

from junky_core.errors import JournalError, LogError, LogNotFoundError
from junky_core.record.state import SweepState
from junky_core.views.history import load_history


def history_of(*events):
    history = SweepState()
    for event in events:
        history.on_event(event)
    return history


def test_a_job_from_start_to_end():
    history = history_of(started(), begin(0, 1001), score(0, 0.5), finish(0, 0.5, 1003))
    job = history.jobs[0]
    assert (job.status, job.score, job.slot, job.ended) == ("finished", 0.5, 1, 1003)
    span = history.attempts[0]
    assert (span.job, span.slot, span.start, span.end, span.outcome) == (
        0,
        1,
        1001,
        1003,
        "finished",
    )


def test_a_retried_job_has_two_spans_and_its_last_name():
    history = history_of(
        started(),
        begin(0),
        attempt_failed(0),
        begin(0, 1005, slot=2, attempt=2),
        finish(0, 0.5, 1006, slot=2, attempt=2),
    )
    assert [span.outcome for span in history.attempts] == ["error", "finished"]
    assert (history.jobs[0].name, history.jobs[0].attempts) == ("Thread-2_0", 2)
    assert history.jobs[0].error == ""


def test_bests_only_ever_improve():
    history = history_of(
        started(direction="minimize"),
        begin(0),
        score(0, 3.0),
        score(0, float("nan"), improved=False),
    )
    for event in (begin(1), finish(1, 5.0), begin(2), finish(2, 1.0)):
        history.on_event(event)
    assert [(best, job) for _, best, job in history.bests] == [(3.0, 0), (1.0, 2)]
    assert history.best.job == 2


def test_attempts_ended_by_a_kill_are_lost():
    history = history_of(
        started(time=1000), begin(0, 1001), begin(1, 1005, slot=2), started(time=9000, resumed=True)
    )
    assert [(span.end, span.outcome) for span in history.attempts] == [(1005, "lost")] * 2
    assert history.count("stopped") == 2
    assert history.sessions == [[1000, 1005], [9000, 9000]]


def test_attempts_running_at_the_end_of_their_session_are_lost():
    history = history_of(
        started(time=1000), begin(0, 1001), ended(1010), started(time=9000, resumed=True)
    )
    assert [(attempt.end, attempt.outcome) for attempt in history.attempts] == [(1010, "lost")]


def test_continuing_with_the_same_superseded_jobs_keeps_the_times_of_the_bests():
    again = {"resumed": True, "superseded": [0]}
    history = history_of(
        started(time=1000),
        begin(0),
        finish(0, 9),
        started(time=2000, **again),
        begin(1, 2001),
        score(1, 0.5, 2002),
        finish(1, 0.5, 2009),
        started(time=3000, **again),
    )
    assert history.bests == [(2002, 0.5, 1)]
    assert list(history.superseded) == [0]


def test_total_counts_all_batches():
    batches = history_of(
        started(1), begin(0), finish(0, 1), ended(), started(2, kind="hydra", time=1020)
    )
    assert batches.total == 3
    resumed = history_of(
        started(5), begin(0), fail(0), ended(), started(4, resumed=True, already_finished=1)
    )
    assert resumed.total == 5


def test_total_counts_all_batches_of_a_resumed_sweep():
    first = [started(3), *(e for n in range(3) for e in (begin(n), finish(n, n))), ended()]
    second = [started(3), begin(3), finish(3, 3), begin(4), fail(4), begin(5)]  # killed
    again = [started(0, resumed=True, already_finished=3), ended(), started(2, already_finished=1)]
    assert history_of(*first, *second).total == 6
    assert history_of(*first, *second, *again).total == 6


def test_a_running_attempt_is_not_a_failure():
    history = history_of(started(), begin(0), begin(1, slot=2), attempt_failed(1, slot=2))
    assert [result.status for result in history.results()] == ["stopped", "stopped"]
    assert history.ended is None


@pytest.mark.parametrize("form", ["folder", "journal"])
def test_reads_a_journal(tmp_path, form):
    path = write_journal(
        tmp_path / "journal.jsonl",
        [
            started(),
            begin(0, params={"a": (1, float("inf"))}),
            score(0, 0.5),
            finish(0, 0.5),
            ended(),
        ],
    )
    history = load_history(tmp_path if form == "folder" else path)
    assert history.jobs[0].score == 0.5
    assert history.ended == "completed"
    assert history.has_times


def test_reads_params_as_they_were(tmp_path):
    events = [started(), begin(0, params={"a": (1, float("inf"))})]
    write_journal(tmp_path / "journal.jsonl", events)
    assert load_history(tmp_path).jobs[0].params == {"a": (1, float("inf"))}


def test_reads_a_log_of_the_old_tool(tmp_path):
    path = tmp_path / "x.log"
    path.write_text(
        "Thread-3_0: (('a', 50), ('b', <class 'int'>))\n"
        "Thread-3_0: new maximum score 0.5: OVERALL MAXIMUM\nThread-3 finished: cpu (1 cycles)\n"
    )
    history = load_history(path)
    assert history.jobs[0].params == {"a": 50, "b": "<class 'int'>"}
    assert (history.jobs[0].slot, history.jobs[0].status) == (3, "finished")
    assert not history.has_times


def test_errors_say_what_is_missing(tmp_path):
    with pytest.raises(LogNotFoundError, match="nowhere"):
        load_history(tmp_path / "nowhere")
    with pytest.raises(LogError, match=r"autotrain\.log"):
        load_history(tmp_path)


def test_a_damaged_journal_is_an_error(tmp_path):
    path = write_journal(tmp_path / "journal.jsonl", [started(), begin(0), finish(0, 1), ended()])
    path.write_bytes(path.read_bytes().replace(b'{"event": "job_started"', b"{"))
    with pytest.raises(JournalError, match="line 2"):
        load_history(path)
