import math

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_plugins.hydra_junky_sweeper._overrides import (
    bare_key,
    check_key,
    is_hydra_key,
    override_text,
    same_value,
)
from junky_core.errors import FitParamsError

PARSER = OverridesParser.create()

# Characters and words that mean something to the lexer, to OmegaConf or to a shell.
# fmt: off
PIECES = st.sampled_from([
    "\\", "'", '"', "{", "}", "[", "]", "(", ")", ",", "=", ":", "$", "${x}", "\\${x}", "\\\\${x}",
    "a", "B", "0", "1e-5", "true", "null", "inf", "nan", ".", "-", "+", "~", "/", "@", "|", "?",
    " ", "\t", "\n", "\r", "é", "\u2028", "漢", "😀", "_", "#", "%", "&", "*", "!", "choice(1)",
])
# fmt: on
TRICKY = st.lists(PIECES, max_size=6).map("".join)
TEXTS = (TRICKY | st.text(st.characters(exclude_categories=("Cs",)), max_size=8)).filter(
    lambda text: text != "???"
)
SCALARS = (
    TEXTS
    | st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(10**60), max_value=10**60)
    | st.floats()
)
MAPPING_KEYS = (
    st.from_regex(r"[A-Za-z_$%*@|/\-][A-Za-z0-9_$%*@|/\-. ,=:(){}\[\]\\]{0,6}", fullmatch=True)
    | st.integers()
    | st.booleans()
    | st.floats(allow_nan=False)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(MAPPING_KEYS, inner, max_size=3),
    max_leaves=8,
)


def exactly(left, right):
    """Equal, with equal types at each level; NaN equals NaN, and -0.0 is not 0.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return (
            list(map(repr, left)) == list(map(repr, right))
            and list(map(type, left)) == list(map(type, right))
            and all(exactly(x, y) for x, y in zip(left.values(), right.values(), strict=True))
        )
    if isinstance(left, list):
        return len(left) == len(right) and all(map(exactly, left, right))
    if isinstance(left, float):
        return repr(left) == repr(right)
    return left == right


def in_a_file(value):
    """The config that a file with this value would give."""
    try:
        return OmegaConf.create({"x": 7, "k": value})
    except OmegaConfBaseException:  # no config can hold it: a broken interpolation, say
        assume(False)


@settings(max_examples=600, deadline=None)
@given(VALUES)
def test_any_value_arrives_as_a_file_would_have_given_it(value):
    wanted = in_a_file(value)
    try:
        text = override_text("k", value)
    except FitParamsError as error:
        assume("to write the mapping key" not in str(error))  # tested below
        raise
    parsed = PARSER.parse_override(text)
    assert not parsed.is_sweep_override()
    assert exactly(parsed.value(), value)

    job = OmegaConf.create({"x": 7, "k": None})
    OmegaConf.update(job, "k", parsed.value(), merge=True)
    assert exactly(
        OmegaConf.to_container(job)["k"],
        OmegaConf.to_container(wanted)["k"],
    )


@settings(max_examples=300, deadline=None)
@given(TRICKY)
def test_interpolations_mean_in_the_job_what_they_mean_in_a_file(text):
    assume(text != "???")
    wanted = in_a_file(text)
    job = OmegaConf.create({"x": 7, "k": PARSER.parse_override(override_text("k", text)).value()})
    try:
        resolved = wanted.k
    except OmegaConfBaseException as error:
        with pytest.raises(type(error)):
            _ = job.k
    else:
        assert exactly(job.k, resolved)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("adam", "k=adam"),
        ("data/a.b-c.csv", "k=data/a.b-c.csv"),
        ("", "k=''"),
        ("1", "k='1'"),
        ("True", "k='True'"),
        ("null", "k='null'"),
        ("inf", "k='inf'"),
        ("it's", 'k="it\'s"'),
        ("a,b", "k='a,b'"),
        (" x ", "k=' x '"),
        ("${x}", "k='${x}'"),
        (None, "k=null"),
        (True, "k=true"),
        (-0.0, "k=-0.0"),
        (1e-5, "k=1e-05"),
        (math.inf, "k=inf"),
        ([64, [1, "b c"], {}], "k=[64,[1,'b c'],{}]"),
        ({"a": 1, "b": None, 3: []}, "k={a:1,b:null,3:[]}"),
    ],
)
def test_text_of_values(value, text):
    assert override_text("k", value) == text


@pytest.mark.parametrize(
    "value",
    [
        "???",
        ["a", "???"],
        {"a": {"b": "???"}},
        {"1": 0},
        {"true": 0},
        {"": 0},
        {"é": 0},
        {"a'b": 0},
        {"a\nb": 0},
        {b"x": 0},
        object(),
        {1, 2},
        b"bytes",
    ],
)
def test_a_value_that_no_override_can_carry_is_named_with_its_key(value):
    with pytest.raises(FitParamsError) as caught:
        override_text("model.odd", value)
    assert "'model.odd'" in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("key", ["a b", " a ", "a,b", "a.b,c", "x{y}", "p=q", "a:b", "a\\b"])
def test_odd_mapping_keys_that_can_be_escaped_arrive(key):
    assert PARSER.parse_override(override_text("k", {key: 1})).value() == {key: 1}


def test_equal_mapping_keys_of_different_types_are_kept_apart():
    texts = [override_text("k", {key: 0}) for key in (1, True, 1.0)]
    assert texts == ["k={1:0}", "k={true:0}", "k={1.0:0}"]


@pytest.mark.parametrize(
    "key",
    [
        "lr",
        "a.b.c",
        "+a",
        "++a.b",
        "~a",
        "db",
        "db/engine",
        "db@src",
        "+db/e@a.b",
        "a.0",
        "$x",
        "a-b",
    ],
)
def test_keys_of_hydra_pass(key):
    check_key(key)


@pytest.mark.parametrize("key", ["", "a b", "a=b", "=", " a", "a ", "é", "a,b", "+", "'a'", "-+a"])
def test_a_key_that_hydra_cannot_read_is_named(key):
    with pytest.raises(FitParamsError) as caught:
        check_key(key)
    assert repr(key) in str(caught.value)


def test_a_key_is_the_same_with_any_sign():
    assert {bare_key(k) for k in ("a.b", "+a.b", "++a.b", "~a.b")} == {"a.b"}


def test_a_deletion_has_no_value_unless_given():
    assert override_text("~a", None) == "~a"
    assert override_text("~a", 1) == "~a=1"


def test_keys_of_hydra_itself():
    assert is_hydra_key("hydra.job.name")
    assert is_hydra_key("+hydra/launcher")
    assert not is_hydra_key("hydration")


def test_same_value_between_command_line_and_grammar():
    assert same_value(1, 1.0)
    assert same_value([1, {"a": "x"}], [1.0, {"a": "x"}])
    assert not same_value(1, True)
    assert not same_value("1", 1)
    assert not same_value([1], [1, 2])
    assert same_value(None, None)
