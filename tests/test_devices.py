"""What ``devices`` may be, and what it may not."""

import pytest
import torch
from fake_accelerator import FakeModule, FakeMps, install

from junky_core.devices import SlotSpec, parse_devices
from junky_core.errors import DeviceError


def names(devices):
    return [slot.device for slot in parse_devices(devices)]


@pytest.fixture
def two_gpus(monkeypatch):
    """Let torch claim two CUDA devices."""
    install(monkeypatch, FakeModule(devices=2))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.device("cpu"), ["cpu"]),
        ("cpu", ["cpu"]),
        ("cpu*3", ["cpu"] * 3),
        (" cpu * 3 ", ["cpu"] * 3),
        (["cpu", "cpu"], ["cpu", "cpu"]),
        (("cpu", torch.device("cpu")), ["cpu", "cpu"]),
        (["cpu*2", "cpu"], ["cpu"] * 3),
        ({"cpu": 4}, ["cpu"] * 4),
        ({torch.device("cpu"): 2}, ["cpu"] * 2),
        ({"cpu*2": 2}, ["cpu"] * 4),
        ((d for d in ["cpu"]), ["cpu"]),
    ],
)
def test_forms_on_the_cpu(given, expected):
    assert names(given) == expected


def test_slots_are_numbered_from_one():
    assert parse_devices("cpu*2") == [SlotSpec(1, "cpu"), SlotSpec(2, "cpu")]


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("auto", ["cuda:0", "cuda:1"]),
        ("auto*2", ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]),
        ("cuda", ["cuda:0"]),
        ({"cuda:0": 3, "cuda:1": 2}, ["cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0"]),
        (["cuda:0*2", "cuda:1"], ["cuda:0", "cuda:1", "cuda:0"]),
        (["cuda:1", "cuda:0", "cuda:1"], ["cuda:1", "cuda:0", "cuda:1"]),
        (["auto", "cpu"], ["cuda:0", "cuda:1", "cpu"]),
    ],
)
def test_slots_go_round_the_devices(given, expected):
    assert names(given) == expected


def test_auto_is_the_cpu_without_a_gpu(monkeypatch):
    install(monkeypatch, FakeModule(devices=0))
    assert names("auto") == ["cpu"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "empty"),
        ([], "empty"),
        (None, "None"),
        (2, "2"),
        (True, "True"),
        (b"cpu", "cpu"),
        ("", "unknown device ''"),
        ("gpu", "unknown device 'gpu'"),
        ("cpu*0", "0 slots"),
        ("cpu*-1", "'-1'"),
        ("cpu*1.5", "'1.5'"),
        ("cpu*", "not a whole number"),
        ({"cpu": 0}, "0 slots"),
        ({"cpu": -2}, "-2 slots"),
        ({"cpu": 1.5}, "1.5"),
        ({"cpu": True}, "True"),
        ({"cpu": "2"}, "'2'"),
        ({"cpu": None}, "None"),
        ("cpu:4", r"cpu\*4"),
        ([["cpu"]], r"\['cpu'\]"),
        ([None], "None"),
        ("meta", "absent"),
        ({"cuda": "0:3"}, r"cuda:0\*3"),
    ],
)
def test_bad_devices_are_named_and_the_forms_shown(given, says):
    with pytest.raises(DeviceError, match=says) as caught:
        parse_devices(given)
    assert "'cuda:0*3'" in str(caught.value)


def test_an_absent_gpu_is_an_error(monkeypatch):
    install(monkeypatch, FakeModule(devices=0))
    with pytest.raises(DeviceError, match="'cuda:0' is absent"):
        parse_devices("cuda:0")


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_index_beyond_the_machine_is_an_error():
    with pytest.raises(DeviceError, match="shows 2 cuda"):
        parse_devices({"cuda:5": 1})


@pytest.mark.parametrize("given", ["mps*2", ["mps", "mps:0"], {"mps": 3}, ["cpu", "auto*2"]])
def test_more_than_one_slot_on_mps_is_refused(monkeypatch, given):
    install(monkeypatch, FakeMps(), "mps")
    with pytest.raises(DeviceError, match="mps takes one slot"):
        parse_devices(given)


@pytest.mark.parametrize("given", ["mps", "auto", "mps:0*1"])
def test_one_slot_on_mps_is_accepted(monkeypatch, given):
    install(monkeypatch, FakeMps(), "mps")
    assert names(given) == ["mps:0"]


def test_cpu_slots_are_accepted_in_addition_to_one_on_mps(monkeypatch):
    install(monkeypatch, FakeMps(), "mps")
    assert names({"mps": 1, "cpu": 2}) == ["mps:0", "cpu", "cpu"]
