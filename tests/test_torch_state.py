"""torch's per-thread state ends with the job that set it."""

import contextvars
import decimal
import sys

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from junky_core.autotrain import torch_autotrain
from junky_core.job.torch_state import default_device, own_torch_state


class _Functions(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def smallest_half():
    least = sys.float_info.min
    return least / 2


def state():
    return {
        "default device": torch.zeros(1).device.type,
        "gradients": torch.is_grad_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "autocast dtype": torch.get_autocast_dtype("cpu"),
        "autocast cache": torch.is_autocast_cache_enabled(),
        "denormals": smallest_half() > 0,
        "threads": torch.get_num_threads(),
        "function modes": torch._C._len_torch_function_stack(),
        "dispatch modes": torch._C._len_torch_dispatch_stack(),
        "inference": torch.is_inference_mode_enabled(),
    }


def set_with_modes_around():
    _Functions().__enter__()
    torch.set_default_device("meta")
    _Functions().__enter__()


CHANGES = {
    "torch.set_default_device": lambda: torch.set_default_device("meta"),
    "twice": lambda: [torch.set_default_device(kind) for kind in ("cpu", "meta")],
    "torch.device entered": torch.device("meta").__enter__,
    "function modes": set_with_modes_around,
    "dispatch mode": lambda: _Dispatch().__enter__(),
    "set_grad_enabled": lambda: torch.set_grad_enabled(False),
    "no_grad entered": lambda: torch.no_grad().__enter__(),
    "set_autocast_enabled": lambda: torch.set_autocast_enabled("cpu", True),
    "autocast entered": lambda: torch.autocast("cpu", torch.float16).__enter__(),
    "set_autocast_dtype": lambda: torch.set_autocast_dtype("cpu", torch.float16),
    "set_autocast_cache_enabled": lambda: torch.set_autocast_cache_enabled(False),
    "set_flush_denormal": lambda: torch.set_flush_denormal(True),
    "set_num_threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("fails", [False, True])
def test_settings_of_a_jobs_thread_do_not_reach_the_next_job(change, fails, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the sweep does not set the number of threads
    seen = []

    def train(device, loaders, model, job, save_best, log_prefix):
        seen.append(state())
        if job == 0:
            change()
            assert state() != seen[0]
            if fails:
                raise AssertionError("by the test")

    result = torch_autotrain(
        lambda job: (torch.nn.Linear(2, 1), job),
        train,
        make_model_fit_params=[("job", [0, 1])],
        devices="cpu",
        max_retries=0,
    )
    assert [failed.error for failed in result.failed] == (["AssertionError: by the test"] * fails)
    assert seen[1] == seen[0]


def test_jobs_find_the_default_device_of_the_script(tmp_path):
    seen = []

    def train(device, loaders, model, job, save_best, log_prefix):
        seen.append(torch.zeros(1).device.type)
        torch.set_default_device("cpu")

    torch.set_default_device("meta")
    try:
        torch_autotrain(
            lambda job: (torch.nn.Linear(2, 1, device="cpu"), job),
            train,
            make_model_fit_params=[("job", [0, 1])],
            devices="cpu",
            sweep_dir=tmp_path,
        )
        assert torch.get_default_device().type == "meta"
    finally:
        torch.set_default_device(None)
    assert seen == ["meta", "meta"]


def test_modes_of_the_caller_are_kept():
    with _Functions():
        before = torch._C._len_torch_function_stack()
        with own_torch_state(None, "cpu"):
            _Functions().__enter__()
        assert torch._C._len_torch_function_stack() == before
    assert default_device() is None


def test_context_variables_are_those_of_the_caller_at_each_job(tmp_path):
    """Such as the precision of ``decimal``, and which of NumPy's floating-point errors raise."""
    seen = []

    def context():
        return decimal.getcontext().prec, np.geterr()["over"], variable.get("none")

    def train(device, loaders, model, job, save_best, log_prefix):
        seen.append(context())
        decimal.getcontext().prec = 5
        np.seterr(over="ignore")
        variable.set("the job's")

    variable = contextvars.ContextVar("variable")
    with decimal.localcontext(prec=50), np.errstate(over="raise"):
        token = variable.set("the script's")
        before = context()
        torch_autotrain(
            lambda job: (torch.nn.Linear(2, 1), job),
            train,
            make_model_fit_params=[("job", [0, 1])],
            devices="cpu",
            sweep_dir=tmp_path,
        )
        assert context() == before
        variable.reset(token)
    assert seen == [(50, "raise", "the script's")] * 2
