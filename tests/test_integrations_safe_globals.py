"""torch's list of what ``torch.load`` accepts, used by several jobs at the same time."""

import contextlib
import fractions
import io
import threading

import pytest
import torch
import torch._weights_only_unpickler as unpickler
from torch.serialization import (
    add_safe_globals,
    clear_safe_globals,
    get_safe_globals,
    safe_globals,
)

from junky_core import torch_autotrain
from junky_core.job.libraries.safe_globals import safe_globals_counted

NEEDED = [fractions.Fraction]
REMOVE = unpickler._remove_safe_globals


@pytest.fixture(autouse=True)
def the_list_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before, functions = set(get_safe_globals()), (unpickler._add_safe_globals, REMOVE)
    assert before.isdisjoint(NEEDED)
    yield
    REMOVE(NEEDED)
    assert set(get_safe_globals()) == before
    assert (unpickler._add_safe_globals, unpickler._remove_safe_globals) == functions


def sweep(first, second):
    jobs = [first, second]
    result = torch_autotrain(
        lambda at: (torch.nn.Linear(1, 1), at),
        lambda _device, _loaders, _model, at, _save, _prefix: jobs[at](),
        make_model_fit_params=[("at", [0, 1])],
        devices="cpu*2",
        max_retries=0,
        progress=False,
    )
    assert not result.failed, result.failed[0].traceback


def load():
    saved = io.BytesIO()
    torch.save(fractions.Fraction(1, 3), saved)
    saved.seek(0)
    assert torch.load(saved, weights_only=True) == fractions.Fraction(1, 3)


@contextlib.contextmanager
def as_accelerate_does(needed):
    before = get_safe_globals()
    add_safe_globals(needed)
    try:
        yield
    finally:
        clear_safe_globals()
        if before:
            add_safe_globals(before)


@contextlib.contextmanager
def for_good(needed):
    add_safe_globals(needed)
    yield


@pytest.mark.parametrize("theirs", [safe_globals, as_accelerate_does])
@pytest.mark.parametrize("ours", [safe_globals, as_accelerate_does, for_good])
def test_what_another_job_removes_stays_until_this_job_removes_it(theirs, ours):
    entered, added, left = (threading.Event() for _ in range(3))

    def leaves_first():
        with theirs(NEEDED):
            entered.set()
            assert added.wait(30)
        left.set()

    def needs_it_still():
        assert entered.wait(30)
        with ours(NEEDED):
            added.set()
            assert left.wait(30)
            load()

    sweep(leaves_first, needs_it_still)
    assert (fractions.Fraction in get_safe_globals()) is (ours is for_good)


def test_after_the_last_block_it_is_refused_again():
    done = threading.Event()

    def uses_it():
        with safe_globals(NEEDED):
            load()
        done.set()

    def comes_after():
        assert done.wait(30)
        with pytest.raises(Exception, match="Weights only load failed"):
            load()

    sweep(uses_it, comes_after)


def test_a_wrapper_added_inside_the_block_works_after_it(monkeypatch):
    monkeypatch.setattr(unpickler, "_add_safe_globals", unpickler._add_safe_globals)
    plain, calls = unpickler._add_safe_globals, []
    with safe_globals_counted():
        ours = unpickler._add_safe_globals

        def theirs(entries):
            calls.append(entries)
            ours(entries)

        unpickler._add_safe_globals = theirs
    for _ in range(2):
        with safe_globals(NEEDED):
            load()
        with safe_globals_counted(), safe_globals(NEEDED):
            load()
    assert calls == [NEEDED] * 4
    assert unpickler._add_safe_globals is theirs
    unpickler._add_safe_globals = plain
