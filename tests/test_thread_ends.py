"""Threads that have used torch, at the end of the process."""

import subprocess
import sys
import threading
from textwrap import dedent

from junky_core.job import thread_ends


def run(script, tmp_path):
    return subprocess.run(
        [sys.executable, "-c", dedent(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_an_ended_thread_is_waited_for_until_the_system_has_none_of_its_number(
    tmp_path, monkeypatch
):
    # A folder replaces /proc/self/task, because the end of a real thread cannot be timed.
    monkeypatch.setattr(thread_ends, "_TASKS", str(tmp_path))
    monkeypatch.setattr(thread_ends, "_WITHIN_S", 60)
    (tmp_path / "4711").mkdir()
    waiting = threading.Thread(
        target=thread_ends.wait_until_gone, args=([4711, 4712],), daemon=True
    )
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    (tmp_path / "4711").rmdir()
    waiting.join(30)
    assert not waiting.is_alive()


def test_a_thread_that_the_system_does_not_end_is_waited_for_no_longer_than_a_limit(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(thread_ends, "_TASKS", str(tmp_path))
    monkeypatch.setattr(thread_ends, "_WITHIN_S", 0.01)
    (tmp_path / "4711").mkdir()
    waiting = threading.Thread(target=thread_ends.wait_until_gone, args=([4711],), daemon=True)
    waiting.start()
    waiting.join(30)
    assert not waiting.is_alive()


def test_threads_with_torchs_own_state_do_not_abort_the_end_of_the_process(tmp_path):
    done = run(
        """
        import torch
        from junky_core import torch_autotrain
        torch_autotrain(
            lambda a: torch.nn.Linear(1, 1),
            lambda *args: float(torch.rand(1)),
            make_model_fit_params=[("a", list(range(24)))], devices={"cpu": 24}, seed=0,
        )
        """,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_thread_pool_that_a_seeded_job_left_does_not_abort_the_end_either(tmp_path):
    done = run(
        """
        import torch
        from concurrent.futures import ThreadPoolExecutor
        from junky_core import torch_autotrain

        def train(*args):
            pools.append(ThreadPoolExecutor(24))  # Python joins its threads as it ends
            return list(pools[-1].map(lambda _: float(torch.rand(1)), range(96)))

        pools = []
        torch_autotrain(
            lambda a: torch.nn.Linear(1, 1), train,
            make_model_fit_params=[("a", [1, 2])], devices={"cpu": 2}, seed=0,
        )
        """,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_end_waits_for_a_thread_that_is_stopped_at_exit(tmp_path):
    # Like tqdm's monitor. The function registered first runs last.
    done = run(
        """
        import atexit, os, threading
        ended = []
        atexit.register(lambda: print(os.path.exists(f"/proc/self/task/{ended[0]}"), flush=True))
        import torch
        from junky_core import torch_autotrain

        def work():
            told.wait()
            sum(range(300_000))
            ended.append(threading.get_native_id())

        def train(*args):
            threading.Thread(target=work, daemon=True).start()

        told = threading.Event()
        torch_autotrain(lambda: torch.nn.Linear(1, 1), train, progress=False)
        atexit.register(told.set)
        """,
        tmp_path,
    )
    assert (done.returncode, done.stdout.splitlines()[-1:], done.stderr) == (0, ["False"], "")


def test_threads_of_queues_of_multiprocessing_end_before_the_wait(tmp_path):
    done = run(
        """
        import multiprocessing, threading, torch
        from junky_core import torch_autotrain
        from junky_core.job import thread_ends

        def wait_until_gone(numbers):
            print([thread.name for thread in threading.enumerate()], flush=True)
            plain(numbers)

        def train(*args):
            queue = multiprocessing.Queue()
            queue.put(1)
            queue.get()
            kept.append(queue)

        kept = []
        torch_autotrain(lambda: torch.nn.Linear(1, 1), train, progress=False)
        plain, thread_ends.wait_until_gone = thread_ends.wait_until_gone, wait_until_gone
        """,
        tmp_path,
    )
    last = done.stdout.splitlines()[-1:]
    assert (done.returncode, last, done.stderr) == (0, ["['MainThread']"], "")


def test_a_daemon_thread_of_a_job_that_never_ends_does_not_keep_the_process(tmp_path):
    done = run(
        """
        import threading, torch
        from junky_core import torch_autotrain

        def train(*args):
            threading.Thread(target=threading.Event().wait, daemon=True).start()

        torch_autotrain(lambda: torch.nn.Linear(1, 1), train, progress=False)
        """,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_during_a_loader_factorys_torch_code_gives_the_signals_status(tmp_path):
    done = run(
        """
        import os, signal, torch
        from junky_core import torch_autotrain

        def make_loaders():
            os.kill(os.getpid(), signal.SIGINT)
            a = torch.ones(300, 300)
            while True:
                a = (a @ a).clamp(-1, 1)

        torch_autotrain(
            lambda a: torch.nn.Linear(1, 1), lambda *args: 1.0, make_loaders,
            make_model_fit_params=[("a", [1, 2])],
        )
        """,
        tmp_path,
    )
    assert done.returncode == 130, done.stderr
    assert "terminate called" not in done.stderr
