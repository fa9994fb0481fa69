"""Worker processes keep the executors' contract, and survive what jobs do to them."""

import contextlib
import os
import signal
import threading
import time

import pytest
import torch
from executor_contract import ExecutorContract, Recorder, interrupt
from process_runs import ProcessRuns
from served import FaultRunner, is_gone
from sizes import LONG

from junky_core.devices import SlotSpec
from junky_core.engine import watch
from junky_core.errors import ConfigError, SweepFailed, SweepInterrupted
from junky_core.events import (
    JobFailed,
    JobFinished,
    JobStarted,
    Notice,
    ScoreReported,
    SlotClosed,
)
from junky_core.executors.contract import AttemptSettings
from junky_core.executors.processes import process_worker, worker_process
from junky_core.executors.processes.executor import ProcessExecutor
from junky_core.executors.processes.fork_server import ForkServer, is_supported
from junky_core.job.best import BestModel
from junky_core.jobs import Attempt, Job

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
    different = [{"do": "segfault"}, {"do": "abort"}]
    run(*different * 2, fail_fast=2, max_retries=0)
    run.sweeps[-1].close()
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
    reports = run.recorder.all(ScoreReported)
    assert all(e.best_score >= e.score for e in reports)
    assert max(e.best_score for e in reports) == 0.9


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


@pytest.mark.parametrize("whose", ["server", "worker"] if LONG else ["worker"])
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
    kinds = ["segfault", "exit", "abort", "killed", "sigterm"]
    bad = {20 * n: kinds[n % 5] for n in range(10)}  # 5 %
    params = [{"do": bad.get(num, "return")} for num in range(200)]
    results = run(*params, slots=8, max_retries=1)
    assert {r.num for r in results if r.status == "failed"} == set(bad)
    assert {(r.num in bad, r.attempts) for r in results} == {(True, 2), (False, 1)}
    over = [e.job for e in run.recorder.all(JobFinished, JobFailed)]
    assert sorted(over) == list(range(200))
    started = [e.name for e in run.recorder.all(JobStarted)]
    assert len(set(started)) == len(started) == 210
    by_kernel = [num for num, kind in bad.items() if kind == "killed"]
    last = [e.job for e in run.recorder.all(JobStarted)][-len(by_kernel) :]
    assert sorted(last) == by_kernel  # again last


@pytest.fixture
def pids(tmp_path):
    """A file for the number of a process, which ends after the test."""
    path = tmp_path / "pids"
    yield path
    if path.exists():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(path.read_text()), signal.SIGKILL)


def when_noted(path, then):
    """Call ``then(pid)`` once a job has noted the number of a process, in another thread."""

    def work():
        end = time.monotonic() + 60
        while not path.exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        then(int(path.read_text()))

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_an_end_amid_a_message_is_seen_though_a_child_holds_the_connection(run, pids):
    results = run({"do": "die_in_message", "pids": str(pids)}, {"do": "pid"}, max_retries=0)
    assert [r.status for r in results] == ["failed", "finished"]
    assert "exit status 3" in results[0].error


@pytest.mark.parametrize(
    ("do", "how"),
    [("close_connection", "exit status 1"), ("run_another_program", "closed its connection")],
)
def test_a_process_that_left_the_sweep_has_crashed(run, do, how, monkeypatch):
    monkeypatch.setattr(worker_process, "LEAVES_WITHIN_S", 0.2)
    results = run({"do": do}, {"do": "pid"}, max_retries=0)
    assert [r.status for r in results] == ["failed", "finished"]
    assert how in results[0].error
    assert [(e.kind, e.retry) for e in run.failures()] == [("crashed", False)]


def test_a_process_that_moved_to_another_group_is_killed(run, pids):
    results = run({"do": "move_to_another_group", "pids": str(pids)}, job_timeout_s=0.3)
    assert [r.status for r in results] == ["failed"]
    assert "time limit" in results[0].error


def test_what_a_job_left_in_a_session_of_its_own_goes_on(run, pids):
    (result,) = run({"do": "leave_daemon", "pids": str(pids)})
    run.sweeps[-1].close()
    assert result.status == "finished"
    assert not is_gone(int(pids.read_text()), 0.05)


def test_a_signal_to_all_processes_of_the_sweep_stops_it(run, pids):
    """Batch systems send it to all: workers may end before the driver has noticed its own."""

    def terminate(pid):
        os.kill(SERVER.pid, signal.SIGTERM)
        os.kill(pid, signal.SIGTERM)
        interrupt()

    thread = when_noted(pids, terminate)
    with pytest.raises(SweepInterrupted) as caught:
        run({"do": "note_and_loop", "pids": str(pids)}, {"do": "pid"})
    thread.join()
    assert [r.status for r in caught.value.result] == ["stopped"]
    assert [e.kind for e in run.failures()] == ["interrupted"]


def test_ctrl_c_ends_a_slot_whose_loaders_are_being_built(run, pids):
    thread = when_noted(pids, interrupt)
    with pytest.raises(SweepInterrupted):
        run({}, {}, runner=FaultRunner("hang", pids))
    began = time.monotonic()
    run.sweeps[-1].close()
    assert time.monotonic() - began < 4  # it is not asked to end, for it could not hear that
    thread.join()
    assert is_gone(int(pids.read_text()))


def test_closing_ends_an_attempt_that_is_executed(tmp_path, pids, monkeypatch):
    monkeypatch.setattr(process_worker, "_CLOSES_WITHIN_S", 0.2)

    class Link:
        best = BestModel(tmp_path / "model.pt")

        def emit(self, event):
            pass

        warn = open_slot = close_slot = emit

    slot = SlotSpec(1, "cpu")
    executor = make_executor([slot], FaultRunner(), AttemptSettings(), Link())
    job = Job(0, {"do": "note_and_loop", "pids": str(pids)})
    with executor.running(1):
        worker = executor.worker(slot)
        assert worker.open() == ""
        closing = when_noted(pids, lambda _pid: executor.close())
        end = worker.execute(Attempt(job, 1, "a"))
        closing.join()
        after = worker.execute(Attempt(job, 1, "b"))
    assert (end.kind, after.kind) == ("interrupted", "lost")
    assert "the sweep was closed" in end.error
    assert is_gone(int(pids.read_text()))


def test_loaders_that_crash_their_process_close_their_slot_and_others_go_on(run, tmp_path):
    runner = FaultRunner("segfault", tmp_path / "count", slot=2)
    results = run(*[{"do": "pid"}] * 6, slots=2, runner=runner)
    assert [r.status for r in results] == ["finished"] * 6
    assert {r.slot for r in results} == {1}
    (closed,) = run.recorder.all(SlotClosed)
    assert closed.slot == 2
    assert "died 3 times before it had a job: killed by SIGSEGV" in closed.reason


def test_a_model_that_does_not_arrive_has_turned_no_other_away(run, tmp_path):
    run({"do": "save_and_die", "score": 0.9}, {"do": "save", "scores": [0.5]}, max_retries=0)
    assert (run.best.saved.job, run.best.saved.score) == (1, 0.5)


def test_a_large_model_delays_training_little(run, tmp_path):
    (result,) = run({"do": "save_large"})
    copy_s, save_s = result.value
    assert save_s < copy_s + 0.3
    assert (tmp_path / "model.pt").stat().st_size > 100_000_000


def test_output_is_restored_after_a_job_that_closed_or_redirected_it(run, tmp_path, capfd):
    redirect = {"do": "redirect_output", "file": str(tmp_path / "file")}
    results = run({"do": "close_outputs"}, {"do": "write"}, redirect, {"do": "write"})
    assert [r.status for r in results] == ["finished"] * 4
    written = capfd.readouterr()
    assert written.out == "".join(
        f"Thread-1_{n}: from C\nThread-1_{n}: from Python\n" for n in (1, 3)
    )
    assert (tmp_path / "file").read_text() == "to the file\n"


def test_a_job_that_closes_the_streams_harms_no_other(run):
    results = run({"do": "close_streams"}, {"do": "pid"})
    assert [(r.status, r.attempts) for r in results] == [("finished", 1)] * 2


def test_output_of_commands_and_of_threads_of_earlier_jobs_arrives(run, tmp_path, capfd):
    flags = [str(tmp_path / name) for name in ("print", "printed")]
    run({"do": "run_commands"}, {"do": "print_later", "flags": flags},
        {"do": "let_it_print", "flags": flags})  # fmt: skip
    out = capfd.readouterr().out
    for text in ("from a shell", "from a command", "from C, buffered"):
        assert f"Thread-1_0: {text}\n" in out
    assert "from a thread of an earlier job\n" in out


def test_bytes_that_are_no_text_and_very_long_lines_arrive(run, capfd):
    run({"do": "write_bytes"}, {"do": "write_long_line"})
    out = capfd.readouterr().out
    assert "ABC" in out
    assert "�" in out
    assert out.count("x") == (3 << 20) + 1  # one is among the bytes
