"""A fake accelerator that records the calls it gets, in order."""

import contextlib
import threading

import torch

from junky_core import accelerators


class FakeStream:
    """Knows its number on its device; 0 is the default stream."""

    def __init__(self, module, index, number):
        self.module, self.index, self.number = module, index, number

    def __eq__(self, other):
        return isinstance(other, FakeStream) and repr(self) == repr(other)

    def __hash__(self):
        return hash(repr(self))

    def __repr__(self):
        return f"{self.index}.{self.number}"

    def wait_stream(self, other):
        self.module.note(f"{self!r} waits for {other!r}")

    def synchronize(self):
        self.module.note(f"synchronize {self!r}")
        if self.index == 0 and self.module.errors:
            raise self.module.errors.pop(0)


class FakeModule:
    """What ``torch.get_device_module`` gives for it.

    Attributes:
        log: What it was asked, in order, by whichever thread.
        errors: What the next calls of ``synchronize`` on device 0 raise, in order.
        here: The current device.
        reserved: By device, the bytes that torch holds there.
    """

    def __init__(self, devices=2):
        self.devices = devices
        self.log = []
        self.errors = []
        self.reserved = {}
        self.here = 0
        self.started = True
        self._lock = threading.Lock()
        self._numbers = 0
        self._here = threading.local()

    def note(self, what):
        self.log.append(what)

    def is_available(self):
        return self.devices > 0

    def device_count(self):
        return self.devices

    def is_initialized(self):
        return self.started

    def memory_reserved(self, index):
        return self.reserved.get(index, 0)

    def synchronize(self, index):
        self.note(f"synchronize device {index}")
        if index == 0 and self.errors:
            raise self.errors.pop(0)

    def current_device(self):
        return self.here

    def empty_cache(self):
        self.note("empty_cache")

    def Stream(self, device):
        with self._lock:
            self._numbers += 1
            return FakeStream(self, torch.device(device).index, self._numbers)

    def current_stream(self, device=None):
        index = device if isinstance(device, int) else torch.device(device).index
        return self._streams().get(index, FakeStream(self, index, 0))

    @contextlib.contextmanager
    def device(self, device):
        self.note(f"enter device {torch.device(device).index}")
        yield
        self.note(f"leave device {torch.device(device).index}")

    @contextlib.contextmanager
    def stream(self, stream):
        before = self.current_stream(stream.index)
        self._streams()[stream.index] = stream
        yield
        self._streams()[stream.index] = before

    def _streams(self):
        if not hasattr(self._here, "streams"):
            self._here.streams = {}
        return self._here.streams


def install(monkeypatch, module, kind="cuda"):
    """Make ``module`` torch's module for devices of type ``kind``, and the machine's accelerator."""
    plain = accelerators.device_module
    monkeypatch.setattr(
        accelerators, "device_module", lambda name: module if name == kind else plain(name)
    )
    if hasattr(torch, "accelerator"):
        monkeypatch.setattr(
            torch.accelerator, "current_accelerator", lambda *_a, **_k: torch.device(kind)
        )
    return module


class FakeMps:
    """As ``torch.mps``: one queue, no streams, no ``device``, no ``is_initialized``."""

    def __init__(self):
        self.log = []

    def is_available(self):
        return True

    def device_count(self):
        return 1

    def synchronize(self):
        self.log.append("synchronize")

    def empty_cache(self):
        self.log.append("empty_cache")
