"""``torch_autotrain(executor="processes")``: as on threads, and refused before anything is made."""

import math
import os
import threading

import pytest
import swept
import torch

from junky_core import torch_autotrain
from junky_core.errors import ConfigError, ModelError, SweepFailed
from junky_core.events import JobFinished, Notice
from junky_core.executors.processes.fork_server import is_supported
from junky_core.record.reader import read_journal

processes = pytest.mark.skipif(not is_supported(), reason="the fork server is for Linux")
LOCK = threading.Lock()
LOCK = threading.Lock()


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Listener:
    def __init__(self):
        self.seen, self.lock = [], threading.Lock()  # which cannot be sent

    def on_event(self, event):
        self.seen.append(event)

    def notices(self):
        return [event.message for event in self.seen if isinstance(event, Notice)]


def sweep(train=swept.pid, widths=(1, 2, 3), make=swept.make, **options):
    options.setdefault("executor", "processes")
    return torch_autotrain(make, train, make_model_fit_params=[("width", widths)], **options)


@processes
def test_jobs_run_in_the_processes_of_their_slots(tmp_path):
    listener = Listener()
    result = sweep(
        widths=range(1, 7), devices="cpu*2", best_model_device="cpu", observers=[listener]
    )
    assert os.getpid() not in (pids := {value for *_, value in result.stats})
    assert len(pids) <= 2
    assert result.best_model_params == {"width": 6}
    assert result.best_model.weight.tolist() == [[6.0] * 6]
    weights = torch.load(tmp_path / "model.pt", weights_only=True)
    assert weights["weight"].tolist() == [[6.0] * 6]
    finished = [event for event in listener.seen if isinstance(event, JobFinished)]
    assert sorted(event.job for event in finished) == list(range(6))


@processes
def test_loaders_are_built_in_the_process_of_their_slot():
    result = sweep(swept.same_process, create_loaders_method=swept.pid_of_loaders)
    assert [value for *_, value in result.stats] == [True] * 3


@processes
def test_what_has_no_name_is_sent_too():
    scale = 10

    def train(_device, _loaders, model, save_best, _prefix, *args, **kwargs):
        save_best(model, scale * model.in_features)
        return args, kwargs["by"](model.in_features)

    result = sweep(
        train,
        widths=[2],
        make=lambda width: torch.nn.Linear(width, 1),
        train_args=(torch.ones(1),),
        train_kwargs={"by": lambda width: width + scale},
    )
    ((_, score, _, ((one,), by)),) = result.stats
    assert (score, one.tolist(), by) == (20, [1.0], 12)


@processes
def test_a_job_that_comes_to_no_cancellation_point_is_killed():
    with pytest.raises(SweepFailed, match=r"exceeded its time limit of 0\.2 s"):
        sweep(swept.loop, widths=[1], job_timeout_s=0.2, kill_after_s=0.2)


@processes
@pytest.mark.parametrize(("first", "then"), [("threads", "processes"), ("processes", "threads")])
def test_another_executor_resumes_the_sweep(tmp_path, first, then):
    notes = tmp_path / "notes"

    def resumed(executor, **options):
        return sweep(
            swept.note, train_args=(str(notes),), sweep_dir="SWEEP", executor=executor, **options
        )

    resumed(first, widths=[1, 2])
    result = resumed(then, widths=[1, 2, 3], resume=True)
    assert notes.read_text() == "1\n2\n3\n"
    assert sorted(score for _, score, *_ in result.stats) == [1, 2, 3]
    specs = [record["spec"] for record in read_journal("SWEEP") if "spec" in record]
    assert [spec["executor"] for spec in specs] == [repr(first), repr(then)]


@pytest.mark.parametrize("executor", ["ray", "process", "", None, 1, [], b"threads"])
def test_another_word_for_the_executor_is_refused(executor):
    with pytest.raises(ConfigError, match=r"executor is .*; it must be 'threads' or 'processes'"):
        sweep(executor=executor)


@pytest.mark.parametrize("seconds", [0, -1, None, "10", True, math.nan])
def test_kill_after_s_must_be_seconds(seconds):
    with pytest.raises(ConfigError, match=r"kill_after_s is .*; it must be seconds above 0$"):
        sweep(kill_after_s=seconds)


def nameless(function):
    """Return a function that is sent by value, with its globals."""
    function.__qualname__ = "<nameless>"
    return function


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"make": nameless(lambda **_: LOCK)}, "make_model_method .*global 'LOCK' is a lock"),
        ({"train": nameless(lambda *_: LOCK)}, "train_method .*global 'LOCK' is a lock"),
        ({"create_loaders_method": nameless(lambda: LOCK)}, "create_loaders_method .*is a lock"),
        ({"make_model_args": (1, LOCK)}, r"make_model_args\[1\] cannot be sent .*: a lock"),
        ({"make_model_kwargs": {"x": LOCK}}, r"make_model_kwargs\['x'\] cannot be sent"),
        ({"train_args": [[LOCK]]}, r"train_args\[0\] cannot be sent .*: train_args\[0\]\[0\] is a"),
        ({"train_kwargs": {"x": LOCK}}, r"train_kwargs\['x'\] cannot be sent"),
        (
            {"widths": [1, LOCK]},
            "^make_model_fit_params: value of 'width' cannot be sent to worker processes: a lock ",
        ),
        ({"widths": [swept.Unloadable()]}, "value of 'width' .*loaded again .*no number"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_what_cannot_be_sent_is_an_error_before_anything_is_made(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        sweep(sweep_dir="SWEEP", **options)
    assert list(tmp_path.iterdir()) == []


def test_the_values_of_a_range_are_not_looked_at():
    with pytest.raises(ConfigError, match="train_kwargs"):
        sweep(widths=range(1, 10**15), train_kwargs={"x": LOCK})


def test_a_dry_run_starts_no_process(capsys):
    sweep(dry_run=True)
    assert "3 = 3 (width)" in capsys.readouterr().out


@processes
def test_an_error_that_every_job_would_raise_comes_out_as_itself():
    with pytest.raises(ModelError, match="must return a torch"):
        sweep(make=lambda width: width)


@processes
def test_slots_that_cannot_open_say_why_once():
    with pytest.raises(SweepFailed) as caught:
        sweep(create_loaders_method=swept.broken_loaders, devices="cpu*2")
    message = str(caught.value)
    assert message.startswith("no slot could be opened:\nThread-1 on cpu, Thread-2 on cpu: ")
    assert message.count("OSError: no such disk") == 1


@processes
@pytest.mark.parametrize("train", [swept.return_lock, swept.return_unloadable])
def test_what_cannot_come_back_is_replaced_by_a_text_and_said_once(train):
    listener = Listener()
    result = sweep(train, observers=[listener])
    assert [type(value) for *_, value in result.stats] == [str] * 3
    assert sum("replaced by their repr()" in message for message in listener.notices()) == 1


@processes
def test_a_parameter_that_cannot_be_loaded_fails_its_job():
    result = sweep(widths=[1, swept.LoadableHere()], max_retries=0)
    (failed,) = result.failed
    assert "LookupError" in failed.error
    assert "not in this process" in failed.traceback
