"""Forked children, DataLoader workers among them, find no lock held that seeding takes."""

import os
import textwrap

import pytest
import warm_start

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

LOCKS = {
    "torch.mtia": "torch.mtia._initialization_lock",
    "torch.cuda": "torch.cuda._initialization_lock",
    "numpy": "numpy.random.mtrand._rand._bit_generator.lock",
}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_child_forked_while_another_job_seeds_or_draws_can_seed(lock):
    script = f"""
        import os, signal, threading, warnings
        import numpy, torch
        from junky_core.job.seeding import JobStreams, installed_streams

        warnings.simplefilter("ignore", DeprecationWarning)
        held, done = threading.Event(), threading.Event()
        lock = {LOCKS[lock]}  # found before a sweep puts another object there

        def other_job():
            with JobStreams().thread():
                while not done.is_set():
                    with lock:
                        held.set()
                        done.wait(0.05)
                    done.wait(0.001)

        def child():
            signal.alarm(20)
            torch.manual_seed(3)
            numpy.random.seed(3)
            os._exit(0)

        with installed_streams(seeded=False), JobStreams().thread():
            thread = threading.Thread(target=other_job)
            thread.start()
            held.wait(60)
            try:
                for _ in range(3):
                    pid = os.fork()
                    if pid == 0:
                        child()
                    assert os.waitpid(pid, 0)[1] == 0  # else it was ended
            finally:
                done.set()
        assert lock.acquire(timeout=20)
    """
    warm_start.checked(["-c", textwrap.dedent(script)])


def test_a_child_forked_while_another_job_is_in_a_long_draw_can_seed():
    script = """
        import os, signal, threading, warnings
        import torch
        from junky_core.job.seeding import JobStreams, installed_streams

        warnings.simplefilter("ignore", DeprecationWarning)
        drawing = threading.Event()

        def other_job():
            x = torch.ones(50_000_000, dtype=torch.bool)
            with JobStreams().thread():
                drawing.set()
                x.bernoulli_()  # takes longer than the fork needs to get ready

        with installed_streams(seeded=False), JobStreams().thread():
            thread = threading.Thread(target=other_job)
            thread.start()
            drawing.wait(60)
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                torch.manual_seed(3)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0  # else it was ended
            thread.join()
    """
    warm_start.checked(["-c", textwrap.dedent(script)])
