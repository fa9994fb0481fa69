"""Jobs take turns at what they must not do at the same time."""

import contextlib
import queue
import subprocess
import sys
import threading

import pytest
from watched_turns import WatchedCondition

from junky_core.job import turns
from junky_core.job.scopes import JobScope, enter_scope, enter_slot, inherit_scopes
from junky_core.job.turns import turn


@pytest.fixture
def beside(monkeypatch):
    """Start a thread that takes its turn, in the scope given; return what it does, in order."""
    seen, threads = queue.Queue(), []
    condition = WatchedCondition(lambda: seen.put("waits"))
    monkeypatch.setattr(turns._turns, "changed", condition)

    def start(scope):
        def other():
            with scope, turn():
                seen.put("has it")

        threads.append(threading.Thread(target=other))
        threads[-1].start()
        return lambda: seen.get(timeout=60)

    yield start
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_one_job_waits_for_another(beside):
    with enter_scope(JobScope(None)), turn():
        other = beside(enter_scope(JobScope(None)))
        assert other() == "waits"
    assert other() == "has it"


def test_threads_of_one_job_do_not_wait_for_one_another(beside):
    scope = JobScope(None)
    with enter_scope(scope), turn():
        assert beside(enter_scope(scope))() == "has it"


def test_a_thread_that_a_job_starts_is_of_that_job(beside):
    with inherit_scopes(), enter_scope(JobScope(None)), turn():
        assert beside(contextlib.nullcontext())() == "has it"


def test_a_sweep_inside_a_job_does_not_wait_for_that_job(beside):
    outer = JobScope(None)
    with enter_scope(outer), turn():
        assert beside(enter_scope(JobScope(None, parent=outer)))() == "has it"


def test_slots_that_are_being_set_up_wait_for_each_other(beside):
    with enter_slot({}), turn():
        other = beside(enter_slot({}))
        assert other() == "waits"
    assert other() == "has it"


def test_a_job_waits_for_a_thread_of_no_job(beside):
    """Observers, and what writes the best model, import too."""
    with turn():
        other = beside(enter_scope(JobScope(None)))
        assert other() == "waits"
    assert other() == "has it"


def test_a_turn_lasts_until_the_outermost_block_ends(beside):
    with enter_scope(JobScope(None)), turn():
        with turn():
            pass
        other = beside(enter_scope(JobScope(None)))
        assert other() == "waits"
    assert other() == "has it"


def test_an_error_ends_the_turn(beside):
    with enter_scope(JobScope(None)), pytest.raises(KeyError), turn():
        raise KeyError
    assert beside(enter_scope(JobScope(None)))() == "has it"


def test_a_job_that_waited_too_long_continues(beside, monkeypatch):
    monkeypatch.setattr(turns, "_WAIT_AT_MOST_S", 0.01)
    with enter_scope(JobScope(None)), turn():
        for _ in range(2):
            other = beside(enter_scope(JobScope(None)))
            assert (other(), other()) == ("waits", "has it")


def test_a_thread_of_no_job_does_not_wait_long(beside, monkeypatch):
    monkeypatch.setattr(turns, "_OTHERS_WAIT_AT_MOST_S", 0.01)
    with enter_scope(JobScope(None)), turn():
        other = beside(contextlib.nullcontext())
        assert (other(), other()) == ("waits", "has it")


FORK = """
import os, threading, warnings
from junky_core.job.scopes import JobScope, enter_scope
from junky_core.job.turns import turn

warnings.simplefilter("ignore")  # of Python 3.12 and newer, that the process has threads
has_it, may_end = threading.Event(), threading.Event()

def other():
    with enter_scope(JobScope(None)), turn():
        has_it.set()
        may_end.wait(60)

thread = threading.Thread(target=other)
thread.start()
has_it.wait(60)

def in_child(scope):
    child = os.fork()
    if child == 0:
        with enter_scope(scope), turn():
            os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

assert in_child(JobScope(None)) == 7
may_end.set()
thread.join()
mine = JobScope(None)
with enter_scope(mine), turn():
    assert in_child(mine) == 7
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs os.fork")
def test_a_forked_child_waits_for_no_thread_that_it_does_not_have():
    subprocess.run([sys.executable, "-c", FORK], check=True, timeout=60)
