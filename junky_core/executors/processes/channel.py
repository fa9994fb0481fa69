"""Messages between the driver and a worker process, with open files, over one socket.

    8 bytes: the length, with an open file if one is sent | the message

A process can die in the middle of a message while a child that it left behind keeps
the socket open. The socket alone then never shows that no more will come, so the
driver also watches ``ended``.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time

__all__ = ["Channel"]

_LENGTH = struct.Struct("!Q")


class Channel:
    """One end of the socket.

    Any thread may send. One thread at a time may receive.

    Args:
        end: The socket, which now belongs to the channel.
        ended: A descriptor that is readable once the other process has ended; ``None`` if
            the end of the socket is enough.
    """

    def __init__(self, end: socket.socket, ended: int | None = None) -> None:
        end.setblocking(False)
        self.ended = ended
        self._end = end
        self._sending = threading.Lock()  # guards writing to the socket, and closing it
        self._length = bytearray()  # what has arrived of the next message
        self._message: bytearray | None = None
        self._arrived = 0
        self._files: list[int] = []

    def send(self, message: bytes, file: int | None = None) -> None:
        """Send a message, and with it an open file, if one is given.

        Raises:
            OSError: The other end is gone.
        """
        with self._sending:
            self._send(_LENGTH.pack(len(message)), file)
            self._send(message)

    def receive(self, timeout_s: float | None = None) -> bytearray | None:
        """Return the next message, ``None`` if it has not arrived in time.

        Raises:
            EOFError: No more will come.
            OSError: The other end is gone.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while self._wait(select.POLLIN, until):
            message = self._read()
            if message is not None:
                return message
        return None

    def received_file(self) -> int:
        """Return the open file that came with the last message; it belongs to the caller.

        Raises:
            OSError: None came: this process has too many files open.
        """
        if not self._files:
            raise OSError("a file sent by a worker process was lost: too many open files")
        return self._files.pop(0)

    def close(self) -> None:
        """Close the socket."""
        with self._sending:
            self._end.close()
        while self._files:
            os.close(self._files.pop())

    def _send(self, data: bytes, file: int | None = None) -> None:
        rest = memoryview(data)
        while rest:
            try:
                if file is None:
                    sent = self._end.send(rest)
                else:
                    sent = socket.send_fds(self._end, [rest], [file])
            except BlockingIOError:
                self._wait(select.POLLOUT, None)
            else:
                rest, file = rest[sent:], None

    def _read(self) -> bytearray | None:
        """Take what is there; return the message if that completes it."""
        try:
            if self._message is None:
                self._read_length()
            else:
                self._read_content(self._message)
        except BlockingIOError:
            return None
        if self._message is None or self._arrived < len(self._message):
            return None
        message, self._message, self._arrived = self._message, None, 0
        return message

    def _read_length(self) -> None:
        missing = _LENGTH.size - len(self._length)
        data, files, _, _ = socket.recv_fds(self._end, missing, 1)
        for file in files:
            os.set_inheritable(file, False)
        self._files += files
        if not data:
            raise EOFError
        self._length += data
        if len(self._length) == _LENGTH.size:
            (length,) = _LENGTH.unpack(self._length)
            self._message = bytearray(length)
            self._length.clear()

    def _read_content(self, message: bytearray) -> None:
        with memoryview(message) as view, view[self._arrived :] as rest:
            taken = self._end.recv_into(rest)
        if not taken:
            raise EOFError
        self._arrived += taken

    def _wait(self, event: int, until: float | None) -> bool:
        """Wait until the socket is ready; return whether it is in time.

        Raises:
            EOFError: The other process has ended, and nothing it sent is left.
        """
        waiting = select.poll()
        waiting.register(self._end, event)
        if self.ended is not None:
            waiting.register(self.ended, select.POLLIN)
        left_ms = None if until is None else max(0.0, (until - time.monotonic()) * 1000)
        ready = [descriptor for descriptor, _ in waiting.poll(left_ms)]
        if not ready or self._end.fileno() in ready:
            return bool(ready)
        waiting.unregister(ready[0])
        if waiting.poll(0):  # it sent something between the two looks, and ended
            return True
        raise EOFError
