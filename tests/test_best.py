"""The best model: file and score always agree."""

import textwrap
import threading

import pytest
import torch
import warm_start

import junky_core.job.best as best_module
from junky_core.errors import ConfigError, ModelError
from junky_core.events import BestSaved, BestSaving, Notice
from junky_core.job.best import BestModel


def model_of(value):
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, value)
    return model


def value_in(path):
    return torch.load(path, weights_only=True)["weight"].item()


@pytest.fixture
def best(tmp_path):
    best = BestModel(tmp_path / "model.pt")
    yield best
    best.close()


def test_the_best_of_many_is_on_disk(best):
    for num, score in enumerate([0.1, 0.5, 0.3]):
        best.offer(num, f"Thread-1_{num}", score, model_of(score))
    assert best.flush()
    assert best.best.score == 0.5
    assert value_in(best.path) == 0.5


def test_minimize_keeps_the_lowest(tmp_path):
    best = BestModel(tmp_path / "model.pt", "minimize")
    for num, score in enumerate([0.1, -0.5, 0.3]):
        best.offer(num, "n", score, model_of(score))
    best.flush()
    assert value_in(best.path) == -0.5
    best.close()


@pytest.mark.parametrize("order", [[3, 1, 2], [1, 2, 3], [2, 3, 1]])
def test_a_tie_goes_to_the_lower_job_in_any_order(best, order):
    for num in order:
        best.offer(num, f"Thread-1_{num}", 0.5, model_of(num))
    best.flush()
    assert best.best.job == 1
    assert value_in(best.path) == 1


def test_a_job_keeps_its_first_save_of_a_score(best):
    best.offer(1, "n", 0.5, model_of(10))
    assert not best.offer(1, "n", 0.5, model_of(20)).leads
    best.flush()
    assert value_in(best.path) == 10


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_not_finite_is_never_best(best, score):
    assert not best.offer(0, "n", score, model_of(1)).leads
    assert best.flush()
    assert not best.path.exists()


def test_later_training_does_not_change_what_was_saved(best):
    model = model_of(1)
    best.offer(0, "n", 0.5, model)
    torch.nn.init.constant_(model.weight, 2)
    best.flush()
    assert value_in(best.path) == 1


def test_offers_do_not_wait_for_the_disk(best, monkeypatch):
    """While one write hangs, others are offered; the disk then gets only the last."""
    hang, writing, plain = threading.Event(), threading.Event(), best_module.write_atomically
    writes = []

    def slow(path, write, **kwargs):
        writes.append(path)
        writing.set()
        assert hang.wait(60)
        return plain(path, write, **kwargs)

    monkeypatch.setattr(best_module, "write_atomically", slow)
    best.offer(0, "n", 0.0, model_of(0))
    assert writing.wait(60)
    for num in range(1, 50):
        assert best.offer(num, "n", num / 100, model_of(num)).leads
    hang.set()
    assert best.flush()
    assert value_in(best.path) == 49
    assert len(writes) == 2


def test_events_have_the_hash_before_and_after_the_rename(tmp_path):
    events = []
    best = BestModel(tmp_path / "model.pt", emit=events.append)
    best.offer(4, "Thread-2_1", 0.25, model_of(1))
    best.flush()
    best.close()
    saving, saved = events
    assert isinstance(saving, BestSaving)
    assert isinstance(saved, BestSaved)
    assert (saved.job, saved.name, saved.score) == (4, "Thread-2_1", 0.25)
    assert saving.sha256 == saved.sha256


def test_when_saved_waits_for_that_save_or_a_better_one(best, monkeypatch):
    hang, called, plain = threading.Event(), [], best_module.write_atomically

    def slow(path, write, **kwargs):
        assert hang.wait(60)
        return plain(path, write, **kwargs)

    monkeypatch.setattr(best_module, "write_atomically", slow)
    standing = best.offer(0, "n", 0.1, model_of(0))
    best.when_saved(0, lambda: called.append("no save"))
    best.when_saved(standing.serial, lambda: called.append("first"))
    assert called == ["no save"]
    hang.set()
    best.flush()
    assert called == ["no save", "first"]
    best.when_saved(standing.serial, lambda: called.append("at once"))
    assert called[-1] == "at once"


def test_a_failed_write_is_reported_once_and_retried(tmp_path, monkeypatch):
    events, broken, plain = [], [True], best_module.write_atomically

    def flaky(path, write, **kwargs):
        if broken[0]:
            raise OSError(28, "No space left on device")
        return plain(path, write, **kwargs)

    monkeypatch.setattr(best_module, "write_atomically", flaky)
    best = BestModel(tmp_path / "model.pt", emit=events.append)
    for num in range(3):
        best.offer(num, "n", num, model_of(num))
        assert not best.flush()
    notices = [event for event in events if isinstance(event, Notice)]
    assert len(notices) == 1
    assert notices[0].level == "error"
    assert "No space left" in notices[0].message
    broken[0] = False
    assert best.flush()
    assert value_in(best.path) == 2
    best.close()


def test_a_failed_write_leaves_the_old_file_intact(tmp_path, monkeypatch):
    best = BestModel(tmp_path / "model.pt")
    best.offer(0, "n", 0.0, model_of(7))
    best.flush()
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError("torn")))
    best.offer(1, "n", 1.0, model_of(8))
    assert not best.flush()
    assert value_in(tmp_path / "model.pt") == 7
    best.close()


def test_a_reader_never_sees_half_a_file(best):
    stop, errors = threading.Event(), []
    best.offer(0, "n", 0.0, model_of(0))
    best.flush()

    def read():
        while not stop.is_set():
            try:
                value_in(best.path)
            except Exception as error:
                errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for num in range(1, 100):
        best.offer(num, "n", num, model_of(num))
    best.flush()
    stop.set()
    for reader in readers:
        reader.join()
    assert errors == []


def test_racing_threads_leave_the_best(best):
    barrier = threading.Barrier(8)

    def race(worker):
        barrier.wait()
        for step in range(50):
            score = (worker * 37 + step * 101) % 997
            best.offer(worker, "n", score, model_of(score))

    threads = [threading.Thread(target=race, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    best.flush()
    top = max((w * 37 + s * 101) % 997 for w in range(8) for s in range(50))
    assert best.best.score == top
    assert value_in(best.path) == top


def test_an_object_that_is_not_a_model_is_refused(best):
    with pytest.raises(ModelError, match="int"):
        best.offer(0, "n", 0.5, 42)


def test_a_folder_that_cannot_be_made_is_an_error_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="best_model_file_name"):
        BestModel(tmp_path / "file" / "model.pt").check_folder()
    with pytest.raises(ConfigError, match="cannot be written"):
        BestModel(tmp_path / "file" / "sub" / "model.pt").check_folder()
    with pytest.raises(ConfigError, match="names a folder"):
        BestModel(tmp_path).check_folder()


def test_the_check_leaves_nothing_behind(tmp_path):
    BestModel(tmp_path / "a" / "b" / "model.pt").check_folder()
    assert list(tmp_path.iterdir()) == []


def test_the_check_of_the_file_follows_no_link(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / ".model.pt.probe").symlink_to(tmp_path / "precious")
    with pytest.raises(ConfigError, match="cannot be written"):
        BestModel(tmp_path / "sweep" / "model.pt").check_folder()
    assert (tmp_path / "precious").read_text() == "precious"


def test_the_thread_that_writes_imports_nothing():
    """A child that another thread forks at that time could never import the module."""
    script = """
        import sys, tempfile
        from pathlib import Path
        import torch
        from junky_core.job.best import BestModel

        with tempfile.TemporaryDirectory() as folder:
            best = BestModel(Path(folder) / "model.pt")
            before = set(sys.modules)
            best.offer(0, "Thread-1_0", 1.0, torch.nn.Linear(1, 1))
            assert best.flush()
            assert set(sys.modules) == before, set(sys.modules) - before
            best.close()
    """
    warm_start.checked(["-c", textwrap.dedent(script)])
