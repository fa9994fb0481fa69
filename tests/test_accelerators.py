"""Accelerators: which work is waited for, and when."""

import contextlib
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import warm_start
from fake_accelerator import FakeModule, FakeMps, FakeStream, install

from junky_core.accelerators import (
    DeviceQueue,
    empty_caches,
    synchronize_used_devices,
    visible_devices,
)
from junky_core.devices import parse_devices
from junky_core.engine.settings import SweepSettings
from junky_core.engine.sweep import Sweep
from junky_core.errors import SweepFailed
from junky_core.job.best import BestModel
from junky_core.job.scopes import current_scope
from junky_core.jobs import GridSource, Job


@pytest.fixture
def gpu(monkeypatch):
    return install(monkeypatch, FakeModule())


def cuda_error(code, text="CUDA error: device-side assert triggered"):
    error = (
        torch.AcceleratorError(text) if hasattr(torch, "AcceleratorError") else RuntimeError(text)
    )
    error.error_code = code
    return error


class Runner:
    """Runs ``function(job_number)`` for each job, after ``open_slot(slot)`` for each slot."""

    def __init__(self, function, open_slot=lambda _slot: None):
        self.function = function
        self.open_slot = open_slot

    def run(self, attempt, context):
        return self.function(attempt.job.num)

    def keep(self, attempt, exception):
        pass


def run(tmp_path, function, jobs=1, devices="cuda:0", open_slot=lambda _slot: None, **settings):
    settings = {"max_retries": 0, "fail_fast": None, **settings}
    sweep = Sweep(
        parse_devices(devices),
        Runner(function, open_slot),
        BestModel(tmp_path / "model.pt"),
        settings=SweepSettings(**settings),
    )
    try:
        return sweep.run(GridSource((Job(num, {}) for num in range(jobs)), jobs))
    finally:
        sweep.close()


def test_work_on_a_slot_comes_after_the_default_stream(gpu):
    queue = DeviceQueue(torch.device("cuda:1"))
    with queue.current():
        gpu.note("work")
        assert gpu.current_stream(1) == FakeStream(gpu, 1, 1)
    assert gpu.log == ["enter device 1", "1.1 waits for 1.0", "work", "leave device 1"]
    assert gpu.current_stream(1) == FakeStream(gpu, 1, 0)


def test_a_slot_waits_again_at_each_attempt_and_keeps_its_stream(gpu):
    queue = DeviceQueue(torch.device("cuda:0"))
    for _ in range(2):
        with queue.current():
            pass
    assert gpu.log.count("0.1 waits for 0.0") == 2


def test_a_slot_waits_for_the_stream_of_its_caller(gpu):
    queue, mine = DeviceQueue(torch.device("cuda:0")), gpu.Stream("cuda:0")
    with gpu.stream(mine):
        queue.follow_caller()
    with queue.current():
        pass
    assert gpu.log[1:3] == ["0.2 waits for 0.0", f"0.2 waits for {mine!r}"]


def test_following_the_caller_starts_no_accelerator(gpu):
    gpu.started = False
    gpu.current_stream = None  # raises if called
    DeviceQueue(torch.device("cuda:0")).follow_caller()


def test_backward_runs_in_the_calling_thread(gpu):
    with DeviceQueue(torch.device("cuda:0")).current():
        assert not torch.autograd.is_multithreading_enabled()
    assert torch.autograd.is_multithreading_enabled()


def test_each_slot_of_a_device_has_its_own_stream(gpu):
    for queue in (DeviceQueue(torch.device("cuda:0")), DeviceQueue(torch.device("cuda:0"))):
        with queue.current():
            pass
    assert [line for line in gpu.log if "waits" in line] == [
        "0.1 waits for 0.0",
        "0.2 waits for 0.0",
    ]


def test_an_attempt_ends_when_its_device_has_done_its_work(gpu, tmp_path):
    run(tmp_path, lambda num: gpu.note(f"job {num}"), jobs=2)
    order = [line for line in gpu.log if "job" in line or "synchronize" in line]
    opened = "synchronize 0.1"
    assert order == [opened, "job 0", "synchronize 0.1", "job 1", "synchronize 0.1"]


def test_a_late_error_while_a_slot_opens_closes_that_slot(gpu, tmp_path):
    def open_slot(slot):
        if slot.spec.device == "cuda:0":
            gpu.errors = [cuda_error(1, "CUDA error: invalid argument")]

    results = run(
        tmp_path, lambda _num: None, jobs=4, devices=["cuda:0", "cuda:1"], open_slot=open_slot
    )
    assert {result.status for result in results} == {"finished"}
    assert {result.device for result in results} == {"cuda:1"}


def test_no_attempt_waits_for_the_whole_device(gpu, tmp_path):
    gpu.reserved = {0: 1, 1: 1}
    run(tmp_path, lambda _num: None, devices="cuda:0*2", jobs=4)
    assert not [line for line in gpu.log if "synchronize device" in line]


def test_an_attempt_asks_no_device_but_its_own(gpu, tmp_path):
    gpu.reserved = {0: 1, 1: 1}  # a neighbour may have poisoned one
    run(tmp_path, lambda _num: None, devices={"cpu": 1, "cuda:1": 1}, jobs=8)
    assert {line for line in gpu.log if "synchronize" in line} <= {"synchronize 1.1"}


def test_a_stream_that_a_job_made_current_is_waited_for(gpu):
    queue = DeviceQueue(torch.device("cuda:0"))
    with queue.current(), gpu.stream(gpu.Stream("cuda:0")):
        queue.synchronize()
    assert gpu.log[2:4] == ["synchronize 0.1", "synchronize 0.2"]


def test_a_slot_that_did_nothing_yet_waits_for_the_callers_stream_alone(gpu):
    DeviceQueue(torch.device("cuda:0")).synchronize()
    assert gpu.log == ["synchronize 0.0"]


def test_a_torch_that_refuses_to_name_an_accelerator_shows_none(monkeypatch):
    def refuse():
        raise RuntimeError("Cannot access accelerator device when none is available.")

    monkeypatch.setattr(torch.accelerator, "current_accelerator", refuse)
    assert visible_devices() == []
    assert [slot.device for slot in parse_devices("auto")] == ["cpu"]


def test_the_time_of_an_attempt_is_that_of_its_work_on_the_device(gpu, tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("junky_core.engine.watch.time.monotonic", lambda: clock[0])

    def synchronize(stream):
        clock[0] += 7.0

    monkeypatch.setattr(FakeStream, "synchronize", synchronize)
    (result,) = run(tmp_path, lambda _num: None)
    assert result.duration_s == 7.0


def test_a_late_error_belongs_to_the_attempt_that_caused_it(gpu, tmp_path):
    def job(num):
        if num == 0:
            gpu.errors = [cuda_error(1, "CUDA error: invalid argument")]

    results = run(tmp_path, job, jobs=2)
    assert [result.status for result in results] == ["failed", "finished"]
    assert "invalid argument" in results[0].error


def test_a_late_error_that_persists_poisons_the_device(gpu, tmp_path):
    def job(num):
        gpu.errors = [cuda_error(999, "CUDA error: unknown error") for _ in range(2)]
        raise ValueError("shapes")

    with pytest.raises(SweepFailed, match="no slot is left") as caught:
        run(tmp_path, job, jobs=2)
    (result,) = caught.value.failed
    assert "unknown error" in result.error
    assert "ValueError: shapes" in result.traceback


def test_a_passing_late_error_does_not_replace_the_jobs_own(gpu, tmp_path):
    def job(num):
        if num == 0:
            gpu.errors = [RuntimeError("index out of bounds")]
            raise ValueError("shapes")

    results = run(tmp_path, job, jobs=2)
    assert [result.status for result in results] == ["failed", "finished"]
    assert results[0].error == "ValueError: shapes"


def test_a_poisoned_device_closes_its_slots_and_the_other_continues(gpu, tmp_path):
    poisoned = threading.Event()

    def job(num):
        if not poisoned.is_set():
            poisoned.set()
            gpu.errors = [cuda_error(710) for _ in range(3)]

    results = run(tmp_path, job, jobs=4, devices=["cuda:0", "cuda:1"], max_retries=1)
    assert [result.status for result in results] == ["finished"] * 4


def test_a_failed_execution_is_the_jobs_error_if_the_device_still_works(gpu, tmp_path):
    def job(num):
        if num == 0:
            raise RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")

    results = run(tmp_path, job, jobs=2)
    assert [result.status for result in results] == ["failed", "finished"]


def test_a_library_that_cannot_start_on_a_poisoned_device_is_not_out_of_memory(gpu, tmp_path):
    def job(num):
        gpu.errors = [cuda_error(710) for _ in range(2)]
        raise RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate`")

    (result,) = run(tmp_path, job)
    assert "device-side assert" in result.error


def test_shared_data_are_ready_on_every_device_in_use(gpu):
    gpu.reserved = {0: 1, 1: 1}
    synchronize_used_devices()
    assert gpu.log == ["synchronize device 0", "synchronize device 1"]


def test_shared_data_do_not_wait_for_unused_devices(gpu):
    gpu.reserved = {1: 1}
    synchronize_used_devices()
    assert gpu.log == ["synchronize device 1"]


@pytest.mark.parametrize(("here", "errors", "raises"), [(0, 1, True), (1, 1, True), (1, 2, False)])
def test_shared_data_ignore_another_device_that_is_poisoned(gpu, here, errors, raises):
    gpu.reserved, gpu.here = {0: 1}, here
    gpu.errors = [cuda_error(710) for _ in range(errors)]
    with pytest.raises(RuntimeError) if raises else contextlib.nullcontext():
        synchronize_used_devices()


def test_shared_data_start_no_accelerator(gpu):
    gpu.started, gpu.reserved = False, {0: 1}
    synchronize_used_devices()
    assert gpu.log == []


def test_what_a_job_made_on_the_default_stream_is_seen_by_its_threads(gpu, tmp_path):
    def job(_num):
        thread = threading.Thread(target=lambda: gpu.note(f"on {gpu.current_stream(0)!r}"))
        thread.start()
        thread.join()

    run(tmp_path, job)
    at = gpu.log.index("on 0.1")
    assert gpu.log[at - 1] == "0.1 waits for 0.0"


def test_memory_is_given_back_by_the_devices_own_allocator(gpu):
    gpu.started = False
    empty_caches(torch.device("cpu"))
    assert gpu.log == []
    empty_caches(torch.device("cuda:0"))
    assert gpu.log == ["empty_cache"]


@pytest.mark.parametrize("kind", ["cuda", "xpu", "mtia"])
def test_auto_means_each_device_of_the_accelerator(monkeypatch, kind):
    install(monkeypatch, FakeModule(devices=2), kind)
    assert visible_devices() == [f"{kind}:0", f"{kind}:1"]
    assert [slot.device for slot in parse_devices("auto*2")] == [f"{kind}:0", f"{kind}:1"] * 2


def test_an_accelerator_with_no_device_shows_none(monkeypatch):
    install(monkeypatch, FakeModule(devices=0))
    assert visible_devices() == []


def test_a_torch_without_torch_accelerator_shows_cuda(monkeypatch):
    install(monkeypatch, FakeModule(devices=1))
    monkeypatch.delattr(torch, "accelerator")
    assert visible_devices() == ["cuda:0"]


@pytest.mark.parametrize("kind", ["xpu", "mtia"])
def test_jobs_run_on_another_kind_of_accelerator(monkeypatch, tmp_path, kind):
    module = install(monkeypatch, FakeModule(), kind)
    results = run(tmp_path, lambda num: num, jobs=2, devices=f"{kind}:1")
    assert [result.value for result in results] == [0, 1]
    assert "1.1 waits for 1.0" in module.log


def test_mps_is_synchronised_though_it_has_no_streams(monkeypatch, tmp_path):
    mps = install(monkeypatch, FakeMps(), "mps")
    run(tmp_path, lambda _num: mps.log.append("job"), devices="mps")
    assert mps.log == ["synchronize", "job", "synchronize"]


def test_slots_on_the_cpu_leave_mps_alone(monkeypatch, tmp_path):
    mps = install(monkeypatch, FakeMps(), "mps")

    def job(_num):
        raise MemoryError

    run(tmp_path, job, devices="cpu*2", jobs=2)
    synchronize_used_devices()
    assert mps.log == []


PLUG_IN = """
    import sys, torch
    from torch.utils import backend_registration
    sys.path.insert(0, {tests!r})
    from fake_accelerator import FakeModule
    module = FakeModule(devices=2)
    module.manual_seed_all = lambda seed: None
    module.current_device = lambda: 0
    backend_registration._setup_privateuseone_for_python_backend("npu", module)

    from junky_core import current_job, torch_autotrain
    from junky_core.devices import parse_devices
    assert [slot.device for slot in parse_devices("auto")] == ["npu:0", "npu:1"]

    def train(device, loaders, model, save_best, log_prefix):
        module.note(f"job on {{current_job().device}}")
        save_best(model, 1.0)

    class Model(torch.nn.Linear):
        def to(self, device):  # the backend has no kernels
            return self

    torch_autotrain(lambda: Model(1, 1), train, devices="npu:0*2")
    print([line for line in module.log if "job" in line or "waits" in line or "sync" in line])
"""


@pytest.mark.skipif(
    not hasattr(
        __import__("torch.utils.backend_registration", fromlist=["x"]),
        "_setup_privateuseone_for_python_backend",
    ),
    reason="this torch takes no backend written in Python",
)
def test_a_backend_registered_by_a_plug_in_is_used_like_cuda(tmp_path):
    from pathlib import Path

    code = textwrap.dedent(PLUG_IN).format(tests=str(Path(__file__).parent))
    done = warm_start.checked(["-W", "ignore", "-c", code], cwd=tmp_path)
    last = done.stdout.splitlines()[-1]
    opened = "'0.1 waits for 0.0', 'synchronize 0.1'"
    assert last == f"[{opened}, '0.1 waits for 0.0', 'job on npu:0', 'synchronize 0.1']"


def test_weights_are_copied_after_the_jobs_work_even_from_a_thread_of_no_job(gpu, tmp_path):
    pool = ThreadPoolExecutor(1)
    pool.submit(int).result()  # its thread is there before the sweep

    class Model(torch.nn.Linear):
        def state_dict(self, *args, **kwargs):
            gpu.note(f"copied on {gpu.current_stream(0)!r}")
            return super().state_dict(*args, **kwargs)

    def job(_num):
        assert pool.submit(current_scope().job.save_best, Model(1, 1), 1.0).result()

    with pool:
        run(tmp_path, job)
    at = gpu.log.index("copied on 0.1")
    assert "0.1 waits for 0.0" in gpu.log[at - 2 : at]
