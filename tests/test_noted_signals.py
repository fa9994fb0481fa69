import os
import signal
import subprocess
import sys
import threading

import pytest
import torch
import warm_start

from junky_core import SweepInterrupted, torch_autotrain
from junky_core.engine.signals import noted, noted_until_here
from junky_core.views.history import load_history

ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def handlers():
    return [signal.getsignal(signum) for signum in ALL]


@pytest.mark.parametrize("signum", ALL)
def test_a_signal_is_noted_and_handlers_come_back(signum):
    before = handlers()
    with noted() as signals:
        os.kill(os.getpid(), signum)
        assert signals.signum == signum
    assert handlers() == before


def test_an_ignored_signal_remains_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with noted() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.signum is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_front_door_keeps_the_signals_that_a_sweep_took():
    before = handlers()
    with noted_until_here() as outer:
        assert handlers() == before  # nothing runs yet: Ctrl-C acts as usual
        with noted() as inner:
            pass
        os.kill(os.getpid(), signal.SIGINT)
        assert inner is outer
        assert outer.signum == signal.SIGINT
        with pytest.raises(SweepInterrupted) as ended:
            outer.raise_if_noted("result")
    assert (ended.value.code, ended.value.result) == (130, "result")
    assert handlers() == before


def test_a_thread_takes_no_signals():
    seen = []

    def sweep():
        with noted() as signals:
            seen.append((handlers(), signals.signum))

    before = handlers()
    thread = threading.Thread(target=sweep)
    thread.start()
    thread.join()
    assert seen == [(before, None)]


@pytest.mark.parametrize("signum", ALL)
def test_a_signal_just_after_the_end_loses_nothing(signum, tmp_path, monkeypatch):
    from junky_core import autotrain

    publish = autotrain.publish_leaderboard

    def publish_while_signalled(*args):
        os.kill(os.getpid(), signum)
        publish(*args)

    monkeypatch.setattr(autotrain, "publish_leaderboard", publish_while_signalled)

    def train(_device, _loaders, model, save_best, _prefix):
        save_best(model, 1.0)

    with pytest.raises(SweepInterrupted) as ended:
        torch_autotrain(lambda a: torch.nn.Linear(1, a), train, sweep_dir=tmp_path,
                        make_model_fit_params=[("a", [1, 2])], report=True)  # fmt: skip
    assert ended.value.code == 128 + signum
    assert len(ended.value.result.stats) == 2
    assert {"leaderboard.csv", "model.pt", "report.html"} <= set(os.listdir(tmp_path))
    assert load_history(tmp_path).ended == "completed"


SCRIPT = """
import os, signal, sys, torch
from junky_core import torch_autotrain

def make(a):
    return torch.nn.Linear(1, 1)

def train(device, loaders, model, save_best, prefix):
    save_best(model, 1.0)
    if sys.argv[1] == "during":
        os.kill(os.getpid(), signal.SIGHUP)
        while True:
            model(torch.ones(1, 1))

torch_autotrain(make, train, make_model_fit_params=[("a", [1, 2])], sweep_dir=sys.argv[2])
"""


def run(*words):
    return warm_start.run(["-c", SCRIPT, *words])


def test_sighup_ends_a_sweep_with_status_129(tmp_path):
    done = run("during", str(tmp_path))
    assert done.returncode == 129
    assert "Traceback" not in done.stderr + done.stdout
    assert load_history(tmp_path).ended == "interrupted"
    assert "SIGHUP" in (tmp_path / "autotrain.log").read_text()


FORKED = """
import os, signal
child = []
# Registered before ours: like a signal that arrives right after the fork.
os.register_at_fork(after_in_child=lambda: child and os.kill(os.getpid(), child[0]))
import torch
from junky_core import torch_autotrain

def train(device, loaders, model, number, save_best, log_prefix):
    child[:] = [number]
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    child.clear()
    print("STATUS", number, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

numbers = [int(signal.SIGTERM), int(signal.SIGHUP)]
torch_autotrain(lambda number: (torch.nn.Linear(1, 1), number), train,
                make_model_fit_params=[("number", numbers)])
os.kill(os.getpid(), signal.SIGTERM)  # the parent blocks no signal
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_signal_right_after_the_fork_ends_the_child(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("STATUS")]
    assert found == [[str(int(n)), str(-n)] for n in (signal.SIGTERM, signal.SIGHUP)]
    assert done.returncode == -signal.SIGTERM
