import io
import logging
import os
import re
import sys
import time

import pytest
from sweep_events import begin, ended, fail, finish, score, started

from junky_core.logs.parser import parse_autotrain_log
from junky_core.logs.text_log import SweepLog
from junky_core.views.progress import Progress


class Terminal(io.StringIO):
    """Records its input; ``screen`` is what a user would see."""

    encoding = "utf-8"

    def isatty(self):
        return True

    def screen(self):
        lines, row = [""], 0
        for part in re.split(r"(\x1b\[\d*[A-Za-z]|\x1b\[[\d;]*m|\r|\n)", self.getvalue()):
            if part == "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            elif part == "\r" or (part.endswith("m") and part.startswith("\x1b")):
                continue  # every carriage return here is followed by an erasure
            elif part.startswith("\x1b"):
                if part.endswith("A"):
                    row -= int(part[2:-1])
                elif part.endswith("J"):
                    lines[row:] = [""]
                else:
                    raise AssertionError(part)
            else:
                lines[row] += part
        return lines


@pytest.fixture
def terminal(monkeypatch):
    # Taken by the test itself: between fixtures and test, pytest sets its own stdout again.
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    terminal.take = lambda: monkeypatch.setattr(sys, "stdout", terminal)
    return terminal


def run(progress, between=lambda: None):
    progress.on_event(started(2))
    progress.on_event(begin(0))
    between()
    progress.on_event(score(0, 0.5))
    progress.on_event(finish(0, 0.5))
    progress.on_event(begin(1))
    progress.on_event(fail(1))
    progress.on_event(ended(finished=1, failed=1))


def test_the_terminal_shows_how_it_ended(terminal):
    terminal.take()
    run(Progress())
    screen = "\n".join(terminal.screen())
    assert "2/2 done" in screen
    assert "1 failed" in screen
    assert "best 0.5  job 0 (Thread-1_0)" in screen
    assert screen.count("done") == 1  # what was drawn before is gone


def test_printed_lines_appear_unchanged_above_the_display(terminal):
    terminal.take()
    long = "x" * 300

    progress = Progress()

    def say():
        for n in range(3):
            progress._display._draw()
            print("line", n, long)
        print("no end", end="")
        print(" of line")

    run(progress, say)
    lines = terminal.screen()
    assert lines[:4] == [f"line {n} {long}" for n in range(3)] + ["no end of line"]
    assert "done" in lines[4]


def test_log_records_stay_above_too(terminal):
    terminal.take()
    logger = logging.getLogger("test_progress")
    handler = logging.StreamHandler(terminal)
    logger.addHandler(handler)
    try:
        run(Progress(), lambda: logger.warning("from logging"))
        assert terminal.screen()[0] == "from logging"
        assert handler.stream is terminal
    finally:
        logger.removeHandler(handler)


def test_the_streams_are_given_back(terminal):
    terminal.take()
    run(Progress())
    assert sys.stdout is terminal


def test_a_redirection_by_other_code_is_kept(terminal):
    terminal.take()
    progress, other = Progress(), io.StringIO()
    progress.on_event(started(1))
    sys.stdout = other
    progress.on_event(ended())
    assert sys.stdout is other


def test_a_line_that_did_not_end_is_not_lost(terminal):
    terminal.take()
    run(Progress(), lambda: print("10%\r50%\r100%", end=""))
    assert terminal.getvalue().endswith("100%")


def test_a_forked_worker_prints_past_the_display(terminal, monkeypatch):
    terminal.take()
    progress = Progress()
    progress.on_event(started(1))
    stand_in = sys.stdout
    with stand_in._lock, monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        stand_in.write("from a worker\n")
    progress.close()
    assert "from a worker" in terminal.getvalue()


def test_close_ends_it_without_an_end(terminal):
    terminal.take()
    progress = Progress()
    progress.on_event(started(1))
    progress.close()
    assert sys.stdout is terminal
    progress.close()


def test_batches_show_one_after_the_other(terminal):
    terminal.take()
    progress = Progress()
    run(progress)
    run(progress)
    assert "4/4 done" in "\n".join(terminal.screen())


def test_plain_lines_without_a_terminal(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    run(Progress(plain_every_s=0))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    assert "1 of 2 jobs finished, 1 failed, ended (completed)" in lines[-1]


def test_plain_lines_are_rare(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    run(Progress())
    assert len(stream.getvalue().splitlines()) == 1


@pytest.mark.parametrize("options", [{"enabled": False}, {"plain": False}])
def test_can_be_switched_off(monkeypatch, options):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    run(Progress(**options))
    assert stream.getvalue() == ""


def test_a_dumb_terminal_gets_no_control_characters(terminal, monkeypatch):
    terminal.take()
    monkeypatch.setenv("TERM", "dumb")
    run(Progress())
    assert "\x1b" not in terminal.getvalue()


@pytest.mark.parametrize("kind", ["terminal", "plain"])
def test_the_log_with_it_still_parses(terminal, monkeypatch, tmp_path, kind):
    terminal.take()
    if kind == "plain":
        monkeypatch.setenv("TERM", "dumb")
    progress, log = Progress(plain_every_s=0), SweepLog()
    for event in (started(1), begin(0), score(0, 0.5), finish(0, 0.5), ended(finished=1)):
        progress.on_event(event)
        log.on_event(event)
    path = tmp_path / "typescript"
    path.write_text(terminal.getvalue())
    assert parse_autotrain_log(path, silent=True) == [("Thread-1_0", 0.5, {"lr": 0.0}, True)]


def test_an_event_costs_almost_nothing(terminal):
    terminal.take()
    progress = Progress()
    progress.on_event(started(20_000))
    began = time.process_time()
    for job in range(2000):
        progress.on_event(begin(job))
        progress.on_event(score(job, 0.5))
        progress.on_event(finish(job, 0.5))
    spent = time.process_time() - began
    progress.close()
    assert spent / 6000 < 1e-3
