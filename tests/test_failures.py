"""How exceptions are classified, and that their frames free tensors."""

import gc
import os
import traceback
import weakref
from pathlib import Path

import pytest
import torch

import junky_core
from junky_core.errors import JobStopped
from junky_core.job.failures import FatalJobError, describe, release_frames, settle, showable


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


def test_a_failure_has_the_last_line_and_the_whole_traceback():
    failure = describe(caught(ValueError("bad width")))
    assert failure.error == "ValueError: bad width"
    assert "raise error" in failure.traceback


def test_frames_of_a_folder_with_a_similar_name_are_shown():
    beside = f"{Path(junky_core.__file__).parent}_x{os.sep}train.py"
    names = {}
    exec(compile("def train(job):\n    job()", beside, "exec"), names)

    def job():
        raise ValueError("x")

    with pytest.raises(ValueError, match="x") as error:
        names["train"](job)
    outer = error.value.__traceback__.tb_next  # the first frame is this test's
    failure = describe(error.value.with_traceback(outer))
    assert f'File "{beside}", line 2, in train' in failure.traceback


def test_the_same_line_of_a_library_is_not_the_same_location():
    import json

    def first():
        json.loads("{")

    def second():
        json.loads("{")

    def location(call):
        try:
            call()
        except ValueError as error:
            return describe(error).location

    assert location(first) == location(first)
    assert location(first) != location(second)


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


def test_released_frames_free_tensors():
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


def test_released_frames_free_closures():
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


def accelerator_error(code, text="CUDA error"):
    if not hasattr(torch, "AcceleratorError"):
        pytest.skip("this torch has no AcceleratorError")
    error = torch.AcceleratorError(text)
    error.error_code = code
    return error


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (2, "oom"),
        (700, "poisoned"),
        (710, "poisoned"),
        (719, "poisoned"),
        (1, "error"),
        (98, "error"),
    ],
)
def test_an_accelerators_error_is_classified_by_its_code_before_its_text(code, kind):
    assert describe(accelerator_error(code)).kind == kind


def test_the_code_goes_before_the_text():
    assert describe(accelerator_error(710, "CUDA error: out of memory")).kind == "poisoned"


def test_a_number_in_another_error_is_not_an_error_code():
    error = RuntimeError("server said no")
    error.error_code = 700
    assert describe(error).kind == "error"


@pytest.mark.parametrize("library", ["CUBLAS", "CUDNN", "CUSOLVER", "CUSPARSE", "HIPBLAS"])
@pytest.mark.parametrize(
    ("status", "kind", "certain"),
    [
        ("NOT_INITIALIZED", "oom", True),
        ("ALLOC_FAILED", "oom", True),
        ("EXECUTION_FAILED", "poisoned", False),
        ("INVALID_VALUE", "error", True),
    ],
)
def test_the_status_of_a_library_is_known(library, status, kind, certain):
    failure = describe(RuntimeError(f"error: {library}_STATUS_{status} when calling `f(handle)`"))
    assert (failure.kind, failure.certain) == (kind, certain)


@pytest.mark.parametrize(
    ("text", "kind", "host"),
    [
        ("level_zero backend failed with error: 20 (UR_RESULT_ERROR_DEVICE_LOST)", "poisoned", False),
        ("level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)", "oom", False),
        ("level_zero backend failed with error: 38 (UR_RESULT_ERROR_OUT_OF_HOST_MEMORY)", "oom", True),
        ("MPS backend out of memory (MPS allocated: 9 GB)", "oom", False),
        ("HIP error: an illegal memory access was encountered", "poisoned", False),
        ("cuFFT error: CUFFT_ALLOC_FAILED", "oom", False),
        ("CUDA error: insufficient resources when calling `cusparseSpMM(handle)`", "oom", False),
        ("CUDA driver error: out of memory", "oom", False),
        ("out of resource: shared memory, Required: 131072, Hardware limit: 101376", "error", False),
        ("CUDA error: the launch timed out and was terminated", "poisoned", False),
    ],
)  # fmt: skip
def test_other_backends_errors_are_known(text, kind, host):
    failure = describe(RuntimeError(text))
    assert (failure.kind, failure.host_memory) == (kind, host)


def test_settling_keeps_the_end_of_a_sweep_and_a_fatal_error():
    def synchronize():
        raise RuntimeError("CUDA error: device-side assert triggered")

    for error in (JobStopped("^C", "interrupted"), FatalJobError("x"), KeyboardInterrupt()):
        failure = describe(error)
        assert settle(failure, synchronize) is failure


def test_settling_without_a_device_changes_nothing():
    failure = describe(RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"))
    assert settle(failure, lambda: False).kind == "poisoned"


# -- endless and strange texts -------------------------------------------------------------------


def raised(error):
    try:
        raise error
    except Exception as caught:
        return describe(caught)


@pytest.mark.parametrize("text", ["x" * 10**6, "line\n" * 10**5 + "end", "😀" * 10**5])
def test_an_endless_text_is_cut_and_kept_whole_in_a_file(tmp_path, text):
    failure = raised(ValueError(text))
    failure.keep_whole(tmp_path, "Thread-1_0")
    path = tmp_path / "error-Thread-1_0.txt"
    assert text in path.read_text(encoding="utf-8")
    assert f"the whole text is in {path}" in failure.traceback
    assert len(failure.traceback.encode()) < 20_500
    assert len(failure.error.encode()) < 2_100
    assert failure.traceback.startswith("Traceback")


def test_an_endless_text_is_cut_where_there_is_no_file_for_it(tmp_path):
    failure = raised(ValueError("x" * 10**6))
    failure.keep_whole(None, "Thread-1_0")
    assert "characters left out ..." in failure.traceback
    failure = raised(ValueError("x" * 10**6))
    failure.keep_whole(tmp_path / "away", "Thread-1_0")
    assert "could not be written" in failure.traceback
    assert len(failure.traceback) < 20_500


def test_a_short_text_makes_no_file(tmp_path):
    failure = raised(ValueError("x\x1b[31m\r\n\0y"))
    failure.keep_whole(tmp_path, "Thread-1_0")
    assert list(tmp_path.iterdir()) == []
    assert failure.error == "ValueError: x\\x1b[31m\\r\n\\x00y"
    assert "\x1b" not in failure.traceback


def test_errors_with_endless_text_or_control_characters_are_not_showable():
    assert showable(ValueError("short")) is not None
    for text in ("x" * 10**6, "\x1b[31m"):
        assert showable(ValueError(text)) is None
        outer = ValueError("short")
        outer.__cause__ = ValueError(text)
        assert showable(outer) is None
    assert showable(None) is None


def test_the_whole_text_replaces_a_link(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "error-Thread-1_0.txt").symlink_to(tmp_path / "precious")
    failure = describe(ValueError("x" * 30_000))
    failure.keep_whole(tmp_path, "Thread-1_0")
    assert (tmp_path / "precious").read_text() == "precious"
    assert "xxx" in (tmp_path / "error-Thread-1_0.txt").read_text()
