"""Weights: copied exactly, and refused if they could not be loaded again."""

import threading
from collections import OrderedDict

import pytest
import torch

from junky_core.errors import ModelError
from junky_core.job.weights import check_weights, copy_weights, state_of, unwrapped


def model_of(value):
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, value)
    return model


def copied(model):
    return copy_weights(state_of(model), model)


def test_tied_weights_are_saved_once():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    model[1].weight = model[0].weight
    copies = copied(model)
    assert copies["0.weight"].data_ptr() == copies["1.weight"].data_ptr()
    assert copies["0.weight"].data_ptr() != model[0].weight.data_ptr()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own imports
@pytest.mark.parametrize(
    "wrap",
    [
        torch.compile,
        torch.nn.DataParallel,
        torch.optim.swa_utils.AveragedModel,
        lambda model: torch.compile(torch.nn.DataParallel(model)),
    ],
)
def test_the_weights_of_a_wrapped_model_are_those_of_the_model_inside(wrap):
    weights = copied(wrap(model_of(3)))
    assert {name: value.item() for name, value in weights.items()} == {"weight": 3}


def test_a_model_without_a_wrapper_is_itself():
    model = model_of(1)
    assert unwrapped(model) is model


def test_a_view_is_copied_without_the_storage_behind_it():
    model = torch.nn.Module()
    model.register_buffer("part", torch.zeros(1_000_000)[:2])
    assert copied(model)["part"].untyped_storage().nbytes() == 8


def test_a_lazy_conjugate_is_not_mistaken_for_its_base():
    weights = torch.complex(torch.ones(2), torch.ones(2))
    state = {"a": weights, "b": weights.conj(), "c": weights.imag, "d": weights.conj().imag}
    copies = copy_weights(state, None)
    assert all(torch.equal(copies[name], value) for name, value in state.items())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_tensors_without_a_storage_are_copied(tmp_path):
    from torch.testing._internal.two_tensor import TwoTensor

    state = {
        "ones": TwoTensor(torch.ones(2), torch.ones(2)),
        "zeros": TwoTensor(torch.zeros(2), torch.zeros(2)),
        "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    }
    with torch.serialization.safe_globals([TwoTensor]):
        check_weights(state, torch.nn.Module())
        torch.save(copy_weights(state, None), tmp_path / "model.pt")
        for value in (state["ones"].a, state["ones"].b):
            value.zero_()  # training continues
        loaded = torch.load(tmp_path / "model.pt", weights_only=True)
    assert loaded["ones"].a.tolist() == loaded["ones"].b.tolist() == [1, 1]
    assert loaded["zeros"].a.tolist() == [0, 0]
    assert [part.tolist() for part in loaded["nested"].unbind()] == [[1, 1], [1, 1, 1]]


class Stateful(torch.nn.Module):
    """A model with one more entry in its state dict."""

    def __init__(self, extra):
        super().__init__()
        self.extra = extra

    def state_dict(self, *args, **kwargs):
        return {"weight": torch.zeros(2), "extra": self.extra}


class OwnClass:
    pass


class NoCopy:
    def __deepcopy__(self, memo):
        raise RuntimeError("no copy of this")


def check(model):
    check_weights(state_of(model), model)
    copied(model)


ENTRIES = {
    "number": lambda: 3,
    "text": lambda: "text",
    "none": lambda: None,
    "nested": lambda: [1, {"a": (2.5, True)}],
    "ordered": lambda: OrderedDict(a=torch.ones(2)),
    "sparse": lambda: torch.sparse_coo_tensor([[0]], [1.0], (3,), check_invariants=True),
    "conjugated": lambda: torch.complex(torch.ones(2), torch.ones(2)).conj(),
    "empty": lambda: torch.empty(0),
    "bfloat16": lambda: torch.ones(2, dtype=torch.bfloat16),
    "float8": lambda: torch.ones(2).to(torch.float8_e4m3fn),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_models_that_torch_can_load_again_pass(name, tmp_path):
    model = Stateful(ENTRIES[name]())
    check(model)
    torch.save(copied(model), tmp_path / "model.pt")
    torch.load(tmp_path / "model.pt", weights_only=True)


@pytest.mark.parametrize(
    "extra", [OwnClass(), threading.Lock(), lambda: None, NoCopy(), OwnClass, {1: OwnClass()}]
)
def test_models_that_torch_could_not_load_again_are_refused(extra):
    with pytest.raises(ModelError, match=r"'extra'.*Stateful.*add_safe_globals"):
        check(Stateful(extra))


def test_weights_without_values_are_refused():
    lost = torch.ones(3, device="meta")
    cycle = [1]
    cycle += [cycle, {"b": lost}]
    for extra in (lost, [1, {"a": (lost,)}], cycle):
        with pytest.raises(ModelError, match=r"'extra'.*meta device"):
            check(Stateful(extra))


def test_metadata_that_torch_would_not_load_is_refused():
    class Odd(torch.nn.Module):
        def _save_to_state_dict(self, destination, prefix, keep_vars):
            super()._save_to_state_dict(destination, prefix, keep_vars)
            destination._metadata[""]["own"] = OwnClass()

    with pytest.raises(ModelError, match="metadata"):
        check(Odd())


def test_a_class_that_the_user_allowed_passes():
    with torch.serialization.safe_globals([OwnClass]):
        check(Stateful(OwnClass()))


def test_a_state_that_is_no_mapping_is_refused():
    class Listed(torch.nn.Module):
        def state_dict(self):
            return [torch.zeros(1)]

    with pytest.raises(ModelError, match="returned a list"):
        state_of(Listed())
