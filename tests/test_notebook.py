"""Sweeps on processes from a notebook, whose functions and classes are in no file."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from junky_core.executors.processes.fork_server import is_supported

LACKING = [name for name in ("ipykernel", "nbclient") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.skipif(not is_supported(), reason="the fork server is for Linux"),
    pytest.mark.skipif(bool(LACKING), reason=f"needs {', '.join(LACKING)}"),
]

CELLS = [
    """
import torch
from junky_core import current_job, torch_autotrain

SCALE = 10

class Net(torch.nn.Linear):
    def __init__(self, width):
        super().__init__(width, 1)

def loaders():
    return [SCALE]

def train(device, loaders, model, save_best, log_prefix, by):
    print(f"{log_prefix}in job {current_job().num}")
    save_best(model, by(loaders[0] * model.in_features))
    return type(model).__name__

def sweep(**options):
    return torch_autotrain(
        Net, train, loaders, make_model_fit_params=[("width", [1, 2, 3])], devices="cpu*2",
        executor="processes", best_model_device="cpu", **options,
    )
""",
    """
result = sweep(train_args=(lambda score: score + 1,))
print("FIRST", result.best_model_score, {value for *_, value in result.stats}, type(result.best_model) is Net)
""",
    "SCALE = -10",
    """
again = sweep(train_args=(lambda score: score,), direction="minimize")
print("AGAIN", again.best_model_score)
""",
    """
import threading
try:
    sweep(train_args=(threading.Lock(),))
except Exception as error:
    print("REFUSED", error)
""",
]

RUN = """
import json, sys
import nbclient, nbformat

cells = [nbformat.v4.new_code_cell(cell) for cell in json.load(sys.stdin)]
book = nbformat.v4.new_notebook(cells=cells)
nbclient.NotebookClient(book, kernel_name="here", timeout=300).execute()
print(json.dumps(["".join(o.get("text", "") for o in cell.outputs) for cell in book.cells]))
"""


def test_a_notebook_runs_its_functions_in_processes_as_they_are_now(tmp_path):
    kernel = tmp_path / "kernels/here/kernel.json"
    kernel.parent.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": command, "display_name": "here", "language": "python"}))
    folders = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    ours = {name: str(tmp_path / name) for name in folders} | {"JUPYTER_PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(CELLS),
        cwd=tmp_path,
        env={**os.environ, **ours},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _, first, _, again, refused = json.loads(done.stdout.splitlines()[-1])
    assert "FIRST 31.0 {'Net'} True" in first
    for job in range(3):
        assert first.count(f": in job {job}\n") == 1
    assert "AGAIN -30.0" in again
    assert "REFUSED train_args[0] cannot be sent to worker processes: a lock cannot" in refused
