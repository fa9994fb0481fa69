"""Once a job seeds a generator, it draws from its own stream."""

import multiprocessing
import random
import signal
import textwrap
import threading

import numpy as np
import pytest
import torch
import warm_start
from torch import nn
from torch.utils.checkpoint import checkpoint

from junky_core.job.seeding import JobStreams, current_streams, installed_streams

A_TORCH_STATE = torch.Generator().manual_seed(3).get_state()
A_PYTHON_STATE = random.Random(3).getstate()
A_NUMPY_STATE = np.random.RandomState(3).get_state()


def draw_torch():
    return torch.rand(3).tolist()


def draw_python():
    return [random.random(), random.gauss(0, 1), random.randint(0, 99)]


def draw_numpy():
    return np.random.rand(3).tolist()


DRAWS = {"torch": draw_torch, "python": draw_python, "numpy": draw_numpy}


def in_another_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def disturb():
    """Draw and seed, as another job at the same time."""

    def job():
        with JobStreams().thread():
            draw_all()
            torch.manual_seed(99)
            random.seed(99)
            np.random.seed(99)
            draw_all()

    in_another_thread(job)
    in_another_thread(draw_all)


def draw_all():
    return [draw() for draw in DRAWS.values()]


def process_wide():
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


@pytest.fixture(autouse=True)
def in_a_sweep():
    with installed_streams(seeded=False):
        yield


SEEDING = {
    "torch.manual_seed": ("torch", lambda: torch.manual_seed(3)),
    "torch.random.manual_seed": ("torch", lambda: torch.random.manual_seed(3)),
    "default_generator.manual_seed": ("torch", lambda: torch.default_generator.manual_seed(3)),
    "torch.set_rng_state": ("torch", lambda: torch.set_rng_state(A_TORCH_STATE)),
    "default_generator.set_state": (
        "torch",
        lambda: torch.default_generator.set_state(A_TORCH_STATE),
    ),
    "random.seed": ("python", lambda: random.seed(3)),
    "random.setstate": ("python", lambda: random.setstate(A_PYTHON_STATE)),
    "numpy.random.seed": ("numpy", lambda: np.random.seed(3)),
    "numpy.random.set_state": ("numpy", lambda: np.random.set_state(A_NUMPY_STATE)),
    "numpy's global object": ("numpy", lambda: np.random.mtrand._rand.seed(3)),
}


@pytest.mark.parametrize("name", SEEDING)
def test_a_job_has_its_own_stream_once_it_seeds(name):
    kind, seed = SEEDING[name]
    draw = DRAWS[kind]
    before = process_wide()
    with JobStreams().thread():
        seed()
        got = draw()
        in_another_thread(draw)  # of no job
        before_other = process_wide_in_thread()
        got += draw()
        assert process_wide_in_thread() == before_other
    random.setstate(before[1])
    torch.set_rng_state(torch.tensor(before[0], dtype=torch.uint8))
    np.random.set_state(("MT19937", before[2], np.random.get_state()[2]))
    seed()
    assert got == draw() + draw()


def process_wide_in_thread():
    got = []
    in_another_thread(lambda: got.append(process_wide()))
    return got[0]


@pytest.mark.parametrize("name", [*SEEDING, "torch.seed", "fork_rng"])
def test_the_process_sees_nothing_of_it(name):
    before = process_wide()
    with JobStreams().thread():
        if name == "torch.seed":
            torch.seed()
            draw_torch()
        elif name == "fork_rng":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(1)
                draw_torch()
            draw_torch()
        else:
            kind, seed = SEEDING[name]
            seed()
            DRAWS[kind]()
    assert process_wide() == before
    assert current_streams() is None


@pytest.mark.parametrize("kind", DRAWS)
def test_only_the_generator_that_it_seeds(kind):
    others = {name: draw for name, draw in DRAWS.items() if name != kind}
    state = process_wide()
    expected = {name: draw() for name, draw in others.items()}
    torch.set_rng_state(torch.tensor(state[0], dtype=torch.uint8))
    random.setstate(state[1])
    np.random.seed(4)
    expected["numpy"] = draw_numpy()
    np.random.seed(4)
    with JobStreams().thread():
        {"torch": torch.manual_seed, "python": random.seed, "numpy": np.random.seed}[kind](3)
        DRAWS[kind]()
        got = {name: draw() for name, draw in others.items()}
    assert got == {name: expected[name] for name in others}


def test_a_job_that_never_seeds_draws_from_the_process():
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    expected = draw_all() + draw_all()
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    with JobStreams().thread():
        got = draw_all()
    assert got + draw_all() == expected


def test_seeding_inside_inference_mode_lasts_beyond_it():
    with JobStreams().thread():
        with torch.inference_mode():
            torch.manual_seed(3)
            got = draw_torch()
        disturb()
        got += draw_torch()
    torch.manual_seed(3)
    assert got == draw_torch() + draw_torch()


def test_a_job_may_be_entered_inside_inference_mode():
    with torch.inference_mode(), JobStreams().thread():
        torch.manual_seed(3)
        got = draw_torch()
    torch.manual_seed(3)
    assert got == draw_torch()


@pytest.mark.parametrize("mode", [torch.no_grad, lambda: torch.device("meta")])
def test_the_first_seeding_of_a_process_may_come_in_any_mode(mode, monkeypatch):
    from junky_core.job.seeding import _globals

    monkeypatch.setattr(_globals, "_checked", False)
    with JobStreams().thread():
        with mode():
            torch.manual_seed(3)
        got = draw_torch()
    torch.manual_seed(3)
    assert got == draw_torch()


def test_a_job_that_seeds_again():
    with JobStreams().thread():
        got = []
        for _epoch in range(3):
            torch.manual_seed(3)
            disturb()
            got.append(draw_torch())
    assert got[0] == got[1] == got[2]


def test_threads_begun_before_draw_from_the_job_too():
    streams = JobStreams()
    seeded, got = threading.Event(), []

    def helper():
        with streams.thread():
            seeded.wait(60)
            got.append(draw_all())

    thread = threading.Thread(target=helper)
    thread.start()
    with streams.thread():
        torch.manual_seed(3)
        random.seed(3)
        np.random.seed(3)
        seeded.set()
        thread.join()
        got.append(draw_all())
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    assert got == [draw_all(), draw_all()]


def test_backward_of_a_job_that_seeded_draws_from_it():
    def run():
        x = torch.ones(4, requires_grad=True)
        y = x * 1.0
        y.register_hook(lambda grad: grad + torch.randn_like(grad))
        y.sum().backward()
        return x.grad.tolist()

    with JobStreams().thread():
        torch.manual_seed(3)
        got = run(), run()
    torch.manual_seed(3)
    assert got == (run(), run())


# Looked up when called, because a sweep replaces them.
GET_STATE = {
    "torch": lambda: torch.get_rng_state(),
    "python": lambda: random.getstate(),
    "numpy": lambda: np.random.get_state(),
}
SET_STATE = {
    "torch": lambda state: torch.set_rng_state(state),
    "python": lambda state: random.setstate(state),
    "numpy": lambda state: np.random.set_state(state),
}


@pytest.mark.parametrize("kind", DRAWS)
def test_a_state_fits_what_is_drawn_after_it_without_any_seed(kind):
    with JobStreams().thread():
        state = GET_STATE[kind]()
        disturb()
        first = DRAWS[kind]()
        disturb()
        SET_STATE[kind](state)
        disturb()
        assert DRAWS[kind]() == first


@pytest.mark.parametrize("kind", DRAWS)
def test_reading_a_state_gives_the_job_its_own_copy_of_it(kind):
    state = GET_STATE[kind]()
    drawn = []
    for _ in range(3):
        with JobStreams().thread():
            GET_STATE[kind]()
            drawn.append(DRAWS[kind]())
    SET_STATE[kind](state)
    assert drawn[0] == DRAWS[kind]()  # what a plain script draws
    assert drawn[0] != drawn[1] != drawn[2] != drawn[0]  # unlike anything else


def test_after_fork_rng_the_earlier_state_is_back():
    with JobStreams().thread():
        torch.manual_seed(3)
        first = draw_torch()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            disturb()
            inside = draw_torch()
        second = draw_torch()
    torch.manual_seed(3)
    assert first + second == draw_torch() + draw_torch()
    torch.manual_seed(4)
    assert inside == draw_torch()


def test_checkpointing_without_any_seed_draws_the_same_again():
    masks = []

    def dropped(x):
        y = nn.functional.dropout(x, 0.5)
        masks.append((y != 0).tolist())
        return y * y

    with JobStreams().thread():
        y = checkpoint(dropped, torch.ones(64, requires_grad=True), use_reentrant=False)
        disturb()
        y.sum().backward()
    assert masks[0] == masks[1]


def test_two_jobs_that_seed_draw_at_the_same_time():
    barrier, got = threading.Barrier(2), {}

    def job(seed):
        with JobStreams().thread():
            barrier.wait(60)
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)
            rows = []
            for _ in range(50):
                barrier.wait(60)
                rows.append(draw_all())
            got[seed] = rows

    threads = [threading.Thread(target=job, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, rows in got.items():
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        assert rows == [draw_all() for _ in rows]


def test_an_invalid_state_leaves_the_job_able_to_draw():
    with JobStreams().thread():
        with pytest.raises((TypeError, RuntimeError)):
            torch.set_rng_state(torch.zeros(3, dtype=torch.uint8))
        with pytest.raises((TypeError, ValueError)):
            random.setstate("none")
        draw_all()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("seeds", [False, True])
def test_a_forked_child_draws_as_its_job_would(seeds):
    context = multiprocessing.get_context("fork")

    def child(pipe):
        pipe.send((current_streams() is not None, torch.rand(2).tolist()))
        pipe.close()

    with JobStreams().thread():
        if seeds:
            torch.manual_seed(3)
        mine, theirs = context.Pipe()
        process = context.Process(target=child, args=(theirs,))
        process.start()
        theirs.close()
        in_job, drawn = mine.recv()
        process.join()
        assert drawn == torch.rand(2).tolist()
    assert in_job is seeds  # else the child has the process-wide generators to itself


def test_no_operator_is_touched_until_a_job_seeds():
    script = """
        import torch
        from junky_core.job.seeding import JobStreams

        def touched():
            return torch._C._dispatch_has_kernel_for_dispatch_key(
                "aten::bernoulli_.float", "TESTING_ONLY_GenericMode"
            )

        with JobStreams().thread():
            torch.nn.functional.dropout(torch.ones(9)), torch.initial_seed()
            assert not touched()
            torch.manual_seed(1)
            assert touched()
    """
    warm_start.checked(["-c", textwrap.dedent(script)])


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="no fork")
@pytest.mark.parametrize("first", ["pass", "random.seed(1)", "torch.manual_seed(1)"])
def test_a_child_forked_while_another_job_draws_can_seed(first):
    script = f"""
        import multiprocessing, random, signal, threading, warnings
        import torch
        from junky_core.job.seeding import JobStreams, installed_streams

        warnings.simplefilter("ignore", DeprecationWarning)
        drawing, done = threading.Event(), threading.Event()

        def draw():
            x = torch.ones(3000)
            with JobStreams().thread():
                while not done.is_set():
                    torch.nn.functional.dropout(x)
                    drawing.set()

        def child(pipe):
            signal.alarm(20)
            torch.manual_seed(3)
            pipe.send(torch.rand(2).tolist())

        context = multiprocessing.get_context("fork")
        with installed_streams(seeded=False):
            other = threading.Thread(target=draw)
            other.start()
            drawing.wait(60)
            try:
                with JobStreams().thread():
                    {first}
                    for _ in range(6):
                        mine, theirs = context.Pipe()
                        process = context.Process(target=child, args=(theirs,))
                        process.start()
                        theirs.close()
                        expected = torch.rand(2, generator=torch.Generator().manual_seed(3))
                        assert mine.recv() == expected.tolist()  # EOFError: it was ended
                        process.join()
            finally:
                done.set()
    """
    warm_start.checked(["-c", textwrap.dedent(script)])
