"""What counts as the same value, in one process and across processes."""

import collections
import copy
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import math
import os
import pathlib
import re
import subprocess
import sys
import types
import typing

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from junky_core.values.identity import copy_containers, digest, freeze


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Shade(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    ONE = 1


@dataclasses.dataclass
class Point:
    x: object
    y: object = 0
    cache: object = dataclasses.field(default=None, compare=False)


class Named(typing.NamedTuple):
    a: int
    b: int


class Text(str):
    __slots__ = ()

    def __repr__(self):
        return "always the same"


class Plain:
    def method(self):
        pass


class Tagged(list):
    pass


def tagged(tag):
    found = Tagged([1])
    found.tag = tag
    return found


def adder(n, default=0):
    return lambda x, d=default: x + n + d


def other_adder(n, default=0):
    return lambda x, d=default: x - n + d


def with_keyword(k):
    def local(*, key=k):
        return key

    return local


def recursive():
    def local(n):
        return local(n - 1) if n else 0

    return local


# Each function makes the same value each time, and a different one than all others.
DIFFERENT = {
    "none": lambda: None,
    "true": lambda: True,
    "one": lambda: 1,
    "one float": lambda: 1.0,
    "one complex": lambda: 1 + 0j,
    "one text": lambda: "1",
    "one bytes": lambda: b"1",
    "one bytearray": lambda: bytearray(b"1"),
    "int enum": lambda: Number.ONE,
    "one decimal": lambda: decimal.Decimal(1),
    "one decimal with zero": lambda: decimal.Decimal("1.0"),
    "one fraction": lambda: fractions.Fraction(1),
    "zero": lambda: 0.0,
    "minus zero": lambda: -0.0,
    "nan": lambda: float("nan"),
    "text nan": lambda: "nan",
    "infinity": lambda: math.inf,
    "false": lambda: False,
    "empty text": lambda: "",
    "surrogate": lambda: "\ud800",
    "huge": lambda: 10**6000,
    "text subclass": lambda: Text("1"),
    "text subclass 2": lambda: Text("2"),
    "list": lambda: [1, 2],
    "tuple": lambda: (1, 2),
    "range": lambda: range(1, 3),
    "nested": lambda: [[1], [2]],
    "nested otherwise": lambda: [[1, [2]]],
    "nested flat": lambda: [[1, 2]],
    "deque": lambda: collections.deque([1, 2]),
    "named tuple": lambda: Named(1, 2),
    "tagged a": lambda: tagged("a"),
    "tagged b": lambda: tagged("b"),
    "dict": lambda: {"a": 1, "b": 2},
    "dict of floats": lambda: {"a": 1.0, "b": 2},
    "dict as pairs": lambda: [("a", 1), ("b", 2)],
    "ordered dict": lambda: collections.OrderedDict(b=2, a=1),
    "proxy": lambda: types.MappingProxyType({"a": 1, "b": 2}),
    "config": lambda: OmegaConf.create({"a": 1, "b": 2}),
    "list config": lambda: OmegaConf.create([1, 2]),
    "unresolvable": lambda: OmegaConf.create(["${gone}"]),
    "set": lambda: {1, 2},
    "frozen set": lambda: frozenset((1, 2)),
    "set of texts": lambda: set(map(str, range(20))),
    "member": lambda: Colour.RED,
    "other member": lambda: Colour.BLUE,
    "member of another": lambda: Shade.RED,
    "flags": lambda: re.IGNORECASE | re.MULTILINE,
    "path": lambda: pathlib.Path("a"),
    "pure path": lambda: pathlib.PurePosixPath("a"),
    "date": lambda: dt.date(2024, 1, 1),
    "pattern": lambda: re.compile("a" * 300),
    "other pattern": lambda: re.compile("a" * 301),
    "slice": lambda: slice(1, 2),
    "alias": lambda: list[int],
    "ellipsis": lambda: ...,
    "class": lambda: Plain,
    "torch class": lambda: torch.nn.ReLU,
    "function": lambda: adder,
    "torch function": lambda: torch.relu,
    "functional": lambda: torch.nn.functional.relu,
    "numpy function": lambda: np.sqrt,
    "builtin": lambda: len,
    "builtin method": lambda: [1].append,
    "bound method of a class": lambda: Named._make,
    "lambda": lambda: adder(1),
    "lambda, other value": lambda: adder(2),
    "lambda, other type": lambda: adder(1.0),
    "lambda, other default": lambda: adder(1, 1),
    "lambda, other code": lambda: other_adder(1),
    "keyword default": lambda: with_keyword(1),
    "other keyword default": lambda: with_keyword(2),
    "recursive function": recursive,
    "partial": lambda: functools.partial(adder, 1, default=2),
    "other partial": lambda: functools.partial(adder, 1, default=3),
    "dataclass": lambda: Point(1, [2]),
    "other dataclass": lambda: Point([2], 1),
    "device": lambda: torch.device("cuda"),
    "indexed device": lambda: torch.device("cuda:0"),
    "torch dtype": lambda: torch.float32,
    "numpy dtype": lambda: np.dtype("float32"),
    "numpy class": lambda: np.float32,
    "numpy one": lambda: np.float64(1),
    "numpy one, short": lambda: np.float32(1),
    "numpy nan": lambda: np.float64("nan"),
    "array": lambda: np.array([[1, 2], [3, 4]]),
    "array in another shape": lambda: np.array([1, 2, 3, 4]),
    "array of another type": lambda: np.array([[1, 2], [3, 4]], dtype=np.int32),
    "array of others": lambda: np.array([[1, 2], [3, 5]]),
    "array without dimensions": lambda: np.array(1),
    "array of objects": lambda: np.array([1, "a"], dtype=object),
    "masked": lambda: np.ma.masked_array([1, 2], [True, False]),
    "masked otherwise": lambda: np.ma.masked_array([1, 2], [False, True]),
    "tensor": lambda: torch.tensor([[1, 2], [3, 4]]),
    "tensor in another shape": lambda: torch.tensor([1, 2, 3, 4]),
    "tensor of others": lambda: torch.tensor([[1, 2], [3, 5]]),
    "tensor of floats": lambda: torch.tensor([[1.0, 2], [3, 4]]),
    "bfloat16": lambda: torch.ones(3, dtype=torch.bfloat16),
    "float8": lambda: torch.ones(3).to(torch.float8_e5m2),
    "empty tensor": lambda: torch.ones(0, 3),
    "sparse": lambda: torch.eye(2).to_sparse(),
    "parameter": lambda: torch.nn.Parameter(torch.ones(2)),
    "size": lambda: torch.Size([1, 2]),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_the_same_made_twice_is_the_same(name):
    one, two = DIFFERENT[name](), DIFFERENT[name]()
    assert freeze(one) == freeze(two)
    assert hash(freeze(one)) == hash(freeze(two))
    assert digest(one) == digest(two)
    assert re.fullmatch("[0-9a-f]{32}", digest(one))  # known in other processes, too
    assert freeze([one]) == freeze([two])


def test_different_values_are_different():
    for make in (freeze, digest):
        found = {}
        for name, value in DIFFERENT.items():
            assert found.setdefault(make(value()), name) == name
        for name, value in DIFFERENT.items():
            assert found.setdefault(make([value(), "in a list"]), [name]) == [name]


@pytest.mark.parametrize("seed", ["0", "1", "4711"])
def test_digests_are_the_same_in_every_process(seed):
    path = os.pathsep.join(filter(None, sys.path))
    code = f"import {__name__} as t; print(*(t.digest(m()) for m in t.DIFFERENT.values()))"
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    here = {name: digest(make()) for name, make in DIFFERENT.items()}
    assert dict(zip(DIFFERENT, child.stdout.split(), strict=True)) == here


def test_a_digest_does_not_change_between_releases():
    # Resuming after an upgrade depends on it.
    params = {"lr": 1e-3, "width": 128, "opt": "adam", "layers": [64, (None, True)]}
    assert digest(params) == "417da0e74cbfcad786c98a7ef6d42c9e"


def test_order_of_keys_and_of_sets_makes_no_difference():
    a, b = Plain(), Plain()
    assert freeze({"x": a, "y": b}) == freeze({"y": b, "x": a})
    assert digest({"x": {1: 2, 3: 4}}) == digest({"x": {3: 4, 1: 2}})
    assert freeze({"x": a, "y": b}) != freeze({"x": b, "y": a})


def test_every_bit_pattern_of_nan_is_one_nan():
    patterns = np.array([0x7FF8000000000000, 0xFFF8000000000001], dtype=np.uint64).view(np.float64)
    assert digest(patterns[:1]) == digest(patterns[1:])
    assert digest(torch.from_numpy(patterns[:1])) == digest(torch.from_numpy(patterns[1:]))


def test_layout_in_memory_makes_no_difference():
    assert digest(np.eye(3).T) == digest(np.eye(3))
    assert digest(torch.arange(6).view(2, 3).t()) == digest(torch.tensor([[0, 3], [1, 4], [2, 5]]))
    z = torch.tensor([1 + 2j])
    assert digest(z.conj()) == digest(torch.tensor([1 - 2j]))


def test_digesting_leaves_the_value_alone():
    array, tensor = np.array([math.nan, 1.0]), torch.tensor([1.0], requires_grad=True)
    before = array.tobytes()
    digest([array, tensor])
    assert array.tobytes() == before
    assert tensor.requires_grad


def test_configs_are_compared_with_interpolations_resolved():
    config = OmegaConf.create({"n": 1, "data": {"size": "${n}"}})
    before = digest(config.data)
    config.n = 2
    assert digest(config.data) != before


def test_a_dataclass_is_known_by_the_fields_that_it_compares():
    assert freeze(Point(1, cache=1)) == freeze(Point(1, cache=2))


def test_lambdas_do_not_depend_on_the_line():
    source = "f = lambda x: x + 1"
    one, two = {"__name__": "m"}, {"__name__": "m"}
    exec(source, one)
    exec("\n\n\n" + source, two)
    assert digest(one["f"]) == digest(two["f"])


def test_a_redefined_function_is_another_one():
    module = types.ModuleType("junky_identity_test")
    sys.modules[module.__name__] = module
    try:
        exec("def f(): return 1", module.__dict__)
        old = module.f
        exec("def f(): return 2", module.__dict__)
        assert freeze(old) != freeze(module.f)
    finally:
        del sys.modules[module.__name__]


def local_class():
    class Local:
        pass

    return Local


@pytest.mark.parametrize(
    "make",
    [
        *(object, Plain, local_class, lambda: local_class()(), lambda: [Plain()]),
        *(lambda: {"a": (object(),)}, lambda: functools.partial(print, object())),
        *(lambda: Plain().method, lambda: adder(object())),
        lambda: torch.ones(2, device="meta"),
    ],
)
def test_any_other_object_equals_only_itself_and_in_this_process_only(make):
    one, two = make(), make()
    assert freeze(one) == freeze(one)
    assert freeze(one) != freeze(two)
    assert digest(one) == digest(one) != digest(two)
    assert digest(one).startswith("~")


def test_a_method_of_one_object_is_the_same_each_time():
    thing = Plain()
    assert freeze(thing.method) == freeze(thing.method)


def test_a_key_keeps_its_object_so_that_no_other_gets_its_id():
    keys = {freeze([object()]) for _ in range(100)}
    assert len(keys) == 100


def test_a_digest_of_an_object_is_not_the_same_in_a_forked_child():
    code = (
        "import os; from junky_core.values.identity import digest; o = object(); mine = digest(o); "
        "r, w = os.pipe(); pid = os.fork()\n"
        "if not pid: os.write(w, digest(o).encode()); os._exit(0)\n"
        "os.waitpid(pid, 0); assert os.read(r, 99).decode() != mine"
    )
    root = pathlib.Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, timeout=60)


def test_neither_numpy_nor_torch_is_imported():
    code = (
        "import sys; from junky_core.values.identity import *; digest([1, {'a': (1.0, object())}]); "
        "copy_containers([[1]]); assert not {'torch', 'numpy', 'omegaconf'} & set(sys.modules)"
    )
    root = pathlib.Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, timeout=60)


def test_values_that_contain_themselves_have_an_identity():
    def cycle():
        found = [1]
        found.append({"again": found})
        return found

    assert digest(cycle()) == digest(cycle())
    assert digest(cycle()) != digest([1, {"again": [1]}])


def test_values_may_be_deeper_than_the_stack():
    def deep(last):
        found = [last]
        for _ in range(3 * sys.getrecursionlimit()):
            found = {"a": (found,)}
        return found

    assert freeze(deep(1)) == freeze(deep(1)) != freeze(deep(2))
    assert digest(copy_containers(deep(1))) == digest(deep(1))


literals = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(literals, literals)
def test_literals_are_the_same_when_their_text_is(one, two):
    if repr(one) == repr(two):
        assert digest(one) == digest(two)
        assert freeze(one) == freeze(two)
    elif not _may_only_differ_in_order(one, two):
        assert digest(one) != digest(two)
        assert freeze(one) != freeze(two)


def _may_only_differ_in_order(one, two):
    return sorted(repr(one)) == sorted(repr(two))


@given(literals)
def test_a_copy_is_the_same_value(value):
    assert freeze(copy_containers(value)) == freeze(value)
    assert repr(copy_containers(value)) == repr(value)


# --- copies ---------------------------------------------------------------------------------------


def test_copies_share_no_container_with_the_original():
    value = {"a": [1, {2}, (3, [4])], "b": bytearray(b"x"), "c": collections.OrderedDict(k=[5])}
    twin = copy_containers(value)
    assert twin == value == copy.deepcopy(value)
    twin["a"][1].add(9)
    twin["a"][2][1].append(9)
    twin["a"].append(9)
    twin["b"].append(9)
    twin["c"]["k"].append(9)
    twin["new"] = 9
    assert value == {"a": [1, {2}, (3, [4])], "b": bytearray(b"x"), "c": {"k": [5]}}


def test_copies_keep_classes_and_share_everything_else():
    tensor, module = torch.ones(2), torch.nn.Linear(1, 1)
    value = [tensor, {"m": module}, Named([1], 2), collections.defaultdict(list, a=[1]), tagged(1)]
    twin = copy_containers(value)
    assert twin[0] is tensor
    assert twin[1]["m"] is module
    assert type(twin[2]) is Named
    assert twin[2].a is not value[2].a
    assert twin[3].default_factory is list
    assert twin[3]["a"] is not value[3]["a"]
    assert (type(twin[4]), twin[4].tag) == (Tagged, 1)


@pytest.mark.parametrize(
    "value", [1, "a", None, (1, (2, "x")), frozenset([1]), range(3), Colour.RED]
)
def test_immutable_values_are_not_copied(value):
    assert copy_containers(value) is value


def test_an_object_that_occurs_twice_is_copied_once():
    shared = [1, [2]]
    twin = copy_containers([shared, (shared,), {"k": shared}])
    assert twin[0] is twin[1][0] is twin[2]["k"]
    assert twin[0] is not shared
    loop = [1]
    loop.append((loop, {"x": loop}))
    twin = copy_containers(loop)
    assert twin is twin[1][0] is twin[1][1]["x"]
    assert twin is not loop


def test_configs_are_copied():
    config = OmegaConf.create({"a": [1]})
    twin = copy_containers({"c": config})
    twin["c"].a.append(2)
    assert config.a == [1]
