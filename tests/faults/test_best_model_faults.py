"""The reported best model is always the one on disk, whatever prevents a model from being written."""

import errno
import os
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

import junky_core.job.best as best_module
from junky_core import AutotrainResult, BestModelError, torch_autotrain
from junky_core.errors import ModelError, SweepInterrupted
from junky_core.record.reader import load_state, read_journal

SCORES = [0.1, 0.2, 0.3, 0.25]  # by job; the third is the best


class Tagged(nn.Module):
    """A model whose only weight is the score of its job."""

    def __init__(self, tag=0.0):
        super().__init__()
        self.tag = nn.Parameter(torch.tensor(float(tag)))


class Unpicklable(Tagged):
    def get_extra_state(self):
        return threading.Lock()

    def set_extra_state(self, state):
        pass


class OwnClass:
    """What torch.load(weights_only=True) does not load."""


class NotLoadable(Tagged):
    def get_extra_state(self):
        return OwnClass()

    def set_extra_state(self, state):
        pass


def make(x):
    return Tagged(SCORES[x])


def train(device, loaders, model, save_best, log_prefix):
    save_best(model, model.tag.item())
    return "trained"


class Disk:
    """Makes some writes of the best model fail, by their number."""

    def __init__(self, monkeypatch, fault, writes):
        self.count = 0
        self.writes = writes
        plain = best_module.write_atomically

        def counted(path, write, **kwargs):
            failing = self.count in self.writes
            self.count += 1
            with monkeypatch.context() as patch:
                if failing:
                    fault(patch)
                return plain(path, write, **kwargs)

        monkeypatch.setattr(best_module, "write_atomically", counted)


def no_space(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_disk(patch):
    patch.setattr(torch, "save", no_space)


def failing_fsync(patch):
    patch.setattr(os, "fsync", no_space)


def failing_rename(patch):
    patch.setattr(Path, "replace", no_space)


FAULTS = [full_disk, failing_fsync, failing_rename]
FROM_THE_THIRD = range(2, 1000)
ALL = range(1000)


def sweep(folder, **kwargs):
    return torch_autotrain(
        make,
        train,
        make_model_fit_params=[("x", list(range(len(SCORES))))],
        best_model_device="cpu",
        sweep_dir=folder,
        **kwargs,
    )


def one_write_a_job(monkeypatch):
    """Make each job wait until its save was tried, so that the writes can be counted."""
    from junky_core.job.context import JobContext

    plain = JobContext.save_best

    def save_and_wait(self, model, score):
        leads = plain(self, model, score)
        self._best.flush()
        return leads

    monkeypatch.setattr(JobContext, "save_best", save_and_wait)


def last_record(folder):
    return list(read_journal(folder))[-1]


@pytest.mark.parametrize("fault", FAULTS)
def test_result_journal_and_log_name_the_model_on_disk(tmp_path, monkeypatch, fault):
    one_write_a_job(monkeypatch)
    Disk(monkeypatch, fault, FROM_THE_THIRD)
    with pytest.raises(BestModelError, match=r"job 1 with the score 0\.2") as caught:
        sweep(tmp_path)
    assert "Job 2 with the score 0.3 leads" in str(caught.value)
    model, name, score, params, stats = caught.value.result
    on_disk = torch.load(tmp_path / "model.pt", weights_only=True)["tag"].item()
    assert model.tag.item() == pytest.approx(on_disk) == pytest.approx(0.2)
    assert (name, params, score) == ("Thread-1_1", {"x": 1}, pytest.approx(0.2))
    assert [params["x"] for _, _, params, _ in stats] == [2, 3, 1, 0]
    end = last_record(tmp_path)
    assert (end["event"], end["reason"]) == ("sweep_ended", "best_not_saved")
    assert (end["best_job"], end["best_score"]) == (1, pytest.approx(0.2))
    assert (end["finished"], end["left"]) == (3, 1)
    log = (tmp_path / "autotrain.log").read_text()
    assert "best model job = 1\n" in log
    assert "AUTOTRAIN FINISHED (best_not_saved)" in log


@pytest.mark.parametrize("fault", FAULTS)
def test_no_model_is_reported_if_none_could_be_written(tmp_path, monkeypatch, fault):
    Disk(monkeypatch, fault, ALL)
    with pytest.raises(BestModelError, match="no model of this sweep is") as caught:
        sweep(tmp_path)
    assert caught.value.result[:4] == (None, None, None, None)
    assert len(caught.value.result.stats) == 4
    assert not (tmp_path / "model.pt").exists()
    assert last_record(tmp_path)["best_job"] is None
    assert "no best model is on disk\n" in (tmp_path / "autotrain.log").read_text()


def test_the_job_whose_model_was_lost_runs_again_when_the_sweep_is_resumed(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        one_write_a_job(patch)
        Disk(patch, full_disk, FROM_THE_THIRD)
        with pytest.raises(BestModelError):
            sweep(tmp_path)
    assert not load_state(tmp_path).by_num[2].status.is_over
    result = sweep(tmp_path, resume=True)
    assert result.best_model_params == {"x": 2}
    assert result.best_model.tag.item() == pytest.approx(0.3)
    assert [job.finished_times for job in load_state(tmp_path).by_num.values()] == [1] * 4


def test_without_a_folder_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one_write_a_job(monkeypatch)
    Disk(monkeypatch, failing_rename, FROM_THE_THIRD)
    with pytest.raises(BestModelError) as caught:
        sweep(None)
    assert caught.value.result.best_model.tag.item() == pytest.approx(0.2)
    assert isinstance(caught.value.result, AutotrainResult)


def test_a_write_that_succeeds_in_the_end_is_not_an_error(tmp_path, monkeypatch):
    one_write_a_job(monkeypatch)
    Disk(monkeypatch, full_disk, range(2, 4))
    result = sweep(tmp_path)
    assert result.best_model.tag.item() == pytest.approx(0.3)
    assert last_record(tmp_path)["reason"] == "completed"


def test_every_save_retries_an_earlier_failed_write(tmp_path, monkeypatch):
    disk = Disk(monkeypatch, full_disk, ALL)
    best = best_module.BestModel(tmp_path / "model.pt")
    best.offer(0, "n", 0.5, Tagged(0.5))
    assert not best.flush()
    disk.writes = ()
    best.offer(1, "n", 0.1, Tagged(0.1))  # does not lead
    assert wait_for(lambda: best.saved is not None)
    assert best.saved.job == 0
    best.close()


def wait_for(condition, timeout_s=20):
    pause = threading.Event()
    for _ in range(int(timeout_s / 0.01)):
        if condition():
            return True
        pause.wait(0.01)
    return False


def test_a_folder_that_cannot_be_flushed_still_gets_the_new_model(tmp_path, monkeypatch):
    """The new file is in place then: it is reported, and the sweep still ends with an error."""

    def only_folders(patch):
        import junky_core.files

        patch.setattr(junky_core.files, "fsync_folder", no_space)

    one_write_a_job(monkeypatch)
    Disk(monkeypatch, only_folders, FROM_THE_THIRD)
    with pytest.raises(BestModelError, match="in place, but a power cut") as caught:
        sweep(tmp_path)
    on_disk = torch.load(tmp_path / "model.pt", weights_only=True)["tag"].item()
    assert caught.value.result.best_model_score == pytest.approx(on_disk) == pytest.approx(0.3)
    assert caught.value.result.best_model_params == {"x": 2}


@pytest.mark.parametrize("how", ["overwritten", "replaced", "emptied"])
def test_a_file_that_another_program_changed_is_not_reported_as_the_best(tmp_path, how):
    path = tmp_path / "model.pt"

    def change(device, loaders, model, save_best, log_prefix):
        from junky_core import current_job

        save_best(model, model.tag.item())
        if current_job().num == 3:  # not the best
            assert wait_for(path.exists)
            current_job()._best.flush()
            if how == "replaced":
                torch.save({"tag": torch.tensor(9.0)}, tmp_path / "other")
                (tmp_path / "other").replace(path)
            elif how == "overwritten":
                torch.save({"tag": torch.tensor(9.0)}, path)
            else:
                path.write_bytes(b"")

    with pytest.raises(BestModelError, match="another program") as caught:
        torch_autotrain(
            make,
            change,
            make_model_fit_params=[("x", list(range(4)))],
            best_model_device="cpu",
            sweep_dir=tmp_path,
        )
    assert caught.value.result[:4] == (None, None, None, None)
    assert last_record(tmp_path)["best_job"] is None


def test_a_changed_file_is_reported_as_lost_until_the_next_save(tmp_path):
    """Each batch of a sweep checks the file; the last check counts."""
    best = best_module.BestModel(tmp_path / "model.pt")
    best.offer(0, "n", 0.5, Tagged(0.5))
    assert best.flush()
    best.path.write_bytes(b"other")
    for _ in range(2):
        assert not best.flush()
        assert "no longer in" in best.problem
    best.offer(1, "n", 0.6, Tagged(0.6))
    assert best.flush()
    assert best.problem == ""
    best.close()


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_deleted_file_is_not_reported_if_a_better_model_cannot_be_written(tmp_path, what):
    """Something else has the name of the model's folder or file."""

    def replace_it(device, loaders, model, save_best, log_prefix):
        from junky_core import current_job

        save_best(model, model.tag.item())
        current_job()._best.flush()
        if current_job().num == 1:
            (tmp_path / "best" / "model.pt").unlink()
            if what == "folder":
                (tmp_path / "best" / "model.pt").mkdir()
            else:
                (tmp_path / "best").rmdir()
                (tmp_path / "best").write_text("")

    with pytest.raises(BestModelError, match="no model of this sweep is") as caught:
        torch_autotrain(
            make,
            replace_it,
            make_model_fit_params=[("x", list(range(4)))],
            best_model_device="cpu",
            best_model_file_name="best/model.pt",
            sweep_dir=tmp_path,
        )
    assert caught.value.result[:4] == (None, None, None, None)
    assert last_record(tmp_path)["best_job"] is None


def test_a_file_that_was_only_touched_is_fine(tmp_path):
    best = best_module.BestModel(tmp_path / "model.pt")
    best.offer(0, "n", 0.5, Tagged(0.5))
    assert best.flush()
    os.utime(best.path, (1, 1))
    assert best.flush()
    assert best.problem == ""
    best.close()


@pytest.mark.parametrize("kind", [Unpicklable, NotLoadable])
def test_a_model_that_could_not_be_loaded_fails_its_own_job_alone(tmp_path, kind):
    def make_some(x):
        return (kind if x == 2 else Tagged)(SCORES[x])

    result = torch_autotrain(
        make_some,
        train,
        make_model_fit_params=[("x", list(range(4)))],
        best_model_device="cpu",
        sweep_dir=tmp_path,
        max_retries=0,
    )
    assert result.best_model_params == {"x": 3}
    assert result.best_model.tag.item() == pytest.approx(0.25)
    assert [params["x"] for _, _, params, _ in result.stats] == [3, 1, 0]
    (failed,) = result.failed
    assert isinstance(failed.exception, ModelError)
    assert "weights_only=True" in failed.error
    assert "get_extra_state" in failed.error
    assert failed.score is None
    assert last_record(tmp_path)["best_job"] == 3


def test_a_job_that_continues_after_a_refused_model_is_not_ranked_by_its_score(tmp_path):
    def make_some(x):
        return (Unpicklable if x == 2 else Tagged)(SCORES[x])

    def go_on(device, loaders, model, save_best, log_prefix):
        try:
            save_best(model, model.tag.item())
        except ModelError:
            return "refused"

    result = torch_autotrain(
        make_some,
        go_on,
        make_model_fit_params=[("x", list(range(4)))],
        best_model_device="cpu",
        sweep_dir=tmp_path,
    )
    assert result.stats[0][2] == result.best_model_params == {"x": 3}
    assert result.stats[-1][1:] == (None, {"x": 2}, "refused")


def test_a_job_is_refused_whether_its_model_leads_or_not(tmp_path):
    def make_some(x):
        return Unpicklable(0.0) if x == 3 else Tagged(SCORES[x])

    result = torch_autotrain(
        make_some,
        train,
        make_model_fit_params=[("x", list(range(4)))],
        sweep_dir=tmp_path,
        max_retries=0,
    )
    assert [job.num for job in result.failed] == [3]


def test_ctrl_c_gives_the_best_that_is_on_disk(tmp_path, monkeypatch):
    import signal

    one_write_a_job(monkeypatch)
    Disk(monkeypatch, full_disk, FROM_THE_THIRD)

    def interrupt(device, loaders, model, save_best, log_prefix):
        from junky_core import current_job

        save_best(model, model.tag.item())
        if current_job().num == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(SweepInterrupted) as caught:
        torch_autotrain(
            make,
            interrupt,
            make_model_fit_params=[("x", list(range(4)))],
            sweep_dir=tmp_path,
        )
    assert caught.value.result.best_model_params == {"x": 1}


def test_models_of_many_jobs_on_a_disk_that_fails_sometimes(tmp_path, monkeypatch):
    """4 slots, every second write fails: the reported model is always that of the file."""
    for seed in range(5):
        folder = tmp_path / str(seed)
        failing = {n for n in range(1000) if (n * 7919 + seed) % 3}
        with monkeypatch.context() as patch:
            Disk(patch, FAULTS[seed % 3], failing)
            try:
                result = torch_autotrain(
                    lambda x: Tagged((x * 37 % 101) / 101),
                    train,
                    make_model_fit_params=[("x", list(range(40)))],
                    devices={"cpu": 4},
                    best_model_device="cpu",
                    sweep_dir=folder,
                )
            except BestModelError as error:
                result = error.result
            else:
                assert result.best_model_score == pytest.approx(100 / 101)
        if result.best_model is None:
            assert not (folder / "model.pt").exists()
            continue
        on_disk = torch.load(folder / "model.pt", weights_only=True)["tag"].item()
        assert result.best_model.tag.item() == pytest.approx(on_disk)
        assert result.best_model_score == pytest.approx(on_disk)
        assert (result.best_model_params["x"] * 37 % 101) / 101 == pytest.approx(on_disk)
        assert last_record(folder)["best_score"] == pytest.approx(on_disk)
