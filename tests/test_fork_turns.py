"""Forks of several jobs, one at a time."""

import importlib.util
import os
import subprocess
import sys

import pytest
import warm_start

from junky_core.job.fork_turns import forks_in_turn

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

# filelock's own check, which it installs itself on Python 3.12 and newer. The hook before a fork
# keeps the window open, so that another fork would fall into it.
WORKERS = """
import os, sys, tempfile, threading, warnings
import filelock, torch
from torch.utils.data import DataLoader
from junky_core import torch_autotrain

warnings.simplefilter("ignore")  # of Python 3.12 and newer, that the process has threads
together = threading.Barrier(4, timeout=60)
lock, forking, overlaps = threading.Lock(), set(), []

def before():
    with lock:
        overlaps.extend(forking)
        forking.add(threading.get_ident())
    threading.Event().wait(0.02)

def after():
    with lock:
        forking.discard(threading.get_ident())

def check(event, _args):
    others = forking - {threading.get_ident()}
    if event == "os.fork" and others:
        raise RuntimeError(f"{event} is unsafe: another thread forks")

os.register_at_fork(before=before, after_in_parent=after)
sys.addaudithook(check)
if hasattr(filelock._api, "_audit_fork_safety"):
    sys.addaudithook(filelock._api._audit_fork_safety)

def train(_device, _loaders, _model, at, _save, _prefix):
    together.wait()
    loader = DataLoader(range(8), num_workers=2, multiprocessing_context="fork")
    return int(sum(loader))

os.chdir(tempfile.mkdtemp())
result = torch_autotrain(
    lambda at: (torch.nn.Linear(1, 1), at),
    train,
    make_model_fit_params=[("at", list(range(8)))],
    devices="cpu*4",
    max_retries=0,
    progress=False,
)
assert not result.failed, result.failed[0].traceback
assert [value for *_, value in result.stats] == [28] * 8
assert not overlaps
"""


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="needs torch")
def test_workers_of_loaders_on_several_slots_start_one_at_a_time():
    warm_start.checked(["-c", WORKERS])


# The same without torch, for Python 3.12 and newer, where filelock checks by itself.
FORKS = """
import os, sys, threading, warnings
# Registered first, and so run last: another fork would fall between filelock's hook and the fork.
os.register_at_fork(before=lambda: threading.Event().wait(0.01))
import filelock
from junky_core.job.fork_turns import forks_in_turn
from junky_core.job.scopes import JobScope, enter_scope

warnings.simplefilter("ignore")  # of Python 3.12 and newer, that the process has threads
if sys.version_info < (3, 12) and hasattr(filelock._api, "_audit_fork_safety"):
    sys.addaudithook(filelock._api._audit_fork_safety)
together, errors = threading.Barrier(4, timeout=60), []

def job():
    with enter_scope(JobScope(None)):
        together.wait()
        try:
            for _ in range(3):
                child = os.fork()
                if child == 0:
                    os._exit(0)
                os.waitpid(child, 0)
        except RuntimeError as error:
            errors.append(error)

with forks_in_turn():
    threads = [threading.Thread(target=job) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
assert not errors, errors
"""


def test_filelock_allows_the_forks_of_several_jobs():
    pytest.importorskip("filelock")
    done = subprocess.run(
        [sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


# A thread of no job, as an observer's is, imports a module until the fork of a job waits for it. Had
# the job forked by then, the child could never import that module.
IMPORT = """
import os, signal, sys, threading, warnings
import torch
from junky_core import torch_autotrain
from junky_core.job import turns
from watched_turns import WatchedCondition

warnings.simplefilter("ignore", DeprecationWarning)
folder, sys.path[0] = sys.argv[1], sys.argv[1]
job_runs, importing, may_end = sys.events_of_test = [threading.Event() for _ in range(3)]
turns._turns.changed = WatchedCondition(may_end.set)
turns._OTHERS_WAIT_AT_MOST_S = 60

def observe():
    job_runs.wait(60)
    import imported_beside_a_job

def train(_device, _loaders, _model, _at, _save, _prefix):
    job_runs.set()
    importing.wait(60)
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        import imported_beside_a_job
        os._exit(imported_beside_a_job.value)
    may_end.set()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

with open(f"{folder}/imported_beside_a_job.py", "x") as file:
    file.write("import sys\\n_, importing, may_end = sys.events_of_test\\n")
    file.write("importing.set()\\nassert may_end.wait(60)\\nvalue = 7\\n")
observer = threading.Thread(target=observe)
observer.start()
result = torch_autotrain(
    lambda at: (torch.nn.Linear(1, 1), at), train, make_model_fit_params=[("at", [0])],
    devices="cpu", max_retries=0, progress=False, sweep_dir=f"{folder}/sweep",
)
observer.join()
assert not result.failed, result.failed[0].traceback
assert [value for *_, value in result.stats] == [7]
"""


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="needs torch")
def test_a_job_on_one_slot_forks_while_no_other_thread_imports(tmp_path):
    env = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}
    warm_start.checked(["-c", IMPORT, tmp_path], env=env)


def test_the_function_is_put_back_after_the_last_block():
    plain = os.fork, os.forkpty
    first, second = forks_in_turn(), forks_in_turn()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert os.fork is not plain[0]
    assert os.forkpty is not plain[1]
    second.__exit__(None, None, None)
    assert (os.fork, os.forkpty) == plain


def test_a_wrapper_added_inside_the_block_works_afterwards(monkeypatch):
    monkeypatch.setattr(os, "fork", lambda: 5)
    with forks_in_turn():
        in_turn = os.fork
        os.fork = lambda: 1 + in_turn()
    assert os.fork() == 6
