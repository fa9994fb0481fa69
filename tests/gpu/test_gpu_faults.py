"""On a GPU: out of memory, a poisoned device, and what failed jobs leave behind."""

import json
import threading

import pytest
import torch
from gpu_machine import CUDA_ONLY, DEVICE, MODULE, SLOTS, memory_limit, run_child, statuses, sweep

from junky_core import current_job

pytestmark = [*SLOTS, CUDA_ONLY]
MB = 1 << 20


def test_a_job_out_of_memory_runs_again_alone(tmp_path):
    held, refused, before = threading.Event(), threading.Event(), MODULE.memory_allocated()

    def train(job, _model, _save_best):
        first = current_job().attempt == 1
        if job == 1 and first:
            assert held.wait(60)
        try:
            block = torch.empty(700 * MB, dtype=torch.uint8, device=DEVICE)
        except torch.OutOfMemoryError:
            refused.set()
            raise
        if job == 0:
            held.set()
            assert refused.wait(60)
        assert float(block.fill_(1)[-1]) == 1

    with memory_limit(1000 * MB):
        result = sweep(tmp_path, train, jobs=2, slots=2, max_retries=1)
    assert statuses(result) == ["finished"] * 2
    assert [job.attempts for job in result.jobs] == [1, 2]
    assert MODULE.memory_allocated() - before < MB


@pytest.mark.parametrize("hold", ["argument", "attribute", "local", "cycle"])
def test_failed_jobs_leave_nothing_on_the_device(tmp_path, hold):
    held = []

    def train(_job, _model, _save_best):
        held.append(MODULE.memory_allocated())
        loss = torch.ones(MB, device=DEVICE)
        error = ValueError(loss if hold == "argument" else "not finite")
        if hold == "attribute":
            error.loss = loss
        if hold == "cycle":
            error.itself = [error, loss]
        raise error

    result = sweep(tmp_path, train, jobs=200, slots=2)
    assert statuses(result) == ["failed"] * 200
    assert max(held) - min(held) < 64 * MB


POISON = """
import json, os, threading, torch
from gpu_machine import DEVICE
from junky_core import torch_autotrain

class Watch:
    events = []
    def on_event(self, event):
        self.events.append(event)

launched = threading.Event()

def train(device, loaders, model, job, save_best, prefix):
    if device.type == "cpu":
        assert launched.wait(120)
    elif job % 2 == 0:
        torch.zeros(2, device=device)[torch.tensor([9], device=device)]  # its error comes late
        launched.set()

result = torch_autotrain(
    lambda job: (torch.nn.Linear(1, 1), job),
    train,
    make_model_fit_params=[("job", [0, 1, 2, 3, 4, 5])],
    devices={DEVICE: SLOTS, "cpu": 1},
    observers=[Watch()],
    max_retries=2,
)
kinds = [event.kind for event in Watch.events if type(event).__name__ == "AttemptFailed"]
closed = [event.slot for event in Watch.events if type(event).__name__ == "SlotClosed"]
print(json.dumps([[job.status for job in result.jobs], sorted(set(kinds)), len(closed)]), flush=True)
os._exit(0)  # CUDA's own clean-up may abort a process whose context is poisoned
"""


@pytest.mark.parametrize("slots", [1, 2])
def test_a_poisoned_gpu_closes_its_slots_and_its_jobs_go_elsewhere(tmp_path, slots):
    got = json.loads(run_child(POISON.replace("SLOTS", str(slots)), tmp_path))
    assert got == [["finished"] * 6, ["poisoned"], slots]
