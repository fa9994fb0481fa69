"""Threads belong to the job that started them."""

import concurrent.futures
import contextlib
import functools
import gc
import multiprocessing.pool
import threading
import weakref

import pytest

from junky_core.job.scopes import (
    JobScope,
    current_scope,
    enter_scope,
    inherit_scopes,
    outside_scopes,
)

PATCHED = (
    threading.Thread,
    concurrent.futures.Future,
    concurrent.futures.ThreadPoolExecutor,
    multiprocessing.pool.ThreadPool,
)


@pytest.fixture(autouse=True)
def inheriting():
    with contextlib.ExitStack() as stack:
        stack.enter_context(inherit_scopes())
        yield stack


@pytest.fixture
def uninherited(inheriting):
    """No block is open."""
    inheriting.close()


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
        assert done.wait(60)
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
                barrier.wait(60)
                assert current_scope() is scope
                assert in_thread(lambda: current_scope().job) == number
        return True

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(job, range(8)))


def test_outside_scopes_starts_threads_of_no_job():
    with enter_scope(JobScope("job")), outside_scopes():
        assert in_thread(current_scope) is None


def test_starting_a_thread_twice_is_pythons_own_error():
    with enter_scope(JobScope("job")):
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
        with pytest.raises(RuntimeError, match="once"):
            thread.start()
    assert "run" not in vars(thread)


def test_a_wrapper_left_on_our_patch_does_not_harm_the_next_patch(uninherited, monkeypatch):
    monkeypatch.setattr(threading.Thread, "start", threading.Thread.start)  # put back at the end
    with inherit_scopes():
        ours = threading.Thread.start
        threading.Thread.start = lambda thread: ours(thread)  # what a tracing tool does
        theirs = threading.Thread.start
    entered = []

    @contextlib.contextmanager
    def setup():
        entered.append(threading.current_thread())
        yield

    scope = JobScope("job")
    scope.thread_setups.append(setup)
    with inherit_scopes(), enter_scope(scope):
        assert in_thread(lambda: current_scope().job) == "job"
    assert len(entered) == 2  # once for each thread
    assert threading.Thread.start is theirs


def kinds_of_pools():
    def executor(pool):
        return lambda function: pool.submit(function).result()

    def thread_pool(method):
        def give(pool):
            return lambda function: next(iter(getattr(pool, method)(lambda _: function(), [0])))

        return give

    def applied(pool):
        return lambda function: pool.apply(function)

    def called_back(pool):
        def give(function):
            found, done = [], threading.Event()
            pool.apply_async(int, callback=lambda _: (found.append(function()), done.set()))
            assert done.wait(60)
            return found[0]

        return give

    def done_callback(pool):
        def give(function):
            found, done, go = [], threading.Event(), threading.Event()
            future = pool.submit(go.wait)
            future.add_done_callback(lambda _: (found.append(function()), done.set()))
            go.set()
            assert done.wait(60)
            return found[0]

        return give

    executors = concurrent.futures.ThreadPoolExecutor
    pools = multiprocessing.pool.ThreadPool
    return [
        pytest.param(executors, executor, id="submit"),
        pytest.param(executors, thread_pool("map"), id="executor.map"),
        pytest.param(executors, done_callback, id="add_done_callback"),
        pytest.param(pools, applied, id="apply"),
        pytest.param(pools, called_back, id="callback"),
        *(
            pytest.param(pools, thread_pool(name), id=name)
            for name in ("map", "imap", "imap_unordered")
        ),
    ]


@pytest.mark.parametrize(("make", "how"), kinds_of_pools())
def test_work_given_to_a_pool_belongs_to_the_job_that_gave_it(make, how):
    first, second = JobScope("first"), JobScope("second")
    with enter_scope(first):
        pool = make(1)
        give = how(pool)
        assert give(current_scope) is first
    with enter_scope(second):
        assert give(current_scope) is second
    assert give(current_scope) is None
    pool.shutdown() if make is concurrent.futures.ThreadPoolExecutor else pool.terminate()


@pytest.mark.parametrize(
    "make", [concurrent.futures.ThreadPoolExecutor, multiprocessing.pool.ThreadPool]
)
def test_a_pool_keeps_no_scope_alive(make):
    class Job:
        pass

    job = Job()
    alive = weakref.ref(job)
    with enter_scope(JobScope(job)):
        pool = make(1)
        list(pool.map(lambda _: None, [0]))
    del job
    list(pool.map(lambda _: None, [0]))  # its thread has released the earlier work
    gc.collect()
    assert alive() is None
    pool.shutdown() if make is concurrent.futures.ThreadPoolExecutor else pool.terminate()


@pytest.mark.parametrize(
    "make", [concurrent.futures.ThreadPoolExecutor, multiprocessing.pool.ThreadPool]
)
def test_a_pool_made_in_a_job_is_initialized_in_it(make):
    scope, found = JobScope("job"), []
    with enter_scope(scope), make(1, initializer=lambda: found.append(current_scope())) as pool:
        list(pool.map(lambda _: None, [0]))
    assert found == [scope]


def test_a_pools_thread_enters_the_setups_of_each_work():
    entered = []

    @contextlib.contextmanager
    def setup(what):
        entered.append((what, threading.get_ident()))
        yield

    scope = JobScope("job")
    scope.thread_setups.append(lambda: setup("thread"))
    scope.work_setups.append(lambda: functools.partial(setup, "work"))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        thread = pool.submit(threading.get_ident).result()
        with enter_scope(scope):
            pool.submit(int).result()
    assert entered[1:] == [("thread", thread), ("work", thread)]


def test_each_item_that_a_pool_is_given_enters_the_setups():
    entered = []

    @contextlib.contextmanager
    def setup():
        entered.append("work")
        yield

    scope = JobScope("job")
    scope.work_setups.append(lambda: setup)
    with multiprocessing.pool.ThreadPool(2) as pool, enter_scope(scope):
        assert pool.map(abs, [-1, -2, -3], chunksize=2) == [1, 2, 3]
    assert entered == ["work"] * 3


def test_threads_and_pools_are_as_they_were_afterwards(uninherited):
    before = [dict(vars(kind)) for kind in PATCHED]
    with inherit_scopes():
        assert "apply_async" in vars(multiprocessing.pool.ThreadPool)
        assert [dict(vars(kind)) for kind in PATCHED] != before
    assert [dict(vars(kind)) for kind in PATCHED] == before


def test_a_jobs_own_facet_is_made_once_and_not_inherited():
    outer = JobScope("outer")
    made = outer.own_facet("set", set)
    assert outer.own_facet("set", set) is made
    assert JobScope("inner", parent=outer).own_facet("set", set) is not made
