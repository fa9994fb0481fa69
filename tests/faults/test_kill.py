"""``kill -9`` at any instant loses no finished job, repeats none, and leaves a complete best model."""

import random

import pytest
from fault_harness import Child, check_best_file, check_complete
from sizes import LONG

KILLS = 30 if LONG else 4
AIMED_KILLS = 40 if LONG else 6


def kill_and_resume(tmp_path, kill, size, kills):
    """Kill and resume several times, then let it finish; return the last child and the counts."""
    figures = {"killed": 0, "repeated": 0, "lost": 0}
    resume = False
    for number in range(kills):
        child = Child(tmp_path, **size, resume=resume, **kill.options(number)).start()
        before = child.finished() if resume else []
        seen = len(child.starts())
        figures["killed"] += kill(child, number)
        again = [params for params in child.starts()[seen:] if params in before]
        figures["repeated"] += len(again)
        after = child.finished()
        figures["lost"] += sum(params not in after for params in before)
        check_best_file(child)
        resume = True
    child = Child(tmp_path, **size, resume=True)
    before = child.finished()
    seen = len(child.starts())
    child.run()
    figures["repeated"] += sum(params in before for params in child.starts()[seen:])
    return child, figures


class KillAfterTime:
    def __init__(self, rng, longest_s):
        self.rng, self.longest_s = rng, longest_s

    def options(self, _number):
        return {}

    def __call__(self, child, _number):
        return child.kill_after(self.rng.uniform(0, self.longest_s))


class KillAtCall:
    """Kill at a call that changes a file: half-way through a line, before or after a rename."""

    def __init__(self, rng):
        self.rng = rng

    def options(self, _number):
        return {"kill_at_call": self.rng.randint(1, 60)}

    def __call__(self, child, _number):
        return child.wait() == -9


@pytest.mark.long
@pytest.mark.parametrize("slots", [1, 4])
def test_kill_at_random_instants(tmp_path, undisturbed, slots):
    jobs = 10 * KILLS  # about 50 ms a job, so that the kills are spread over the whole sweep
    size = {"a": jobs // 5, "b": 5}
    work_s = jobs * 3 * 0.02 / slots
    kill = KillAfterTime(random.Random(slots), 0.9 * work_s / KILLS)
    child, figures = kill_and_resume(
        tmp_path, kill, {**size, "slots": slots, "epoch_s": 0.02}, KILLS
    )
    print(figures)
    assert figures["killed"] >= KILLS // 2
    assert figures["repeated"] == figures["lost"] == 0
    check_complete(child, undisturbed(**size))


@pytest.mark.long
def test_a_kill_during_a_write_or_a_rename(tmp_path, undisturbed):
    size = {"a": 4 * AIMED_KILLS // 2, "b": 5}
    child, figures = kill_and_resume(
        tmp_path, KillAtCall(random.Random(0)), {**size, "epoch_s": 0.001}, AIMED_KILLS
    )
    print(figures)
    assert figures["killed"] >= AIMED_KILLS // 2
    assert figures["repeated"] == figures["lost"] == 0
    check_complete(child, undisturbed(**size))
    assert [p.name for p in child.folder.iterdir() if p.name.endswith(".tmp")] == []
