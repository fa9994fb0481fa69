"""A sweep's folder: what is in it, and that only one sweep at a time writes there."""

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
from junky_core.record.regular_files import check_own

if TYPE_CHECKING:
    from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # not on this system: sweeps are then not kept apart
    fcntl = None  # type: ignore[assignment]

__all__ = ["JOURNAL_NAME", "LOCK_NAME", "LOG_NAME", "SweepFolder"]

JOURNAL_NAME = "journal.jsonl"
LOCK_NAME = ".junky.lock"
LOG_NAME = "autotrain.log"
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}

# Every lock that this process holds. A forked child (a DataLoader's worker) must not keep a lock
# alive when its parent is killed, so children close their copies.
_held: weakref.WeakSet[SweepFolder] = weakref.WeakSet()


class SweepFolder:
    """One sweep's folder.

    The lock is one of the system (``flock``) on a file of the folder: it ends
    with the process that holds it, however that ends, so a file that a dead
    sweep left refuses nobody. Two sweeps of one process exclude each other too.

    Args:
        path: The folder; made by :meth:`acquire` if it is not there.

    Attributes:
        path: The folder, absolute.
        journal_path: Its journal.
        lock_note: Why the folder could not be locked (a file system without
            locks), to be told to the user; ``""`` if it is locked.

    Safe to use from several threads.

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
        """The file that is locked; it says in JSON who holds it."""
        return self.path / LOCK_NAME

    def holds_sweep(self) -> bool:
        """Return whether the journal has a whole record, or anything else, blank lines left out.

        A first record cut short by a kill, before any job ran, does not count.

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
        """Hold the folder inside the ``with`` block.

        Raises:
            SweepFolderError: As :meth:`acquire`.
        """
        self.acquire()
        try:
            yield self
        finally:
            self.release()

    def acquire(self) -> None:
        """Make the folder if need be, and hold it for this sweep alone.

        Raises:
            SweepFolderError: Another sweep holds it (the message says which
                process on which host), it cannot be made or written, or a file
                of the sweep is a link, a folder, a fifo or a device.
        """
        self._check_files()
        with self._guard:
            if self._descriptor is not None:
                raise SweepFolderError(f"the sweep folder {self.path} is locked already")
            try:
                self._descriptor = self._open_locked()
            except SweepFolderError:
                raise
            except OSError as exc:
                raise SweepFolderError(
                    exc.errno, f"the sweep folder {self.path} cannot be used: {exc.strerror}"
                ) from exc
            _held.add(self)

    def reclaim(self) -> None:
        """Make a folder that was deleted anew, and hold it again.

        Does nothing if the folder is held as it should be.

        Raises:
            SweepFolderError: Another sweep has taken the folder meanwhile, or
                it cannot be made.
        """
        with self._guard:
            if self._descriptor is None or _is_at(self._descriptor, self.lock_path):
                return
            try:
                descriptor = self._open_locked()
            except SweepFolderError:
                raise
            except OSError as exc:
                raise SweepFolderError(
                    exc.errno, f"the sweep folder {self.path} cannot be used: {exc.strerror}"
                ) from exc
            os.close(self._descriptor)
            self._descriptor = descriptor

    def release(self) -> None:
        """Let go of the folder; does nothing if it is not held."""
        with self._guard:
            _held.discard(self)
            if self._descriptor is not None:
                # The file stays: were it removed, a third sweep could lock a new one while a
                # second one waits at the old.
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
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
            flags |= getattr(os, "O_NOFOLLOW", 0)  # what is written replaces the content
            descriptor = os.open(self.lock_path, flags, 0o666)
            try:
                self._flock(descriptor)
                if not _is_at(descriptor, self.lock_path):  # deleted in between
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
                "wait for its end, stop it, or choose another folder",
            ) from exc
        except OSError as exc:
            if exc.errno not in _UNSUPPORTED:
                raise
            self.lock_note = (
                f"the file system of {self.path} has no locks ({exc.strerror}): "
                "see to it yourself that no second sweep runs there"
            )

    def _close_copy(self) -> None:
        """Close the descriptor that a forked child inherited; the parent keeps its lock."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _write_holder(descriptor: int) -> None:
    """Say in the lock file who holds it. A full disk does not matter: it is only for messages."""
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
        return "a process that has not said which it is"
    who = "this very process" if _is_me(pid, host) else f"process {pid} on {host}"
    return f"{who}, since {since}"


def _is_me(pid: int, host: str) -> bool:
    return pid == os.getpid() and host == socket.gethostname()


def _close_copies() -> None:
    for folder in list(_held):
        folder._close_copy()  # noqa: SLF001 - this module's own
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_copies)
