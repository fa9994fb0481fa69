"""Data of ``shared(factory)`` on worker processes: built once, mapped by each of them."""

import dataclasses
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from executor_contract import JobRunner, Recorder
from process_runs import ProcessRuns

from junky_core.events import Notice
from junky_core.executors.processes.fork_server import ForkServer, is_supported
from junky_core.executors.processes.machine_data import MachineData
from junky_core.values.calls import Call

pytestmark = pytest.mark.skipif(not is_supported(), reason="the fork server is for Linux")

SERVER = ForkServer()


@pytest.fixture(scope="module", autouse=True)
def _server():
    with SERVER:
        yield


@pytest.fixture
def run(tmp_path):
    runs = ProcessRuns(tmp_path, SERVER)
    yield runs
    runs.close()


@dataclasses.dataclass
class Digits:
    images: torch.Tensor
    labels: np.ndarray
    words: list


class Asker:
    """What two workers do, in one process: each has its own of these."""

    def __init__(self, folder, seed=None):
        self.warnings = []
        self.data = MachineData(seed, folder / "files" / "a", self.warnings.append)

    def get(self, factory, *args):
        return self.data.get(Call(factory, args, {}), [])


@pytest.fixture
def askers(tmp_path):
    return Asker(tmp_path), Asker(tmp_path)


def shared_file(address):
    """Return the line of this process's memory map for an address."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, _, end = line.split()[0].partition("-")
        if int(start, 16) <= address < int(end, 16):
            return line
    raise AssertionError


CALLS = []


def make_digits(size):
    CALLS.append(size)
    images = torch.arange(size * 1000.0).reshape(size, 1000)
    labels = np.arange(size * 1000)
    return {"train": Digits(images, labels, ["zero", "one"]), "again": (images, images[1:])}


def test_a_factory_runs_once_for_all(askers):
    CALLS.clear()
    first, second = (asker.get(make_digits, 3) for asker in askers)
    assert CALLS == [3]
    for data in (first, second):
        assert torch.equal(data["train"].images, torch.arange(3000.0).reshape(3, 1000))
        assert np.array_equal(data["train"].labels, np.arange(3000))
        assert data["train"].words == ["zero", "one"]
    assert type(second["train"]) is Digits
    assert [asker.warnings for asker in askers] == [[], []]


def test_other_arguments_are_other_data(askers):
    CALLS.clear()
    first, second = askers[0].get(make_digits, 1), askers[1].get(make_digits, 2)
    assert CALLS == [1, 2]
    assert len(second["train"].images) == 2 * len(first["train"].images)


def test_a_lambda_matches_itself_by_content(askers):
    CALLS.clear()

    def task(asker, config):
        return asker.get(lambda: make_digits(config["size"]))

    task(askers[0], {"size": 1})
    task(askers[1], {"size": 1})
    task(askers[1], {"size": 2})
    assert CALLS == [1, 2]


def test_tensors_and_arrays_are_mapped_from_one_file(askers):
    first, second = (asker.get(make_digits, 3) for asker in askers)
    places = []
    for data in (first, second):
        train = data["train"]
        for address in (train.images.data_ptr(), train.labels.ctypes.data):
            line = shared_file(address)
            assert line.split()[1] == "rw-p"  # private: writing copies
            places.append(line.split(maxsplit=5)[5])
    assert len(set(places)) == 1


def test_what_one_writes_stays_its_own(askers):
    first, second = (asker.get(make_digits, 3) for asker in askers)
    first["train"].images.zero_()
    first["train"].labels[:] = -1
    assert float(second["train"].images.sum()) == sum(range(3000))
    assert second["train"].labels[-1] == 2999
    assert float(first["again"][1].sum()) == 0  # one storage, as it was built


def test_a_script_that_maps_files_for_writing_changes_nothing(askers):
    before = torch.serialization.get_default_mmap_options()
    torch.serialization.set_default_mmap_options(mmap.MAP_SHARED)
    try:
        first, second = (asker.get(make_digits, 3) for asker in askers)
        first["train"].images.zero_()
        assert float(second["train"].images.sum()) == sum(range(3000))
    finally:
        torch.serialization.set_default_mmap_options(before)


def odd_arrays():
    base = np.arange(24000, dtype="f4").reshape(20, 30, 40)
    fixed = base.copy()
    fixed.flags.writeable = False
    record = np.zeros(3000, dtype=[("a", "i4"), ("b", "f8", (2,))])
    record["a"] = np.arange(3000)
    return {
        "fortran": np.asfortranarray(base),
        "strided": base[::2, :, ::3],
        "fixed": fixed,
        "record": record,
        "dates": np.arange("2000-01-01", "2020-01-01", dtype="M8[D]"),
        "text": np.array(["word"] * 2000),
        "objects": np.array([{"a": 1}] * 2000),
        "small": np.arange(3),
        "empty": np.zeros((0, 5)),
        "masked": np.ma.masked_array(np.arange(3000), mask=[False] * 3000),
        "scalar": np.float32(3),
    }


def test_arrays_of_all_kinds_arrive_as_they_were(askers):
    askers[0].get(odd_arrays)
    found, expected = askers[1].get(odd_arrays), odd_arrays()
    for name, array in expected.items():
        assert type(found[name]) is type(array)
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
        assert found[name].flags.writeable == array.flags.writeable
        if name != "strided":
            assert found[name].flags.fnc == array.flags.fnc


def odd_tensors():
    return {
        "parameter": torch.nn.Parameter(torch.ones(2000)),
        "bfloat16": torch.arange(3000).bfloat16(),
        "strided": torch.arange(6000.0).reshape(2, 3000).T,
        "empty": torch.empty(0, 3),
        "sparse": torch.eye(100).to_sparse(),
        "module": torch.nn.Embedding(100, 50),
        "scalar": torch.tensor(3),
        "bool": torch.zeros(5000, dtype=torch.bool),
    }


def test_tensors_of_all_kinds_arrive_as_they_were(askers):
    torch.manual_seed(0)
    expected = askers[0].get(odd_tensors)
    found = askers[1].get(odd_tensors)
    for name, value in expected.items():
        assert type(found[name]) is type(value)
        if name == "module":
            assert torch.equal(found[name].weight, value.weight)
        else:
            assert found[name].stride() == value.stride() if name != "sparse" else True
            assert torch.equal(found[name].to_dense(), value.to_dense())
    assert found["parameter"].requires_grad


def make_lock():
    CALLS.append("lock")
    return [threading.Lock(), torch.ones(1000)]


def test_what_cannot_be_pickled_is_built_by_each_and_said(askers):
    CALLS.clear()
    first, second = (asker.get(make_lock) for asker in askers)
    assert CALLS == ["lock"] * 2
    assert first[0] is not second[0]
    assert askers[0].get(make_lock) is first
    assert "shared(make_lock) runs once in each worker process" in askers[0].warnings[0]
    assert "lock" in askers[0].warnings[0]
    assert askers[1].warnings == []


def test_arguments_that_cannot_be_compared_are_said(askers):
    CALLS.clear()
    thing = object()

    def make(_thing):
        return make_digits(1)

    for asker in askers:
        asker.get(make, thing)
    assert CALLS == [1, 1]
    assert len({*askers[0].warnings, *askers[1].warnings}) == 1
    assert "compared only within a process" in askers[0].warnings[0]


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "files").write_text("a file")
    asker = Asker(tmp_path)
    assert len(asker.get(make_digits, 1)) == 2
    assert "runs once in each worker process" in asker.warnings[0]


def fail():
    CALLS.append("fail")
    raise OSError("the data is away")


def test_an_error_of_the_factory_reaches_each_asker(askers):
    CALLS.clear()
    for asker in askers:
        with pytest.raises(OSError, match="the data is away"):
            asker.get(fail)
    assert CALLS == ["fail"] * 2


class DataRunner(JobRunner):
    """Jobs ask for data, and say what they cost."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def run(self, attempt, job):
        data = job.shared(load, str(self.folder), job.params["load"])
        if data.get("lock") is not None:
            return None
        tensor = data["tensor"]
        total = float(tensor.sum())  # reads all of it
        if "own" in job.params:
            tensor[0] = job.num + 2
        super().run(attempt, job)  # until all workers have it
        return {
            "sum": total,
            "first": float(tensor[0]),
            "private_kb": memory_kb("smaps_rollup", "Private_Clean", "Private_Dirty"),
            "file_kb": memory_kb("smaps", "Pss", of="/junky-"),
        }


def memory_kb(file, *names, of="["):
    """Return the memory of this process, or of the files with ``of`` in their paths."""
    total, counts = 0, False
    for line in Path(f"/proc/self/{file}").read_text().splitlines():
        name, _, value = line.partition(":")
        if "-" in name:
            counts = of in line
        elif counts and name in names:
            total += int(value.split()[0])
    return total


def load(folder, params):
    with open(f"{folder}/built", "ab") as file:
        file.write(b"x")
        times = file.tell()
    if params.get("crash", 0) >= times:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "locks" in params:
        return {"lock": threading.Lock()}
    return {"tensor": torch.ones(params["mb"] << 18)}


def together(folder, count, **params):
    """Return params of jobs of which each waits until all of them have their data."""
    flags = [str(folder / f"flag{number}") for number in range(count)]
    return [{"write": flag, "wait": flags, **params} for flag in flags]


def built(folder):
    return len((folder / "built").read_bytes())


def test_workers_build_it_once_and_hold_no_copies(run, tmp_path):
    jobs = together(tmp_path, 4, load={"mb": 200}, own=True)
    results = run(*jobs, slots=4, runner=DataRunner(tmp_path))
    assert [result.error for result in results] == [""] * 4
    assert {result.slot for result in results} == {1, 2, 3, 4}
    assert built(tmp_path) == 1
    values = [result.value for result in results]
    assert [value["sum"] for value in values] == [200 << 18] * 4
    assert [value["first"] for value in values] == [2, 3, 4, 5]  # what each wrote is its own
    assert max(value["private_kb"] for value in values) < 100_000
    assert max(value["file_kb"] for value in values) < 60_000


def test_a_worker_that_dies_while_it_builds_leaves_it_to_another(run, tmp_path):
    one = {"load": {"mb": 1, "crash": 1}}
    results = run(one, one, slots=2, runner=DataRunner(tmp_path))
    assert [result.status for result in results] == ["finished"] * 2
    assert [event.kind for event in run.failures()] == ["crashed"]
    assert built(tmp_path) == 2


def test_what_cannot_be_shared_is_said_once(run, tmp_path):
    run(*together(tmp_path, 2, load={"locks": True}), slots=2, runner=DataRunner(tmp_path))
    said = [e.message for e in run.recorder.all(Notice) if "shared(load)" in e.message]
    assert len(said) == 1


def test_the_files_are_gone_after_the_sweep(run, tmp_path):
    seen = []
    recorder = Recorder(JobFinished=lambda _: seen.extend(SERVER.folder.iterdir()))
    run({"load": {"mb": 1}}, runner=DataRunner(tmp_path), recorder=recorder)
    run.close()
    assert seen
    assert list(SERVER.folder.iterdir()) == []


def wait_until(condition):
    end, pause = time.monotonic() + 30, threading.Event()
    while not condition():
        assert time.monotonic() < end
        pause.wait(0.01)


SCRIPT = """
import os, signal, sys
from process_sweep import run_jobs
import torch

def load():
    return torch.ones(10000)

def job(job):
    tensor = job.shared(load)
    if job.num:
        lines = open("/proc/self/maps").read().splitlines()
        with open("path", "w") as file:
            file.write([line.split()[-1] for line in lines if "/junky-" in line][0])
        os.kill(DRIVER, signal.SIGKILL)
        import time
        time.sleep(60)

DRIVER = int(os.environ.setdefault("DRIVER", str(os.getpid())))
if __name__ == "__main__":
    run_jobs(job)
"""


def test_the_files_are_gone_after_the_driver_was_killed(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent / "apps")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    folder = Path((tmp_path / "path").read_text()).parent
    assert folder.name.startswith("junky-")
    wait_until(lambda: not folder.exists())
