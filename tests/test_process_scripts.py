"""Worker processes and the script that started the sweep: imported by name, never run again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from served import is_gone

from junky_core.executors.processes.fork_server import is_supported

pytestmark = pytest.mark.skipif(not is_supported(), reason="the fork server is for Linux")

APPS = Path(__file__).parent / "apps"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(APPS), "PYTHONDONTWRITEBYTECODE": "1"}


def run_script(path, text):
    path.write_text(text)
    return subprocess.run(
        [sys.executable, str(path), "an argument"],
        cwd=path.parent,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


SCRIPT = """
import functools, io, json, os, sys
import torch
from process_sweep import run_jobs

class Net(torch.nn.Linear):
    pass

def decorated(function):
    @functools.wraps(function)
    def wrapper():
        return run_jobs(function)
    return wrapper

def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return type(torch.load(file, weights_only=False)) is Net

@decorated
def main(job):
    model = Net(1, 1)
    return {
        "name": __name__, "argv": sys.argv[1:], "environment": os.environ.get("SET_BY_MAIN"),
        "folder": os.getcwd(), "dtype": str(model.weight.dtype), "saved": saved(model),
        "same": model.__class__ is Net, "state": torch.are_deterministic_algorithms_enabled(),
        "kind": KIND, "net": model if job.num else None,
    }

KIND = "set at the top level"

if __name__ == "__main__":
    os.environ["SET_BY_MAIN"] = "yes"
    os.makedirs("inner", exist_ok=True)
    os.chdir("inner")
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    first, second = main()
    assert type(second.pop("net")) is Net
    print(json.dumps(first))
    def under_the_guard(job):
        return type(Net(1, 1)).__name__
    print(json.dumps(run_jobs(under_the_guard)))
    captured = ["captured"]
    print(json.dumps(run_jobs(lambda job: captured[0])))
"""


def test_a_worker_is_like_the_process_of_the_script(tmp_path):
    done = run_script(tmp_path / "script.py", SCRIPT)
    assert done.returncode == 0, done.stderr
    told, guarded, by_lambda = map(json.loads, done.stdout.splitlines())
    del told["net"]
    assert told == {
        "name": "__mp_main__",
        "argv": ["an argument"],
        "environment": "yes",
        "folder": str(tmp_path / "inner"),
        "dtype": "torch.float64",
        "saved": True,
        "same": True,
        "state": True,
        "kind": "set at the top level",
    }
    assert guarded == ["Net", "Net"]
    assert by_lambda == ["captured", "captured"]


def test_a_session_s_function_is_sent_by_value():
    code = (
        "from process_sweep import run_jobs\n"
        "VALUE = 3\n"
        "def function(job):\n"
        "    return VALUE + job.num\n"
        "print(run_jobs(function))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "[3, 4]\n", done.stderr


UNGUARDED = """
import torch
from junky_core import torch_autotrain
from process_sweep import run_jobs

def function(job):
    return job.num

print("started", flush=True)
if __name__ != "__main__":
    {call}
else:
    run_jobs(function)
"""
CALL = "torch_autotrain(lambda: torch.nn.Linear(1, 1), lambda *_: None, progress=False)"


@pytest.mark.parametrize(
    "call",
    [CALL, f"exec('try:\\n    {CALL}\\nexcept BaseException:\\n    raise SystemExit(0)')"],
    ids=["alone", "caught"],
)
def test_a_script_that_is_not_guarded_is_told_so_and_starts_no_second_sweep(tmp_path, call):
    done = run_script(tmp_path / "script.py", UNGUARDED.format(call=call))
    assert done.returncode != 0
    assert 'Put the call under: if __name__ == "__main__":' in done.stderr
    assert "script.py" in done.stderr
    assert "AUTOTRAIN STARTED" not in done.stdout + done.stderr


def test_a_script_that_cannot_be_imported_says_why(tmp_path):
    text = UNGUARDED.format(call="raise OSError('no such camera')")
    done = run_script(tmp_path / "script.py", text)
    assert done.returncode != 0
    assert "could not load the script" in done.stderr
    assert "OSError: no such camera" in done.stderr


KILLED = """
import os, sys, time
from process_sweep import run_jobs

def tell(job):
    print(os.getpid(), file=open(sys.argv[0] + ".pids", "a"), flush=True)
    if job.num % 2:
        sum(iter(int, 1))
    time.sleep(600)

if __name__ == "__main__":
    run_jobs(tell, jobs=4, slots=2)
"""


@pytest.mark.parametrize("when", ["starting", "at work"])
def test_no_worker_outlives_a_sweep_that_is_killed(tmp_path, when):
    path, pids = tmp_path / "script.py", tmp_path / "script.py.pids"
    path.write_text(KILLED)
    with subprocess.Popen([sys.executable, str(path)], env=ENVIRONMENT) as driver:
        end = time.monotonic() + 60
        seen = set()
        at_random = random.uniform(0.5, 4)
        while time.monotonic() < end:
            seen |= descendants(driver.pid)
            if when == "starting" and time.monotonic() > end - 60 + at_random:
                break
            if when == "at work" and pids.exists() and len(pids.read_text().splitlines()) == 2:
                break
            time.sleep(0.01)
        driver.send_signal(signal.SIGKILL)
        driver.wait(10)
    if when == "at work":
        assert set(map(int, pids.read_text().split())) <= seen
    assert all(is_gone(pid) for pid in seen)


def descendants(pid):
    found = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = set(map(int, task.read_text().split()))
        except OSError:
            continue
        found |= children.union(*map(descendants, children))
    return found
