"""Replace a file as a whole, or not at all.

The new content goes to a temporary file in the same folder, is flushed to the
disk, and takes the old file's name in one step; then the folder is flushed, so
that the new name survives a power cut as well. Whoever opens the file sees the
old content or the new one, never a part.

    state on the disk              a kill or a power cut here leaves
    ---------------------------    ------------------------------------------
    temporary file being written   the old file, and a temporary file that
                                   the next writer removes
    temporary file whole           the same
    renamed                        the new file (old one, if the power fails
                                   before the folder is flushed)
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import re
import shutil
import stat
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

try:
    import fcntl
except ImportError:  # not on this system: a temporary file's owner is told by its pid alone
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "FileContent",
    "KeptFile",
    "file_sha256",
    "fsync_folder",
    "remove_stale_temporaries",
    "write_atomically",
]

_CHUNK = 1 << 20
_serial = itertools.count()
_cleaned_lock = threading.Lock()  # guards _cleaned
_cleaned: set[str] = set()  # targets whose stale temporary files this process has removed


def write_atomically(
    path: str | os.PathLike[str],
    write: Callable[[BinaryIO], Any],
    *,
    durable: bool = True,
    before_replace: Callable[[str], None] | None = None,
) -> str:
    """Write ``path`` as a whole: all of the new content, or the old file untouched.

    A symbolic link is replaced, never followed: what it points to stays as it
    is. The permissions of a file that is replaced are kept; a new one gets
    those of the umask. A folder that is missing (deleted since) is made.

    Args:
        path: The file to write.
        write: Is given a binary file to write to, from its start. What it
            raises goes to the caller, except that an error of the disk which
            it turned into another one (``torch.save`` does) is raised as such.
        durable: Flush file and folder to the disk before returning.
        before_replace: Is called with the SHA-256 of the content when the
            temporary file is whole, just before it takes its name.

    Returns:
        The SHA-256 of the content, in hex digits.

    Raises:
        OSError: The file cannot be written; the class and ``errno`` are the
            system's own. The old file, if any, is whole; the new one is in
            its place if only flushing the folder failed.

    Safe to call from several threads and processes, for one path too: the last
    to finish wins.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     digest = write_atomically(Path(folder) / "a.txt", lambda file: file.write(b"abc"))
    ...     print(digest[:8], (Path(folder) / "a.txt").read_text())
    ba7816bf abc
    """
    try:
        target = _checked(Path(path).absolute())
        target.parent.mkdir(parents=True, exist_ok=True)
        _clean_once(target)
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
    """Flush a folder's entries to the disk, where the system can do that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError:  # Windows opens no folders; one that is unreadable is flushed by its owner
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
    """Remove temporary files that killed writers of ``path`` left, and return their paths.

    A file that somebody is still writing stays, in whatever process.
    """
    target = Path(path).absolute()
    pattern = re.compile(re.escape(f".{target.name}.") + r"(\d+)(-\d+)?\.tmp")
    removed = []
    with contextlib.suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            match = pattern.fullmatch(entry.name)
            if match and _is_stale(entry.path, int(match[1])):
                with contextlib.suppress(OSError):
                    Path(entry.path).unlink()
                    removed.append(Path(entry.path))
    return removed


@dataclass(frozen=True, slots=True)
class FileContent:
    """What a file held when it was last looked at.

    Attributes:
        sha256: The hash of its content, ``""`` if there was no file.
        mark: Inode, size and time of the last change in ns, by which to see
            without reading it that the file is still the same.
    """

    sha256: str = ""
    mark: tuple[int, int, int] | None = None

    @classmethod
    def of(cls, path: Path, sha256: str | None = None) -> FileContent:
        """Look at the file at ``path``; its content is read unless its hash is given."""
        try:
            found = path.lstat()
            digest = file_sha256(path) if sha256 is None else sha256
        except OSError:
            return cls(sha256 or "")
        return cls(digest, (found.st_ino, found.st_size, found.st_mtime_ns))

    def is_at(self, path: Path) -> bool:
        """Return whether the file at ``path`` still holds this."""
        seen = FileContent.of(path, self.sha256)
        if seen.mark is None:
            return False
        return seen.mark == self.mark or FileContent.of(path).sha256 == self.sha256


class KeptFile:
    """A hold on a file that outlives its deletion.

    On POSIX systems a deleted file can be read as long as it is open
    somewhere; elsewhere an open file could not be replaced, so none is held.
    Not thread-safe.

    Args:
        path: The file; it need not be there yet.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._file: BinaryIO | None = None

    def hold(self) -> None:
        """Hold the file that is there now, and let go of the one before."""
        self.release()
        if os.name == "posix":
            with contextlib.suppress(OSError):
                self._file = self._path.open("rb")

    def bring_back(self) -> bool:
        """Write the file anew if it was deleted; return whether that was done.

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
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _clean_once(target: Path) -> None:
    """Remove what killed writers left, once for each target: sweep folders may be large."""
    with _cleaned_lock:
        if str(target) in _cleaned:
            return
        _cleaned.add(str(target))
    remove_stale_temporaries(target)


def _is_stale(path: str, pid: int) -> bool:
    """Return whether no living process writes this temporary file."""
    if fcntl is None:
        return pid != os.getpid()
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return not _is_alive(pid)
    else:
        return True
    finally:
        os.close(descriptor)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _checked(target: Path) -> Path:
    """Refuse what is there and is neither an ordinary file nor a link, which is replaced."""
    try:
        mode = target.lstat().st_mode
    except OSError:
        return target
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):  # replacing /dev/null would harm all
        raise OSError(errno.EINVAL, "not an ordinary file", str(target))
    return target


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Give an open temporary file beside ``target``; remove it unless it was renamed."""
    while True:
        temporary = target.with_name(f".{target.name}.{os.getpid()}-{next(_serial)}.tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        try:
            descriptor = os.open(temporary, flags | getattr(os, "O_BINARY", 0), 0o666)
        except FileExistsError:  # left by a killed process that had our pid
            continue
        file = os.fdopen(descriptor, "wb")
        try:
            # The lock marks the file as being written. A cleaner may have come in between.
            if fcntl is not None:
                with contextlib.suppress(OSError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not _is_at(descriptor, temporary):
                    file.close()
                    continue
            yield file, temporary
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        finally:
            with contextlib.suppress(OSError):  # a full disk shows again when the buffer is closed
                file.close()
        return


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _fill(file: BinaryIO, temporary: Path, write: Callable[[BinaryIO], Any]) -> str:
    hashing = _HashingFile(file)
    try:
        write(cast("BinaryIO", hashing))
        file.flush()
    except Exception as exc:
        if hashing.trouble is not None and exc is not hashing.trouble:
            raise hashing.trouble from exc
        raise
    if hashing.trouble is not None:  # the writer swallowed it
        raise hashing.trouble
    return file_sha256(temporary) if hashing.moved else hashing.digest.hexdigest()


def _keep_mode(file: BinaryIO, target: Path) -> None:
    if hasattr(os, "fchmod"):
        with contextlib.suppress(OSError):
            mode = target.lstat().st_mode
            if stat.S_ISREG(mode):
                os.fchmod(file.fileno(), stat.S_IMODE(mode))


class _HashingFile:
    """A file that hashes what is written, and remembers the first error of the disk."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.moved = False  # somebody did more than append: the hash must be taken anew
        self.trouble: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            written = self._file.write(data)
        except OSError as exc:
            self.trouble = self.trouble or exc
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
            self.trouble = self.trouble or exc
            raise

    def tell(self) -> int:
        return self._file.tell()

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Leave closing to the owner: the file must be flushed to the disk first."""

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
