"""A forked child of a job ends when the job's code does, and writes nothing of the sweep's."""

import json
import os
import textwrap

import pytest
import warm_start

from junky_core.record.reader import load_state, read_journal

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
ENDS = {  # what the child does -> the status that the parent finds
    "pass": 0,
    "sys.exit()": 0,
    "sys.exit(3)": 3,
    "sys.exit('words')": 1,
    "raise ValueError('of the child')": 1,
    "raise KeyboardInterrupt": 130,
    "os._exit(5)": 5,
}
JOBS = len(ENDS)

HEAD = """
import json, multiprocessing, os, pty, select, signal, sys, threading
import torch
from junky_core import current_job
from junky_core.autotrain import torch_autotrain
from junky_core.errors import ForkedChildError

statuses = []

def fork(child, make=os.fork):
    made = make()
    pid = made[0] if isinstance(made, tuple) else made
    if pid == 0:
        return child()
    if isinstance(made, tuple):
        try:
            while os.read(made[1], 1000):
                pass
        except OSError:
            pass
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    return "parent"
"""
TAIL = """
result = torch_autotrain(
    lambda job: (torch.nn.Linear(2, 1), job), train, make_model_fit_params=[("job", range(7))],
    devices={"cpu": 2}, sweep_dir=sys.argv[1], max_retries=0, report=True,
)
print("RESULT", json.dumps([sorted(statuses), len(result.stats), len(result.failed)]))
"""


def run(folder, train, tail=TAIL, head=HEAD):
    script = head + textwrap.dedent(train) + tail
    done = warm_start.checked(["-W", "ignore::DeprecationWarning", "-c", script, folder / "sweep"])
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert len(lines) == 1, done.stdout + done.stderr
    return json.loads(lines[0].removeprefix("RESULT ")), done


def check_one_writer(folder):
    records = list(read_journal(folder / "sweep"))
    for event in ("job_started", "job_finished"):
        assert sorted(r["job"] for r in records if r["event"] == event) == list(range(JOBS))
    assert [r["event"] for r in records].count("sweep_ended") == 1
    assert load_state(folder / "sweep").ended == "completed"
    log = (folder / "sweep" / "autotrain.log").read_text()
    assert log.count(": finished: ") == JOBS
    assert log.count("AUTOTRAIN FINISHED") == 1


@pytest.mark.parametrize("make", ["os.fork", "pty.fork"])
def test_child_ends_with_the_status_of_a_script(tmp_path, make):
    train = f"""
    def train(device, loaders, model, job, save_best, log_prefix):
        def child():
            exec({list(ENDS)!r}[job])
        if fork(child, {make}) != "parent":
            return
        save_best(model, job / 10)
    """
    (statuses, finished, failed), done = run(tmp_path, train)
    assert statuses == sorted(ENDS.values())
    assert (finished, failed) == (JOBS, 0)
    check_one_writer(tmp_path)
    if make == "os.fork":  # a child of pty.fork writes to its terminal
        assert done.stderr.count("ValueError: of the child") == 1
        assert done.stderr.count("words") == 1
        assert "in child" in done.stderr
        assert "junky_core" not in done.stderr


def test_child_of_a_thread_of_the_job_ends(tmp_path):
    train = """
    def train(device, loaders, model, job, save_best, log_prefix):
        thread = threading.Thread(target=lambda: fork(lambda: sys.exit(3)))
        thread.start()
        thread.join()
        save_best(model, job / 10)
    """
    (statuses, finished, failed), _ = run(tmp_path, train)
    assert (statuses, finished, failed) == ([3] * JOBS, JOBS, 0)
    check_one_writer(tmp_path)


def test_child_of_an_observer_ends(tmp_path):
    train = """
    class Forks:
        def on_event(self, event):
            if type(event).__name__ in ("JobStarted", "SweepStarted"):
                fork(lambda: sys.exit(3))

    def train(device, loaders, model, job, save_best, log_prefix):
        save_best(model, job / 10)
    """
    tail = TAIL.replace("report=True", "observers=[Forks()]")
    (statuses, finished, failed), _ = run(tmp_path, train, tail)
    assert (statuses, finished, failed) == ([3] * (JOBS + 1), JOBS, 0)
    check_one_writer(tmp_path)


def test_child_of_an_exception_that_forks_ends(tmp_path):
    """``__str__`` and ``__del__`` run in the sweep's own code."""
    train = """
    class Forks(Exception):
        def __str__(self):
            fork(lambda: None)
            return "x"

    def train(device, loaders, model, job, save_best, log_prefix):
        if job == 3:
            raise Forks
        save_best(model, job / 10)
    """
    (statuses, finished, failed), done = run(tmp_path, train)
    assert set(statuses) == {1}
    assert (finished, failed) == (JOBS - 1, 1)
    assert done.stdout.count("AUTOTRAIN FINISHED") == 1


def test_child_of_a_pool_of_threads_ends(tmp_path):
    train = """
    from concurrent.futures import ThreadPoolExecutor

    def train(device, loaders, model, job, save_best, log_prefix):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(fork, lambda: sys.exit(3)).result()
        save_best(model, job / 10)
    """
    (statuses, finished, failed), _ = run(tmp_path, train)
    assert (statuses, finished, failed) == ([3] * JOBS, JOBS, 0)
    check_one_writer(tmp_path)


def test_child_of_a_loader_factory_ends(tmp_path):
    train = """
    def loaders():
        fork(lambda: sys.exit(3))
        return ()

    def train(device, loaders, model, job, save_best, log_prefix):
        save_best(model, job / 10)
    """
    tail = TAIL.replace(" train,", " train, loaders,", 1)
    (statuses, finished, failed), _ = run(tmp_path, train, tail)
    assert (statuses, finished, failed) == ([3] * 2, JOBS, 0)
    check_one_writer(tmp_path)


def test_a_child_that_saves_gets_an_error(tmp_path):
    train = """
    def train(device, loaders, model, job, save_best, log_prefix):
        def child():
            assert current_job().num == job
            try:
                save_best(model, 99.0)
            except ForkedChildError:
                sys.exit(7)
        if fork(child) == "parent":
            save_best(model, job / 10)
    """
    (statuses, finished, failed), _ = run(tmp_path, train)
    assert (statuses, finished, failed) == ([7] * JOBS, JOBS, 0)
    check_one_writer(tmp_path)
    assert load_state(tmp_path / "sweep").best_job().score == 0.6


def test_child_that_the_job_terminates_ends(tmp_path):
    """The sweep's handlers for signals are not the child's."""
    # An Event would not do: interrupted at the wrong time, its wait() raises RuntimeError, or lasts.
    train = """
    def train(device, loaders, model, job, save_best, log_prefix):
        for signum in signal.SIGTERM, signal.SIGINT:
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.write(write, b"x")
                for _ in range(500):
                    select.select([], [], [], 0.1)
                os._exit(9)
            os.read(read, 1)
            os.kill(pid, signum)
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        save_best(model, job / 10)
    """
    (statuses, finished, failed), _ = run(tmp_path, train)
    assert statuses == [-15] * JOBS + [130] * JOBS
    assert (finished, failed) == (JOBS, 0)
    check_one_writer(tmp_path)


def test_processes_and_pools_that_fork_work_in_jobs(tmp_path):
    train = """
    def double(value):
        return 2 * value

    def leave(status):
        sys.exit(status)

    def train(device, loaders, model, job, save_best, log_prefix):
        context = multiprocessing.get_context("fork")
        process = context.Process(target=leave, args=(3,))
        process.start()
        process.join()
        statuses.append(process.exitcode)
        with context.Pool(2) as pool:
            assert pool.map(double, [1, 2, 3]) == [2, 4, 6]
        loader = torch.utils.data.DataLoader(
            torch.arange(8), 2, num_workers=1, multiprocessing_context="fork"
        )
        assert sum(len(batch) for batch in loader) == 8
        save_best(model, job / 10)
    """
    tail = TAIL.replace('{"cpu": 2}', '"cpu"')  # not with two threads that fork at the same time
    (statuses, finished, failed), _ = run(tmp_path, train, tail)
    assert (statuses, finished, failed) == ([3] * JOBS, JOBS, 0)
    check_one_writer(tmp_path)


def test_a_child_may_run_its_own_sweep(tmp_path):
    train = """
    def inner(device, loaders, model, job, save_best, log_prefix):
        save_best(model, job / 10)

    def train(device, loaders, model, job, save_best, log_prefix):
        def child():
            result = torch_autotrain(
                lambda job: (torch.nn.Linear(2, 1), job), inner,
                make_model_fit_params=[("job", range(3))], devices="cpu",
                sweep_dir=f"{sys.argv[1]}/inner-{job}",
            )
            sys.exit(len(result.stats))
        if fork(child) == "parent":
            save_best(model, job / 10)
    """
    tail = TAIL.replace('{"cpu": 2}', '"cpu"')
    (statuses, finished, failed), _ = run(tmp_path, train, tail)
    assert (statuses, finished, failed) == ([3] * JOBS, JOBS, 0)
    check_one_writer(tmp_path)
    inner = load_state(tmp_path / "sweep" / "inner-0")
    assert (inner.ended, len(inner.by_num)) == ("completed", 3)


APP = """
import os, sys, json
import hydra, torch
from junky_core import current_job

ENDS = json.loads(os.environ["ENDS"])

@hydra.main(version_base="1.3", config_path=None)
def main(cfg):
    num = current_job().num
    pid = os.fork()
    if pid == 0:
        exec(ENDS[num])
        return
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    current_job().save_best(torch.nn.Linear(2, 1), num / 10)
    with open(f"{sys.path[0]}/status-{num}", "x") as file:
        file.write(str(status))
    return 5.0

if __name__ == "__main__":
    main()
"""


def test_child_of_a_hydra_job_ends(tmp_path):
    app = tmp_path / "app.py"
    app.write_text(APP)
    done = warm_start.checked(
        ["-W", "ignore", app, "--multirun", "hydra/launcher=junky", "hydra/sweeper=junky",
         "hydra.launcher.devices=cpu*2", "+a=0,1,2,3,4,5,6",
         f"hydra.sweep.dir={tmp_path / 'sweep'}"],
        env={**os.environ, "ENDS": json.dumps(list(ENDS))},
    )  # fmt: skip
    found = {path.name: int(path.read_text()) for path in tmp_path.glob("status-*")}
    assert found == {f"status-{num}": status for num, status in enumerate(ENDS.values())}
    check_one_writer(tmp_path)
    assert done.stderr.count("ValueError: of the child") == 1
