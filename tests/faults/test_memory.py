"""Real out-of-memory errors: the job runs alone at the end, and then fits."""

import sys

import pytest
import warm_start

from junky_core.record.reader import load_state, read_journal

CHILD = """
import os, resource, sys, threading
import torch
from junky_core.autotrain import torch_autotrain

MIB = 1 << 20
HOW = sys.argv[2]
both = threading.Barrier(2)
lock = threading.Lock()
limited = False

def limit_memory():
    global limited
    with lock:
        if not limited:
            limited = True
            used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGESIZE")
            resource.setrlimit(resource.RLIMIT_AS, (used + 900 * MIB, resource.RLIM_INFINITY))

def take(mib):
    if HOW == "python":
        return bytearray(mib * MIB)
    return torch.zeros(mib * MIB, dtype=torch.uint8)

def train(device, loaders, model, job, save_best, log_prefix):
    first = job < 2 and job not in seen
    seen.add(job)
    if first:
        both.wait(30)
        limit_memory()
        # The first one gets the memory and keeps it until the other has failed.
        with lock:
            held = take(600)
            order.append(job)
        if len(order) == 1:
            failed.wait(30)
    elif job < 2:
        held = take(600)  # alone now: it fits if the first attempt's memory was freed
        alone.append(sorted(ended))
    save_best(model, job / 10)
    ended.add(job)
    return job

seen, order, alone, ended, failed = set(), [], [], set(), threading.Event()

class Watch:
    def on_event(self, event):
        if type(event).__name__ == "AttemptFailed":
            failed.set()

result = torch_autotrain(
    lambda job: (torch.nn.Linear(2, 1), job), train,
    make_model_fit_params=[("job", [0, 1, 2, 3])],
    devices={"cpu": 2}, sweep_dir=sys.argv[1], observers=[Watch()], fail_fast=1,
)
assert len(result.stats) == 4, result
assert not result.failed
assert len(alone) == 1 and len(alone[0]) == 3, alone  # all others were over by then
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is not kept elsewhere")
@pytest.mark.parametrize("how", ["python", "torch"])
def test_job_that_ran_out_of_memory_runs_alone_at_the_end(tmp_path, how):
    child = warm_start.checked(["-c", CHILD, tmp_path / "sweep", how])
    records = list(read_journal(tmp_path / "sweep"))
    failures = [r for r in records if r["event"] == "attempt_failed"]
    assert [(r["kind"], r["retry"]) for r in failures] == [("oom", True)]
    state = load_state(tmp_path / "sweep")
    assert state.by_num[failures[0]["job"]].attempts == 2
    text = child.stdout.lower()
    assert "memory" in text
