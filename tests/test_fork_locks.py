"""Locks that a forked child finds free."""

import importlib.util
import os
import subprocess
import sys
import textwrap

import pytest
import warm_start

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

# The lock that another thread has at the fork -> what the child does.
LOCKS = {
    "tempfile._once_lock": "tempfile.gettempdir()",
    "resource_tracker._resource_tracker._lock": "resource_tracker.ensure_running()",
    "forkserver._forkserver._lock": "forkserver.ensure_running()",
    "ours": "assert ours.acquire(timeout=10)",
    "reentrant": "assert reentrant.acquire(timeout=10)",
    "condition": "assert condition.acquire(timeout=10)",
}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_that_another_thread_has_at_the_fork_is_free_in_the_child(lock):
    script = f"""
        import os, signal, tempfile, threading, warnings
        from multiprocessing import forkserver, resource_tracker
        from junky_core.job.fork_locks import free_in_children

        warnings.simplefilter("ignore", DeprecationWarning)
        ours = free_in_children(threading.Lock())
        reentrant = free_in_children(threading.RLock())
        condition = free_in_children(threading.Condition())
        held, done = threading.Event(), threading.Event()

        def other():
            with {lock}:
                held.set()
                done.wait(60)

        thread = threading.Thread(target=other)
        thread.start()
        held.wait(60)
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            {LOCKS[lock]}
            os._exit(0)
        status = os.waitpid(pid, 0)[1]
        parents = {lock}.acquire(blocking=False)
        done.set()
        thread.join()
        assert status == 0, status  # else the alarm ended it
        assert not parents
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=120)


def test_a_child_can_print_while_another_thread_waits_for_the_reader_of_a_full_pipe():
    script = """
        import os, select, signal, sys, threading, warnings
        from junky_core.job.fork_turns import forks_in_turn

        warnings.simplefilter("ignore", DeprecationWarning)
        text = "x" * 300_000
        reader, writer = os.pipe()
        terminal = os.dup(1)
        os.dup2(writer, 1)
        os.close(writer)
        thread = threading.Thread(target=print, args=(text,), kwargs={"flush": True})
        thread.start()
        while select.select([], [1], [], 0)[1]:
            pass  # the pipe is not full yet
        with forks_in_turn():
            pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            print("of the child", flush=True)
            os._exit(0)
        status = os.waitpid(pid, 0)[1]
        read = b""
        while len(read) <= len(text):
            read += os.read(reader, 1 << 16)
        thread.join()
        os.dup2(terminal, 1)
        assert status == 0, status  # else the alarm ended it
        assert read.decode() == text + "\\n"
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=120)


def test_a_child_does_not_write_what_its_parent_has_yet_to_write():
    script = """
        import os, sys
        from junky_core.job.fork_turns import forks_in_turn

        print("of the parent")  # to a pipe, so it is buffered
        sys.stdout.buffer.write(b"")
        with forks_in_turn():
            pid = os.fork()
        if pid == 0:
            print("of the child", flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert sorted(done.stdout.split("\n")) == ["", "of the child", "of the parent"]


# One job searches for a folder for temporary files, as when it starts a forkserver, and continues
# only after the worker that another job forks at that time has answered.
SWEEP = """
import os, sys, tempfile, threading, warnings
import torch
from torch.utils.data import DataLoader
from junky_core import torch_autotrain

warnings.simplefilter("ignore", DeprecationWarning)
parent, plain = os.getpid(), tempfile._get_default_tempdir
held, answered = threading.Event(), threading.Event()

def slow():
    if os.getpid() == parent:
        held.set()
        answered.wait(60)
    return plain()

def train(_device, _loaders, _model, at, _save, _prefix):
    if at == 0:
        return len(tempfile.gettempdir()) > 0
    held.wait(60)
    try:
        loader = DataLoader(
            torch.arange(8), num_workers=1, timeout=20, multiprocessing_context="fork"
        )
        return int(sum(loader))
    finally:
        answered.set()

tempfile._get_default_tempdir = slow
result = torch_autotrain(
    lambda at: (torch.nn.Linear(1, 1), at), train, make_model_fit_params=[("at", [0, 1])],
    devices="cpu*2", max_retries=0, progress=False, sweep_dir=sys.argv[1],
)
assert not result.failed, result.failed[0].traceback
assert sorted(value for *_, value in result.stats) == [1, 28]
"""


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="needs torch")
def test_a_worker_forked_while_another_job_holds_tempfiles_lock_works(tmp_path):
    warm_start.checked(["-c", SWEEP, tmp_path / "sweep"])
