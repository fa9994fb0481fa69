"""What a worker process sees of the GPUs, and what the sweep says of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from executor_contract import JobRunner, Recorder
from fake_accelerator import FakeModule, install
from process_runs import ProcessRuns

from junky_core import current_job
from junky_core.errors import DeviceError, SweepFailed
from junky_core.events import SlotClosed
from junky_core.executors.processes.fork_server import ForkServer, is_supported

pytestmark = pytest.mark.skipif(not is_supported(), reason="the fork server is for Linux")

SERVER = ForkServer(preload=["fake_cuda"])


@pytest.fixture(scope="module", autouse=True)
def _server():
    with SERVER:
        yield


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run jobs on the devices of a machine with three GPUs."""
    install(monkeypatch, FakeModule(devices=3))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    runs = ProcessRuns(tmp_path, SERVER)
    yield runs
    runs.close()


class DeviceRunner(JobRunner):
    """Runs what parameters say, and notes what the job finds."""

    def run(self, attempt, job):
        super().run(attempt, job)
        fake = sys.modules["fake_cuda"]
        return {
            "device": str(job.device),
            "current": str(current_job().device),
            "started_with": fake.STARTED_WITH,
            "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "used": [line for line in fake.CUDA.log if line.startswith("enter device")][-1:],
        }


def test_each_worker_sees_the_gpu_of_its_slot_as_the_first(run):
    results = run({}, {}, {}, devices=["cuda:2", "cuda:0", "cuda:1"], runner=DeviceRunner())
    for result in results:
        index = result.device.removeprefix("cuda:")
        assert result.value == {
            "device": "cuda:0",
            "current": "cuda:0",
            "started_with": [index],
            "visible": index,
            "used": ["enter device 0"],
        }
    assert {result.device for result in results} <= {"cuda:0", "cuda:1", "cuda:2"}


def test_the_list_of_the_driver_counts(run, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-11,GPU-22,GPU-33")
    (result,) = run({}, devices="cuda:1", runner=DeviceRunner())
    assert result.value["started_with"] == [result.value["visible"]] == ["GPU-22"]


def test_events_name_the_real_device(run):
    one = {"scores": [0.5], "dies": 1}
    (result,) = run(one, devices="cuda:1", runner=JobRunner(), seed=1)
    assert (result.status, result.device) == ("finished", "cuda:1")
    seen = run.recorder.seen
    kinds = {type(event).__name__ for event in seen if hasattr(event, "device")}
    assert kinds == {"JobStarted", "AttemptFailed", "JobFinished"}
    assert {event.device for event in seen if hasattr(event, "device")} == {"cuda:1"}
    assert "cuda:0" not in repr(seen)


@pytest.mark.parametrize(("devices", "expected"), [("cpu*2", "2,1"), (["cpu", "cuda:0"], "-1")])
def test_a_slot_on_the_cpu(run, monkeypatch, tmp_path, devices, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,1")
    flags = [str(tmp_path / f"flag{n}") for n in range(2)]
    jobs = [{"write": flag, "wait": flags} for flag in flags]  # one on each slot
    results = run(*jobs, devices=devices, runner=DeviceRunner())
    on_cpu = [result.value["visible"] for result in results if result.device == "cpu"]
    assert on_cpu
    assert set(on_cpu) == {expected}


def test_a_device_that_does_not_start_closes_its_slot_with_the_reason(run, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "broken,1")
    recorder = Recorder()
    with pytest.raises(SweepFailed, match=r"Thread-1 on cuda:0.*CUDA_VISIBLE_DEVICES=broken"):
        run({}, devices="cuda:0", runner=DeviceRunner(), recorder=recorder)
    (closed,) = recorder.all(SlotClosed)
    assert closed.device == "cuda:0"
    assert "No CUDA GPUs are available" in closed.reason


def test_a_list_that_was_changed_too_late_is_an_error(run, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    with pytest.raises(DeviceError, match="cuda:1 cannot be given to a worker process"):
        run({}, devices="cuda:1", runner=DeviceRunner())


SCRIPT = """
import os

def look(job):
    set_now = os.environ["CUDA_VISIBLE_DEVICES"]
    return [look.at_import, set_now, *fake_cuda.STARTED_WITH, str(job.device)]

look.at_import = os.environ.get("CUDA_VISIBLE_DEVICES")  # a variable would be the driver's
os.environ["CUDA_VISIBLE_DEVICES"] = "2,1"
import fake_cuda
from process_sweep import run_jobs

if __name__ == "__main__":
    fake_cuda.CUDA.started = True
    print(run_jobs(look, jobs=1, devices="cuda:1", preload=["fake_cuda"]))
"""


def test_a_script_that_chooses_devices_does_not_undo_the_choice(tmp_path):
    tests = Path(__file__).parent
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests / "apps")])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout == "[['1', '1', '1', 'cuda:0']]\n", done.stderr
