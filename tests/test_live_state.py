import io

from rich.console import Console
from sweep_events import attempt_failed, begin, ended, fail, finish, score, started

from junky_core.events import SlotClosed
from junky_core.record.live_state import LiveState
from junky_core.views.live_view import plain_line, render


def state_of(*events):
    state = LiveState()
    for event in events:
        state.on_event(event)
    return state


def shown(state, width=100, now=1005.0):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(render(state, now, width))
    return console.file.getvalue()


def test_counts():
    state = state_of(
        started(6),
        begin(0),
        finish(0, 0.5),
        begin(1),
        fail(1),
        begin(2),
        attempt_failed(2),
        begin(3, slot=2),
    )
    assert (state.finished, state.failed, state.running, state.left) == (1, 1, 1, 3)
    assert state.waiting == {2}


def test_a_retry_is_not_waiting_any_more():
    state = state_of(started(1), begin(0), attempt_failed(0), begin(0, attempt=2))
    assert state.waiting == set()
    assert state.left == 0


def test_what_a_resumed_sweep_has_counts_as_done():
    state = state_of(started(4, resumed=True, already_finished=6))
    assert (state.finished, state.total, state.left) == (6, 10, 4)


def test_batches_add_up():
    state = state_of(started(1), begin(0), finish(0, 1), ended(), started(2))
    assert (state.finished, state.total, state.ended) == (1, 3, None)


def test_batches_of_a_resumed_sweep_add_up():
    state = state_of(
        started(0, resumed=True, already_finished=3), ended(), started(2, already_finished=1)
    )
    assert (state.finished, state.total, state.left) == (4, 6, 2)
    before = [started(3), begin(0), finish(0, 1), begin(1), fail(1), begin(2)]
    assert state_of(*before, started(2, resumed=True, already_finished=1)).total == 3


def test_each_slot_has_its_job_and_scores():
    state = state_of(
        started(), begin(5, slot=2), score(5, 0.7, slot=2), score(5, 0.4, slot=2, improved=False)
    )
    attempt = state.slots[2].attempt
    assert (attempt.job, attempt.last_score, attempt.best_score) == (5, 0.4, 0.7)
    assert state.slots[1].attempt is None
    assert state.best == (0.7, 5, "Thread-2_5")


def test_best_follows_the_direction():
    state = state_of(
        started(direction="minimize"),
        begin(0),
        score(0, 2.0),
        score(0, 1.0),
        score(0, float("-inf")),
    )
    assert state.best[0] == 1.0


def test_the_lower_job_is_best_of_equal_scores():
    state = state_of(started(), begin(0), begin(1, slot=2), score(1, 0.5, slot=2), score(0, 0.5))
    assert state.best == (0.5, 0, "Thread-1_0")


def test_the_best_is_named_by_its_last_attempt():
    state = state_of(
        started(1),
        begin(0),
        score(0, 0.5),
        attempt_failed(0),
        begin(0, attempt=2, name="Thread-1_7"),
        finish(0, 0.5, attempt=2, name="Thread-1_7"),
    )
    assert state.best == (0.5, 0, "Thread-1_7")


def test_varying_params():
    state = state_of(
        started(),
        begin(0, params={"same": 1, "lr": 1}),
        begin(1, params={"same": 1, "lr": 2}, slot=2),
        begin(2, params={"same": 1, "lr": 1, "extra": 0}),
    )
    assert state.varying({"same": 1, "lr": 1, "extra": 0}) == {"lr": 1, "extra": 0}


def test_time_left():
    state = state_of(started(5), begin(0, 1000), finish(0, 1, 1002), begin(1, 1002))
    assert state.eta_s(1002.0) == (3 * 2.0 + 2.0) / 2  # two slots, 2 s a job
    assert state_of(started(5)).eta_s(1002.0) is None
    assert state_of(started(None)).eta_s(1002.0) is None


def test_display_shows_counts_slots_and_the_best():
    state = state_of(
        started(4),
        begin(0, params={"lr": 0.1, "same": 1}),
        finish(0, 0.25),
        begin(1, 1002, params={"lr": 0.2, "same": 1}),
        score(1, 0.125),
        SlotClosed(slot=2, device="cpu", reason="Traceback\nValueError: [bad] loader"),
    )
    text = shown(state)
    assert "1/4 done" in text
    assert "1 running" in text
    assert "best 0.25  job 0 (Thread-1_0)" in text
    assert "job 1 3.00 s  last 0.125  best 0.125  lr=0.2" in text
    assert "same" not in text
    assert "closed, ValueError: [bad] loader" in text


def test_display_fits_its_width():
    params = {f"parameter_{k}": "x" * 20 for k in range(20)}
    state = state_of(started(4), begin(0, params=params))
    assert max(map(len, shown(state, 40).splitlines())) <= 40


def test_many_slots_are_cut():
    state = state_of(started(100, devices=["cpu"] * 40))
    assert "... and 24 more slots" in shown(state)


def test_the_line_has_no_control_characters_and_the_log_parser_ignores_it(tmp_path):
    state = state_of(started(2), begin(0), finish(0, 0.5), begin(1))
    line = plain_line(state, 1005.0)
    assert line.isprintable()
    assert "1 of 2 jobs finished" in line
    assert "Thread-1_0:" not in line
