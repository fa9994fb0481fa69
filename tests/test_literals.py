import math

import pytest

from junky_core.logs.literals import read_params, split_balanced


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"a": 50},
        {"a": 50, "b": 0.1},
        {"a": -1, "b": 1e-05, "c": None, "d": True, "e": (1 - 2j)},
        {"a": [[64, 64], [128]], "b": {"x": (1,), "y": {2}}, "c": set()},
        {"q": "it's", "r": "a \"b\" 'c'", "s": "back\\slash\n\ttab \x00 \xff ü ☃", "t": b"\x00'"},
        {"p": "(('x', 1)", "q": ")]}"},
    ],
)
def test_reads_what_repr_writes(params):
    assert read_params(repr(tuple(params.items()))) == params


def test_reads_nan_and_inf():
    params = read_params("(('a', inf), ('b', [-inf, nan]))")
    assert params["a"] == math.inf
    assert params["b"][0] == -math.inf
    assert math.isnan(params["b"][1])


@pytest.mark.parametrize(
    "text",
    [
        "(('a', <class 'int'>),)",
        "(('a', tensor([1., 2.])),)",
        "(('a', __import__('os').getcwd()),)",
        "(('a', 1 if 2 else 3),)",
        r"(('a', '\d'),)",
        r"(('a', '\777'),)",
        r"(('a', '\4777'),)",
        "(('a', 1+1),)",
        "(('a', {[]: 1}),)",
        "((1, 2), (3, 4))",
        "(('a', 1, 2),)",
        "(('a', 1)",
        "((('a', 1)))",
        "{'a': 1}",
        "",
    ],
)
def test_returns_other_text_unchanged(text):
    assert read_params(text) == text


@pytest.mark.parametrize(
    "inner",
    ["[" * 5000 + "]" * 5000, "-" * 50_000 + "1", "1+" * 50_000 + "1", "9" * 5000, "x" * 2_000_000],
)
def test_returns_text_that_would_break_a_parser(inner):
    text = f"(('a', {inner}),)"
    assert read_params(text) == text


def test_splits_after_the_closing_bracket():
    assert split_balanced("(('a', ')'), [')']) rest") == ("(('a', ')'), [')'])", " rest")
    assert split_balanced("(('a', 1)") == (None, "(('a', 1)")
    assert split_balanced("(('a', don't),)") == (None, "(('a', don't),)")


def test_reads_octal_escapes_that_python_takes_without_a_warning():
    assert read_params(r"(('a', '\0 \12 \377 \47 \7 \4'),)") == {"a": "\0 \12 \377 \47 \7 \4"}
