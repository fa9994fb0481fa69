"""Sweep over a plain script of this folder.

``sweep_script.py SCRIPT SLOTS ARGUMENTS...``: the arguments of each job, as JSON lists. What
the script imports is imported by the jobs, all at the same time.
"""

import importlib
import json
import sys
import tempfile
import threading

import torch

from junky_core import torch_autotrain

script, slots, jobs = sys.argv[1], int(sys.argv[2]), [json.loads(job) for job in sys.argv[3:]]
together = threading.Barrier(slots, timeout=120)


def train(_device, _loaders, _model, arguments, _save_best, _log_prefix):
    together.wait()
    return importlib.import_module(script).train(*arguments)


with tempfile.TemporaryDirectory() as folder:
    result = torch_autotrain(
        lambda at: (torch.nn.Linear(1, 1), jobs[at]),
        train,
        make_model_fit_params=[("at", list(range(len(jobs))))],
        devices=f"cpu*{slots}",
        seed=0,
        threads_per_slot=1,
        max_retries=0,
        progress=False,
        best_model_file_name=f"{folder}/model.pt",
    )
for failed in result.failed:
    print(failed.traceback, file=sys.stderr)
values = {params["at"]: value for _, _, params, value in result.stats}
print(json.dumps([values[at] for at in range(len(jobs))]))
