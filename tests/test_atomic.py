import errno
import fcntl
import hashlib
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from junky_core.files import (
    KeptFile,
    file_sha256,
    fsync_folder,
    remove_stale_temporaries,
    write_atomically,
)


def put(data):
    return lambda file: file.write(data)


def names(folder):
    return sorted(os.listdir(folder))


def test_writes_and_returns_sha256(tmp_path):
    digest = write_atomically(tmp_path / "f", put(b"abc"))
    assert digest == hashlib.sha256(b"abc").hexdigest() == file_sha256(tmp_path / "f")
    assert names(tmp_path) == ["f"]


def test_replaces_as_a_whole(tmp_path):
    (tmp_path / "f").write_bytes(b"a long old content")
    write_atomically(tmp_path / "f", put(b"new"))
    assert (tmp_path / "f").read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError])
def test_failure_leaves_old_file_and_no_temporary(tmp_path, error):
    (tmp_path / "f").write_bytes(b"old")

    def write(file):
        file.write(b"part")
        raise error("x")

    with pytest.raises(error):
        write_atomically(tmp_path / "f", write)
    assert (tmp_path / "f").read_bytes() == b"old"
    assert names(tmp_path) == ["f"]


def test_failure_of_before_replace_leaves_old_file(tmp_path):
    (tmp_path / "f").write_bytes(b"old")

    def refuse(_digest):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        write_atomically(tmp_path / "f", put(b"new"), before_replace=refuse)
    assert (tmp_path / "f").read_bytes() == b"old"
    assert names(tmp_path) == ["f"]


def test_before_replace_sees_whole_temporary_and_old_file(tmp_path):
    (tmp_path / "f").write_bytes(b"old")
    seen = []

    def look(digest):
        (temporary,) = (p for p in tmp_path.iterdir() if p.name != "f")
        seen.append((digest, temporary.read_bytes(), (tmp_path / "f").read_bytes()))

    digest = write_atomically(tmp_path / "f", put(b"new"), before_replace=look)
    assert seen == [(digest, b"new", b"old")]


def test_hash_is_right_after_seek(tmp_path):
    def write(file):
        file.write(b"xxxx")
        file.seek(0)
        file.write(b"ab")

    assert write_atomically(tmp_path / "f", write) == hashlib.sha256(b"abxx").hexdigest()


def test_hash_is_right_when_written_by_descriptor(tmp_path):
    def write(file):
        os.write(file.fileno(), b"abc")

    assert write_atomically(tmp_path / "f", write) == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_save(tmp_path, zipped):
    state = torch.nn.Linear(3, 4).state_dict()
    path = tmp_path / "model.pt"
    digest = write_atomically(
        path, lambda file: torch.save(state, file, _use_new_zipfile_serialization=zipped)
    )
    assert digest == file_sha256(path)
    assert torch.equal(torch.load(path, weights_only=True)["weight"], state["weight"])


def test_writer_may_close_the_file(tmp_path):
    def write(file):
        with file:
            file.write(b"abc")
        file.close()

    write_atomically(tmp_path / "f", write)
    assert (tmp_path / "f").read_bytes() == b"abc"


def test_text_wrapper_works(tmp_path):
    import io

    def write(file):
        text = io.TextIOWrapper(file, encoding="utf-8")
        text.write("é\n")
        text.flush()
        text.detach()

    write_atomically(tmp_path / "f", write)
    assert (tmp_path / "f").read_text(encoding="utf-8") == "é\n"


def test_a_link_is_replaced_and_its_target_is_unchanged(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "real").write_bytes(b"old")
    (tmp_path / "far" / "real").chmod(0o600)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "real")
    write_atomically(tmp_path / "link", put(b"new"))
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_bytes() == b"new"
    assert (tmp_path / "far" / "real").read_bytes() == b"old"
    assert sorted(path.name for path in (tmp_path / "far").iterdir()) == ["real"]


def test_a_dangling_link_is_replaced(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_atomically(tmp_path / "link", put(b"new"))
    assert (tmp_path / "link").read_bytes() == b"new"
    assert not (tmp_path / "real").exists()


def test_a_folder_that_is_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "folder").symlink_to(tmp_path / "real")
    write_atomically(tmp_path / "folder" / "file", put(b"new"))
    assert (tmp_path / "folder").is_symlink()
    assert (tmp_path / "real" / "file").read_bytes() == b"new"


def test_keeps_permissions(tmp_path):
    (tmp_path / "f").write_bytes(b"old")
    (tmp_path / "f").chmod(0o640)
    write_atomically(tmp_path / "f", put(b"new"))
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


def test_new_file_gets_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "f", put(b"new"))
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


def test_makes_missing_folder(tmp_path):
    write_atomically(tmp_path / "a" / "b" / "f", put(b"new"))
    assert (tmp_path / "a" / "b" / "f").read_bytes() == b"new"


def test_refuses_a_folder(tmp_path):
    with pytest.raises(IsADirectoryError, match=r"cannot write .*Is a directory"):
        write_atomically(tmp_path, put(b"new"))


def test_refuses_a_device():
    with pytest.raises(OSError, match="cannot write /dev/null") as info:
        write_atomically("/dev/null", put(b"new"))
    assert info.value.errno == errno.EINVAL
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_error_of_the_system_keeps_class_and_names_path(tmp_path):
    (tmp_path / "f").write_bytes(b"x")
    with pytest.raises((NotADirectoryError, FileExistsError), match=r"cannot write .*/f/g"):
        write_atomically(tmp_path / "f" / "g", put(b"new"))


CHILD_FULL = """
import errno, os, resource, signal, sys, torch
from junky_core.files import write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
state = torch.nn.Linear(300, 300).state_dict()
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    write_atomically(sys.argv[1], lambda file: torch.save(state, file))
except OSError as exc:
    assert exc.errno == errno.EFBIG, exc
    assert "cannot write " + sys.argv[1] in str(exc), exc
    print("told")
"""


@pytest.mark.parametrize("limit", [0, 100, 5000, 300_000, 361_500])
def test_full_disk_in_torch_save_is_an_os_error_and_keeps_the_old_file(tmp_path, limit):
    path = tmp_path / "model.pt"
    path.write_bytes(b"old")
    child = subprocess.run(
        [sys.executable, "-c", CHILD_FULL, path, str(limit)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert child.stdout == "told\n", child.stderr
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["model.pt"]


def test_error_swallowed_by_the_writer_still_counts(tmp_path):
    (tmp_path / "f").write_bytes(b"old")

    class Full:
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    def write(file):
        file._file = Full()
        try:
            file.write(b"x")
        except OSError:
            pass

    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "f", write)
    assert (tmp_path / "f").read_bytes() == b"old"


CHILD_KILLED = """
import os, signal, sys
from junky_core.files import write_atomically
def write(file):
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
write_atomically(sys.argv[1], write)
"""


def leave_stale(path):
    child = subprocess.run([sys.executable, "-c", CHILD_KILLED, path], timeout=60)
    assert child.returncode == -9
    (stale,) = (p for p in Path(path).parent.iterdir() if p.name.startswith("."))
    return stale


def test_the_next_write_removes_the_temporary_of_a_killed_writer(tmp_path):
    (tmp_path / "f").write_bytes(b"old")
    leave_stale(tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b"old"
    write_atomically(tmp_path / "f", put(b"new"))
    assert names(tmp_path) == ["f"]


def test_stale_temporaries_of_several_killed_writers_are_removed(tmp_path):
    first = leave_stale(tmp_path / "f")
    (tmp_path / ".f.1.tmp").write_bytes(b"half")
    assert remove_stale_temporaries(tmp_path / "f") == [first, tmp_path / ".f.1.tmp"]
    assert names(tmp_path) == []


def test_temporary_of_a_running_writer_is_kept(tmp_path):
    def write(file):
        assert remove_stale_temporaries(tmp_path / "f") == []
        file.write(b"new")

    write_atomically(tmp_path / "f", write)
    assert (tmp_path / "f").read_bytes() == b"new"


def test_other_files_are_not_stale_temporaries(tmp_path):
    for name in (".g.0.tmp", ".f.x.tmp", "f.0.tmp", ".f.0.tmp.bak"):
        (tmp_path / name).touch()
    (tmp_path / ".f.0.tmp").symlink_to(tmp_path / "f.0.tmp")
    assert remove_stale_temporaries(tmp_path / "f") == []
    write_atomically(tmp_path / "f", put(b"new"))
    assert (tmp_path / "f.0.tmp").read_bytes() == b""


def test_concurrent_writers_leave_one_whole_file(tmp_path):
    contents = [bytes([i]) * 100_000 for i in range(8)]
    barrier = threading.Barrier(8)

    def work(data):
        barrier.wait(60)
        write_atomically(tmp_path / "f", put(data))

    threads = [threading.Thread(target=work, args=(data,)) for data in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (tmp_path / "f").read_bytes() in contents
    assert names(tmp_path) == ["f"]


def test_a_name_taken_over_by_another_writer_is_not_removed_as_stale(tmp_path, monkeypatch):
    """The file is renamed, and its name used again, between being found and being locked."""
    found = leave_stale(tmp_path / "f")
    flock = fcntl.flock

    def lock_late(descriptor, operation):
        monkeypatch.setattr(fcntl, "flock", flock)
        found.replace(tmp_path / "f")
        found.write_bytes(b"of the other writer")
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    assert remove_stale_temporaries(tmp_path / "f") == []
    assert found.read_bytes() == b"of the other writer"


def test_a_temporary_removed_as_stale_before_it_is_locked_is_abandoned(tmp_path, monkeypatch):
    flock, opened = fcntl.flock, []

    def lock_second(descriptor, operation):
        monkeypatch.setattr(fcntl, "flock", flock)
        opened.append(os.open(tmp_path / ".f.0.tmp", os.O_RDWR))
        flock(opened[0], operation)
        flock(descriptor, operation)

    def write(file):
        (tmp_path / ".f.0.tmp").unlink()
        os.close(opened[0])
        file.write(b"new")

    monkeypatch.setattr(fcntl, "flock", lock_second)
    write_atomically(tmp_path / "f", write)
    assert (tmp_path / "f").read_bytes() == b"new"
    assert names(tmp_path) == ["f"]


def test_durable_flushes_file_then_renames_then_flushes_folder(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(
        os,
        "fsync",
        lambda fd: (
            done.append("dir" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"),
            fsync(fd),
        ),
    )
    monkeypatch.setattr(Path, "replace", lambda a, b: (done.append("replace"), replace(a, b)))
    write_atomically(
        tmp_path / "f", put(b"x"), before_replace=lambda _digest: done.append("before")
    )
    assert done == ["file", "before", "replace", "dir"]
    done.clear()
    write_atomically(tmp_path / "f", put(b"x"), durable=False)
    assert done == ["replace"]


def test_fsync_folder_ignores_a_missing_folder(tmp_path):
    fsync_folder(tmp_path / "none")


def test_a_kept_file_is_restored_after_its_folder_was_deleted(tmp_path):
    import shutil

    path = tmp_path / "s" / "f"
    write_atomically(path, put(b"abc" * 10_000))
    kept = KeptFile(path)
    kept.hold()
    assert not kept.bring_back()
    for _ in range(2):
        shutil.rmtree(path.parent)
        assert kept.bring_back()
        assert path.read_bytes() == b"abc" * 10_000
    kept.release()
    path.unlink()
    assert not kept.bring_back()


def test_a_kept_file_does_not_overwrite_another_file(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"old")
    kept = KeptFile(path)
    kept.hold()
    path.unlink()
    path.write_bytes(b"new")
    assert not kept.bring_back()
    assert path.read_bytes() == b"new"
    kept.release()
