"""When two calls are the same call."""

import functools

import pytest
import torch

from junky_core.values.calls import Call


def make(*args, **kwargs):
    return args, kwargs


def same(first, second):
    return first.same_as(second) and second.same_as(first)


def call(function=make, *args, **kwargs):
    return Call(function, args, kwargs)


def in_a_task(batch_size):
    """As in a task function: each job creates a new lambda."""
    return call(lambda: make(batch_size))


def test_a_lambda_matches_itself_in_another_job():
    assert same(in_a_task(64), in_a_task(64))
    assert not same(in_a_task(64), in_a_task(128))


def test_two_lambdas_with_the_same_text_differ():
    assert not same(call(lambda: make(1)), call(lambda: make(2)))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (call(make, 1), call(make, 1), True),
        (call(make, 1), call(make, 1.0), False),
        (call(make, 1), call(make, True), False),
        (call(make, [1]), call(make, [1]), True),
        (call(make, [1]), call(make, [2]), False),
        (call(make, 1), call(make, x=1), False),
        (call(make, x=1, y=2), call(make, y=2, x=1), True),
        (call(make, x=1), call(make, y=1), False),
        (call(make), call(print), False),
        (call(functools.partial(make, 1)), call(functools.partial(make, 1)), True),
        (call(functools.partial(make, 1)), call(functools.partial(make, 2)), False),
        (call(functools.partial(make, k=1)), call(functools.partial(make, k=2)), False),
        (call(make, torch.ones(2)), call(make, torch.ones(2)), True),
        (call(make, torch.ones(2)), call(make, torch.zeros(2)), False),
    ],
)
def test_values_are_compared(first, second, expected):
    assert same(first, second) is expected


def test_an_argument_changed_in_place_makes_a_different_call():
    sizes = [1]
    first = call(make, sizes)
    sizes.append(2)
    assert not same(first, call(make, sizes))


def test_a_list_that_the_function_changes_does_not_make_a_different_call():
    def task():
        return call(lambda: counted.append(1))

    counted = []
    first = task()
    first.run()
    assert same(first, task())


def test_configs_closed_over_are_compared_by_content():
    omegaconf = pytest.importorskip("omegaconf")

    def task(cfg):
        return call(lambda: make(cfg.size))

    one = omegaconf.OmegaConf.create({"size": 1})
    assert same(task(one), task(omegaconf.OmegaConf.create({"size": 1})))
    assert not same(task(one), task(omegaconf.OmegaConf.create({"size": 2})))
    first = task(one)
    one.size = 3
    assert not same(first, task(one))


def test_functions_closed_over_are_compared_by_code():
    def task(size):
        def inner():
            return size

        return call(lambda: inner())

    assert same(task(1), task(1))
    assert not same(task(1), task(2))


def test_a_function_that_closes_over_itself_ends():
    def task():
        def recursive():
            return recursive

        return call(recursive)

    assert not same(task(), call(make))


def test_methods_belong_to_their_object():
    class Data:
        def load(self):
            return self

    one, two = Data(), Data()
    assert same(call(one.load), call(one.load))
    assert not same(call(one.load), call(two.load))


def test_defaults_count():
    def task(size):
        return call(lambda size=size: size)

    assert same(task(1), task(1))
    assert not same(task(1), task(2))
