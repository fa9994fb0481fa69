"""An observer, loader factory, model or training that raises loses no finished work."""

import threading

import pytest
import torch

from junky_core.autotrain import torch_autotrain
from junky_core.errors import ModelError, SweepFailed
from junky_core.record.reader import load_state, read_journal

GRID = [("a", list(range(8)))]


def make_model(a):
    return torch.nn.Linear(2, 1), a


def train(device, loaders, model, a, save_best, log_prefix):
    save_best(model, a / 10)
    return a


class Once:
    """Raises at the given calls."""

    def __init__(self, when, error=ValueError):
        self.when, self.error, self.count = when, error, 0
        self.lock = threading.Lock()

    def __call__(self, *args):
        with self.lock:
            self.count += 1
            count = self.count
        if self.when(count):
            raise self.error("by the test")


def run(folder, *, make=make_model, train=train, loaders=None, **kwargs):
    kwargs = {"devices": {"cpu": 2}, "make_model_fit_params": GRID, **kwargs}
    return torch_autotrain(make, train, loaders, sweep_dir=folder, **kwargs)


def statuses(folder):
    return [job.status for _num, job in sorted(load_state(folder).by_num.items())]


def resumed_is_whole(folder, **kwargs):
    """Resume without the fault: finished jobs stay, the others run."""
    state = load_state(folder)
    finished = {num for num, job in state.by_num.items() if job.status == "finished"}
    ran = []

    def note(device, loaders, model, a, save_best, log_prefix):
        ran.append(a)
        return train(device, loaders, model, a, save_best, log_prefix)

    result = run(folder, train=note, resume=True, **kwargs)
    assert [(score, value) for _, score, _, value in result.stats] == [
        (a / 10, a) for a in reversed(range(8))
    ]
    assert not {state.by_num[num].params["a"] for num in finished} & set(ran)
    assert [job.finished_times for job in load_state(folder).by_num.values()] == [1] * 8
    assert result.best_model_score == 0.7


def test_an_observer_that_raises_is_reported_once_and_harmless(tmp_path, capsys):
    class Broken:
        def on_event(self, event):
            raise RuntimeError("broken observer")

    result = run(tmp_path, observers=[Broken()])
    assert len(result.stats) == 8
    assert statuses(tmp_path) == ["finished"] * 8
    assert capsys.readouterr().out.count("broken observer") == 1


def test_train_method_that_raises_once_is_retried(tmp_path):
    fail = Once(lambda n: n == 3)

    def broken(device, loaders, model, a, save_best, log_prefix):
        fail()
        return train(device, loaders, model, a, save_best, log_prefix)

    result = run(tmp_path, train=broken)
    assert len(result.stats) == 8
    events = [r["event"] for r in read_journal(tmp_path)]
    assert events.count("attempt_failed") == 1
    assert statuses(tmp_path) == ["finished"] * 8


@pytest.mark.parametrize("error", [ValueError, SystemExit, MemoryError, BaseException])
def test_job_that_always_raises_fails_alone(tmp_path, error):
    def broken(device, loaders, model, a, save_best, log_prefix):
        if a == 3:
            raise error("by the test")
        return train(device, loaders, model, a, save_best, log_prefix)

    result = run(tmp_path, train=broken)
    assert len(result.stats) == 7
    assert [r.params for r in result.failed] == [{"a": 3}]
    assert statuses(tmp_path).count("failed") == 1
    record = next(r for r in read_journal(tmp_path) if r["event"] == "job_failed")
    assert "by the test" in record["traceback"]
    resumed_is_whole(tmp_path)


def test_make_model_that_raises_fails_its_job_alone(tmp_path):
    def broken(a):
        if a == 3:
            raise ValueError("by the test")
        return make_model(a)

    result = run(tmp_path, make=broken)
    assert len(result.stats) == 7
    resumed_is_whole(tmp_path)


def test_make_model_that_returns_no_model_ends_the_sweep_and_it_resumes(tmp_path):
    with pytest.raises(ModelError):
        run(tmp_path, make=lambda a: "no model")
    assert "finished" not in statuses(tmp_path)
    resumed_is_whole(tmp_path)


def test_identical_failures_stop_the_sweep_early_and_it_resumes(tmp_path):
    def broken(device, loaders, model, a, save_best, log_prefix):
        raise ValueError("by the test")

    with pytest.raises(SweepFailed, match="by the test") as info:
        run(tmp_path, train=broken, fail_fast=3, devices="cpu")
    assert str(info.value).count("by the test") >= 1
    assert len(load_state(tmp_path).by_num) == 3
    assert load_state(tmp_path).ended == "fail_fast"
    resumed_is_whole(tmp_path)


def test_a_loader_factory_that_raises_on_one_slot_keeps_the_others(tmp_path):
    fail = Once(lambda n: n == 1)

    def loaders():
        fail()
        return ()

    result = run(tmp_path, loaders=loaders)
    assert len(result.stats) == 8
    events = [r["event"] for r in read_journal(tmp_path)]
    assert events.count("slot_closed") == 1


def test_loader_factory_that_always_raises_ends_the_sweep_and_resumes(tmp_path):
    def loaders():
        raise ValueError("by the test")

    with pytest.raises(SweepFailed, match="by the test"):
        run(tmp_path, loaders=loaders)
    resumed_is_whole(tmp_path)


def test_wrong_arguments_of_save_best_fail_only_the_job(tmp_path):
    def broken(device, loaders, model, a, save_best, log_prefix):
        save_best(model if a != 3 else None, a / 10)
        return a

    result = run(tmp_path, train=broken)
    assert len(result.stats) == 7
    resumed_is_whole(tmp_path)


def test_grid_that_is_extended_and_reordered(tmp_path):
    run(tmp_path, make_model_fit_params=[("a", [5, 2, 7])])
    numbers = {job.params["a"]: num for num, job in load_state(tmp_path).by_num.items()}
    assert numbers == {5: 0, 2: 1, 7: 2}
    resumed_is_whole(tmp_path)
    after = {job.params["a"]: num for num, job in load_state(tmp_path).by_num.items()}
    assert {a: after[a] for a in numbers} == numbers
    assert sorted(after.values()) == list(range(8))


def test_a_reduced_grid_keeps_the_best_with_its_row(tmp_path):
    run(tmp_path)
    result = run(tmp_path, make_model_fit_params=[("a", [0, 1])], resume=True)
    assert result.best_model_score == result.stats[0][1]
    assert result.best_model_name == result.stats[0][0]


def test_values_and_params_of_resumed_jobs_are_unchanged(tmp_path):
    def tell(device, loaders, model, a, save_best, log_prefix):
        return (float("nan"), {"t": (1, 2)}, a)

    first = run(tmp_path, train=tell, devices="cpu")
    second = run(tmp_path, train=tell, devices="cpu", resume=True)
    assert repr(second.stats) == repr(first.stats)


def test_resuming_removes_the_temporary_of_a_killed_save(tmp_path):
    run(tmp_path, make_model_fit_params=[("a", [7, 1])])
    (tmp_path / ".model.pt.0.tmp").write_bytes(b"half a model")
    resumed_is_whole(tmp_path)
    assert not list(tmp_path.glob(".*.tmp"))
