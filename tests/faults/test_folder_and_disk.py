"""A full disk, a folder that is read-only or deleted, two sweeps in one folder."""

import os
import subprocess

import pytest
from fault_harness import Child, check_best_file, check_complete, ranking

from junky_core.record.reader import read_journal

SIZE = {"a": 3, "b": 6}


def set_read_only(folder, on):
    """Allow no new or renamed files there; for root this needs the file system's own flag."""
    if os.geteuid() == 0:
        subprocess.run(["chattr", "+i" if on else "-i", str(folder)], check=True)
    else:
        folder.chmod(0o555 if on else 0o755)


def said_once(text, words):
    """Return how many lines contain it; log and console each have it once."""
    return sum(words in line for line in text.splitlines())


@pytest.fixture
def full_disk(small_disk):
    return {"folder": small_disk / "sweep", "fault": "fill_disk"}


@pytest.fixture
def read_only(tmp_path):
    probe = tmp_path / "probe"
    probe.mkdir()
    try:
        set_read_only(probe, True)
        with pytest.raises(OSError):
            (probe / "x").touch()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this file system has no read-only folders for this user")
    finally:
        set_read_only(probe, False)
    folder = tmp_path / "sweep"
    yield {"folder": folder, "fault": "read_only_folder"}
    if folder.exists():
        set_read_only(folder, False)


@pytest.fixture(params=["full_disk", "read_only"])
def bad_disk(request):
    return request.getfixturevalue(request.param)


def make_good(bad_disk):
    if bad_disk["fault"] == "fill_disk":
        (bad_disk["folder"].parent / "filler").unlink()
    else:
        set_read_only(bad_disk["folder"], False)


def test_a_disk_that_fails_for_a_while_loses_nothing(tmp_path, bad_disk, undisturbed):
    child = Child(tmp_path, **SIZE, **bad_disk, slots=1, width=200, recover=True)
    child.run()
    check_complete(child, undisturbed(**SIZE))
    text = child.output()
    assert said_once(text, "COULD NOT BE SAVED") == 1
    assert said_once(text, "cannot write the journal") <= 1


def test_training_finishes_on_a_disk_that_fails_to_the_end(tmp_path, bad_disk, undisturbed):
    child = Child(tmp_path, **SIZE, **bad_disk, slots=1, width=200)
    child.start()
    status = child.wait()
    text = child.output()
    assert status == 1, text
    assert "BestModelError" in text
    assert ranking(child.result()) == ranking(undisturbed(**SIZE))
    assert len(child.starts()) == 18
    record = check_best_file(child)  # the old one, intact
    name, score, _ = child.result()["best"]
    assert (name, score) == (record.name, record.score)
    assert said_once(text, "COULD NOT BE SAVED") == 1
    # With room again, recorded jobs do not run again, and the result is complete.
    make_good(bad_disk)
    before, seen = child.finished(), len(child.starts())
    resumed = Child(tmp_path, **SIZE, folder=bad_disk["folder"], width=200, resume=True)
    resumed.run()
    assert not [params for params in resumed.starts()[seen:] if params in before]
    check_complete(resumed, undisturbed(**SIZE))


@pytest.mark.parametrize("recover", [True, False])
def test_limit_on_file_size(tmp_path, undisturbed, recover):
    """Like a full disk, on machines where nothing may be mounted."""
    child = Child(tmp_path, **SIZE, slots=1, width=20_000, fault="limit_files", recover=recover)
    if recover:
        child.run()
        check_complete(child, undisturbed(**SIZE))
    else:
        # The result file of the test itself is under the limit, too: only the status counts.
        child.start().wait()
        check_best_file(child)
        assert len(child.starts()) == 18
    assert "cannot write the journal" in child.output()
    for record in read_journal(child.folder):
        assert record["event"]


def test_a_deleted_folder_is_created_again(tmp_path, undisturbed):
    child = Child(tmp_path, **SIZE, slots=1, fault="delete_folder", best_model_device="cpu")
    child.run()
    assert ranking(child.result()) == ranking(undisturbed(**SIZE))
    check_complete(child, undisturbed(**SIZE))


def test_deleted_folder_after_the_best_was_saved(tmp_path, undisturbed):
    """The best model was saved before; no later save writes it again."""
    size = {"a": 1, "b": 5}
    best = undisturbed(**size)["best"][2]["b"]
    assert best < 3, "the test needs a best job before the folder is deleted"
    child = Child(tmp_path, **size, slots=1, fault="delete_folder", best_model_device="cpu")
    child.run()
    check_complete(child, undisturbed(**size))


def test_second_sweep_in_a_folder_is_refused(tmp_path, undisturbed):
    first = Child(tmp_path, **SIZE, epoch_s=60, announce=1).start()  # until it is killed
    first.wait_until("RUNNING")
    other = tmp_path / "other"
    other.mkdir()
    for resume in (False, True):
        second = Child(other, **SIZE, folder=first.folder, resume=resume).start()
        assert second.wait() not in (0, -9)
        assert "SweepFolderError" in second.output()
        assert f"process {first.process.pid}" in second.output()
    first.process.kill()
    assert first.wait() == -9
    third = Child(tmp_path, **SIZE, resume=True)  # the lock of the killed one blocks nothing
    third.run()
    check_complete(third, undisturbed(**SIZE))


def test_two_sweeps_started_at_once_in_one_folder(tmp_path, undisturbed):
    children = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        children.append(
            Child(tmp_path / name, **SIZE, epoch_s=0.1, folder=tmp_path / "sweep").start()
        )
    statuses = [child.wait() for child in children]
    assert sorted(status == 0 for status in statuses) == [False, True], statuses
    winner, loser = sorted(children, key=lambda child: child.process.returncode != 0)
    assert "SweepFolderError" in loser.output()
    assert loser.starts() == []
    check_complete(winner, undisturbed(**SIZE))


def test_new_sweep_does_not_overwrite_one(tmp_path):
    child = Child(tmp_path, a=1, b=2)
    child.run()
    before = {p.name: p.read_bytes() for p in child.folder.iterdir() if p.name != ".junky.lock"}
    again = Child(tmp_path, a=1, b=2).start()
    assert again.wait() == 1
    assert "resume=True" in again.output()
    assert {
        p.name: p.read_bytes() for p in child.folder.iterdir() if p.name != ".junky.lock"
    } == before
    assert os.listdir(child.folder)
