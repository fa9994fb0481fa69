"""Ctrl-C during a sweep ends a script; an interactive session continues."""

import os
import signal
import subprocess
import sys
from textwrap import dedent

import pytest
import warm_start

from junky_core.errors import SweepInterrupted

SWEEP = """
import os, signal, torch
from junky_core import torch_autotrain
from junky_core.errors import SweepInterrupted

def train(device, loaders, model, save_best, prefix):
    save_best(model, 1.0)
    if model.in_features == 1:  # a second signal ends the process at once
        os.kill(os.getpid(), signal.{signal})

def sweep():
    return torch_autotrain(lambda n: torch.nn.Linear(n, 1), train,
                           make_model_fit_params=[("n", [1, 2, 3])], progress=False)
"""


def run(code, cwd, signal_name="SIGINT"):
    script = dedent(SWEEP).format(signal=signal_name) + dedent(code)
    return warm_start.run(["-c", script], cwd=cwd)


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_script_ends_with_the_status_of_the_signal_and_no_traceback(name, status, tmp_path):
    child = run("sweep()", signal_name=name, cwd=tmp_path)
    assert child.returncode == status, child.stderr
    assert "Traceback" not in child.stderr


def test_a_script_can_handle_it_and_gets_the_result(tmp_path):
    code = """
    try:
        sweep()
    except KeyboardInterrupt as error:
        assert isinstance(error, SweepInterrupted)
        print("code", error.code, "best", error.result.best_model_score)
    """
    child = run(code, cwd=tmp_path)
    assert child.returncode == 0, child.stderr
    assert "code 130 best 1.0" in child.stdout


def test_a_session_is_not_asked_to_leave(tmp_path):
    """A prompt sets ``sys.ps1``; a SystemExit would end it."""
    code = """
    import sys
    sys.ps1 = ">>> "
    try:
        sweep()
    except SystemExit:
        print("asked to leave")
    except SweepInterrupted as error:
        print("goes on with", error.result.best_model_score, error.code)
    """
    child = run(code, cwd=tmp_path)
    assert "goes on with 1.0 130" in child.stdout, child.stderr


def test_a_python_prompt_survives(tmp_path):
    code = SWEEP.format(signal="SIGINT") + "\n\nsweep()\nprint('still', 'here')\n"
    child = subprocess.run(
        [sys.executable, "-i", "-q"],
        input=code.replace("\n\ndef", "\n\n\ndef"),
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        cwd=tmp_path,
    )
    assert "still here" in child.stdout, child.stderr
    assert "the sweep was ended by SIGINT" in child.stderr


def test_ipython_shows_the_message_and_no_exit_warning(tmp_path):
    pytest.importorskip("IPython")
    code = """
    from IPython.core.interactiveshell import InteractiveShell
    shell = InteractiveShell.instance()
    shell.user_ns["sweep"] = sweep
    result = shell.run_cell("sweep()")
    assert isinstance(result.error_in_exec, SweepInterrupted)
    print("still", "here", result.error_in_exec.result.best_model_score)
    """
    child = run(code, cwd=tmp_path)
    assert "still here 1.0" in child.stdout, child.stderr
    assert "SweepInterrupted: the sweep was ended by SIGINT" in child.stdout
    assert "Traceback" not in child.stdout + child.stderr
    assert "To exit" not in child.stdout + child.stderr


def test_ipythons_traceback_is_one_line():
    error = SweepInterrupted("the sweep was ended by SIGINT", signal.SIGINT)
    assert error._render_traceback_() == ["SweepInterrupted: the sweep was ended by SIGINT"]
