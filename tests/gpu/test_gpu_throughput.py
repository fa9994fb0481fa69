"""On a GPU: steps a second of several slots together."""

import json

import pytest
from gpu_machine import DEVICE, SLOTS, run_child

pytestmark = SLOTS

TRAIN = """
import json
from benchmarks import gpu, probes
probes.report = lambda **figures: print(json.dumps(figures))
gpu.train_all({net!r}, {slots}, "as built", 3.0, {device!r})
"""


@pytest.mark.parametrize("net", ["small", "middle"])
def test_more_slots_do_not_slow_a_gpu_down(tmp_path, capsys, net):
    rates = {}
    for slots in (1, 2, 4, 8):
        code = TRAIN.format(net=net, slots=slots, device=DEVICE)
        rates[slots] = json.loads(run_child(code, tmp_path))["steps"]
    with capsys.disabled():
        table = ", ".join(f"{slots}: {rate:,.0f}/s" for slots, rate in rates.items())
        print(f"\n{net} network, slots on {DEVICE}: {table}")
    assert min(rates.values()) > 0.5 * rates[1]
