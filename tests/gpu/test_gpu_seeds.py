"""On a GPU: a seeded job's result is that of the plain script, whatever runs beside it."""

import json

import pytest
from gpu_machine import CUDA_ONLY, SLOTS, run_child

pytestmark = [*SLOTS, CUDA_ONLY]

SEEDED = """
import hashlib, json, torch
from torch import nn
from gpu_machine import DEVICE
from junky_core import torch_autotrain

torch.use_deterministic_algorithms(True)
WIDTHS = [16, 32, 48, 64]

def make(width):
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(width, 3))

def fit(model):
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(60):
        inputs = torch.randn(32, 8, device=DEVICE)
        targets = torch.randint(0, 3, (32,), device=DEVICE)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    weights = torch.cat([p.detach().flatten().cpu() for p in model.parameters()])
    return hashlib.sha256(weights.numpy().tobytes()).hexdigest()

def plain(width):
    torch.manual_seed(7)
    return fit(make(width).to(DEVICE))

result = torch_autotrain(
    make,
    lambda device, loaders, model, save_best, prefix: fit(model),
    make_model_fit_params=[("width", WIDTHS)],
    devices={DEVICE: SLOTS},
    seed=7,
    max_retries=0,
)
print(json.dumps([[job.value for job in result.jobs], [plain(width) for width in WIDTHS]]))
"""


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_a_seeded_sweep_gives_what_the_plain_script_gives(tmp_path, slots):
    code = SEEDED.replace("SLOTS", str(slots))
    swept, plain = json.loads(run_child(code, tmp_path, CUBLAS_WORKSPACE_CONFIG=":4096:8"))
    assert swept == plain
