"""Messages arrive whole and in order, and a process that has ended is not waited for."""

import os
import select
import socket
import threading

import pytest

from junky_core.executors.processes.channel import Channel


class Pair:
    """Two channels: ``here``'s other end is ``there``, a process that ends when told."""

    def __init__(self):
        ours, self.socket = socket.socketpair()
        ended, self._end = os.pipe()
        self._descriptors = [ended, self._end]
        self.held = self.socket.dup()  # as a child that the process left
        self.here, self.there = Channel(ours, ended), Channel(self.socket)

    def end(self):
        os.write(self._end, b"x")
        self.there.close()

    def close(self):
        for one in (self.here, self.there, self.held):
            one.close()
        for descriptor in self._descriptors:
            os.close(descriptor)


@pytest.fixture
def pair():
    pair = Pair()
    yield pair
    pair.close()


def in_thread(function, *args):
    thread = threading.Thread(target=function, args=args)
    thread.start()
    return thread


def test_messages_of_any_size_arrive_in_order(pair):
    sent = [b"", b"x", b"y" * 100, b"z" * (5 << 20), b"end"]
    sender = in_thread(lambda: [pair.there.send(message) for message in sent])
    assert [bytes(pair.here.receive(30)) for _ in sent] == sent
    sender.join()


def test_messages_of_several_threads_do_not_mix(pair):
    def send(letter):
        for _ in range(20):
            pair.there.send(letter * 200_000)

    senders = [in_thread(send, letter) for letter in (b"a", b"b", b"c")]
    received = [bytes(pair.here.receive(30)) for _ in range(60)]
    assert sorted(received) == [
        letter * 200_000 for letter in (b"a", b"b", b"c") for _ in range(20)
    ]
    for sender in senders:
        sender.join()


def test_an_open_file_arrives_with_its_message(pair, tmp_path):
    pair.there.send(b"before")
    for number in range(2):
        (tmp_path / str(number)).write_text(f"content {number}")
        with open(tmp_path / str(number)) as file:
            pair.there.send(b"with", file.fileno())
    assert bytes(pair.here.receive(30)) == b"before"
    for number in range(2):
        assert bytes(pair.here.receive(30)) == b"with"
        descriptor = pair.here.received_file()
        assert not os.get_inheritable(descriptor)
        with open(descriptor) as file:
            assert file.read() == f"content {number}"
    with pytest.raises(OSError, match="too many open files"):
        pair.here.received_file()


def test_waiting_ends_in_time(pair):
    assert pair.here.receive(0.01) is None
    pair.socket.send(b"\0\0")  # the beginning of a message
    assert pair.here.receive(0.01) is None


def test_what_was_sent_before_the_end_is_received(pair):
    pair.there.send(b"last")
    pair.end()
    assert bytes(pair.here.receive(30)) == b"last"
    with pytest.raises(EOFError):
        pair.here.receive(30)


@pytest.mark.parametrize("sent", [b"", b"\0\0", (9).to_bytes(8, "big") + b"half"])
def test_an_end_amid_a_message_is_seen_though_the_socket_stays_open(pair, sent):
    pair.held.send(sent)
    pair.end()
    with pytest.raises(EOFError):
        pair.here.receive(30)


def test_sending_to_a_process_that_has_ended_does_not_wait_though_the_socket_stays_open(pair):
    def end_later():
        assert select.select([pair.held], [], [], 30)[0]  # the sender is at work
        pair.end()

    ender = in_thread(end_later)
    with pytest.raises(EOFError):
        pair.here.send(b"x" * (50 << 20))
    ender.join()


def test_the_end_of_the_socket_is_the_end_where_nothing_else_tells(pair):
    pair.here.close()
    with pytest.raises(EOFError):
        pair.there.receive(30)
    with pytest.raises(OSError):
        pair.there.send(b"x")
