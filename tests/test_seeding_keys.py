"""Jobs that never seed run torch's own operators; a job that seeds keeps its stream."""

import threading

import pytest
import torch

from junky_core.job.seeding import JobStreams, _operators, installed_streams


@pytest.fixture(autouse=True)
def no_operator_touched():
    """Take away what other tests have registered."""
    _operators.register_fallback()
    for key in (_operators.OWN, _operators.SHARED):
        fallback, *kernels = _operators._libraries[key]
        for library in kernels:
            library._destroy()
        _operators._libraries[key] = [fallback]
    _operators.register(_operators.OWN)
    with installed_streams(seeded=False):
        yield


def touched():
    """Whether draws of jobs that never seed reach kernels of ours."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(
        "aten::bernoulli_.float", _operators.SHARED
    )


def draw():
    return torch.rand(3).tolist()


def seeded_draws(times):
    torch.manual_seed(3)
    return [draw() for _ in range(times)]


def seed_at_the_top():
    torch.manual_seed(3)


def seed_in_a_block_of_the_job():
    from junky_core.job.seeding import current_streams

    with current_streams().thread():
        torch.manual_seed(3)


def seed_with_inference_mode_off():
    with torch.inference_mode(False):
        torch.manual_seed(3)


def seed_with_inference_mode_off_and_on():
    with torch.inference_mode(), torch.inference_mode(False):
        torch.manual_seed(3)


def seed_in_inference_mode():
    with torch.inference_mode():
        torch.manual_seed(3)


def seed_in_a_decorated_function():
    torch.inference_mode()(torch.manual_seed)(3)


def seed_in_backward():
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    y.register_hook(lambda grad: torch.manual_seed(3) and None)
    y.sum().backward()


def seed_in_a_python_kernel():
    with torch.library._scoped_library("junky_test_keys", "DEF") as library:
        library.define("seed(Tensor x) -> Tensor")
        library.impl("seed", lambda x: torch.manual_seed(3) and x.clone(), "CPU")
        torch.ops.junky_test_keys.seed(torch.ones(2))


def seed_in_a_dispatch_mode():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Seeding(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            torch.manual_seed(3)
            return func(*args, **(kwargs or {}))

    with Seeding():
        torch.ones(2).neg()


def seed_under_autocast():
    with torch.autocast("cpu"):
        torch.manual_seed(3)


def seed_in_a_thread():
    from junky_core.job.seeding import current_streams

    streams = current_streams()

    def seed():
        with streams.thread():
            torch.manual_seed(3)

    in_another_thread(seed)


def in_another_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


@pytest.mark.parametrize(
    "seed",
    [
        seed_at_the_top,
        seed_in_a_block_of_the_job,
        seed_with_inference_mode_off,
        seed_with_inference_mode_off_and_on,
        seed_in_inference_mode,
        seed_in_a_decorated_function,
        seed_in_backward,
        seed_in_a_python_kernel,
        seed_in_a_dispatch_mode,
        seed_under_autocast,
        seed_in_a_thread,
    ],
)
def test_a_stream_lasts_wherever_it_was_seeded_first(seed):
    with JobStreams().thread():
        seed()
        got = [draw()]
        in_another_thread(draw)
        with torch.inference_mode():
            got.append(draw())
        got.append(draw())
    assert got == seeded_draws(3)


@pytest.mark.parametrize("seed", [seed_at_the_top, seed_in_a_block_of_the_job])
def test_a_job_that_never_seeds_pays_nothing_for_one_that_does(seed):
    with JobStreams().thread():
        seed()
        draw()
    assert not touched()


def test_a_thread_of_the_job_that_does_not_seed_draws_from_its_stream():
    streams = JobStreams()
    began, seeded, got = threading.Event(), threading.Event(), []

    def helper():
        with streams.thread():
            began.set()
            seeded.wait(60)
            got.append(draw())

    thread = threading.Thread(target=helper)
    with streams.thread():
        thread.start()
        began.wait(60)
        torch.manual_seed(3)
        seeded.set()
        thread.join()
        got.append(draw())
    assert got == seeded_draws(2)


def test_a_job_after_a_job_that_seeded_has_nothing_of_it():
    torch.manual_seed(5)
    expected = draw()
    torch.manual_seed(5)
    with JobStreams().thread():
        torch.manual_seed(3)
    with JobStreams().thread():
        assert draw() == expected
    assert not touched()


def test_a_job_inside_a_job_that_seeds_meanwhile():
    outer = JobStreams()
    inner = JobStreams(outer=outer)
    with outer.thread():
        torch.manual_seed(4)
        with inner.thread():
            torch.manual_seed(3)
            got = [draw()]
        first = draw()
        with inner.thread():
            got.append(draw())
    assert got == seeded_draws(2)
    torch.manual_seed(4)
    assert first == draw()


def test_a_job_that_never_seeds_waits_while_a_state_is_lent():
    from torch.utils.flop_counter import FlopCounterMode

    drawing, done = threading.Event(), threading.Event()

    def other_job():
        with JobStreams().thread():
            while not done.is_set():
                torch.empty(100).uniform_()
                drawing.set()

    def observed():
        torch.manual_seed(3)
        with FlopCounterMode(display=False):  # it sees the job's calls: its state is lent
            return [torch.empty(10_000).uniform_().sum().item() for _ in range(300)]

    other = threading.Thread(target=other_job)
    other.start()
    drawing.wait(60)
    try:
        with JobStreams().thread():
            got = observed()
    finally:
        done.set()
        other.join()
    assert got == observed()
    assert touched()
