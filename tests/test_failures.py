"""What an exception means, and that its frames let go of tensors."""

import gc
import traceback
import weakref

import pytest
import torch

from junky_core.errors import JobStopped
from junky_core.failures import FatalJobError, describe, release_frames


def caught(error):
    try:
        raise error
    except BaseException as got:
        return got


@pytest.mark.parametrize(
    ("error", "kind", "host"),
    [
        (ValueError("x"), "error", False),
        (MemoryError(), "oom", True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "oom", False),
        (RuntimeError("CUDA out of memory"), "oom", False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), "oom", False),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"), "oom", True),
        (RuntimeError("CUDA error: device-side assert triggered"), "poisoned", False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "poisoned", False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "error", False),
        (ValueError("out of memory"), "error", False),
        (JobStopped("late", "timeout"), "timeout", False),
        (JobStopped("^C", "interrupted"), "interrupted", False),
        (SystemExit(1), "error", False),
        (FatalJobError("x"), "fatal", False),
    ],
)  # fmt: skip
def test_kinds(error, kind, host):
    failure = describe(caught(error))
    assert (failure.kind, failure.host_memory) == (kind, host)


def test_a_wrapped_out_of_memory_is_one():
    error = ValueError("could not build")
    error.__cause__ = torch.OutOfMemoryError("CUDA out of memory")
    assert describe(error).kind == "oom"


def test_the_error_is_told_by_its_last_line_and_its_whole_traceback():
    failure = describe(caught(ValueError("bad width")))
    assert failure.error == "ValueError: bad width"
    assert "raise error" in failure.traceback


def test_the_same_line_has_the_same_location():
    def fail(text):
        raise ValueError(text)

    def location(call):
        try:
            call()
        except ValueError as error:
            return describe(error).location

    def other():
        raise ValueError

    assert location(lambda: fail("a")) == location(lambda: fail("b"))
    assert location(lambda: fail("a")) != location(other)


def test_released_frames_let_go_of_tensors():
    def train():
        batch = torch.ones(10)
        seen.append(weakref.ref(batch))
        raise ValueError("dead")

    def wrapped():
        model = torch.nn.Linear(1, 1)
        seen.append(weakref.ref(model))
        try:
            train()
        except ValueError as error:
            raise RuntimeError("while training") from error

    seen = []
    try:
        wrapped()
    except RuntimeError as error:
        failure = describe(error)
    release_frames(failure.exception)
    gc.collect()
    assert [ref() for ref in seen] == [None, None]
    assert failure.exception.__traceback__ is not None


def test_released_frames_let_go_of_closures():
    def wrapped():
        model = torch.nn.Linear(1, 1)
        seen.append(weakref.ref(model))

        def closure():
            raise ValueError(f"dead: {type(model)}")

        closure()

    seen = []
    try:
        wrapped()
    except ValueError as error:
        failure = describe(error)
    release_frames(failure.exception)
    gc.collect()
    assert seen[0]() is None


def test_a_released_traceback_shows_files_lines_and_names():
    def wrapped():
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error

    def shown(link):
        stack = traceback.extract_tb(link.__traceback__)
        return [(frame.filename, frame.lineno, frame.name, frame.line) for frame in stack]

    try:
        wrapped()
    except ValueError as error:
        links = [error, error.__cause__]
    before = [shown(link) for link in links]
    release_frames(links[0])
    assert [shown(link) for link in links] == before
    assert [name for *_, name, _ in before[0]] == [
        "test_a_released_traceback_shows_files_lines_and_names",
        "wrapped",
    ]
