"""``torch_autotrain``: arguments, order of calls, results, retry, and bad input."""

import gc
import inspect
import math
import os
import signal
import threading
import time
import weakref

import pytest
import torch
from torch import nn

from junky_core import current_job, torch_autotrain
from junky_core.errors import (
    ConfigError,
    DeviceError,
    FitParamsError,
    ModelError,
    ModelLoadError,
    SweepFailed,
    SweepFolderError,
    SweepInterrupted,
)

TEXT_EXAMPLE = [("a", [50, 100]), [("b", [0.1, 0.5])], [("b", None), ("c", ["X", "Y"])]]
TEXT_DICTS = [
    {"a": 50, "b": 0.1},
    {"a": 50, "b": 0.5},
    {"a": 100, "b": 0.1},
    {"a": 100, "b": 0.5},
    {"a": 50, "b": None, "c": "X"},
    {"a": 50, "b": None, "c": "Y"},
    {"a": 100, "b": None, "c": "X"},
    {"a": 100, "b": None, "c": "Y"},
]


class Tagged(nn.Module):
    """A model whose only weight identifies its job."""

    def __init__(self, tag=0.0, **params):
        super().__init__()
        self.tag = nn.Parameter(torch.tensor(float(tag)))
        self.params = params


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def by_x(x):
    return Tagged(x), x


def save_x(device, loaders, model, x, save_best, log_prefix):
    save_best(model, x)
    return f"returned {x}"


def value_in(path):
    return torch.load(path, weights_only=True)["tag"].item()


def test_the_signature_is_the_documented_one():
    parameters = inspect.signature(torch_autotrain).parameters
    positional = [n for n, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == [
        "make_model_method", "train_method", "create_loaders_method", "make_model_args",
        "make_model_kwargs", "make_model_fit_params", "train_args", "train_kwargs", "devices",
        "best_model_file_name", "best_model_device", "seed",
    ]  # fmt: skip
    assert parameters["best_model_file_name"].default == "model.pt"
    assert parameters["devices"].default == torch.device("cpu")
    assert parameters["max_retries"].default == 1
    assert parameters["direction"].default == "maximize"
    assert parameters["max_retries"].kind is inspect.Parameter.KEYWORD_ONLY


def test_the_documented_grid_gives_its_jobs_in_order():
    seen = []

    def make(**fit):
        seen.append(fit)
        return Tagged()

    torch_autotrain(make, lambda *_: None, make_model_fit_params=TEXT_EXAMPLE)
    assert seen == TEXT_DICTS


def test_calls_get_their_documented_arguments():
    calls = []

    def make(*args, **kwargs):
        calls.append(("make", args, kwargs))
        return Tagged(), "optimizer", "criterion"

    def train(*args, **kwargs):
        calls.append(("train", args, kwargs))
        assert args[5]  # best_model_backup_method
        return 7

    result = torch_autotrain(
        make, train, lambda: ("train loader", "test loader"), (1, 2), {"k": 3},
        [("a", [4])], (5, 6), {"t": 8},
    )  # fmt: skip
    assert calls[0] == ("make", (1, 2), {"k": 3, "a": 4})
    _, args, kwargs = calls[1]
    device, loaders, model, *rest = args
    assert device == torch.device("cpu")
    assert loaders == ("train loader", "test loader")
    assert isinstance(model, Tagged)
    assert rest[:2] == ["optimizer", "criterion"]
    assert callable(rest[2])
    assert rest[3:] == ["Thread-1_0: ", 5, 6]
    assert kwargs == {"t": 8}
    assert result.stats == [("Thread-1_0", None, {"a": 4}, 7)]


def test_without_loaders_and_with_a_bare_model():
    def train(device, loaders, model, save_best, log_prefix):
        assert loaders == ()
        save_best(model, 1)

    torch_autotrain(Tagged, train)


def test_the_result_unpacks_into_five():
    best_model, name, score, params, stats = torch_autotrain(
        by_x, save_x, make_model_fit_params=[("x", [0.1, 0.9, 0.5])], best_model_device="cpu"
    )
    assert best_model.tag.item() == pytest.approx(0.9)
    assert not best_model.training
    assert (name, score, params) == ("Thread-1_1", 0.9, {"x": 0.9})
    assert stats == [
        ("Thread-1_1", 0.9, {"x": 0.9}, "returned 0.9"),
        ("Thread-1_2", 0.5, {"x": 0.5}, "returned 0.5"),
        ("Thread-1_0", 0.1, {"x": 0.1}, "returned 0.1"),
    ]
    assert value_in("model.pt") == pytest.approx(0.9)


def test_the_best_is_not_loaded_by_default():
    assert torch_autotrain(by_x, save_x, make_model_fit_params=[("x", [1])]).best_model is None


def test_a_wrapped_model_loads_into_what_make_model_method_returns():
    def train(device, loaders, model, x, save_best, log_prefix):
        save_best(nn.DataParallel(model), x)

    result = torch_autotrain(
        by_x, train, make_model_fit_params=[("x", [3])], best_model_device="cpu"
    )
    assert result.best_model.tag.item() == 3


def test_a_best_that_cannot_be_loaded_leaves_the_result():
    def train(device, loaders, model, x, save_best, log_prefix):
        model.more = nn.Parameter(torch.zeros(1))  # a newly built model does not have it
        save_best(model, x)

    with pytest.raises(ModelLoadError, match=r"model\.pt") as caught:
        torch_autotrain(by_x, train, make_model_fit_params=[("x", [3])], best_model_device="cpu")
    assert caught.value.result.stats == [("Thread-1_0", 3.0, {"x": 3}, None)]


def test_the_best_is_built_again_as_its_job():
    def make(x):
        job = current_job()
        seen.append((job.num, job.params, str(job.device), job.loaders(list, "ab")))
        return Tagged(x)

    seen = []
    torch_autotrain(
        make,
        lambda device, loaders, model, save_best, log_prefix: save_best(model, model.tag.item()),
        make_model_fit_params=[("x", [1, 3, 2])],
        best_model_device="cpu",
        seed=0,
    )
    assert seen[3] == seen[1]


def test_a_tilde_in_the_file_name_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    torch_autotrain(by_x, save_x, best_model_file_name="~/m.pt", make_model_args=(1,))
    assert value_in(tmp_path / "home" / "m.pt") == 1


def test_a_failed_jobs_model_is_gone_before_the_next_job():
    made, alive = [], []

    def make(x):
        model = Tagged(x)
        made.append(weakref.ref(model))
        return model

    def train(device, loaders, model, save_best, log_prefix):
        gc.collect()
        alive.append([ref() is not None for ref in made[:-1]])

        def closure():
            raise MemoryError(f"{type(model)}")

        if len(made) == 1:
            closure()

    torch_autotrain(make, train, make_model_fit_params=[("x", [0, 1])])
    assert alive == [[], [False], [False, False]]


def test_minimize():
    result = torch_autotrain(
        by_x, save_x, make_model_fit_params=[("x", [0.5, -2.0, 1.0])], direction="minimize"
    )
    assert [row[1] for row in result.stats] == [-2.0, 0.5, 1.0]
    assert value_in("model.pt") == -2.0


def test_scores_that_are_not_finite_come_last():
    scores = {0: float("nan"), 1: -5.0, 2: None, 3: float("inf"), 4: -7.5}

    def train(device, loaders, model, x, save_best, log_prefix):
        if scores[x] is not None:
            save_best(model, scores[x])

    result = torch_autotrain(by_x, train, make_model_fit_params=[("x", range(5))])
    assert [row[2]["x"] for row in result.stats] == [1, 4, 0, 3, 2]
    assert math.isnan(result.stats[2][1])
    assert result.stats[-1][1] is None
    assert result.best_model_score == -5.0
    assert value_in("model.pt") == 1


def test_no_score_at_all_gives_no_best():
    result = torch_autotrain(by_x, lambda *_: 5, make_model_fit_params=[("x", [1])])
    assert tuple(result) == (None, None, None, None, [("Thread-1_0", None, {"x": 1}, 5)])


def test_a_score_may_be_a_tensor():
    def train(device, loaders, model, x, save_best, log_prefix):
        save_best(model, torch.tensor([0.25]))

    result = torch_autotrain(by_x, train, make_model_fit_params=[("x", [1])])
    assert result.best_model_score == 0.25


def test_a_jobs_parameter_is_its_own():
    def make(layers):
        layers.append(1)
        return Tagged(), len(layers)

    def train(device, loaders, model, count, save_best, log_prefix):
        return count

    result = torch_autotrain(
        make, train, make_model_fit_params=[("layers", [[[]][0], [0]])], max_retries=0
    )
    assert sorted(row[3] for row in result.stats) == [1, 2]
    assert sorted(len(row[2]["layers"]) for row in result.stats) == [0, 1]


def test_40_jobs_on_3_slots_with_failures():
    """Some raise, some run out of memory once, one always fails; the others are not affected."""
    lock, calls, built, users, once = threading.Lock(), [], [], {}, set()

    def loaders():
        loader = [object()]
        with lock:
            built.append((threading.current_thread(), loader))
        return loader

    def train(device, loader, model, x, save_best, log_prefix):
        with lock:
            calls.append(x)
            users.setdefault(id(loader), set()).add(threading.current_thread())
            first = x not in once
            once.add(x)
        if x == 13:
            raise ValueError("always")
        if first and x % 10 == 3:
            raise RuntimeError("once")
        if first and x % 10 == 7:
            raise MemoryError
        save_best(model, x / 100)
        return x

    result = torch_autotrain(
        by_x, train, loaders, make_model_fit_params=[("x", range(40))], devices={"cpu": 3}
    )
    assert sorted(row[3] for row in result.stats) == [x for x in range(40) if x != 13]
    assert [row[1] for row in result.stats] == sorted((r[1] for r in result.stats), reverse=True)
    assert len(built) == 3
    assert len({thread for thread, _ in built}) == 3
    for thread, loader in built:
        assert users.get(id(loader), {thread}) == {thread}
    assert value_in("model.pt") == 39
    assert (result.best_model_score, result.best_model_params) == (0.39, {"x": 39})
    (failed,) = result.failed
    assert failed.params == {"x": 13}
    assert failed.attempts == 2
    assert "ValueError: always" in failed.traceback
    assert calls.count(13) == 2


def test_a_job_that_always_fails_ends(capsys):
    def train(device, loaders, model, x, save_best, log_prefix):
        if x == 1:
            raise ValueError("no way")
        save_best(model, x)

    result = torch_autotrain(
        by_x, train, make_model_fit_params=[("x", [0, 1, 2])], max_retries=3, devices="cpu*2"
    )
    assert result.failed[0].attempts == 4
    assert "no way" in capsys.readouterr().out


def test_when_all_fail_an_error_has_the_first_traceback_and_a_count():
    def train(*_):
        raise ValueError("broken here")

    with pytest.raises(SweepFailed, match=r"(?s)all 3 job.*broken here") as caught:
        torch_autotrain(by_x, train, make_model_fit_params=[("x", [1, 2, 3])])
    assert "def train" not in str(caught.value)
    assert 'raise ValueError("broken here")' in str(caught.value)
    assert len(caught.value.failed) == 3
    assert isinstance(caught.value.__cause__, ValueError)


def test_fail_fast_stops_the_sweep():
    count = []

    def train(device, loaders, model, x, save_best, log_prefix):
        count.append(x)
        raise ValueError(f"bad {x}")

    with pytest.raises(SweepFailed, match="bad 0") as caught:
        torch_autotrain(by_x, train, make_model_fit_params=[("x", range(1000))])
    assert len(count) == 5
    assert [(job.slot, job.device) for job in caught.value.failed] == [(1, "cpu")] * 5


def test_the_best_is_listed_even_if_its_job_failed_later():
    def train(device, loaders, model, x, save_best, log_prefix):
        save_best(model, x)
        if x == 2:
            raise RuntimeError("after the save")
        return x

    result = torch_autotrain(by_x, train, make_model_fit_params=[("x", [1, 2])])
    assert result.best_model_score == 2
    assert result.stats[0] == (result.best_model_name, 2.0, {"x": 2}, None)
    assert [f.params for f in result.failed] == [{"x": 2}]


def test_the_bests_name_is_that_of_the_retry():
    tries = []

    def train(device, loaders, model, x, save_best, log_prefix):
        tries.append(x)
        save_best(model, x)
        if x == 9 and tries.count(9) == 1:
            raise RuntimeError

    result = torch_autotrain(by_x, train, make_model_fit_params=[("x", [9, 1])])
    assert result.best_model_name == "Thread-1_2"
    assert result.stats[0][0] == "Thread-1_2"


def test_a_slot_whose_loaders_fail_hands_its_jobs_to_the_others(capsys):
    lock, count = threading.Lock(), []

    def loaders():
        with lock:
            count.append(1)
            if len(count) == 1:
                raise OSError("no such disk")
        return ()

    result = torch_autotrain(
        by_x, save_x, loaders, make_model_fit_params=[("x", range(10))], devices="cpu*2"
    )
    assert len(result.stats) == 10
    assert result.failed == ()
    assert "no such disk" in capsys.readouterr().out


def test_loaders_that_fail_everywhere_end_the_sweep():
    def loaders():
        raise OSError("no such disk")

    with pytest.raises(SweepFailed, match="no such disk"):
        torch_autotrain(
            by_x, save_x, loaders, make_model_fit_params=[("x", range(9))], devices="cpu*2"
        )


def test_a_model_that_is_none_ends_the_sweep_with_an_error():
    calls = []

    def make(x):
        calls.append(x)
        return {"not": "a model"}

    with pytest.raises(ModelError, match=r"make_model_method.*'x': 0.*dict"):
        torch_autotrain(make, save_x, make_model_fit_params=[("x", range(9))])
    assert calls == [0]


def test_system_exit_in_a_job_fails_that_job_alone():
    def train(device, loaders, model, x, save_best, log_prefix):
        if x == 0:
            raise SystemExit(3)
        save_best(model, x)

    result = torch_autotrain(by_x, train, make_model_fit_params=[("x", [0, 1])])
    assert [f.params["x"] for f in result.failed] == [0]


def test_jobs_of_different_slots_run_at_the_same_time():
    barrier = threading.Barrier(3)

    def train(*_):
        barrier.wait(60)

    torch_autotrain(by_x, train, make_model_fit_params=[("x", range(3))], devices={"cpu": 3})


def test_names_count_slots_from_one_and_attempts_from_zero():
    result = torch_autotrain(by_x, save_x, make_model_fit_params=[("x", range(3))])
    assert sorted(row[0] for row in result.stats) == ["Thread-1_0", "Thread-1_1", "Thread-1_2"]


def test_gradients_are_on_in_the_next_job_after_a_job_turned_them_off():
    def train(device, loaders, model, x, save_best, log_prefix):
        assert torch.is_grad_enabled()
        torch.set_grad_enabled(False)

    result = torch_autotrain(by_x, train, make_model_fit_params=[("x", range(3))])
    assert not result.failed


def test_current_job_inside_and_in_its_threads():
    def train(device, loaders, model, x, save_best, log_prefix):
        job = current_job()
        found = []
        thread = threading.Thread(target=lambda: found.append(current_job()))
        thread.start()
        thread.join()
        assert found == [job]
        assert job.params == {"x": x}
        assert job.log_prefix == log_prefix
        return job.num

    result = torch_autotrain(by_x, train, make_model_fit_params=[("x", range(20))], devices="cpu*4")
    assert all(row[3] == row[2]["x"] for row in result.stats)


def test_shared_data_is_built_once_for_all_slots():
    built = []

    def data(size):
        built.append(size)
        return list(range(size))

    def train(device, loaders, model, x, save_best, log_prefix):
        return id(current_job().shared(data, 10))

    result = torch_autotrain(by_x, train, make_model_fit_params=[("x", range(12))], devices="cpu*4")
    assert built == [10]
    assert len({row[3] for row in result.stats}) == 1


def test_a_job_over_its_time_ends_at_its_next_model_call():
    def train(device, loaders, model, x, save_best, log_prefix):
        layer = nn.Linear(1, 1)
        deadline = time.monotonic() + 60
        while x == 0 and time.monotonic() < deadline:
            layer(torch.ones(1))
        return "end"

    result = torch_autotrain(
        by_x, train, make_model_fit_params=[("x", [0, 1])], job_timeout_s=0.2, max_retries=5
    )
    (failed,) = result.failed
    assert failed.params == {"x": 0}
    assert failed.attempts == 1
    assert "exceeded its time limit of 0.2 s" in failed.error


@pytest.mark.parametrize("point", ["loader", "optimizer", "check", "save_best"])
def test_other_cancellation_points(point):
    def train(device, loaders, model, save_best, log_prefix):
        deadline = time.monotonic() + 60
        loader = torch.utils.data.DataLoader(range(10))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        while time.monotonic() < deadline:
            if point == "loader":
                list(loader)
            elif point == "optimizer":
                optimizer.step()
            elif point == "check":
                current_job().check()
            else:
                save_best(model, 0.0)

    with pytest.raises(SweepFailed, match="exceeded its time limit"):
        torch_autotrain(Tagged, train, job_timeout_s=0.2)


def test_ctrl_c_does_not_wait_for_loaders_that_are_being_built():
    release, built = threading.Event(), []

    def loaders():
        os.kill(os.getpid(), signal.SIGINT)
        release.wait(10)
        built.append(True)

    with pytest.raises(SweepInterrupted):
        torch_autotrain(by_x, save_x, loaders, make_model_args=(1,))
    assert not built
    release.set()


def test_the_hooks_are_removed_after_the_sweep():
    before = torch.utils.data.dataloader._BaseDataLoaderIter.__next__

    def train(device, loaders, model, save_best, log_prefix):
        while True:
            current_job().check()

    with pytest.raises(SweepFailed):
        torch_autotrain(Tagged, train, job_timeout_s=0.1)
    assert torch.utils.data.dataloader._BaseDataLoaderIter.__next__ is before
    assert not torch.nn.modules.module._global_forward_pre_hooks
    assert threading.Thread.start.__module__ == "threading"


def test_a_sweep_over_its_time_starts_nothing_new():
    def train(device, loaders, model, x, save_best, log_prefix):
        threading.Event().wait(2.1)  # until the sweep's time is over
        return x

    result = torch_autotrain(by_x, train, make_model_fit_params=[("x", [1, 2])], sweep_timeout_s=2)
    assert [row[3] for row in result.stats] == [1]


def test_a_sweep_in_a_folder_is_resumed(tmp_path):
    ran = []

    def train(device, loaders, model, x, save_best, log_prefix):
        ran.append(x)
        save_best(model, x)
        return {"x": x}

    def sweep(xs, **kwargs):
        return torch_autotrain(
            by_x, train, make_model_fit_params=[("x", xs)], sweep_dir=tmp_path / "s", **kwargs
        )

    sweep([1, 5])
    with pytest.raises(SweepFolderError, match="resume=True"):
        sweep([1, 5])
    result = sweep([5, 7, 1], resume=True)
    assert ran == [1, 5, 7]
    assert [(row[2]["x"], row[3]) for row in result.stats] == [
        (7, {"x": 7}), (5, {"x": 5}), (1, {"x": 1}),
    ]  # fmt: skip
    assert len({row[0] for row in result.stats}) == 3
    assert value_in(tmp_path / "s" / "model.pt") == 7


@pytest.mark.parametrize(
    ("kwargs", "error", "says"),
    [
        ({"make_model_fit_params": [("a", [])]}, FitParamsError, "'a'"),
        ({"make_model_fit_params": 3}, FitParamsError, "3"),
        ({"make_model_fit_params": [("a", [1]), ("a", [2])]}, FitParamsError, "'a'"),
        ({"make_model_fit_params": [(1, [2])]}, FitParamsError, "1"),
        ({"devices": "gpu:0"}, DeviceError, "gpu:0"),
        ({"devices": {"cpu": 0}}, DeviceError, "0 slots"),
        ({"best_model_device": "gpu"}, DeviceError, "best_model_device"),
        ({"direction": "up"}, ConfigError, "direction"),
        ({"max_retries": -1}, ConfigError, "max_retries"),
        ({"max_retries": True}, ConfigError, "max_retries"),
        ({"threads_per_slot": 0}, ConfigError, "threads_per_slot"),
        ({"threads_per_slot": 99999}, ConfigError, "1 to 1024"),
        ({"progress": "x"}, ConfigError, "progress is 'x'"),
        ({"observers": None}, ConfigError, "observers is None"),
        ({"observers": [print]}, ConfigError, "on_event"),
        ({"fail_fast": 0}, ConfigError, "fail_fast"),
        ({"job_timeout_s": 0}, ConfigError, "job_timeout_s"),
        ({"seed": "x"}, ConfigError, "seed"),
        ({"seed": -1}, ConfigError, "seed"),
        ({"seed": 1 << 64}, ConfigError, "seed"),
        ({"make_model_args": 5}, ConfigError, r"\(5,\)"),
        ({"make_model_args": "ab"}, ConfigError, "make_model_args"),
        ({"make_model_kwargs": [1]}, ConfigError, "make_model_kwargs"),
        ({"make_model_kwargs": {"a": 1}, "make_model_fit_params": [("a", [1])]}, ConfigError, "a:"),
        ({"best_model_file_name": "/proc/nope/model.pt"}, ConfigError, "/proc/nope"),
        ({"best_model_file_name": "models/"}, ConfigError, "folder"),
        ({"best_model_file_name": None}, ConfigError, "best_model_file_name"),
        ({"resume": True}, ConfigError, "sweep_dir"),
        ({"train_method": None}, ConfigError, "train_method"),
        ({"create_loaders_method": 3}, ConfigError, "create_loaders_method"),
    ],
)
def test_bad_input_is_named_before_any_training(tmp_path, kwargs, error, says, capsys):
    def make(**_):
        raise AssertionError("called")

    arguments = {"make_model_method": make, "train_method": save_x, **kwargs}
    with pytest.raises(error, match=says):
        torch_autotrain(**arguments)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_a_refused_sweep_leaves_no_folder(tmp_path):
    with pytest.raises(ConfigError):
        torch_autotrain(
            by_x, save_x, sweep_dir=tmp_path / "a" / "b", best_model_file_name="/proc/no/model.pt"
        )
    assert list(tmp_path.iterdir()) == []


def test_the_callers_random_numbers_are_unchanged():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    torch_autotrain(
        by_x, save_x, make_model_fit_params=[("x", range(3))], best_model_device="cpu", seed=0
    )
    assert torch.equal(torch.rand(3), expected)


def test_limits_of_a_seed_are_reported_once(capsys):
    def loaders():
        return iter([1, 2, 3])  # exhausted after the first job

    torch_autotrain(by_x, save_x, loaders, make_model_fit_params=[("x", range(3))], seed=0)
    assert capsys.readouterr().out.count("seed: loaders: list_iterator") == 1
    torch_autotrain(by_x, save_x, loaders, make_model_fit_params=[("x", range(3))])
    assert "seed: loaders" not in capsys.readouterr().out


def test_torch_threads_are_put_back():
    before = torch.get_num_threads()
    inside = []

    def train(*_):
        inside.append(torch.get_num_threads())

    torch_autotrain(Tagged, train, threads_per_slot=3)
    assert inside == [3]
    assert torch.get_num_threads() == before
