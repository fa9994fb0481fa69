"""Attempts and their ends survive as plain data, in both directions."""

import json
import pickle
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from junky_core.errors import ConfigError, JobError
from junky_core.executors.contract import AttemptEnd
from junky_core.executors.messages import attempt_of, end_of, plain_attempt, plain_end
from junky_core.jobs import Attempt, EndKind, Job

scores = st.none() | st.floats(allow_nan=False)
texts = st.text(max_size=30)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers() | texts, inner, max_size=3)
    ),
    max_leaves=8,
)
params = st.dictionaries(texts, values, max_size=4)
attempts = st.builds(
    Attempt,
    st.builds(Job, st.integers(0), params, values, texts, params, scores),
    st.integers(1, 99),
    texts,
    scores,
)
locations = st.none() | st.tuples(texts, st.lists(st.tuples(texts, st.integers(1))).map(tuple))
ends = st.builds(
    AttemptEnd,
    kind=st.sampled_from(EndKind),
    duration_s=st.floats(0, 1e9),
    value=values,
    score=scores,
    serial=st.integers(0),
    error=texts,
    traceback=texts,
    location=locations,
    host_memory=st.booleans(),
    loaders_elsewhere=st.booleans(),
    closes_slot=texts,
)


def assert_plain(data):
    kind = type(data)
    if kind is dict:
        assert all(type(key) is str for key in data)
        list(map(assert_plain, data.values()))
    elif kind is list:
        list(map(assert_plain, data))
    else:
        assert data is None or kind in (bool, int, float, str, bytes), kind


def assert_same(before, after):
    assert before == after
    assert repr(before) == repr(after)  # types too: 1, 1.0 and True are equal


@settings(deadline=None)
@given(attempts)
def test_attempts_come_back(attempt):
    plain = plain_attempt(attempt)
    assert_plain(plain)
    assert_same(attempt, attempt_of(plain))


@settings(deadline=None)
@given(ends)
def test_ends_come_back(end):
    plain = plain_end(end)
    assert_plain(plain)
    assert_same(end, end_of(plain))


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_no_numbers_come_back(score):
    end = AttemptEnd("finished", 1.0, score=score)
    assert repr(end_of(plain_end(end)).score) == repr(score)


class Broken(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


class Refuses(Exception):
    def __reduce__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize("exception", [ValueError("bad", 3), KeyboardInterrupt(), OSError(2, "no")])
def test_exceptions_come_back(exception):
    after = end_of(plain_end(AttemptEnd("error", 1.0, exception=exception))).exception
    assert type(after) is type(exception)
    assert after.args == exception.args


@pytest.mark.parametrize("exception", [Broken(1, 2), Refuses("bad")])
def test_an_exception_that_cannot_be_sent_arrives_as_its_text(exception):
    end = AttemptEnd("error", 1.0, error="Broken: 1 and 2", traceback="tb", exception=exception)
    after = end_of(plain_end(end))
    assert type(after.exception) is JobError
    assert str(after.exception) == "Broken: 1 and 2"
    assert (after.error, after.traceback) == (end.error, end.traceback)


def test_a_value_that_cannot_be_sent_arrives_as_its_repr():
    value = threading.Lock()
    plain = plain_end(AttemptEnd("finished", 1.0, value=value))
    end = end_of(plain)
    assert (end.value, end.value_is_repr) == (repr(value), True)


class OnlyThere:
    """Can be loaded in the process that pickled it."""

    there = True

    def __reduce__(self):
        return _load_there, ()


def _load_there():
    if not OnlyThere.there:
        raise ModuleNotFoundError("no module of the job's")
    return OnlyThere()


def test_a_value_that_cannot_be_loaded_is_replaced_by_the_reason(monkeypatch):
    plain = plain_end(AttemptEnd("finished", 1.0, value=OnlyThere()))
    monkeypatch.setattr(OnlyThere, "there", False)
    end = end_of(plain)
    assert end.value == (
        "<value that cannot be loaded: ModuleNotFoundError: no module of the job's>"
    )
    assert end.value_is_repr


def test_an_exception_that_cannot_be_loaded_arrives_as_its_text(monkeypatch):
    exception = ValueError("bad", OnlyThere())
    plain = plain_end(AttemptEnd("error", 1.0, error="ValueError: bad", exception=exception))
    monkeypatch.setattr(OnlyThere, "there", False)
    after = end_of(plain).exception
    assert (type(after), str(after)) == (JobError, "ValueError: bad")


def test_params_that_cannot_be_sent_are_named():
    attempt = Attempt(Job(7, {"f": lambda: None}), 1, "Thread-1_0")
    with pytest.raises(ConfigError, match=r"job 7 cannot be sent.*params cannot be pickled"):
        plain_attempt(attempt)


def test_a_pickler_of_ones_own_is_used():
    attempt = Attempt(Job(7, {"x": torch.float32}), 1, "Thread-1_0")

    def dumps(value):
        return b"mine" + pickle.dumps(value)

    plain = plain_attempt(attempt, dumps)
    assert plain["job"]["params"].startswith(b"mine")
    assert attempt_of(plain, lambda data: pickle.loads(data[4:])) == attempt


def test_all_but_users_objects_is_json():
    plain = plain_end(AttemptEnd("crashed", 1.0, location=("E", (("f.py", 3),)), serial=4))
    del plain["value"]
    assert json.loads(json.dumps(plain))["location"] == ["E", [["f.py", 3]]]
