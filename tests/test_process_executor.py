"""Worker processes keep the executors' contract, and survive what jobs do to them."""

import os
import signal
import threading
import time

import pytest
import torch
from executor_contract import ExecutorContract, Recorder, interrupt
from process_runs import ProcessRuns
from served import FaultRunner, is_gone

from junky_core.engine import watch
from junky_core.errors import ConfigError, SweepFailed, SweepInterrupted
from junky_core.events import JobFinished, JobStarted, Notice, ScoreReported
from junky_core.executors.processes.executor import ProcessExecutor
from junky_core.executors.processes.fork_server import ForkServer, is_supported

pytestmark = pytest.mark.skipif(not is_supported(), reason="the fork server is for Linux")

SERVER = ForkServer()


@pytest.fixture(scope="module", autouse=True)
def _server():
    """All tests share one server: it takes seconds to start."""
    with SERVER:
        yield


def make_executor(slots, runner, settings, link):
    return ProcessExecutor(slots, runner, settings, link, server=SERVER, kill_after_s=0.5)


class TestProcesses(ExecutorContract):
    make_executor = staticmethod(make_executor)


@pytest.fixture
def run(tmp_path):
    """Run jobs with these parameters; ``run.best`` is the best model, ``run.recorder`` heard."""
    runs = ProcessRuns(tmp_path, SERVER)
    yield runs
    runs.close()


@pytest.mark.parametrize(
    ("do", "how"),
    [
        ("segfault", "SIGSEGV"),
        ("abort", "SIGABRT"),
        ("exit", "exit status 3"),
    ],
)
def test_a_job_that_ends_its_process_crashed_and_others_go_on(run, do, how):
    others = [{"do": "pid"}] * 3
    results = run({"do": do}, *others, max_retries=1)
    assert [(r.status, r.attempts) for r in results] == [("failed", 2)] + [("finished", 1)] * 3
    assert how in results[0].error
    assert [(e.kind, e.job, e.retry) for e in run.failures()] == [
        ("crashed", 0, True),
        ("crashed", 0, False),
    ]


def test_a_job_that_crashed_may_succeed_in_a_new_process(run):
    results = run({"do": "segfault", "once": True}, {"do": "pid"})
    assert [(r.status, r.value, r.attempts) for r in results[:1]] == [("finished", "again", 2)]


def test_the_traceback_of_a_crash_is_written(run, capfd):
    run({"do": "segfault"}, max_retries=0)
    written = capfd.readouterr().err
    assert "Thread-1_0: Fatal Python error: Segmentation fault" in written
    assert "in run" in written


def test_a_job_killed_from_outside_runs_again_last_and_alone(run):
    began = []
    recorder = Recorder(JobStarted=lambda event: began.append(event.job))
    results = run({"do": "killed", "once": True}, *[{}] * 5, slots=2, recorder=recorder)
    assert [r.status for r in results] == ["finished"] * 6
    assert results[0].attempts == 2
    assert began[-1] == 0
    (failed,) = run.failures()
    assert failed.kind == "crashed"
    assert "SIGKILL" in failed.error
    assert "memory" in failed.error


def test_equal_crashes_of_the_first_jobs_stop_the_sweep(run):
    with pytest.raises(SweepFailed, match="first 3 jobs all failed"):
        run(*[{"do": "segfault"}] * 20, fail_fast=3)


@pytest.mark.parametrize("do", ["loop", "ignore_sigterm", "write_without_end"])
def test_a_job_that_comes_to_no_cancellation_point_is_killed(run, do, capfd):
    results = run({"do": do}, {"do": "pid"}, job_timeout_s=0.3)
    assert [r.status for r in results] == ["failed", "finished"]
    assert "exceeded its time limit of 0.3 s" in results[0].error
    assert "killed" in results[0].error
    assert [(e.kind, e.retry) for e in run.failures()] == [("timeout", False)]


@pytest.mark.parametrize("do", ["loop", "ignore_sigterm"])
def test_ctrl_c_ends_a_job_that_comes_to_no_cancellation_point(run, do):
    began = time.monotonic()
    with pytest.raises(SweepInterrupted) as caught:
        run({"do": do}, {}, recorder=Recorder(JobStarted=interrupt))
    assert [r.status for r in caught.value.result] == ["stopped"]
    assert time.monotonic() - began < 20
    ends = "1 running job ends at the next cancellation point, or is killed after 0.5 s. Interrupt"
    assert any(ends in event.message for event in run.recorder.all(Notice))


def test_a_job_over_its_time_is_said_to_be_killed(run, monkeypatch):
    monkeypatch.setattr(watch, "REMIND_EVERY_S", 0.05)
    run({"do": "loop"}, job_timeout_s=0.2, max_retries=0)
    reminders = [e.message for e in run.recorder.all(Notice) if "still running" in e.message]
    assert reminders
    assert all(message.endswith("is killed 0.5 s after its time limit") for message in reminders)


def test_children_that_a_job_leaves_end_with_its_worker(run, tmp_path):
    run({"do": "leave_child", "pids": str(tmp_path / "pids")}, max_retries=0)
    assert is_gone(int((tmp_path / "pids").read_text()))
    (result,) = run({"do": "leave_child_and_return"})
    run.sweeps[-1].close()
    assert is_gone(result.value)


def test_output_arrives_with_the_prefix_of_its_job(run, capfd):
    run({"do": "write"})
    written = capfd.readouterr()
    assert written.out == "Thread-1_0: from C\nThread-1_0: from Python\n"
    assert written.err == "Thread-1_0: to stderr\n"


def test_output_that_fills_the_pipe_arrives_whole(run, capfd):
    (result,) = run({"do": "write_much"})
    assert result.value == "done"
    assert capfd.readouterr().out == ("Thread-1_0: " + "x" * 999 + "\n") * 2000


def test_what_cannot_be_pickled_arrives_as_text(run):
    results = run({"do": "return_lock"}, {"do": "raise_odd"}, max_retries=0)
    assert results[0].value.startswith("<unlocked _thread.lock")
    (notice,) = [e.message for e in run.recorder.all(Notice) if e.level == "warning"]
    assert "replaced by their repr() if they cannot be pickled" in notice
    assert results[1].error.endswith("Odd: 1 and 2")
    assert "1 and 2" in str(results[1].exception)


def test_parameters_that_cannot_be_sent_fail_their_job(run):
    results = run({"do": "pid", "lock": threading.Lock()}, {"do": "pid"}, max_retries=0)
    assert [r.status for r in results] == ["failed", "finished"]
    assert "params cannot be pickled" in results[0].error


def test_a_runner_that_cannot_be_sent_is_refused_at_once(run):
    with pytest.raises(ConfigError, match=r"what jobs run\.count is a lock"):
        run({}, runner=FaultRunner(count=threading.Lock()))


def test_one_process_runs_all_jobs_of_its_slot(run):
    results = run(*[{"do": "pid"}] * 10, slots=2)
    assert len({r.value for r in results}) == len({r.slot for r in results}) <= 2
    assert len({(r.slot, r.value) for r in results}) == len({r.slot for r in results})
    assert os.getpid() not in {r.value for r in results}


@pytest.mark.parametrize("seed", [None, 7])
def test_a_worker_shares_nearly_all_memory_with_the_server(run, seed):
    (result,) = run({"do": "memory"}, seed=seed)
    assert result.value < 30 * 1024


def test_unseeded_jobs_differ_and_seeded_ones_do_not_depend_on_their_process(run):
    drawn = [r.value for r in run(*[{"do": "draw"}] * 8, slots=2)]
    assert len(set(drawn)) == 8
    run.sweeps[-1].close()
    drawn = [r.value for r in run(*[{"do": "draw"}] * 4, slots=2, seed=7)]
    torch.manual_seed(7)
    assert drawn == [float(torch.rand(1, dtype=torch.double))] * 4


def test_loaders_with_workers_of_their_own_work(run):
    assert [r.value for r in run(*[{"do": "use_loader"}] * 2)] == [[28, 28]] * 2


def test_the_best_model_is_that_of_the_best_score(run, tmp_path):
    scores = [[0.1, 0.7], [0.3], [0.9, 0.2], [0.8]]
    results = run(*[{"do": "save", "scores": one} for one in scores], slots=2)
    assert [r.score for r in results] == [0.7, 0.3, 0.9, 0.8]
    assert run.best.saved.score == 0.9
    assert run.best.saved.job == 2
    weights = torch.load(tmp_path / "model.pt", weights_only=True)
    assert weights["weight"].item() == pytest.approx(0.9)
    leading = [e.best_score for e in run.recorder.all(ScoreReported)]
    assert leading == sorted(leading)


def test_a_score_that_was_given_before_a_crash_counts(run, tmp_path):
    one = {"do": "save", "scores": [0.2, 0.9, 0.5], "then": "segfault"}
    (result,) = run(one, max_retries=0)
    assert (result.status, result.score) == ("failed", 0.9)
    assert run.best.saved.score == 0.9
    assert torch.load(tmp_path / "model.pt", weights_only=True)["weight"].item() > 0.8


def test_a_job_is_finished_only_once_its_model_is_on_disk(run):
    on_disk = []
    recorder = Recorder(JobFinished=lambda _event: on_disk.append(run.best.saved))
    run({"do": "save", "scores": [0.5], "width": 1000}, recorder=recorder)
    assert on_disk[0].score == 0.5


def test_a_slot_whose_process_dies_three_times_before_it_has_a_job_closes(run, tmp_path):
    runner = FaultRunner("segfault", tmp_path / "count")
    with pytest.raises(SweepFailed, match=r"died 3 times before it had a job: killed by SIGSEGV"):
        run({}, {}, runner=runner)
    assert len((tmp_path / "count").read_bytes()) == 3


def test_a_process_that_dies_once_before_it_has_a_job_is_replaced(run, tmp_path):
    runner = FaultRunner("exit", tmp_path / "count", times=1)
    results = run({"do": "pid"}, runner=runner)
    assert [r.status for r in results] == ["finished"]


def test_the_death_of_the_server_is_not_its_jobs_fault(run, tmp_path):
    one = {"do": "kill_server", "flag": str(tmp_path / "flag")}
    results = run(one, {"do": "pid"}, max_retries=0)
    assert [(r.status, r.attempts) for r in results] == [("finished", 1)] * 2
    assert [e.kind for e in run.failures()] == ["lost"]


@pytest.mark.parametrize("whose", ["server", "worker"])
def test_a_process_that_dies_between_two_jobs_costs_no_attempt(run, whose):
    def kill(event):
        if event.job == 0:
            pid = SERVER.pid if whose == "server" else event.value
            os.kill(pid, signal.SIGKILL)
            assert is_gone(pid)

    first, second = run(*[{"do": "pid"}] * 2, recorder=Recorder(JobFinished=kill), max_retries=0)
    assert (first.attempts, second.attempts) == (1, 1)
    assert first.value != second.value
    assert run.failures() == []


def test_many_jobs_of_which_some_crash_have_one_outcome_each(run):
    kinds = ["segfault", "exit", "abort"]
    params = [{"do": kinds[n % 3] if n % 20 == 0 else "return"} for n in range(100)]
    results = run(*params, slots=4, max_retries=1)
    assert [r.status == "failed" for r in results] == [n % 20 == 0 for n in range(100)]
    over = [e.job for e in run.recorder.all(JobFinished)]
    assert sorted(over) == [n for n in range(100) if n % 20]
    started = [e.name for e in run.recorder.all(JobStarted)]
    assert len(set(started)) == len(started) == 105
