"""Turns of jobs at what they must not do at the same time."""

import contextlib
import subprocess
import sys
import threading

import pytest

from junky_core.job import turns
from junky_core.job.scopes import JobScope, enter_scope, enter_slot, inherit_scopes
from junky_core.job.turns import turn


def beside(scope_of_other, within_s=0.2):
    """Return whether another thread, in that scope, gets its turn while the caller has one."""
    inside = threading.Event()

    def other():
        with scope_of_other, turn():
            inside.set()

    thread = threading.Thread(target=other)
    with turn():
        thread.start()
        together = inside.wait(within_s)
    thread.join()
    assert inside.is_set()
    return together


def test_one_job_waits_for_another():
    with enter_scope(JobScope(None)):
        assert not beside(enter_scope(JobScope(None)))


def test_threads_of_one_job_do_not_wait_for_one_another():
    scope = JobScope(None)
    with enter_scope(scope):
        assert beside(enter_scope(scope), within_s=10)


def test_a_thread_that_a_job_starts_is_of_that_job():
    inside = threading.Event()

    def other():
        with turn():
            inside.set()

    with inherit_scopes(), enter_scope(JobScope(None)), turn():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert inside.is_set()


def test_a_sweep_inside_a_job_does_not_wait_for_that_job():
    outer = JobScope(None)
    with enter_scope(outer):
        assert beside(enter_scope(JobScope(None, parent=outer)), within_s=10)


def test_slots_that_are_being_set_up_wait_for_each_other():
    with enter_slot({}):
        assert not beside(enter_slot({}))


def test_a_job_waits_for_a_thread_of_no_job():
    """Observers, and what writes the best model, import too."""
    assert not beside(enter_scope(JobScope(None)))


def test_a_turn_lasts_until_the_outermost_block_ends():
    inside = threading.Event()

    def other():
        with enter_scope(JobScope(None)), turn():
            inside.set()

    thread = threading.Thread(target=other)
    with enter_scope(JobScope(None)), turn():
        with turn():
            pass
        thread.start()
        assert not inside.wait(0.2)
    thread.join()
    assert inside.is_set()


def test_an_error_ends_the_turn():
    with enter_scope(JobScope(None)), pytest.raises(KeyError):
        with turn():
            raise KeyError
    with enter_scope(JobScope(None)), turn():
        pass


def test_who_waited_too_long_goes_on(monkeypatch):
    monkeypatch.setattr(turns, "_WAIT_AT_MOST_S", 0.01)
    with enter_scope(JobScope(None)):
        assert beside(enter_scope(JobScope(None)), within_s=10)
        assert beside(enter_scope(JobScope(None)), within_s=10)


def test_a_thread_of_no_job_does_not_wait_long(monkeypatch):
    monkeypatch.setattr(turns, "_OTHERS_WAIT_AT_MOST_S", 0.01)
    with enter_scope(JobScope(None)):
        assert beside(contextlib.nullcontext(), within_s=10)


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
