"""Replace files atomically.

The new content is written to a temporary file in the same folder and flushed to
disk. The temporary file is then renamed, and the folder is flushed, so that the
new name survives a power cut. A reader sees the old content or the new content,
never a part of it.

    state on disk                  a kill or a power cut here leaves
    ---------------------------    ------------------------------------------
    temporary file incomplete      the old file, and a temporary file that
                                   the next writer removes
    temporary file complete        the same
    renamed                        the new file (the old one, if the power
                                   fails before the folder is flushed)

The temporary file is locked while it is written. One without a lock was left by
a killed process.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "FileContent",
    "KeptFile",
    "file_sha256",
    "fsync_folder",
    "is_at",
    "remove_stale_temporaries",
    "write_atomically",
]

_CHUNK = 1 << 20


def write_atomically(
    path: str | os.PathLike[str],
    write: Callable[[BinaryIO], Any],
    *,
    durable: bool = True,
    before_replace: Callable[[str], None] | None = None,
) -> str:
    """Write ``path`` completely, or leave the old file as it is.

    A symbolic link is replaced, not followed: its target stays as it is. A file
    that is replaced keeps its permissions; a new one gets those of the umask. A
    missing folder is created.

    Args:
        path: The file to write.
        write: Called with an empty binary file to write to. Its exceptions reach
            the caller. If it turns a disk error into another exception
            (``torch.save`` does), the disk error is raised.
        durable: Flush file and folder to disk before returning.
        before_replace: Called with the SHA-256 of the content when the temporary
            file is complete, just before it is renamed.

    Returns:
        The SHA-256 of the content, in hex digits.

    Raises:
        OSError: The file cannot be written; class and ``errno`` are those of the
            operating system. The old file, if any, is intact; if only flushing
            the folder failed, the new one has replaced it.

    Safe to call from several threads and processes, also for the same path: the
    last one to finish wins.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     digest = write_atomically(Path(folder) / "a.txt", lambda file: file.write(b"abc"))
    ...     print(digest[:8], (Path(folder) / "a.txt").read_text())
    ba7816bf abc
    """
    try:
        target = _checked(Path(path).absolute())
        target.parent.mkdir(parents=True, exist_ok=True)
        with _temporary(target) as (file, temporary):
            digest = _fill(file, temporary, write)
            _keep_mode(file, target)
            if durable:
                os.fsync(file.fileno())
            if before_replace is not None:
                before_replace(digest)
            temporary.replace(target)
        if durable:
            fsync_folder(target.parent)
    except OSError as exc:
        if exc.errno is None:
            raise
        # OSError picks the class that belongs to the number.
        raise OSError(exc.errno, f"cannot write {path}: {os.strerror(exc.errno)}") from exc
    return digest


def fsync_folder(folder: str | os.PathLike[str]) -> None:
    """Flush a folder's entries to disk, if the system can do that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError:  # always on Windows; elsewhere the folder is unreadable
        return
    try:
        os.fsync(descriptor)
    except OSError as exc:
        if exc.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EROFS}:
            raise
    finally:
        os.close(descriptor)


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content, in hex digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def remove_stale_temporaries(path: str | os.PathLike[str]) -> list[Path]:
    """Remove temporary files left by killed writers of ``path``, and return their paths.

    A file that any process is still writing stays.
    """
    found = itertools.takewhile(lambda file: file.exists(), _temporary_names(Path(path).absolute()))
    return [file for file in found if _remove_if_stale(file)]


def is_at(descriptor: int, path: Path) -> bool:
    """Return whether an open file is the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class FileContent:
    """The content of a file when it was last checked.

    Attributes:
        sha256: The hash of the content, ``""`` if there was no file.
        mark: Inode, size and time of the last change in ns. While they are the
            same, the file need not be read again.
    """

    sha256: str = ""
    mark: tuple[int, int, int] | None = None

    @classmethod
    def of(cls, path: Path, sha256: str | None = None) -> FileContent:
        """Check the file at ``path``; its content is read unless its hash is given."""
        try:
            found = path.lstat()
            digest = file_sha256(path) if sha256 is None else sha256
        except OSError:
            return cls(sha256 or "")
        return cls(digest, (found.st_ino, found.st_size, found.st_mtime_ns))

    def is_at(self, path: Path) -> bool:
        """Return whether the file at ``path`` still has this content."""
        seen = FileContent.of(path, self.sha256)
        if seen.mark is None:
            return False
        return seen.mark == self.mark or FileContent.of(path).sha256 == self.sha256


class KeptFile:
    """Keeps a file open, so that it can be restored after it was deleted.

    On POSIX systems a deleted file can be read as long as it is open. On other
    systems an open file cannot be replaced, so it is not kept open there. Not
    thread-safe.

    Args:
        path: The file; it need not exist yet.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._file: BinaryIO | None = None

    def hold(self) -> None:
        """Open the file that exists now, and close the one held before."""
        self.release()
        if os.name == "posix":
            with contextlib.suppress(OSError):
                self._file = self._path.open("rb")

    def bring_back(self) -> bool:
        """Write the file again if it was deleted; return whether that was done.

        Raises:
            OSError: It cannot be written.
        """
        if self._file is None or self._path.exists():
            return False
        held = self._file
        held.seek(0)
        write_atomically(self._path, lambda file: shutil.copyfileobj(held, file, _CHUNK))
        self.hold()
        return True

    def release(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _temporary_names(target: Path) -> Iterator[Path]:
    """Yield the names to try for a temporary file; later ones for writers at the same time."""
    return (target.with_name(f".{target.name}.{serial}.tmp") for serial in itertools.count())


def _remove_if_stale(temporary: Path) -> bool:
    """Remove a temporary file that no process is writing; return whether that was done."""
    try:
        if fcntl is None:
            temporary.unlink()
            return True
        descriptor = os.open(temporary, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:  # fails if it is being written, or on a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not is_at(descriptor, temporary):  # renamed meanwhile; the name may be in use again
                return False
            temporary.unlink()
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return True


def _checked(target: Path) -> Path:
    """Refuse a path at which there is neither a regular file nor a link nor nothing."""
    try:
        mode = target.lstat().st_mode
    except OSError:
        return target
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):  # /dev/null must not be replaced
        raise OSError(errno.EINVAL, "not a regular file", str(target))
    return target


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Give an open temporary file next to ``target``; remove it unless it was renamed."""
    for temporary in _temporary_names(target):
        _remove_if_stale(temporary)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        try:
            descriptor = os.open(temporary, flags | getattr(os, "O_BINARY", 0), 0o666)
        except FileExistsError:  # another writer's
            continue
        file = os.fdopen(descriptor, "wb")
        try:
            if not _lock_new(descriptor, temporary):
                continue
            yield file, temporary
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        finally:
            with contextlib.suppress(OSError):  # closing writes the buffer: the disk is still full
                file.close()
        return


def _lock_new(descriptor: int, temporary: Path) -> bool:
    """Lock a new temporary file; return False if another writer removes it as stale."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: nobody removes it
        pass
    return is_at(descriptor, temporary)


def _fill(file: BinaryIO, temporary: Path, write: Callable[[BinaryIO], Any]) -> str:
    hashing = _HashingFile(file)
    try:
        write(cast("BinaryIO", hashing))
        file.flush()
    except Exception as exc:
        if hashing.error is not None and exc is not hashing.error:
            raise hashing.error from exc
        raise
    if hashing.error is not None:  # the writer swallowed it
        raise hashing.error
    return file_sha256(temporary) if hashing.moved else hashing.digest.hexdigest()


def _keep_mode(file: BinaryIO, target: Path) -> None:
    if hasattr(os, "fchmod"):
        with contextlib.suppress(OSError):
            mode = target.lstat().st_mode
            if stat.S_ISREG(mode):
                os.fchmod(file.fileno(), stat.S_IMODE(mode))


class _HashingFile:
    """A file that hashes what is written, and remembers the first disk error."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.moved = False  # more than appended to: the whole file must be hashed again
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            written = self._file.write(data)
        except OSError as exc:
            self.error = self.error or exc
            raise
        self.digest.update(data)
        return written

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError as exc:
            self.error = self.error or exc
            raise

    def tell(self) -> int:
        return self._file.tell()

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Do nothing: the owner flushes the file to disk before closing it."""

    @property
    def closed(self) -> bool:
        return self._file.closed

    def __getattr__(self, name: str) -> Any:
        if name not in {"readable", "seekable", "mode", "name"}:
            self.moved = True
        return getattr(self._file, name)

    def __enter__(self) -> _HashingFile:  # noqa: PYI034 - typing.Self is newer than Python 3.10
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.flush()
