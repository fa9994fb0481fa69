"""Fingerprints of fixed arguments: the same in every process, different after a change."""

import argparse
import functools
import os
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_identity import DIFFERENT, Plain, Point, Text

from junky_core.values import content
from junky_core.values.fixed_arguments import fixed_arguments
from junky_core.values.identity import digest, fingerprint, freeze


def linear(weight=1.0, bias=True):
    model = torch.nn.Linear(2, 1, bias=bias)
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, weight)
    return model


class Scale(torch.nn.Module):
    def __init__(self, factor, inner=None):
        super().__init__()
        self.factor = factor
        self.inner = inner
        self.register_buffer("seen", torch.zeros(1))


class Settings:
    """A class that is compared by value, as those of attrs."""

    def __init__(self, **fields):
        self.__dict__.update(fields)

    def __eq__(self, other):
        return vars(self) == vars(other)

    __hash__ = None


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a):
        self.a = a

    def __eq__(self, other):
        return self.a == other.a

    __hash__ = None


class Raising:
    """Its state cannot be read."""

    __hash__ = None

    def __eq__(self, other):
        raise RuntimeError

    @property
    def __dict__(self):
        raise RuntimeError


# Each makes a different value; each call makes a new object of the same value.
VALUED = {
    **DIFFERENT,
    "module": linear,
    "module with other weights": lambda: linear(2.0),
    "module of another structure": lambda: linear(bias=False),
    "module in evaluation": lambda: linear().eval(),
    "loss": torch.nn.CrossEntropyLoss,
    "smoothed loss": lambda: torch.nn.CrossEntropyLoss(label_smoothing=0.1),
    "own module": lambda: Scale(1),
    "own module, other attribute": lambda: Scale(2),
    "nested module": lambda: Scale(1, linear()),
    "nested module, other weights": lambda: Scale(1, linear(3.0)),
    "sequential": lambda: torch.nn.Sequential(linear(), torch.nn.ReLU()),
    "namespace": lambda: argparse.Namespace(lr=0.1, layers=[1, 2]),
    "other namespace": lambda: argparse.Namespace(lr=0.2, layers=[1, 2]),
    "simple namespace": lambda: types.SimpleNamespace(lr=0.1, layers=[1, 2]),
    "settings": lambda: Settings(a=1),
    "other settings": lambda: Settings(a=2),
    "slots": lambda: Slotted(1),
    "other slots": lambda: Slotted(2),
    "half of it": lambda: functools.partial(torch.optim.SGD, lr=0.1),
    "half of it, another": lambda: functools.partial(torch.optim.SGD, lr=0.2),
    "set of texts": lambda: {"a", "b", "c", "d"},
    "other set of texts": lambda: {"a", "b", "c", "e"},
    "dataclass with a module": lambda: Point(linear()),
}


@pytest.mark.parametrize("name", VALUED)
def test_the_same_made_twice_is_the_same(name):
    one, two = fingerprint(VALUED[name]()), fingerprint(VALUED[name]())
    assert one == two
    assert one[1], "compared in full"


def test_different_values_are_different():
    found = {}
    for name, make in VALUED.items():
        assert found.setdefault(fingerprint(make())[0], name) == name


@pytest.mark.parametrize("seed", ["0", "1", "4711"])
def test_they_are_the_same_in_every_process(seed):
    path = os.pathsep.join(filter(None, sys.path))
    code = f"import {__name__} as t; print(*(t.fingerprint(m())[0] for m in t.VALUED.values()))"
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    here = {name: fingerprint(make())[0] for name, make in VALUED.items()}
    assert dict(zip(VALUED, child.stdout.split(), strict=True)) == here


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner),
        st.dictionaries(st.text(), inner),
        st.tuples(inner, inner),
        st.builds(lambda a, b: argparse.Namespace(a=a, b=b), inner, inner),
    ),
    max_leaves=10,
)


@given(VALUES, VALUES)
def test_two_fingerprints_are_equal_exactly_when_the_values_are_the_same(one, two):
    def by_value(value):  # freeze() does not compare namespaces by value
        if isinstance(value, argparse.Namespace):
            return (argparse.Namespace, by_value(vars(value)))
        if isinstance(value, dict):
            return {key: by_value(item) for key, item in value.items()}
        return type(value)(map(by_value, value)) if isinstance(value, (list, tuple)) else value

    same = freeze(by_value(one)) == freeze(by_value(two))
    assert (fingerprint(one) == fingerprint(two)) == same


@pytest.mark.parametrize(
    "make",
    [
        *(object, Plain, lambda: Plain().method, lambda: {"a": [Plain()]}, Raising),
        *(lambda: torch.Generator(), lambda: np.random.default_rng(0)),
        *(lambda: torch.ones(2, device="meta"), lambda: (n for n in [1])),
    ],
)
def test_an_object_without_a_value_counts_by_its_class(make):
    assert fingerprint(make()) == (fingerprint(make())[0], False)


def test_a_change_next_to_an_object_without_a_value_is_detected():
    one, two = fingerprint([Plain(), 1]), fingerprint([Plain(), 2])
    assert one[0] != two[0]
    assert not one[1]
    assert fingerprint(Plain())[0] != fingerprint(object())[0]


def test_fingerprints_do_not_change_other_identities():
    assert digest(linear()).startswith("~")
    assert freeze(argparse.Namespace(a=1)) != freeze(argparse.Namespace(a=1))


@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor])
def test_large_content_is_compared_in_pieces(make, monkeypatch):
    monkeypatch.setattr(content, "_LARGE", 64)
    plain = np.arange(100.0).reshape(10, 10)
    plain[3, 3] = np.nan
    changed, turned = plain.copy(), np.asfortranarray(plain)
    changed[9, 9] = 0
    assert fingerprint(make(plain)) == fingerprint(make(turned))
    assert fingerprint(make(plain)) != fingerprint(make(changed))
    assert fingerprint(make(plain)) != fingerprint(make(plain.reshape(100)))


def test_names_of_what_changed():
    before = fixed_arguments(args=[1, 2], kwargs={"a": 1, "b": Text("x"), "c": Plain()})
    now = fixed_arguments(args=[1], kwargs={"a": 2, "b": Text("x"), "c": Plain(), "d": 1})
    assert now.changes(before.values) == ["kwargs['a']", "kwargs['d']", "args[1]"]
    assert now.changes(now.values) == []
    assert now.unknown == ["kwargs['c']"]
