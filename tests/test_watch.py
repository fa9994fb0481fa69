import io
import json
import os
import socket
import subprocess
import sys
import threading

import pytest
from sweep_events import begin, ended, fail, finish, started, write_journal

from junky_core.errors import JournalError, LogError
from junky_core.record.codec import encode_event
from junky_core.record.folder import LOCK_NAME
from junky_core.views.watch import JournalTail, watch

DEAD_PID = 2**22 + 1  # above the system's highest


def hold(folder, pid):
    holder = {"pid": pid, "host": socket.gethostname(), "since": 0}
    (folder / LOCK_NAME).write_text(json.dumps(holder))


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([started(1), begin(0), finish(0, 0.5), ended(finished=1)], 0),
        ([started(1), begin(0), fail(0), ended(failed=1)], 1),
        ([started(2), begin(0), finish(0, 0.5), ended(reason="interrupted", left=1)], 1),
    ],
)
def test_a_sweep_that_is_over(tmp_path, events, status):
    write_journal(tmp_path / "journal.jsonl", events)
    stream = io.StringIO()
    assert watch(tmp_path, once=False, interval_s=0.1, stream=stream) == status
    assert "ended" in stream.getvalue()


def test_once_shows_the_progress(tmp_path):
    write_journal(tmp_path / "journal.jsonl", [started(2), begin(0)])
    hold(tmp_path, os.getpid())
    stream = io.StringIO()
    assert watch(tmp_path, once=True, interval_s=0.1, stream=stream) == 0
    assert "1 running" in stream.getvalue()


def test_once_detects_a_dead_sweep(tmp_path):
    write_journal(tmp_path / "journal.jsonl", [started(2), begin(0)])
    hold(tmp_path, DEAD_PID)
    assert watch(tmp_path, once=True, interval_s=0.1, stream=io.StringIO()) == 1


def test_a_sweep_whose_process_is_gone_is_over(tmp_path, monkeypatch):
    monkeypatch.setattr("junky_core.views.watch._SILENT_S", 0.0)
    write_journal(tmp_path / "journal.jsonl", [started(2), begin(0)])
    hold(tmp_path, DEAD_PID)
    stream = io.StringIO()
    assert watch(tmp_path, once=False, interval_s=0.1, stream=stream) == 1
    assert "gone" in stream.getvalue()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_a_zombie_is_gone(tmp_path):
    write_journal(tmp_path / "journal.jsonl", [started(2), begin(0)])
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as process:
        process.stdout.read()  # closed when it ends; it has not been waited for
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        hold(tmp_path, process.pid)
        assert watch(tmp_path, once=True, interval_s=0.1, stream=io.StringIO()) == 1


def test_follows_until_the_end(tmp_path):
    journal = write_journal(tmp_path / "journal.jsonl", [started(1), begin(0)])
    hold(tmp_path, os.getpid())
    looked = threading.Event()

    class Stream(io.StringIO):
        def write(self, text):
            looked.set()
            return super().write(text)

    stream, status = Stream(), []
    thread = threading.Thread(
        target=lambda: status.append(watch(tmp_path, once=False, interval_s=0.1, stream=stream))
    )
    thread.start()
    assert looked.wait(30)
    with journal.open("ab") as file:
        file.write(encode_event(finish(0, 0.5)) + encode_event(ended(finished=1)))
    thread.join(30)
    assert status == [0]


def test_a_hydra_sweep_may_continue_while_its_process_is_alive(tmp_path, monkeypatch):
    begun = [started(1, kind="hydra"), begin(0), finish(0, 1), ended()]
    journal = write_journal(tmp_path / "journal.jsonl", begun)
    hold(tmp_path, os.getpid())
    naps = []

    def sleep(seconds):
        naps.append(seconds)
        if len(naps) == 2:
            with journal.open("ab") as file:
                for event in (started(1, kind="hydra"), begin(1), finish(1, 2), ended()):
                    file.write(encode_event(event))
        elif len(naps) == 4:
            hold(tmp_path, DEAD_PID)

    monkeypatch.setattr("junky_core.views.watch.time.sleep", sleep)
    stream = io.StringIO()
    assert watch(tmp_path, once=False, interval_s=0.1, stream=stream) == 0
    assert "2 of 2 jobs finished" in stream.getvalue()


def test_a_log_is_refused_with_the_command_that_reads_it(tmp_path):
    path = tmp_path / "x.log"
    path.write_text("AUTOTRAIN STARTED\nThread-1_0: job 0 on cpu\nThread-1_0: ()\n")
    with pytest.raises(LogError, match=r"no journal to watch.*junky leaderboard .*x\.log"):
        watch(path, once=False, interval_s=0.1, stream=io.StringIO())


def test_tail_waits_for_whole_lines_and_notices_another_file(tmp_path):
    path = tmp_path / "journal.jsonl"
    first, line = encode_event(started(3)), encode_event(begin(0))
    path.write_bytes(first + line[:20])
    tail = JournalTail(path)
    assert len(list(tail.read())) == 1
    assert list(tail.read()) == []
    path.write_bytes(first + line)
    assert len(list(tail.read())) == 1
    other = tmp_path / "other"
    other.write_bytes(first + line * 3)
    other.replace(path)
    assert len(list(tail.read())) == 4


def follow(tmp_path, monkeypatch, journal, *steps):
    """Watch a journal; each sleep of the watch does the next step, and the last one ends the sweep."""
    hold(tmp_path, os.getpid())
    waiting = list(steps)
    monkeypatch.setattr("junky_core.views.watch.time.sleep", lambda _s: waiting.pop(0)())
    monkeypatch.setattr("junky_core.views.watch._PLAIN_EVERY_S", 0.0)
    stream = io.StringIO()
    watch(tmp_path, once=False, interval_s=0.1, stream=stream)
    return stream.getvalue().splitlines()


DONE = [started(3), begin(0), finish(0, 0.5), begin(1), finish(1, 0.6)]
REST = [begin(2), finish(2, 0.7), ended(finished=3)]


def test_a_journal_that_was_created_again_counts_once(tmp_path, monkeypatch):
    journal = write_journal(tmp_path / "journal.jsonl", DONE)

    def make_anew():
        copy = tmp_path / "copy"
        copy.write_bytes(journal.read_bytes())
        copy.replace(journal)
        with journal.open("ab") as file:
            file.writelines(encode_event(event) for event in REST)

    lines = follow(tmp_path, monkeypatch, journal, make_anew)
    assert "2 of 3 jobs finished" in lines[0]
    assert "3 of 3 jobs finished" in lines[-1]


def test_a_journal_that_was_emptied_and_written_again_counts_once(tmp_path, monkeypatch):
    journal = write_journal(tmp_path / "journal.jsonl", DONE)
    lines = follow(
        tmp_path,
        monkeypatch,
        journal,
        lambda: journal.write_bytes(b""),
        lambda: write_journal(journal, [*DONE, *REST]),
    )
    assert "3 of 3 jobs finished" in lines[-1]


def test_another_sweep_in_the_same_file_starts_from_zero(tmp_path, monkeypatch):
    journal = write_journal(tmp_path / "journal.jsonl", DONE)
    other = [started(9, time=2000.0, sweep_id="other"), *DONE[1:], *REST]
    lines = follow(tmp_path, monkeypatch, journal, lambda: write_journal(journal, other))
    assert "3 of 9 jobs finished" in lines[-1]


def test_damage_is_refused_with_the_line(tmp_path):
    journal = write_journal(tmp_path / "journal.jsonl", DONE)
    journal.write_bytes(journal.read_bytes().replace(b'"attempt": 1', b'"attempt": [', 1))
    with pytest.raises(JournalError, match="line 2"):
        watch(tmp_path, once=True, interval_s=0.1, stream=io.StringIO())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs fifos")
def test_a_fifo_is_refused(tmp_path):
    os.mkfifo(tmp_path / "journal.jsonl")
    for path in (tmp_path, tmp_path / "journal.jsonl"):
        with pytest.raises(OSError, match="fifo"):
            watch(path, once=True, interval_s=0.1, stream=io.StringIO())


@pytest.mark.parametrize("pid", [2**70, -(2**70), "x", 1e400, None, [1]])
def test_a_lock_file_with_an_invalid_holder_is_ignored(tmp_path, pid):
    write_journal(tmp_path / "journal.jsonl", DONE)
    hold(tmp_path, pid)
    assert watch(tmp_path, once=True, interval_s=0.1, stream=io.StringIO()) == 0
