"""The server that forks worker processes: how they start, and that none outlives its driver."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from served import is_gone
from sizes import LONG

from junky_core.errors import ConfigError
from junky_core.executors.processes.fork_server import ForkServer, ForkServerError, is_supported

pytestmark = pytest.mark.skipif(not is_supported(), reason="the fork server is for Linux")


@pytest.fixture(scope="module")
def server():
    with ForkServer(preload=["wave"]) as server:
        yield server


class Answers:
    """A pipe that workers write lines of JSON to."""

    def __init__(self):
        read, self.write = os.pipe()
        self._read = os.fdopen(read, "rb")

    def next(self):
        return json.loads(self._read.readline())

    def close(self):
        self._read.close()
        os.close(self.write)


@pytest.fixture
def answers():
    with contextlib.closing(Answers()) as answers:
        yield answers


def ended(process):
    assert process.wait(30), "it still runs"
    process.close()
    return process.exit_code


def test_a_worker_is_a_plain_process_in_a_group_of_its_own(server, answers):
    names = ["torch._dynamo", "junky_core.autotrain", "wave"]
    process = server.fork("served:tell_about_itself", names, [answers.write])
    told = answers.next()
    assert ended(process) == 0
    assert told["pid"] == told["group"] == process.pid
    assert told["parent"] == server.pid != os.getpid()
    assert told["given"] == told["modules"] == names
    assert told["ignores_sigint"]
    assert told["threads"] == 1
    assert told["stdin"] == os.devnull


def test_a_worker_has_no_descriptor_of_the_server_or_of_other_workers(server, answers):
    waiting = server.fork("served:wait_for_ever", None, [answers.write])
    answers.next()
    process = server.fork("served:tell_about_itself", [], [answers.write])
    # Standard streams, the one it was given, and the one that lists them.
    assert len(answers.next()["descriptors"]) == 5
    assert ended(process) == 0
    waiting.kill()
    assert ended(waiting) == -signal.SIGKILL


def test_an_idle_worker_has_little_memory_of_its_own(server, answers):
    process = server.fork("served:tell_about_itself", [], [answers.write])
    assert answers.next()["private_kb"] < 30_000
    assert ended(process) == 0


def test_workers_draw_different_random_numbers_and_start_no_gpu(server, answers):
    drawn = []
    for _ in range(3):
        process = server.fork("served:draw", None, [answers.write])
        numbers, cuda = answers.next()
        drawn += numbers
        assert not cuda
        assert ended(process) == 0
    assert len(set(drawn)) == 9


@pytest.mark.parametrize(
    ("how", "exit_code"),
    [
        ("return", 0),
        ("exit", 3),
        ("raise", 1),
        ("segfault", -signal.SIGSEGV),
        ("abort", -signal.SIGABRT),
        ("killed", -signal.SIGKILL),
    ],
)
def test_how_a_worker_ended_is_told(server, how, exit_code):
    assert ended(server.fork("served:end", how)) == exit_code


def test_a_worker_that_ends_runs_what_is_registered_for_its_exit(server, answers):
    process = server.fork("served:say_at_exit", "goodbye", [answers.write])
    assert answers.next() == "goodbye"
    assert ended(process) == 0


def test_killing_a_worker_ends_one_that_ignores_sigterm_or_holds_the_interpreter(server, answers):
    for target in ("wait_for_ever", "hold_the_interpreter"):
        process = server.fork(f"served:{target}", None, [answers.write])
        answers.next()
        assert not process.wait(0)
        assert process.exit_code is None
        process.kill()
        assert ended(process) == -signal.SIGKILL
        process.kill()  # once more: nothing happens


def test_children_that_a_worker_leaves_end_with_it(server, answers):
    process = server.fork("served:leave_children", None, [answers.write])
    children = answers.next()
    assert ended(process) == 0
    assert all(is_gone(pid) for pid in children)


def test_workers_started_by_several_threads_at_once_are_all_reported(server):
    codes, lock = [], threading.Lock()

    def start():
        for _ in range(5):
            code = ended(server.fork("served:end", "exit"))
            with lock:
                codes.append(code)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [3] * 20


def test_a_server_that_is_killed_takes_its_workers_with_it_and_another_one_starts(answers):
    with ForkServer() as server:
        process = server.fork("served:hold_the_interpreter", None, [answers.write])
        worker, first = answers.next(), server.pid
        os.kill(first, signal.SIGKILL)
        assert process.wait(10)
        assert process.exit_code is None
        process.close()
        assert is_gone(worker)
        with pytest.raises(ForkServerError, match="SIGKILL"):
            server.fork("served:end", "return")
        process = server.fork("served:wait_for_ever", None, [answers.write])
        worker, second = answers.next(), server.pid
        assert second != first
    assert is_gone(second)  # closing it ends its workers
    assert is_gone(worker)
    assert ended(process) is None


def test_a_module_to_preload_that_cannot_be_imported_is_named():
    with ForkServer(preload=["no_such_module"]) as server:
        server.start()
        with pytest.raises(ConfigError, match=r"preload: 'no_such_module'.*ModuleNotFoundError"):
            server.fork("served:end", "return")


DRIVER = """
import json, os, sys, time
sys.path[:] = {path!r}
from junky_core.executors.processes.fork_server import ForkServer
server = ForkServer()
read, write = os.pipe()
for name in {names!r}:
    server.fork("served:" + name, None, [write])
lines = os.fdopen(read, "rb")
workers = [json.loads(lines.readline()) for _ in {names!r}]
forked = [os.fork()] if {fork} else []
if 0 not in forked:
    print(json.dumps([[server.pid, *workers], forked]), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("signum", "fork"),
    [(signal.SIGKILL, True), (signal.SIGTERM, False)]
    + LONG * [(signal.SIGKILL, False), (signal.SIGINT, False)],
)
def test_no_worker_outlives_a_driver_that_is_killed(signum, fork):
    """A forked child holds the driver's socket open, so that its end is not seen there."""
    names = ["wait_for_ever", "hold_the_interpreter"]
    path = [*sys.path, str(Path(__file__).parent)]
    code = DRIVER.format(path=path, names=names, fork=fork)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as driver:
        numbers, children = json.loads(driver.stdout.readline())
        try:
            assert not any(is_gone(number, 0.05) for number in numbers)
            driver.send_signal(signum)
            driver.wait(10)
            assert all(is_gone(number) for number in numbers)
            assert not any(is_gone(number, 0.05) for number in children)
        finally:
            driver.kill()
            for child in children:
                os.kill(child, signal.SIGKILL)


def test_workers_compute_on_threads_though_a_preloaded_module_computed(answers):
    with ForkServer(preload=["computes_at_import"]) as server:
        process = server.fork("served:compute", 2, [answers.write])
        assert process.wait(60), "it hangs"
        assert answers.next()[1] == 1 << 22
        process.close()


def test_a_preloaded_module_that_uses_a_gpu_is_an_error():
    with ForkServer(preload=["uses_gpu_at_import"]) as server:
        with pytest.raises(ConfigError, match="preload: 'uses_gpu_at_import' uses a GPU when it"):
            server.fork("served:end", "raise")


def hashes(server, answers):
    process = server.fork("served:hash_texts", None, [answers.write])
    told = answers.next()
    assert ended(process) == 0
    return told


def test_all_workers_hash_texts_alike(answers, monkeypatch):
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    with ForkServer() as server:
        first = hashes(server, answers)
        assert hashes(server, answers) == first
        os.kill(server.pid, signal.SIGKILL)
        with contextlib.suppress(ForkServerError):
            hashes(server, answers)
        assert hashes(server, answers) == first
    with ForkServer() as another:
        assert hashes(another, answers) != first


def test_workers_hash_texts_as_the_environment_says(answers, monkeypatch):
    command = [sys.executable, "-c", "print(hash('one'), hash('two'))"]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    plain = subprocess.run(command, env=environment, capture_output=True, check=True)
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    with ForkServer() as server:
        assert hashes(server, answers) == [int(text) for text in plain.stdout.split()]
