"""Ten thousand short jobs, one in twenty failing: one outcome each, and no memory kept."""

import collections
import subprocess
import sys

import pytest
from sizes import LONG

from junky_core.record.reader import load_state, read_journal

JOBS = 10_000 if LONG else 1_500
CHILD = """
import gc, os, random, sys, threading
import torch
from junky_core.autotrain import torch_autotrain

jobs = int(sys.argv[2])
torch.set_num_threads(1)
model = torch.nn.Linear(2, 1)

def train(device, loaders, model, job, save_best, log_prefix):
    attempt = attempts[job] = attempts.get(job, 0) + 1
    ballast = bytearray(100_000)  # its memory would show if a traceback held it
    if random.Random(f"{job} {attempt}").random() < 0.05:
        raise ValueError(f"by the test, job {job}")
    save_best(model, random.Random(job).random())

attempts = {}
resident = []

class Watch:
    count = 0
    lock = threading.Lock()
    def on_event(self, event):
        if type(event).__name__ in ("JobFinished", "JobFailed"):
            with self.lock:
                self.count += 1
                if self.count in (jobs // 3, jobs - 10):
                    gc.collect()
                    pages = int(open("/proc/self/statm").read().split()[1])
                    resident.append(pages * os.sysconf("SC_PAGESIZE"))

out = sys.stdout
sys.stdout = open(os.devnull, "w")
result = torch_autotrain(
    lambda job: (torch.nn.Linear(2, 1), job), train,
    make_model_fit_params=[("job", range(jobs))],
    devices={"cpu": 8}, threads_per_slot=1, sweep_dir=sys.argv[1], observers=[Watch()],
)
sys.stdout = out
print(len(result.stats), len(result.failed), sum(attempts.values()))
print((resident[1] - resident[0]) / (jobs - jobs // 3))
"""


@pytest.mark.long
def test_each_of_many_jobs_has_one_outcome_and_memory_does_not_grow(tmp_path):
    child = subprocess.run(
        [sys.executable, "-c", CHILD, tmp_path / "sweep", str(JOBS)],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert child.returncode == 0, child.stdout[-2000:] + child.stderr
    counts, growth = child.stdout.splitlines()
    in_stats, failed, attempts = map(int, counts.split())
    state = load_state(tmp_path / "sweep")
    outcomes = collections.Counter(
        record["job"]
        for record in read_journal(tmp_path / "sweep")
        if record["event"] in ("job_finished", "job_failed")
    )
    assert sorted(outcomes) == list(range(JOBS))
    assert set(outcomes.values()) == {1}
    statuses = collections.Counter(job.status for job in state.by_num.values())
    assert statuses["failed"] == failed > 0
    assert statuses["finished"] == JOBS - failed
    assert in_stats in (JOBS - failed, JOBS - failed + 1)  # a failed job that leads has its row
    assert sum(job.attempts for job in state.by_num.values()) == attempts
    print(f"{JOBS} jobs, {failed} failed; {float(growth):.0f} bytes a job")
    assert float(growth) < 10_000  # one held traceback in twenty would be 5,000 on its own
