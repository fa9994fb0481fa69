"""A worker process sees the GPU of its slot alone, as the first one."""

import pytest
import torch

from junky_core.errors import DeviceError
from junky_core.executors.processes.visible_devices import worker_devices

UUIDS = "GPU-8932f937-d72c,GPU-a1b2c3d4"
MIGS = "MIG-GPU-8932f937/1/0, MIG-5c4a0b1e"


@pytest.mark.parametrize(
    ("given", "device", "expected"),
    [
        (None, "cuda:0", "0"),
        (None, "cuda:3", "3"),
        ("", "cuda:1", "1"),
        ("5", "cuda:0", "5"),
        ("2,3", "cuda:0", "2"),
        ("2,3", "cuda:1", "3"),
        ("3, 2 ,1", "cuda:1", "2"),
        ("0,2,-1,1", "cuda:1", "2"),
        (UUIDS, "cuda:1", "GPU-a1b2c3d4"),
        (MIGS, "cuda:0", "MIG-GPU-8932f937/1/0"),
        (MIGS, "cuda:1", "MIG-5c4a0b1e"),
    ],
)
def test_cuda(given, device, expected):
    environment = {} if given is None else {"CUDA_VISIBLE_DEVICES": given}
    found = worker_devices(device, {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **environment}, hide=True)
    assert found == ({"CUDA_VISIBLE_DEVICES": expected}, "cuda:0")


def test_a_device_beyond_the_list_is_an_error():
    with pytest.raises(DeviceError, match=r"cuda:2 .* CUDA_VISIBLE_DEVICES=2,3 names only 2 dev"):
        worker_devices("cuda:2", {"CUDA_VISIBLE_DEVICES": "2,3"}, hide=True)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, {"HIP_VISIBLE_DEVICES": "1"}),
        ({"HIP_VISIBLE_DEVICES": "4,6"}, {"HIP_VISIBLE_DEVICES": "6"}),
        (
            {"CUDA_VISIBLE_DEVICES": "4,6"},
            {"HIP_VISIBLE_DEVICES": "6", "CUDA_VISIBLE_DEVICES": "6"},
        ),
        (  # an empty text counts as none
            {"HIP_VISIBLE_DEVICES": "", "CUDA_VISIBLE_DEVICES": "4,6"},
            {"HIP_VISIBLE_DEVICES": "6", "CUDA_VISIBLE_DEVICES": "6"},
        ),
        (  # HIP's counts what ROCR's leaves
            {"ROCR_VISIBLE_DEVICES": "5,7", "HIP_VISIBLE_DEVICES": "0,1"},
            {"HIP_VISIBLE_DEVICES": "1"},
        ),
    ],
)
def test_rocm(monkeypatch, environment, expected):
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert worker_devices("cuda:1", environment, hide=True) == (expected, "cuda:0")


@pytest.mark.parametrize(
    ("given", "device", "expected"),
    [
        (None, "xpu:1", ({"ZE_AFFINITY_MASK": "1"}, "xpu:0")),
        ("3,1", "xpu:0", ({"ZE_AFFINITY_MASK": "1"}, "xpu:0")),  # the order of a mask is ignored
        ("10, 9,9", "xpu:1", ({"ZE_AFFINITY_MASK": "10"}, "xpu:0")),
        ("0.0,0.1", "xpu:1", ({}, "xpu:1")),
    ],
)
def test_xpu(given, device, expected):
    environment = {} if given is None else {"ZE_AFFINITY_MASK": given}
    assert worker_devices(device, environment, hide=True) == expected


def test_other_devices_keep_their_index():
    assert worker_devices("mtia:1", {"CUDA_VISIBLE_DEVICES": "3"}, hide=True) == ({}, "mtia:1")


def test_a_slot_on_the_cpu_sees_a_gpu_only_if_no_slot_has_one():
    hidden = ({"CUDA_VISIBLE_DEVICES": "-1"}, "cpu")
    assert worker_devices("cpu", {"CUDA_VISIBLE_DEVICES": "2,3"}, hide=True) == hidden
    assert worker_devices("cpu", {"CUDA_VISIBLE_DEVICES": "2,3"}, hide=False) == ({}, "cpu")
