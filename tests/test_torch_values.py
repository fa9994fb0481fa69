"""torch's objects in a grid and in the journal, which do not import torch."""

import json
from dataclasses import replace

import pytest
import torch
from sweep_events import begin, finish

from junky_core import expand_fit_params
from junky_core.errors import FitParamsError
from junky_core.record.codec import encode_event


@pytest.mark.parametrize(
    "value", [torch.device("cpu"), torch.tensor(3), torch.nn.ReLU, torch.float16], ids=repr
)
def test_a_single_object_of_torch_is_one_value_of_a_grid(value):
    (combination,) = expand_fit_params([("a", value)])
    assert type(combination["a"]) is type(value)
    assert combination["a"] == value


def test_a_tensor_is_the_values_to_try():
    several = torch.tensor([1, 2])
    assert [c["a"] for c in expand_fit_params([("a", several)])] == [1, 2]
    assert [c["a"] for c in expand_fit_params([("b", 0), {"a": several}])] == [1, 2]


def test_a_tensor_is_not_a_grid():
    with pytest.raises(FitParamsError, match="fit_params is not a grid"):
        expand_fit_params(torch.ones(2))


def test_a_class_of_torch_is_kept_as_text_in_the_journal():
    record = json.loads(encode_event(begin(0, params={"act": torch.nn.ReLU, "lr": 0.1})))
    assert record["params"] == {"act": {"__repr__": repr(torch.nn.ReLU)}, "lr": 0.1}


@pytest.mark.parametrize(
    "value", [torch.ones(2), [0.1, torch.nn.Linear(1, 1)]], ids=["tensor", "module"]
)
def test_a_tensor_or_a_module_that_train_returned_is_left_out_of_the_journal(value):
    record = json.loads(encode_event(replace(finish(0, 0.5), value=value)))
    assert record["value"] is None
    assert record["value_omitted"] is True
