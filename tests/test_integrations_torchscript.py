"""Modules that several jobs compile to TorchScript at the same time."""

import threading

import pytest
import torch
from torch import nn

from junky_core import torch_autotrain


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_two_jobs_compile_the_same_classes_at_the_same_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = torch.jit._recursive.create_script_module
    together = threading.Barrier(2, timeout=60)

    def train(_device, _loaders, _model, _at, _save, _prefix):
        for _ in range(20):
            together.wait()
            model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.GELU(), nn.BatchNorm1d(3))
            torch.jit.script(model)

    result = torch_autotrain(
        lambda at: (nn.Linear(1, 1), at),
        train,
        make_model_fit_params=[("at", [0, 1])],
        devices="cpu*2",
        max_retries=0,
        progress=False,
    )
    assert not result.failed, result.failed[0].traceback
    assert torch.jit._recursive.create_script_module is plain
