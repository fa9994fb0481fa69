"""Lines of a worker arrive whole, with its job's prefix, and hold nobody up."""

import os
import threading
import time

import pytest

from junky_core.executors.processes.output import WorkerOutput


class Collected:
    """Collects what arrives."""

    def __init__(self):
        self.texts = {"stdout": "", "stderr": ""}
        self._changed = threading.Condition()

    def __call__(self, stream, text):
        with self._changed:
            self.texts[stream] += text
            self._changed.notify_all()

    def wait_for(self, text, stream="stdout"):
        with self._changed:
            assert self._changed.wait_for(lambda: text in self.texts[stream], 30), self.texts


@pytest.fixture
def collected():
    return Collected()


@pytest.fixture
def output(collected):
    """An output that was started, whose worker is this process: ``.ends`` are its descriptors."""
    output = WorkerOutput(collected)
    output.ends = [os.dup(descriptor) for descriptor in output.descriptors]
    output.start()
    yield output
    for end in output.ends:
        os.close(end)
    output.close()


def test_lines_arrive_on_the_stream_they_were_written_to(output, collected):
    os.write(output.ends[0], b"one\ntwo\n")
    os.write(output.ends[1], b"three\n")
    collected.wait_for("one\ntwo\n")
    collected.wait_for("three\n", "stderr")


def test_each_line_has_the_prefix_once(output, collected):
    output.prefix = "Thread-1_0: "
    os.write(output.ends[0], b"Thread-1_0: one\ntwo\n\n")
    collected.wait_for("Thread-1_0: one\nThread-1_0: two\nThread-1_0: \n")


def test_a_line_arrives_when_it_is_complete(output, collected):
    os.write(output.ends[0], b"half")
    os.write(output.ends[1], b"other\n")
    collected.wait_for("other\n", "stderr")
    assert collected.texts["stdout"] == ""
    os.write(output.ends[0], b" and half\nrest")
    collected.wait_for("half and half\n")
    assert collected.texts["stdout"] == "half and half\n"


def test_settling_delivers_all_that_was_written(output, collected):
    os.write(output.ends[0], b"x\n" * 20_000)
    os.write(output.ends[0], b"rest")
    output.settle()
    assert collected.texts["stdout"] == "x\n" * 20_000 + "rest\n"


def test_a_character_may_arrive_in_two_parts_and_bytes_that_are_no_text_are_shown(
    output, collected
):
    first, second = "ü".encode()[:1], "ü".encode()[1:]
    os.write(output.ends[0], first)
    output_of_other_stream = b"now\n"
    os.write(output.ends[1], output_of_other_stream)
    collected.wait_for("now", "stderr")
    os.write(output.ends[0], second + b" \xff\n")
    collected.wait_for("ü �\n")


def test_a_line_without_end_is_divided(output, collected):
    writer = threading.Thread(target=lambda: os.write(output.ends[0], b"x" * (3 << 20)))
    writer.start()
    writer.join()
    output.settle()
    lines = collected.texts["stdout"].split("\n")
    assert "".join(lines) == "x" * (3 << 20)
    assert all(len(line) <= (1 << 20) + (1 << 16) for line in lines)


def test_one_that_writes_without_end_does_not_hold_up_settling_closing_or_another(collected):
    endless, other = WorkerOutput(lambda *_: None), WorkerOutput(collected)
    ends = [os.dup(output.descriptors[0]) for output in (endless, other)]
    endless.start()
    other.start()
    stopped = threading.Event()

    def write():
        os.set_blocking(ends[0], False)
        while not stopped.is_set():
            try:
                os.write(ends[0], b"again\n" * 1000)
            except BlockingIOError:
                os.sched_yield()
            except BrokenPipeError:
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        os.write(ends[1], b"here\n")
        collected.wait_for("here\n")
        began = time.monotonic()
        endless.settle()
        endless.close()
        assert time.monotonic() - began < 10
    finally:
        stopped.set()
        writer.join()
        for end in ends:
            os.close(end)
        other.close()


def test_closing_leaves_no_thread_and_no_descriptor_also_if_never_started():
    before = sorted(os.listdir("/proc/self/fd")), threading.active_count()
    WorkerOutput().close()
    output = WorkerOutput()
    output.start()
    output.close()
    assert (sorted(os.listdir("/proc/self/fd")), threading.active_count()) == before


def test_what_the_driver_cannot_write_is_dropped():
    def refuse(_stream, text):
        refused.append(text)
        raise ValueError("I/O operation on closed file")

    refused = []
    output = WorkerOutput(refuse)
    ends = [os.dup(descriptor) for descriptor in output.descriptors]
    output.start()
    for text in (b"one\n", b"two\n"):
        os.write(ends[0], text)
        output.settle()
    assert "".join(refused) == "one\ntwo\n"
    for end in ends:
        os.close(end)
    output.close()


def test_lines_go_to_the_streams_of_the_driver(capsys):
    output = WorkerOutput()
    ends = [os.dup(descriptor) for descriptor in output.descriptors]
    output.start()
    os.write(ends[0], b"out\n")
    os.write(ends[1], b"err\n")
    output.settle()
    assert capsys.readouterr() == ("out\n", "err\n")
    for end in ends:
        os.close(end)
    output.close()
