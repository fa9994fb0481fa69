"""Rich's global console: each job has its own."""

import io
import threading

import pytest
import rich
import torch
from rich.console import Console
from rich.live import Live

from junky_core import torch_autotrain
from junky_core.job.consoles import consoles_apart
from junky_core.job.scopes import JobScope, enter_scope


@pytest.fixture(autouse=True)
def the_process_has_a_console():
    before = rich.get_console()
    yield
    assert rich.get_console() is before
    assert type(before) is Console


def test_a_job_always_gets_the_same_console_of_its_own():
    plain = rich.get_console()
    one, two = JobScope(None), JobScope(None)
    with consoles_apart():
        with enter_scope(one):
            rich.get_console().mark = 1
        with enter_scope(two):
            assert not hasattr(rich.get_console(), "mark")
        with enter_scope(one):
            assert rich.get_console().mark == 1
        assert not hasattr(plain, "mark")


def test_a_thread_of_no_job_gets_the_processs_console():
    plain = rich.get_console()
    with consoles_apart():
        rich.get_console().mark = 1
    assert plain.mark == 1
    del plain.mark


def test_the_replacement_is_a_console():
    with consoles_apart(), enter_scope(JobScope(None)):
        assert isinstance(rich.get_console(), Console)
        with rich.get_console() as entered:
            assert isinstance(entered, Console)
        assert "console" in repr(rich.get_console())


def test_a_job_may_replace_its_console():
    written = io.StringIO()
    with consoles_apart():
        with enter_scope(JobScope(None)):
            rich.reconfigure(file=written, width=7, force_terminal=True)
            rich.print("words")
            assert rich.get_console().width == 7
            assert not rich.get_console().is_terminal
        assert rich.get_console().width != 7
    assert written.getvalue() == "words\n"


def test_jobs_of_a_sweep_inside_a_job_have_their_own_consoles():
    outer = JobScope(None)
    with consoles_apart(), enter_scope(outer):
        rich.get_console().mark = 1
        with enter_scope(JobScope(None, parent=outer)):
            assert not hasattr(rich.get_console(), "mark")


def test_a_reference_to_the_console_taken_in_a_job_is_the_processs_afterwards():
    with consoles_apart(), enter_scope(JobScope(None)):
        kept = rich.get_console()
    assert kept.width == rich.get_console().width


def test_a_reference_taken_before_the_sweep_gives_the_jobs_console():
    kept = rich.get_console()
    with consoles_apart(), enter_scope(JobScope(None)):
        kept.mark = 1
        assert rich.get_console().mark == 1
    assert not hasattr(kept, "mark")


def test_a_console_made_by_the_app_is_unchanged():
    own = Console()
    with consoles_apart(), enter_scope(JobScope(None)):
        own.mark = 1
    assert own.mark == 1


def test_overlapping_blocks_end_with_the_last():
    first, second = consoles_apart(), consoles_apart()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    with enter_scope(JobScope(None)):
        rich.get_console().mark = 1
    second.__exit__(None, None, None)
    assert not hasattr(rich.get_console(), "mark")


def test_two_jobs_at_the_same_time_can_each_show_a_display(capsys, tmp_path):
    together = threading.Barrier(2, timeout=30)

    def train(_device, _loaders, model, save_best, _log_prefix):
        with Live(f"bar of {model.in_features}", console=rich.get_console(), auto_refresh=False):
            together.wait()
            displays = len(rich.get_console()._live_stack)
            save_best(model, model.in_features)
            together.wait()
        return displays

    result = torch_autotrain(
        lambda width: torch.nn.Linear(width, 1),
        train,
        make_model_fit_params=[("width", [1, 2])],
        devices="cpu*2",
        max_retries=0,
        best_model_file_name=tmp_path / "model.pt",
    )
    assert not result.failed
    assert [value for *_, value in result.stats] == [1, 1]
    out = capsys.readouterr().out
    assert out.count("bar of 1") == out.count("bar of 2") == 1
