"""``kill -9`` of a sweep on worker processes leaves none of them, loses no job and repeats none."""

import random
import time
import uuid
from pathlib import Path

import pytest
from fault_harness import Child, check_best_file, check_complete
from sizes import LONG

from junky_core.executors.processes.fork_server import is_supported

pytestmark = pytest.mark.skipif(not is_supported(), reason="the fork server is for Linux")

KILLS = 20 if LONG else 3
ON_PROCESSES = {"slots": 2, "kwargs": {"executor": "processes", "kill_after_s": 0.5}}


def processes_of(mark):
    """Return the processes that were started with this in their environment, or forked of such."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.add(int(folder.name))
        except OSError:  # it has ended
            continue
    return found


def gone_within(mark, seconds):
    end = time.monotonic() + seconds
    while left := processes_of(mark):
        if time.monotonic() > end:
            return left
        time.sleep(0.02)
    return set()


@pytest.mark.long
def test_kills_at_random_instants_leave_no_process_and_lose_no_job(tmp_path, undisturbed):
    size = {"a": 4 * KILLS, "b": 2}
    rng = random.Random(1)
    seen, resume, repeated, finished = 0, False, [], []
    for number in range(KILLS):
        mark = uuid.uuid4().hex
        held = {"hold_lock_from": 3} if number == KILLS - 1 else {}
        child = Child(
            tmp_path, **size, **ON_PROCESSES, **held, mark=mark, epoch_s=0.1, resume=resume,
            announce=1 if number % 3 else 0,
        ).start()  # fmt: skip
        child.wait_until("RUNNING" if number % 3 else "READY")
        time.sleep(rng.uniform(0, 1.5))  # the instant is what the test is about
        assert processes_of(mark)
        child.process.kill()
        assert child.wait() == -9
        assert gone_within(mark, 2) == set()
        repeated += [params for params in child.starts()[seen:] if params in finished]
        before, finished, seen, resume = finished, child.finished(), len(child.starts()), True
        assert all(params in finished for params in before)
        check_best_file(child)
    child = Child(tmp_path, **size, **ON_PROCESSES, resume=True)
    child.run()
    repeated += [params for params in child.starts()[seen:] if params in finished]
    assert repeated == []
    check_complete(child, undisturbed(**size))
