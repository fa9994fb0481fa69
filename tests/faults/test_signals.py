"""Ctrl-C, SIGTERM and SIGHUP end a sweep soon, with all of it written down, and it can be resumed."""

import signal

import pytest
from fault_harness import Child, check_best_file, check_complete

from junky_core.record.reader import read_journal

SIZE = {"a": 3, "b": 6}
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
EACH = pytest.mark.parametrize("signum", STATUS)


@pytest.mark.parametrize(
    ("signum", "slots"), [(signal.SIGINT, 4), (signal.SIGTERM, 1), (signal.SIGHUP, 4)]
)
def test_signal_ends_the_sweep_soon_and_it_resumes(tmp_path, undisturbed, signum, slots):
    child = Child(tmp_path, **SIZE, slots=slots, endless_from=2, announce=2 + slots).start()
    child.wait_until("RUNNING")
    child.process.send_signal(signum)
    assert child.wait() == STATUS[signum], child.output()
    assert "\nTraceback" not in child.output()  # its own end is no error
    assert "resume=True" in child.output()
    assert str(child.folder) in child.output()
    last = list(read_journal(child.folder))[-1]
    assert (last["event"], last["reason"]) == ("sweep_ended", "interrupted")
    finished = child.finished()
    assert last["finished"] == len(finished) > 0
    assert last["finished"] + last["failed"] + last["left"] == 18
    record = check_best_file(child)
    assert record.score == last["best_score"]
    seen = len(child.starts())
    resumed = Child(tmp_path, **SIZE, slots=slots, resume=True)
    resumed.run()
    assert not [params for params in resumed.starts()[seen:] if params in finished]
    check_complete(resumed, undisturbed(**SIZE))


@EACH
def test_second_signal_leaves_at_once(tmp_path, signum):
    child = Child(tmp_path, a=1, b=1, block=1, announce=1, epochs=0).start()
    child.wait_until("RUNNING")
    child.process.send_signal(signum)
    child.wait_for_text("Interrupt again")
    assert child.process.poll() is None  # its job is blocked
    child.process.send_signal(signum)
    assert child.wait() == STATUS[signum]
    resumed = Child(tmp_path, a=1, b=1, epochs=1, resume=True)
    assert len(resumed.run()["stats"]) == 1


def test_signal_while_nothing_is_finished_yet(tmp_path, undisturbed):
    child = Child(tmp_path, **SIZE, endless_from=0, announce=1).start()
    child.wait_until("RUNNING")
    child.process.send_signal(signal.SIGINT)
    assert child.wait() == 130, child.output()
    resumed = Child(tmp_path, **SIZE, resume=True)
    resumed.run()
    check_complete(resumed, undisturbed(**SIZE))


def test_signals_again_and_again(tmp_path, undisturbed):
    for number, signum in enumerate(STATUS):
        child = Child(tmp_path, **SIZE, epoch_s=0.02, announce=3, resume=number > 0).start()
        child.wait_until("RUNNING")
        child.process.send_signal(signum)
        assert child.wait() in (STATUS[signum], 0), child.output()
        check_best_file(child)
    resumed = Child(tmp_path, **SIZE, resume=True)
    resumed.run()
    check_complete(resumed, undisturbed(**SIZE))
