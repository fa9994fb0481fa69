"""A sweep's folder: its files, and the lock that admits one sweep at a time."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from junky_core.errors import SweepFolderError
from junky_core.files import is_at
from junky_core.record.regular_files import check_own

if TYPE_CHECKING:
    from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # Windows: two sweeps can use the same folder there
    fcntl = None  # type: ignore[assignment]

__all__ = ["JOURNAL_NAME", "LOCK_NAME", "LOG_NAME", "SweepFolder"]

JOURNAL_NAME = "journal.jsonl"
LOCK_NAME = ".junky.lock"
LOG_NAME = "autotrain.log"
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}

# The folders that this process has locked. A forked child (a DataLoader worker) must not keep the
# lock when its parent is killed, so it closes its copy of the descriptor.
_held: weakref.WeakSet[SweepFolder] = weakref.WeakSet()


class SweepFolder:
    """One sweep's folder.

    The lock is a ``flock`` on a file in the folder. The system releases it when
    the process ends for whatever reason, so a lock file left by a dead process
    blocks nothing. Two sweeps in one process exclude each other too.

    Args:
        path: The folder; :meth:`acquire` creates it if it does not exist.

    Attributes:
        path: The folder, absolute.
        journal_path: Its journal.
        lock_note: Why the folder could not be locked (a file system without
            locks), as a message for the user; ``""`` if it is locked.

    Thread-safe.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as path, SweepFolder(path).lock() as folder:
    ...     folder.holds_sweep()
    False
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - keeps links
        self.journal_path = self.path / JOURNAL_NAME
        self.lock_note = ""
        self._guard = threading.Lock()  # guards _descriptor
        self._descriptor: int | None = None

    @property
    def lock_path(self) -> Path:
        """The file that is locked; it names the process that holds the lock, in JSON."""
        return self.path / LOCK_NAME

    def holds_sweep(self) -> bool:
        """Return whether the journal has any content other than blank lines.

        A first record that is incomplete does not count: the sweep was killed before any job ran.

        Raises:
            SweepFolderError: A file of the sweep is a link, a folder, a fifo or a device.
        """
        self._check_files()
        try:
            with self.journal_path.open("rb") as file:
                first = next((line for line in file if line.strip(b"\0 \r\n\t")), b"")
        except (FileNotFoundError, NotADirectoryError):
            return False
        if first.endswith(b"\n"):
            return True
        try:
            json.loads(first)
        except ValueError:
            return False
        return True

    @contextlib.contextmanager
    def lock(self) -> Iterator[SweepFolder]:
        """Lock the folder inside the ``with`` block.

        Raises:
            SweepFolderError: As :meth:`acquire`.
        """
        self.acquire()
        try:
            yield self
        finally:
            self.release()

    def acquire(self) -> None:
        """Create the folder if necessary, and lock it for this sweep.

        Raises:
            SweepFolderError: Another sweep has locked it (the message names the
                process and the host), it cannot be created or written, or a file
                of the sweep is a link, a folder, a fifo or a device.
        """
        self._check_files()
        with self._guard:
            if self._descriptor is not None:
                raise SweepFolderError(f"the sweep folder {self.path} is locked already")
            self._descriptor = self._open_locked()
            _held.add(self)

    def reclaim(self) -> None:
        """Create and lock the folder again if it was deleted.

        Raises:
            SweepFolderError: Another sweep has locked it since, or it cannot be
                created.
        """
        with self._guard:
            if self._descriptor is None or is_at(self._descriptor, self.lock_path):
                return
            descriptor = self._open_locked()
            os.close(self._descriptor)
            self._descriptor = descriptor

    def release(self) -> None:
        """Unlock the folder; does nothing if it is not locked.

        The lock file stays. If it were removed, a second sweep could get a lock on the removed
        file while a third one locks a new file of the same name.
        """
        with self._guard:
            _held.discard(self)
            self.close_descriptor()

    def close_descriptor(self) -> None:
        """Close this process's descriptor of the lock file, in a forked child too."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None

    def _check_files(self) -> None:
        for name in (JOURNAL_NAME, LOG_NAME, LOCK_NAME):
            try:
                check_own(self.path / name)
            except OSError as exc:
                raise SweepFolderError(
                    exc.errno, f"the sweep cannot write to {self.path / name}: {exc.strerror}"
                ) from exc

    def _open_locked(self) -> int:
        try:
            return self._open_and_lock()
        except SweepFolderError:
            raise
        except OSError as exc:
            raise SweepFolderError(
                exc.errno, f"the sweep folder {self.path} cannot be used: {exc.strerror}"
            ) from exc

    def _open_and_lock(self) -> int:
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
            flags |= getattr(os, "O_NOFOLLOW", 0)  # the target of a link would be overwritten
            descriptor = os.open(self.lock_path, flags, 0o666)
            try:
                self._flock(descriptor)
                if not is_at(descriptor, self.lock_path):  # deleted before it was locked
                    os.close(descriptor)
                    continue
                _write_holder(descriptor)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
                raise
            return descriptor

    def _flock(self, descriptor: int) -> None:
        if fcntl is None:
            self.lock_note = "this system has no file locks"
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise SweepFolderError(
                errno.EWOULDBLOCK,
                f"another sweep is running in {self.path}: {_describe_holder(descriptor)}; "
                "wait until it ends, stop it, or choose another folder",
            ) from exc
        except OSError as exc:
            if exc.errno not in _UNSUPPORTED:
                raise
            self.lock_note = (
                f"the file system of {self.path} has no locks ({exc.strerror}): "
                "make sure that no second sweep runs there"
            )


def _write_holder(descriptor: int) -> None:
    """Name this process in the lock file. An error does not matter: it is only for messages."""
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode() + b"\n", 0)


def _describe_holder(descriptor: int) -> str:
    try:
        holder: dict[str, Any] = json.loads(os.pread(descriptor, 4096, 0))
        pid, host = holder["pid"], holder["host"]
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"]))
    except (OSError, ValueError, KeyError, TypeError):
        return "an unknown process"
    this = pid == os.getpid() and host == socket.gethostname()
    return f"{'this process' if this else f'process {pid} on {host}'}, since {since}"


def _close_descriptors() -> None:
    for folder in list(_held):
        folder.close_descriptor()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_descriptors)
