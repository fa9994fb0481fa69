import errno
import os
import subprocess
import sys

import pytest

from junky_core import parse_autotrain_log
from junky_core.errors import LogError, SweepFolderError
from junky_core.record.folder import SweepFolder
from junky_core.record.journal import Journal
from junky_core.record.reader import load_state

HOLD = """
import sys
from junky_core.record.folder import SweepFolder
folder = SweepFolder(sys.argv[1])
folder.acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_gets_an_error_that_names_the_holder(tmp_path, holder):
    with pytest.raises(SweepFolderError, match=rf"process {holder.pid} on ") as info:
        SweepFolder(tmp_path).acquire()
    assert info.value.errno == errno.EWOULDBLOCK
    assert str(tmp_path) in str(info.value)


def test_the_lock_ends_with_a_killed_process(tmp_path, holder):
    holder.kill()
    holder.wait(10)
    assert (tmp_path / ".junky.lock").exists()
    with SweepFolder(tmp_path).lock():
        pass


def test_second_sweep_of_one_process_is_refused(tmp_path):
    with SweepFolder(tmp_path).lock():
        with pytest.raises(SweepFolderError, match="this process"):
            SweepFolder(tmp_path).acquire()
    with SweepFolder(tmp_path).lock():
        pass


def test_same_object_cannot_be_locked_twice(tmp_path):
    folder = SweepFolder(tmp_path)
    with folder.lock(), pytest.raises(SweepFolderError, match="locked already"):
        folder.acquire()


def test_forked_child_does_not_keep_the_lock(tmp_path):
    folder = SweepFolder(tmp_path)
    folder.acquire()
    alive, stop = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:  # runs until it is told to end
        os.close(stop[1])
        os.write(alive[1], b"x")
        os.read(stop[0], 1)
        os._exit(0)
    try:
        assert os.read(alive[0], 1) == b"x"
        folder.release()
        with SweepFolder(tmp_path).lock():
            pass
    finally:
        for descriptor in (*alive, *stop):
            os.close(descriptor)
        os.waitpid(pid, 0)


def test_end_of_a_forked_child_does_not_free_the_parent(tmp_path):
    with SweepFolder(tmp_path).lock():
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        with pytest.raises(SweepFolderError):
            SweepFolder(tmp_path).acquire()


def test_makes_the_folder_and_takes_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with SweepFolder("a/b").lock() as folder:
        assert folder.path == tmp_path / "a" / "b"
        assert folder.path.is_dir()


def test_path_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "f").touch()
    with pytest.raises(SweepFolderError, match="cannot be used"):
        SweepFolder(tmp_path / "f").acquire()


def test_a_stale_lock_file_with_garbage_is_harmless(tmp_path):
    (tmp_path / ".junky.lock").write_bytes(b"\xff garbage")
    with SweepFolder(tmp_path).lock(), pytest.raises(SweepFolderError):
        SweepFolder(tmp_path).acquire()


@pytest.mark.parametrize(
    ("content", "holds"),
    [
        (None, False),
        (b"", False),
        (b"\n", False),
        (b'{"event": "sweep_sta', False),
        (b'{"event": "sweep_started"}', True),
        (b'{"event": "sweep_started"}\n', True),
        (b"something else\n", True),
        (b"\n\r\n\0\0\n" + b'{"event": "sweep_started"}\n', True),
        (b"\n\0\n", False),
        (b"\n" + b'{"event": "sweep_sta', False),
    ],
)
def test_holds_sweep(tmp_path, content, holds):
    if content is not None:
        (tmp_path / "journal.jsonl").write_bytes(content)
    assert SweepFolder(tmp_path).holds_sweep() is holds


def test_file_system_without_locks_is_noted_not_refused(tmp_path, monkeypatch):
    import fcntl

    def refuse(*_args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with SweepFolder(tmp_path).lock() as folder:
        assert "has no locks" in folder.lock_note


def test_reclaim_creates_a_deleted_folder_again_and_locks_it(tmp_path):
    import shutil

    with SweepFolder(tmp_path / "s").lock() as folder:
        shutil.rmtree(folder.path)
        folder.reclaim()
        with pytest.raises(SweepFolderError):
            SweepFolder(folder.path).acquire()
        folder.reclaim()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs fifos")
@pytest.mark.parametrize("name", ["journal.jsonl", "autotrain.log", ".junky.lock"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/null")])
def test_fifos_and_devices_are_refused(tmp_path, name, make):
    path = tmp_path / name
    make(path)
    for use in (SweepFolder(tmp_path).acquire, SweepFolder(tmp_path).holds_sweep):
        with pytest.raises(SweepFolderError, match=f"{name}: it is a (fifo|device)"):
            use()
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["journal.jsonl", "autotrain.log", ".junky.lock"])
@pytest.mark.parametrize("target", ["precious", "nothing", "."])
def test_links_are_not_followed(tmp_path, name, target):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / name).symlink_to(tmp_path / target)
    for use in (
        SweepFolder(tmp_path / "sweep").acquire,
        SweepFolder(tmp_path / "sweep").holds_sweep,
    ):
        with pytest.raises(SweepFolderError, match=f"{name}: it is a symbolic link"):
            use()
    assert (tmp_path / "precious").read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == ["precious", "sweep"]


def test_a_link_created_after_the_check_is_not_followed(tmp_path, monkeypatch):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".junky.lock").symlink_to(tmp_path / "precious")
    monkeypatch.setattr(SweepFolder, "_check_files", lambda _self: None)
    with pytest.raises(SweepFolderError, match="cannot be used"):
        SweepFolder(tmp_path).acquire()
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("name", ["journal.jsonl", "autotrain.log", ".junky.lock"])
def test_folders_in_place_of_files_are_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(SweepFolderError, match=f"{name}: it is a folder"):
        SweepFolder(tmp_path).acquire()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs fifos")
def test_a_journal_that_is_a_fifo_or_a_device_is_refused(tmp_path):
    os.mkfifo(tmp_path / "journal.jsonl")
    for path in (tmp_path / "journal.jsonl", "/dev/null"):
        with pytest.raises(SweepFolderError, match=r"it is a (fifo|device)"):
            Journal(path)
        with pytest.raises(OSError, match=r"it is a (fifo|device)"):
            load_state(path)
        with pytest.raises(LogError, match=r"it is a (fifo|device)"):
            parse_autotrain_log(path, silent=True)
