"""Ctrl-C, SIGTERM and SIGHUP in each phase of a sweep on worker processes: as on threads."""

import signal
import uuid

import pytest
from fault_harness import Child, check_best_file, check_complete
from sizes import LONG
from test_process_kill import ON_PROCESSES, gone_within

from junky_core.executors.processes.fork_server import is_supported
from junky_core.record.reader import read_journal

pytestmark = pytest.mark.skipif(not is_supported(), reason="the fork server is for Linux")

SIZE = {"a": 3, "b": 2}
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
# What goes on when the signal comes -> options of the sweep, and how to know.
PHASES = {
    "server": ({"announce": 0}, "READY"),
    "import": ({"slow": "import"}, "SLOW"),
    "loaders": ({"slow": "loaders"}, "SLOW"),
    "job": ({"endless_from": 1, "announce": 2}, "RUNNING"),
    "save": ({"slow": "save"}, "SLOW"),
}
EACH = [
    (phase, signum)
    for number, phase in enumerate(PHASES)
    for signum in (STATUS if LONG else [list(STATUS)[number % 3]])
]


def started(tmp_path, phase, **more):
    options, reached = PHASES[phase]
    mark = uuid.uuid4().hex
    child = Child(tmp_path, **SIZE, **ON_PROCESSES, **options, **more, mark=mark).start()
    child.wait_until(reached)
    return child, mark


@pytest.mark.parametrize(("phase", "signum"), EACH)
def test_a_signal_in_each_phase_ends_the_sweep_with_all_written(
    tmp_path, undisturbed, phase, signum
):
    child, mark = started(tmp_path, phase)
    child.process.send_signal(signum)
    assert child.wait() == STATUS[signum], child.output()
    assert gone_within(mark, 2) == set()
    assert "\nTraceback" not in child.output()
    last = list(read_journal(child.folder))[-1]
    assert (last["event"], last["reason"]) == ("sweep_ended", "interrupted")
    finished = child.finished()
    assert last["finished"] == len(finished)
    check_best_file(child)
    seen = len(child.starts())
    resumed = Child(tmp_path, **SIZE, **ON_PROCESSES, resume=True)
    resumed.run()
    assert not [params for params in resumed.starts()[seen:] if params in finished]
    check_complete(resumed, undisturbed(**SIZE))


@pytest.mark.parametrize("phase", list(PHASES) if LONG else ["loaders"])
def test_a_second_signal_leaves_at_once_and_no_process_behind(tmp_path, phase):
    child, mark = started(tmp_path, phase)
    for _ in range(2):
        child.process.send_signal(signal.SIGINT)
    assert child.wait() == 130
    assert gone_within(mark, 2) == set()
