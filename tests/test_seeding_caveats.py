"""Warnings about the limits of a seed."""

import pytest
import torch
from torch.utils.data import DataLoader

from junky_core.job.seeding import reproducibility_warnings


def test_nothing_to_say():
    loader = DataLoader(range(3))
    assert reproducibility_warnings() == []
    assert reproducibility_warnings(torch.nn.Linear(1, 1), "cpu", (loader, {"a": loader})) == []


@pytest.mark.parametrize("nested", [False, True])
def test_compiled_model(nested):
    model = torch.compile(torch.nn.Linear(1, 1), backend="eager")
    if nested:
        model = torch.nn.Sequential(model)
    (warning,) = reproducibility_warnings(model)
    assert "torch.compile" in warning


def test_model_compiled_in_place():
    model = torch.nn.Linear(1, 1)
    model.compile(backend="eager")
    assert "torch.compile" in reproducibility_warnings(model)[0]


def test_cuda_kernels():
    warnings = reproducibility_warnings(device="cuda:0")
    assert "use_deterministic_algorithms" in warnings[0]
    torch.use_deterministic_algorithms(True)
    try:
        assert reproducibility_warnings(device=torch.device("cuda")) == []
    finally:
        torch.use_deterministic_algorithms(False)


def test_cudnn_benchmark():
    torch.backends.cudnn.benchmark = True
    try:
        assert "benchmark" in reproducibility_warnings(device="cuda")[-1]
    finally:
        torch.backends.cudnn.benchmark = False


@pytest.mark.parametrize(("layers", "dropout", "said"), [(2, 0.5, 1), (1, 0.0, 0), (2, 0.0, 0)])
def test_recurrent_dropout_of_cudnn(layers, dropout, said):
    model = torch.nn.Sequential(torch.nn.LSTM(2, 2, layers, dropout=dropout))
    warnings = reproducibility_warnings(model, "cuda")
    assert sum("recurrent" in warning for warning in warnings) == said
    assert not reproducibility_warnings(model, "cpu")


def test_other_backends():
    assert "mps" in reproducibility_warnings(device="mps")[0]


@pytest.mark.parametrize(
    ("loaders", "where"),
    [
        (iter(DataLoader(range(3))), "loaders: "),
        ((DataLoader(range(3)), iter([1])), "loaders[1]: "),
        ({"train": (x for x in [1])}, "loaders['train']: "),
    ],
)
def test_an_iterator_in_place_of_a_loader(loaders, where):
    (warning,) = reproducibility_warnings(loaders=loaders)
    assert warning.startswith(where)
