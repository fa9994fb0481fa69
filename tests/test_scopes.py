"""Threads belong to the job that started them."""

import concurrent.futures
import contextlib
import threading

import pytest

from junky_core import scopes
from junky_core.scopes import JobScope, current_scope, enter_scope, inherit_scopes, outside_scopes


@pytest.fixture(autouse=True)
def inheriting():
    with inherit_scopes():
        yield


def in_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_there_is_no_scope_outside():
    assert current_scope() is None
    assert in_thread(current_scope) is None


def test_a_thread_inherits_and_so_does_its_own_thread():
    scope = JobScope("job")
    with enter_scope(scope):
        assert in_thread(current_scope) is scope
        assert in_thread(lambda: in_thread(current_scope)) is scope
    assert current_scope() is None


def test_pools_and_timers_inherit():
    scope, found, done = JobScope("job"), [], threading.Event()
    with enter_scope(scope):
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            assert pool.submit(current_scope).result() is scope

        def late():
            found.append(current_scope())
            done.set()

        threading.Timer(0, late).start()
        assert done.wait(10)
    assert found == [scope]


def test_a_subclass_with_its_own_run_inherits():
    class Worker(threading.Thread):
        def run(self):
            self.found = current_scope()

    scope = JobScope("job")
    with enter_scope(scope):
        worker = Worker()
        worker.start()
        worker.join()
    assert worker.found is scope
    assert "run" not in vars(worker)


def test_each_thread_enters_its_own_setups():
    entered, left = [], []

    @contextlib.contextmanager
    def setup():
        entered.append(threading.get_ident())
        yield
        left.append(threading.get_ident())

    scope = JobScope("job")
    scope.thread_setups.append(setup)
    with enter_scope(scope):
        other = in_thread(threading.get_ident)
    assert entered == [threading.get_ident(), other]
    assert sorted(left) == sorted(entered)


def test_scopes_of_parallel_jobs_do_not_mix():
    barrier = threading.Barrier(8)

    def job(number):
        scope = JobScope(number)
        with enter_scope(scope):
            for _ in range(100):
                barrier.wait(10)
                assert current_scope() is scope
                assert in_thread(lambda: current_scope().job) == number
        return True

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(job, range(8)))


def test_outside_scopes_starts_threads_of_no_job():
    with enter_scope(JobScope("job")), outside_scopes():
        assert in_thread(current_scope) is None


def test_a_thread_that_is_started_twice_says_so_and_leaves_nothing():
    with enter_scope(JobScope("job")):
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
        with pytest.raises(RuntimeError, match="once"):
            thread.start()
    assert "run" not in vars(thread)


def test_the_patch_is_taken_back():
    assert threading.Thread.start.__module__ == "junky_core.scopes"
    with inherit_scopes():
        pass
    assert threading.Thread.start.__module__ == "junky_core.scopes"


def test_a_wrapper_that_stays_on_ours_does_no_harm_to_the_next_patch(monkeypatch):
    monkeypatch.setattr(threading.Thread, "start", threading.Thread.start)  # put back at the end
    uninstall = scopes._install()
    ours = threading.Thread.start
    threading.Thread.start = lambda thread: ours(thread)  # what a tracing tool does
    theirs = threading.Thread.start
    uninstall()
    uninstall = scopes._install()
    with enter_scope(JobScope("job")):
        assert in_thread(lambda: current_scope().job) == "job"
    uninstall()
    assert threading.Thread.start is theirs
