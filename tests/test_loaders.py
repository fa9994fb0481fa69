"""Loader sets are built once for the same call; shared data once a process."""

import threading

import pytest

from junky_core.job.loaders import LoaderSets, SharedData
from junky_core.values.calls import Call


class Factory:
    """A factory that counts."""

    def __init__(self):
        self.calls = []

    def __call__(self, *args, **kwargs):
        self.calls.append(args)
        return object()


def ask(sets, factory, *args, **options):
    return sets.get(Call(factory, args, {}), [], **options)


def test_the_same_call_is_made_once():
    sets, factory = LoaderSets(None), Factory()
    assert ask(sets, factory, 1) is ask(sets, factory, 1)
    assert factory.calls == [(1,)]


def test_the_last_two_sets_stay():
    sets, factory = LoaderSets(None), Factory()
    for size in (1, 2, 1, 3, 1, 2):
        ask(sets, factory, size)
    assert [size for (size,) in factory.calls] == [1, 2, 3, 2]


def test_a_pinned_set_is_never_dropped():
    sets, factory = LoaderSets(None), Factory()
    first = ask(sets, factory, 0, pin=True)
    for size in (1, 2, 3, 4):
        ask(sets, factory, size)
    assert ask(sets, factory, 0) is first


def test_a_factory_that_raises_is_called_again():
    sets, broken = LoaderSets(None), [True]

    def factory():
        if broken:
            broken.pop()
            raise OSError("gone")
        return "loader"

    with pytest.raises(OSError, match="gone"):
        ask(sets, factory)
    assert not sets.has(Call(factory, (), {}))
    assert ask(sets, factory) == "loader"
    assert sets.has(Call(factory, (), {}))


def test_shared_data_is_built_once_when_all_slots_ask_at_the_same_time():
    shared, factory, barrier, got = SharedData(None), Factory(), threading.Barrier(8), []

    def ask_shared():
        barrier.wait(60)
        got.append(shared.get(Call(factory, ("data",), {}), []))

    threads = [threading.Thread(target=ask_shared) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(factory.calls) == 1
    assert len(set(map(id, got))) == 1


def test_different_shared_data_are_built_at_the_same_time():
    shared, barrier = SharedData(None), threading.Barrier(2)

    def factory(name):
        barrier.wait(60)  # passes only if the other is being built too
        return name

    got = []
    threads = [
        threading.Thread(target=lambda n=n: got.append(shared.get(Call(factory, (n,), {}), [])))
        for n in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == ["a", "b"]
