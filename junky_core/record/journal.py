"""Write the events of a sweep to its journal, so that none is lost however the sweep ends.

Each event is one line of ``journal.jsonl`` (see :mod:`junky_core.record.codec` and
:mod:`junky_core.record.lines` for its form, :mod:`junky_core.record.reader` for reading it). It is
passed to the system at once, in one ``write``, so that a killed process loses none. A thread
flushes the file to disk in groups, so that a power cut costs the last half second. Before a best
model replaces the old one, the journal is flushed, so that its hash is known for whatever model is
found on disk.

What can go wrong with the file, and what happens to the line:

    disk full, read-only or unmounted    lines wait in memory and are written again, in order, with
                                         each event, every half second, and at the end
    a part of the line was written       it is removed, so that the file stays readable
    the folder or the file is deleted    both are created again. The content of the deleted file
                                         is copied through the open descriptor: nothing is missing
    another file has taken its name      that file is renamed to ``journal.jsonl.other``
    out of memory                        the event itself waits, and is encoded later
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from junky_core.errors import SweepFolderError
from junky_core.events import BestSaving, Event, SweepStarted
from junky_core.files import fsync_folder, write_atomically
from junky_core.job.forks import OwnProcess
from junky_core.record.codec import encode_event
from junky_core.record.lines import seal, whole_length
from junky_core.record.regular_files import check_regular
from junky_core.record.repair import seal_old_journal
from junky_core.values.wording import count

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Journal"]

_FULL_PENDING_BYTES = 64 << 20  # beyond this, waiting lines leave out tracebacks and values
_QUIET_S = 60.0  # the least time between two reports of an error
_COPY_CHUNK = 1 << 20


class Journal:
    """An observer that appends every event of a sweep to a file.

    A new file begins with ``SweepStarted``; earlier events are written after it.
    An existing file is continued. Before that, an incomplete last line is
    removed, and a file without numbers and checksums gets them.

    Args:
        path: The file. Its folder is created if it does not exist.
        fsync_every_s: Seconds after which new lines are flushed to disk.
        on_trouble: Called with a message when the file cannot be written (at
            most once a minute), when it can be written again, and when the
            journal is closed with unwritten lines. It may emit events.
        reclaim: Called before a deleted folder is created again; raises
            ``OSError`` if another sweep uses it now (``SweepFolder.reclaim``).

    Raises:
        SweepFolderError: The file cannot be opened for writing, or its end is damaged.
        JournalError: It is damaged, and has no checksums.

    In a forked child it does nothing: only the process that opened it writes.

    Thread-safe. Writing does not wait for a flush to disk.

    >>> import tempfile
    >>> from junky_core.events import SweepStarted
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with Journal(Path(folder) / "journal.jsonl") as journal:
    ...         journal.on_event(SweepStarted(sweep_id="a", kind="python", total=3))
    ...     print((Path(folder) / "journal.jsonl").read_text())  # doctest: +ELLIPSIS
    {"event": "sweep_started", "time": ..., "sweep_id": "a", "kind": "python", "total": 3, ...
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        fsync_every_s: float = 0.5,
        on_trouble: Callable[[str], None] | None = None,
        reclaim: Callable[[], None] | None = None,
    ) -> None:
        self.path = Path(path)
        self._own = OwnProcess()
        self._fsync_every_s = fsync_every_s
        self._on_trouble = on_trouble
        self._reclaim = reclaim
        self._lock = threading.Lock()  # guards all below
        self._pending: collections.deque[bytes | Event] = collections.deque()
        self._pending_bytes = 0
        self._in_write = False  # if set before a write, the last one was interrupted
        self._unsynced = False
        self._closed = False
        self._reported = False  # whether the listener knows that the file cannot be written
        self._reported_at = -_QUIET_S
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            check_regular(self.path)
            seal_old_journal(self.path)
            self._descriptor = self._open()
            try:
                self._size, self._records = self._cut_off_torn_line()
            except BaseException:
                os.close(self._descriptor)
                raise
        except OSError as exc:
            raise SweepFolderError(
                exc.errno, f"cannot write the journal {self.path}: {exc.strerror}"
            ) from exc
        # Events before SweepStarted; None once a line was written.
        self._early: list[bytes | Event] | None = [] if self._size == 0 else None
        with contextlib.suppress(OSError):
            fsync_folder(self.path.parent)
        self._wake = threading.Event()  # something was written since the last flush
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._flush_in_groups, name="junky-journal", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Journal:  # noqa: PYI034 - typing.Self is newer than Python 3.10
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def on_event(self, event: Event) -> None:
        """Write ``event``; unless that failed, the system has it when this returns."""
        line = self._encode(event) if self._own else None
        if line is None:
            return
        with self._lock:
            if self._closed:
                return
            if self._early is not None and not isinstance(event, SweepStarted):
                self._early.append(line)
                return
            lines, self._early = [line, *(self._early or ())], None
            self._pending.extend(lines)
            self._pending_bytes += sum(len(line) for line in lines if isinstance(line, bytes))
            message = self._write_pending()
            descriptor = self._copy_for_sync() if type(event) is BestSaving else None
        self._report(message)
        if descriptor is not None:
            self._report(self._sync(descriptor))
        if not self._wake.is_set():
            self._wake.set()

    def flush(self) -> bool:
        """Try to write the waiting lines, and flush the file to disk.

        Returns:
            Whether every line is written.
        """
        if not self._own:
            return False
        with self._lock:
            if self._closed:
                return not self._pending
            message = self._write_pending()
            descriptor = self._copy_for_sync()
            done = not self._pending
        self._report(message)
        if descriptor is not None:
            self._report(self._sync(descriptor))
        return done

    def close(self) -> bool:
        """Flush, and ignore later events. May be called twice.

        Returns:
            Whether every line is written; if not, ``on_trouble`` was called.
        """
        if not self._own:
            return False
        with self._lock:
            if self._closed:
                return not self._pending
        self.flush()
        with self._lock:
            if self._closed:
                return not self._pending
            message = self._write_pending()
            self._closed = True
            left = len(self._pending)
            os.close(self._descriptor)
        if left:
            message = (
                f"{count(left, 'record')} could not be written to the journal {self.path}: it is "
                "incomplete, and a resumed sweep will run the missing jobs again"
            )
        self._report(message)
        self._stop.set()
        self._wake.set()
        if self._thread is not threading.current_thread():
            self._thread.join(1.0)  # it may hang in a flush to a disk that does not answer
        return not left

    def _encode(self, event: Event) -> bytes | Event | None:
        lean = self._pending_bytes > _FULL_PENDING_BYTES
        try:
            return encode_event(event, lean=lean)
        except Exception:  # noqa: BLE001 - MemoryError, mostly: encode it later
            return event

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        return os.open(self.path, flags, 0o666)

    def _cut_off_torn_line(self) -> tuple[int, int]:
        """Make the file end with a complete line; return its size, and its last record's ``n``."""
        size, n = whole_length(self._descriptor)
        if n is None:
            raise OSError(None, "its last line has no checksum, but its first line has one")
        if size < os.fstat(self._descriptor).st_size:
            os.ftruncate(self._descriptor, size)
        if size == 0:
            return 0, 0
        os.lseek(self._descriptor, size - 1, os.SEEK_SET)
        if os.read(self._descriptor, 1) != b"\n":  # the record is complete but for its line end
            size += os.write(self._descriptor, b"\n")
        return size, n

    def _write_pending(self) -> str | None:
        """Write the waiting lines, oldest first; return what to report, if anything."""
        try:
            if self._pending:
                self._ensure_file()
            while self._pending:
                line = self._pending[0]
                text = line if isinstance(line, bytes) else _late_line(line)
                if text:
                    self._write_line(seal(text, self._records + 1))
                    self._records += 1
                self._pending.popleft()
                self._pending_bytes -= len(line) if isinstance(line, bytes) else 0
                self._unsynced = True
        except (OSError, MemoryError) as exc:
            return self._failure(exc)
        reported, self._reported = self._reported, False
        if reported:
            return f"the journal {self.path} can be written again; it is complete"
        return None

    def _write_line(self, line: bytes) -> None:
        """Append a complete line, or leave the file as it was."""
        if self._in_write:
            self._cut_off_part()
        self._in_write = True
        written = 0
        try:
            while written < len(line):  # more than once only if the disk is almost full
                written += os.write(self._descriptor, line[written:] if written else line)
        except OSError:
            with contextlib.suppress(OSError):  # if it fails, the next write tries again
                self._cut_off_part()
                self._in_write = False
            raise
        self._size += written
        self._in_write = False

    def _cut_off_part(self) -> None:
        if os.fstat(self._descriptor).st_size > self._size:
            os.ftruncate(self._descriptor, self._size)
        else:  # another program truncated the file
            self._size = os.fstat(self._descriptor).st_size

    def _ensure_file(self) -> None:
        """Create file and folder again if our file no longer has its name."""
        ours = os.fstat(self._descriptor)
        try:
            if os.path.samestat(ours, self.path.stat()):
                return
            is_taken = True
        except (FileNotFoundError, NotADirectoryError):
            is_taken = False
        if self._reclaim is not None:
            self._reclaim()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if is_taken:
            self.path.replace(self.path.with_name(f"{self.path.name}.other"))
        write_atomically(self.path, self._copy_to)
        descriptor = self._open()
        os.close(self._descriptor)
        self._descriptor, self._in_write = descriptor, False
        self._size = os.fstat(descriptor).st_size

    def _copy_to(self, file: BinaryIO) -> None:
        """Copy our file, which may have no name any more, without a part of a line at its end."""
        for start in range(0, self._size, _COPY_CHUNK):
            size = min(_COPY_CHUNK, self._size - start)
            file.write(os.pread(self._descriptor, size, start))

    def _failure(self, exc: Exception) -> str | None:
        now = time.monotonic()
        if now - self._reported_at < _QUIET_S:
            return None
        self._reported_at, self._reported = now, True
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        return (
            f"cannot write the journal {self.path}: {reason or type(exc).__name__}. The sweep "
            "continues, and its records wait in memory until they can be written. If the process "
            "is killed before that, a resumed sweep will run these jobs again"
        )

    def _copy_for_sync(self) -> int | None:
        """Return a descriptor to flush without the lock; ``None`` if all is flushed."""
        if not self._unsynced:
            return None
        try:
            descriptor = os.dup(self._descriptor)
        except OSError:  # out of descriptors: flush with the next event
            return None
        self._unsynced = False
        return descriptor

    def _sync(self, descriptor: int) -> str | None:
        try:
            os.fsync(descriptor)
        except OSError as exc:
            if exc.errno in {errno.EINVAL, errno.ENOTSUP, errno.EROFS}:  # nothing to flush there
                return None
            with self._lock:
                self._unsynced = True
                return self._failure(exc)
        finally:
            os.close(descriptor)
        return None

    def _report(self, message: str | None) -> None:
        """Call the listener, outside the lock, because it may emit events."""
        if message is not None and self._on_trouble is not None:
            with contextlib.suppress(Exception):  # a broken listener must not harm the sweep
                self._on_trouble(message)

    def _flush_in_groups(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._wake.clear()
            while not self._stop.wait(self._fsync_every_s):
                if self.flush():
                    break


def _late_line(event: Event) -> bytes:
    """Encode an event that could not be encoded when it came."""
    try:
        return encode_event(event, lean=True) or b""
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - trying again would not help
        return b""
