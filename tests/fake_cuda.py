"""A module to preload in the server of worker processes: they find three CUDA devices.

As many as ``CUDA_VISIBLE_DEVICES`` names, if it is set when the runtime starts.
"""

import os

import torch
from fake_accelerator import FakeModule

from junky_core import accelerators

STARTED_WITH = []  # CUDA_VISIBLE_DEVICES, when the runtime was started


class FakeCuda(FakeModule):
    def __init__(self):
        super().__init__(devices=3)
        self.started = False

    def init(self):
        self.started = True
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        STARTED_WITH.append(seen)
        if seen is not None:
            self.devices = len([entry for entry in seen.split(",") if entry not in ("", "-1")])
        if self.devices == 0 or seen == "broken":
            raise RuntimeError("No CUDA GPUs are available")


CUDA = FakeCuda()
_plain = accelerators.device_module
accelerators.device_module = lambda kind: CUDA if kind == "cuda" else _plain(kind)
if hasattr(torch, "accelerator"):
    torch.accelerator.current_accelerator = lambda *_args, **_kwargs: torch.device("cuda")
