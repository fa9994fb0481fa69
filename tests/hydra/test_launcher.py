"""hydra/launcher=junky: what a launch does, in this process, without other sweepers than Hydra's."""

import concurrent.futures
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path

import pytest
import torch
import warm_start
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobStatus
from hydra.errors import CompactHydraException
from hydra.experimental.callback import Callback
from launching import ON_1_4, multirun
from omegaconf import OmegaConf

from hydra_plugins.hydra_junky_launcher import _folders, junky_launcher
from hydra_plugins.hydra_junky_launcher._devices import read_devices
from junky_core import current_job
from junky_core.errors import (
    ConfigError,
    DeviceError,
    JobExited,
    SweepFailed,
    SweepInterrupted,
)
from junky_core.job.scopes import current_scope
from junky_core.values.wording import count

log = logging.getLogger("app.module")
TWO = "hydra.launcher.devices=cpu*2"
FOUR = "hydra.launcher.devices=cpu*4"


def run(task, overrides, tmp_path, config=None, collect=None, **kwargs):
    return multirun(
        task, overrides, {"a": 0, **(config or {})}, tmp_path, collect=collect, **kwargs
    )


def collected(task, overrides, tmp_path, error=Exception, **kwargs):
    """Run a sweep that fails; return all its ``JobReturn``s and what the sweeper raised."""
    returns = []
    with pytest.raises(error) as caught:
        run(task, overrides, tmp_path, collect=returns, **kwargs)
    return returns, caught.value


def job_log(tmp_path, num):
    return (tmp_path / "sweep" / str(num) / "app.log").read_text()


def never(_cfg):
    raise AssertionError("no job may run")


# --- Devices -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "slots"),
    [
        ("cpu", 1),
        ("cpu*3", 3),
        ("[cpu,cpu]", 2),
        ("[cpu*2,cpu]", 3),
        ("{cpu:4}", 4),
        ("auto", max(1, torch.cuda.device_count())),
        ("'cpu'", 1),
    ],
)
def test_every_form_of_devices_on_the_command_line(given, slots, tmp_path, capsys):
    # Each job waits for jobs on all other slots, so that each slot runs at least one.
    together = threading.Barrier(slots, timeout=60)

    def task(_cfg):
        together.wait()
        return current_job().name

    jobs = "a=" + ",".join(str(number) for number in range(2 * slots))
    returns = run(task, [f"hydra.launcher.devices={given}", jobs], tmp_path)
    names = {ret.return_value.partition("_")[0] for ret in returns}
    assert names == {f"Thread-{n}" for n in range(1, slots + 1)}
    assert f"jobs on {count(slots, 'slot')}:" in capsys.readouterr().out


def test_a_mapping_of_devices_is_the_same_as_its_text():
    assert (
        read_devices("cpu*2") == read_devices(OmegaConf.create({"cpu": 2})) != read_devices("cpu")
    )


@pytest.mark.parametrize("devices", [{"cpu": 2}, ["cpu", "cpu"]])
def test_devices_as_a_mapping_or_a_list_in_yaml(devices, tmp_path):
    config = {"hydra": {"launcher": {"devices": devices}}}
    barrier = threading.Barrier(2, timeout=30)
    assert len(run(lambda _cfg: barrier.wait(), ["a=1,2"], tmp_path, config)) == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{cuda:0:3}", r"cuda:0\*3"),
        ("cuda:99", "absent"),
        ("nonsense", "unknown device 'nonsense'"),
        ("cpu*0", "at least 1"),
        ("cpu*-1", "not a whole number"),
        ("cpu*1.5", "not a whole number"),
        ("{cpu:0}", "at least 1"),
        ("{cpu:1.5}", "not a whole number"),
        ("[]", "empty"),
        ("null", "None"),
        ("7", "7"),
    ],
)
def test_bad_devices_are_an_error_before_anything_is_made(given, said, tmp_path):
    with pytest.raises(DeviceError, match=said) as caught:
        run(never, [f"hydra.launcher.devices={given}", "a=1,2"], tmp_path)
    assert "hydra.launcher.devices" in str(caught.value)
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("max_retries=-1", "max_retries is -1"),
        ("seed=-1", "seed is -1"),
        ("threads_per_slot=0", "threads_per_slot is 0"),
        ("fail_fast=0", "fail_fast is 0"),
        ("job_timeout_s=-1", "job_timeout_s is -1"),
        ("direction=sideways", "direction='sideways'"),
        ("best_model_file_name=''", "names a folder"),
        ("best_model_file_name=.", "names a folder"),
        ("best_model_file_name=journal.jsonl", "the sweep itself writes that file"),
        ("best_model_file_name=./autotrain.log", "the sweep itself writes that file"),
    ],
)
def test_bad_settings_are_an_error_before_anything_is_made(key, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        run(never, [f"hydra.launcher.{key}", "a=1,2"], tmp_path)
    assert not (tmp_path / "sweep").exists()


def test_a_best_model_that_cannot_be_written_is_an_error_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    overrides = [f"hydra.launcher.best_model_file_name={tmp_path}/file/model.pt", "a=1,2"]
    with pytest.raises(ConfigError, match="cannot be written"):
        run(never, overrides, tmp_path)
    assert not (tmp_path / "sweep").exists()


def test_an_unknown_key_is_hydras_own_error(tmp_path):
    with pytest.raises(Exception, match="n_slots"):
        run(never, ["hydra.launcher.n_slots=1", "a=1,2"], tmp_path)


# --- Results -------------------------------------------------------------------------------------


def test_returns_are_in_the_order_of_the_jobs_not_of_their_ends(tmp_path):
    second_ended = threading.Event()

    def task(cfg):
        if cfg.a == 10:
            assert second_ended.wait(30)
        else:
            second_ended.set()
        return cfg.a

    returns = run(task, [TWO, "a=10,20,30"], tmp_path)
    assert [ret.return_value for ret in returns] == [10, 20, 30]
    assert [ret.status for ret in returns] == [JobStatus.COMPLETED] * 3


def test_jobs_run_at_the_same_time(tmp_path):
    barrier = threading.Barrier(4, timeout=30)
    run(lambda _cfg: barrier.wait(), [FOUR, "a=1,2,3,4"], tmp_path)


@pytest.mark.parametrize(
    ("given", "said"), [("a=1", "1 job on 1 slot"), ("a=1,2,3", "3 jobs on 2 slots")]
)
def test_the_launch_is_logged_with_jobs_and_slots(given, said, tmp_path, capsys):
    run(lambda cfg: cfg.a, [given, TWO], tmp_path)
    assert f"Launching {said}: cpu" in capsys.readouterr().out


def test_no_jobs_is_no_launch(tmp_path, capsys):
    def no_batches(self):
        self.batch_index += 1
        return []

    def before_sweep():
        # Hydra may import its plugins again in each multirun.
        from hydra._internal.core_plugins import basic_sweeper

        monkeypatch.setattr(basic_sweeper.BasicSweeper, "get_job_batch", no_batches)

    with pytest.MonkeyPatch.context() as monkeypatch:
        assert run(never, [TWO, "a=1,2"], tmp_path, before_sweep=before_sweep) == []
    assert "Launching" not in capsys.readouterr().out
    assert [entry.name for entry in (tmp_path / "sweep").iterdir()] == ["multirun.yaml"]


def test_a_launcher_that_launched_nothing_has_no_results():
    launcher = junky_launcher.JunkyLauncher()
    assert launcher.sweep_results() == []
    assert launcher.best_model_path() is None


def test_slots_best_and_names_are_kept_between_launches(tmp_path):
    threads = set()
    launchers = []
    setup = junky_launcher.JunkyLauncher.setup

    def task(cfg):
        threads.add(threading.get_ident())
        model = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(model.weight, float(cfg.a))
        current_job().save_best(model, float(cfg.a))
        return current_job().name

    def before_sweep():
        def noting(self, **kwargs):
            launchers.append(self)
            setup(self, **kwargs)

        # Hydra may import plugins twice: the class it will use is the one it lists.
        from hydra.core.plugins import Plugins
        from hydra.plugins.launcher import Launcher

        for plugin in Plugins.instance().discover(Launcher):
            if plugin.__name__ == "JunkyLauncher":
                plugin.setup = noting
                undo.append(lambda: setattr(plugin, "setup", setup))

    undo = []
    try:
        overrides = ["hydra.sweeper.max_batch_size=1", "a=1,3,2"]
        returns = run(task, overrides, tmp_path, before_sweep=before_sweep)
    finally:
        for call in undo:
            call()
    assert len(threads) == 1
    assert [ret.return_value for ret in returns] == ["Thread-1_0", "Thread-1_1", "Thread-1_2"]
    (launcher,) = launchers
    assert [(r.num, r.score, r.status) for r in launcher.sweep_results()] == [
        (0, 1.0, "finished"),
        (1, 3.0, "finished"),
        (2, 2.0, "finished"),
    ]
    path = launcher.best_model_path()
    assert path == tmp_path / "sweep" / "model.pt"
    assert torch.load(path, weights_only=True)["weight"].item() == 3.0


def test_slot_threads_end_with_the_launcher(tmp_path):
    threads = []
    run(lambda _cfg: threads.append(threading.current_thread()), [TWO, "a=1,2"], tmp_path)
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_parameters_of_a_job_are_its_overrides(tmp_path):
    (ret,) = run(
        lambda _cfg: current_job().params,
        ["a='1,x'", "+b.c=[1,null]", "hydra.verbose=false", "++d=1e-3"],
        tmp_path,
    )
    assert ret.return_value == {"a": "1,x", "b.c": [1, None], "d": 1e-3}


def test_device_key_gives_the_job_its_slots_device(tmp_path):
    config = {"trainer": {"device": None}}
    overrides = [TWO, "hydra.launcher.device_key=trainer.device", "a=1,2"]
    returns = run(lambda cfg: cfg.trainer.device, overrides, tmp_path, config)
    assert [ret.return_value for ret in returns] == ["cpu", "cpu"]


@pytest.mark.parametrize("slots", ["cpu", "cpu*2"])
def test_a_missing_device_key_is_an_error_before_training(slots, tmp_path):
    overrides = [
        f"hydra.launcher.devices={slots}",
        "hydra.launcher.device_key=trainer.dev",
        "a=1,2",
    ]
    with pytest.raises(ConfigError, match=r"device_key=trainer\.dev.*no such key"):
        run(never, overrides, tmp_path)


# --- Failures ------------------------------------------------------------------------------------


def test_a_failed_job_stops_no_other_and_its_error_is_raised(tmp_path):
    def task(cfg):
        if cfg.a == 1:
            raise ValueError("bad one") from KeyError("cause")
        return cfg.a

    returns, error = collected(task, [TWO, "a=0,1,2,3"], tmp_path, ValueError)
    assert [ret.status.name for ret in returns] == ["COMPLETED", "FAILED", "COMPLETED", "COMPLETED"]
    assert str(error) == "bad one"
    assert isinstance(error.__cause__, KeyError)
    with pytest.raises(ValueError, match="bad one") as caught:
        _ = returns[1].return_value
    assert "task" in [entry.name for entry in caught.traceback]


def test_a_job_that_failed_runs_again_at_the_end_and_its_log_says_so(tmp_path):
    order = []

    def task(cfg):
        order.append(cfg.a)
        log.info("attempt %d", current_job().attempt)
        if cfg.a == 1 and order.count(1) == 1:
            raise RuntimeError("once")
        return cfg.a

    returns = run(task, ["a=1,2,3"], tmp_path)
    assert order == [1, 2, 3, 1]
    assert [ret.return_value for ret in returns] == [1, 2, 3]
    text = re.sub(r"\[20[^]]*\]", "", job_log(tmp_path, 0))
    lines = [line for line in text.splitlines() if " - " in line and "Job failed" not in line]
    assert [line.partition(" - ")[2] for line in lines] == [
        "attempt 1",
        "Job #0 runs again: attempt 2",
        "attempt 2",
    ]


def test_a_job_that_cannot_be_composed_fails_alone(tmp_path, monkeypatch):
    # Sweepers check jobs beforehand; this simulates one that does not.
    def jobs(self):
        self.batch_index += 1
        return [["a=1"], ["a=2", "nokey=1"], ["a=3"]]

    def play(name, method):
        # Hydra may import its plugins again in each multirun.
        from hydra._internal.core_plugins import basic_sweeper

        monkeypatch.setattr(basic_sweeper.BasicSweeper, name, method)

    def before_sweep():
        play("validate_batch_is_legal", lambda *_: None)
        play("get_job_batch", jobs)

    returns, error = collected(
        lambda cfg: cfg.a, [TWO, "a=1,2,3"], tmp_path, before_sweep=before_sweep
    )
    assert "nokey" in str(error)
    assert [ret.status.name for ret in returns] == ["COMPLETED", "FAILED", "COMPLETED"]
    assert returns[1].overrides == ["a=2", "nokey=1"]


@pytest.mark.parametrize("code", [1, 3, "a message"])
def test_sys_exit_with_an_error_ends_that_job_alone(code, tmp_path, capsys):
    def task(cfg):
        if cfg.a == 1:
            sys.exit(code)
        return cfg.a

    returns, error = collected(
        task, [TWO, "a=0,1,2", "hydra.launcher.max_retries=0"], tmp_path, JobExited
    )
    assert [ret.status.name for ret in returns] == ["COMPLETED", "FAILED", "COMPLETED"]
    assert error.code == code
    assert isinstance(error.__cause__, SystemExit)
    assert returns[1].cfg == {"a": 1}
    assert returns[1].overrides == ["a=1"]
    assert "job #1 called sys.exit" in job_log(tmp_path, 1)
    if code == "a message":
        assert "a message\n" in capsys.readouterr().err


@pytest.mark.parametrize("code", [0, None])
def test_sys_exit_without_an_error_completes_the_job(code, tmp_path):
    def task(cfg):
        if cfg.a == 1:
            raise SystemExit(code)
        return cfg.a

    returns = run(task, [TWO, "a=0,1,2"], tmp_path)
    assert [ret.return_value for ret in returns] == [0, None, 2]


def test_callbacks_are_called_at_the_end_of_a_job_that_exits(tmp_path):
    Noting.events = []

    def task(cfg):
        sys.exit(cfg.a)

    config = {"hydra": {"callbacks": {"n": {"_target_": "test_launcher.Noting"}}}}
    collected(task, ["a=1", "hydra.launcher.max_retries=0"], tmp_path, JobExited, config=config)
    assert Noting.events == [("start", 0), ("end", 0, "FAILED", "JobExited")]


def test_the_sweep_ends_if_the_first_jobs_all_fail_alike(tmp_path):
    def task(cfg):
        raise ValueError("always")

    with pytest.raises(SweepFailed, match="always") as caught:
        run(task, ["a=1,2,3,4", "hydra.launcher.fail_fast=2"], tmp_path)
    assert isinstance(caught.value, CompactHydraException)  # one message, no second traceback


def test_an_interrupt_in_a_job_ends_the_sweep_and_leaves_the_process_as_it_was(tmp_path):
    def task(cfg):
        raise KeyboardInterrupt

    before = os.getcwd(), dict(os.environ), list(logging.getLogger().handlers)
    with pytest.raises(SweepInterrupted):
        run(task, ["a=1,2,3", "+hydra.job.env_set.JUNKY_X=1", "hydra.job.chdir=true"], tmp_path)
    assert (os.getcwd(), dict(os.environ), list(logging.getLogger().handlers)) == before
    assert type(Singleton._instances) is dict


# --- What jobs share and what not ----------------------------------------------------------------


class Noting(Callback):
    """Records calls, and whether two overlapped."""

    events = []
    inside = 0
    overlaps = 0

    def on_job_start(self, config, **kwargs):
        with self.busy():
            self.num = config.hydra.job.num
            self.events.append(("start", self.num))

    def on_job_end(self, config, job_return, **kwargs):
        with self.busy():
            kind = type(job_return._return_value).__name__
            self.events.append(("end", self.num, job_return.status.name, kind))

    def busy(self):
        return self

    def __enter__(self):
        cls = type(self)
        cls.inside += 1
        cls.overlaps += cls.inside > 1
        threading.Event().wait(0.001)  # gives other threads time to enter

    def __exit__(self, *exc):
        type(self).inside -= 1


def test_callbacks_are_never_called_from_two_threads_at_once(tmp_path):
    Noting.events, Noting.inside, Noting.overlaps = [], 0, 0
    config = {"hydra": {"callbacks": {"n": {"_target_": "test_launcher.Noting"}}}}
    run(lambda cfg: cfg.a, [FOUR, "a=" + ",".join(map(str, range(12)))], tmp_path, config)
    assert Noting.overlaps == 0
    assert sorted(e[1] for e in Noting.events if e[0] == "start") == list(range(12))
    # each end got what its own start had set
    assert sorted(e[1] for e in Noting.events if e[0] == "end") == list(range(12))


def test_variables_that_differ_between_jobs_are_an_error_before_training(tmp_path):
    config = {"hydra": {"job": {"env_set": {"SAME": "1", "JUNKY_A": "v${a}"}}}}
    with pytest.raises(ConfigError, match=r"differs.* JUNKY_A .*'v1' and 'v2'.*job #0 and job #1"):
        run(never, [TWO, "a=1,2"], tmp_path, config)


def test_variables_that_a_config_group_changes_are_an_error_before_training(tmp_path):
    group = tmp_path / "conf" / "g"
    group.mkdir(parents=True)
    for name in ("x", "y"):
        text = f"# @package _global_\nhydra:\n  job:\n    env_set:\n      JUNKY_{name}: '1'\n"
        (group / f"{name}.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"differs.* JUNKY_x, JUNKY_y "):
        run(never, [TWO, "+g=x,y"], tmp_path)


def test_variables_that_differ_are_fine_with_one_slot(tmp_path):
    config = {"hydra": {"job": {"env_set": {"JUNKY_A": "v${hydra:job.num}"}}}}
    returns = run(lambda _cfg: os.environ["JUNKY_A"], ["a=1,2"], tmp_path, config)
    assert [ret.return_value for ret in returns] == ["v0", "v1"]
    assert "JUNKY_A" not in os.environ


def test_chdir_where_threads_share_a_folder_is_an_error_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(_folders, "_found", False)
    with pytest.raises(ConfigError, match=r"2 jobs may run at once.*hydra\.job\.chdir=false"):
        run(never, [TWO, "a=1,2", "hydra.job.chdir=true"], tmp_path)


def test_chdir_where_threads_share_a_folder_works_with_one_slot(tmp_path, monkeypatch):
    monkeypatch.setattr(_folders, "_found", False)
    before = os.getcwd()
    returns = run(lambda _cfg: os.getcwd(), ["a=1,2", "hydra.job.chdir=true"], tmp_path)
    assert [Path(ret.return_value).name for ret in returns] == ["0", "1"]
    assert os.getcwd() == before


def test_without_chdir_all_jobs_are_in_the_processs_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(_folders, "_found", False)
    returns = run(lambda _cfg: os.getcwd(), [TWO, "a=1,2"], tmp_path)
    assert {ret.return_value for ret in returns} == {os.getcwd()}


def test_a_thread_that_outlives_its_job_still_belongs_to_it(tmp_path):
    go = threading.Event()
    seen = []
    threads = []

    def outlive(num):
        assert go.wait(30)
        log.info("late line of %d", num)
        seen.append((num, HydraConfig.get().job.num))

    def task(cfg):
        if cfg.a == 0:
            threads.append(threading.Thread(target=outlive, args=(cfg.a,)))
            threads[0].start()
        else:
            go.set()
            threads[0].join(30)
        log.info("own line of %d", cfg.a)

    run(task, ["a=0,1"], tmp_path)
    assert seen == [(0, 0)]
    assert "late line of 0" in job_log(tmp_path, 0)
    assert "late" not in job_log(tmp_path, 1)


@pytest.mark.parametrize("devices", [[], [TWO]])
def test_a_pool_made_in_one_job_works_for_each_that_uses_it(tmp_path, devices):
    pools, found, lock = [], {}, threading.Lock()

    def look():
        log.info("work of %d", HydraConfig.get().job.num)
        return HydraConfig.get().job.num, current_job().num, os.getcwd()

    def task(cfg):
        with lock:
            if not pools:
                pools.append(concurrent.futures.ThreadPoolExecutor(1))
        found[cfg.a] = pools[0].submit(look).result(), os.getcwd()

    run(task, ["a=0,1,2", "hydra.job.chdir=true", *devices], tmp_path)
    for num in range(3):
        folder = str(tmp_path / "sweep" / str(num))
        assert found[num] == ((num, num, folder), folder)
        assert (tmp_path / "sweep" / str(num) / "app.log").read_text().count(f"work of {num}") == 1
    with pools[0] as pool:
        assert pool.submit(current_scope).result() is None


def test_printed_lines_are_complete_and_warning_filters_are_restored(tmp_path, capsys):
    def task(cfg):
        print(f"printed by {cfg.a}\n", end="")
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            warnings.warn(f"warning of {cfg.a}", stacklevel=1)
        return cfg.a

    filters = warnings.filters
    returns = run(task, [FOUR, "a=" + ",".join(map(str, range(12)))], tmp_path)
    assert [ret.return_value for ret in returns] == list(range(12))
    out = capsys.readouterr().out
    assert all(out.count(f"printed by {n}\n") == 1 for n in range(12))
    assert warnings.filters is filters


def test_a_job_may_change_its_own_logging(tmp_path):
    barrier = threading.Barrier(2, timeout=30)

    def task(cfg):
        if cfg.a == 0:
            logging.getLogger().setLevel(logging.ERROR)
            logging.disable(logging.WARNING)
        barrier.wait()
        log.info("info of %d", cfg.a)
        log.error("error of %d", cfg.a)
        barrier.wait()

    run(task, [TWO, "a=0,1"], tmp_path)
    assert "info of 0" not in job_log(tmp_path, 0)
    assert "error of 0" in job_log(tmp_path, 0)
    assert "info of 1" in job_log(tmp_path, 1)
    assert logging.getLogger().manager.disable == 0


def test_a_job_may_use_hydras_compose_api(tmp_path):
    barrier = threading.Barrier(2, timeout=30)

    def task(cfg):
        GlobalHydra.instance().clear()
        conf = str(tmp_path / "conf")
        kwargs = {} if ON_1_4 else {"version_base": "1.3"}
        with initialize_config_dir(config_dir=conf, job_name=f"inner{cfg.a}", **kwargs):
            barrier.wait()
            inner = compose("config", overrides=[f"a={cfg.a * 10}"])
            barrier.wait()
        return inner.a, HydraConfig.get().job.num

    returns = run(task, [TWO, "a=1,2"], tmp_path)
    assert [ret.return_value for ret in returns] == [(10, 0), (20, 1)]
    names = ["app", "app"] if ON_1_4 else ["inner1", "inner2"]  # read before the task, and after it
    assert [ret.task_name for ret in returns] == names


def test_a_second_multirun_in_the_same_process(tmp_path):
    for turn in ("first", "second"):
        (tmp_path / turn).mkdir()
        returns = run(lambda cfg: cfg.a, [TWO, "a=1,2"], tmp_path / turn)
        assert [ret.return_value for ret in returns] == [1, 2]
        assert (tmp_path / turn / "sweep" / "0" / "app.log").exists()
    assert not HydraConfig.initialized() or HydraConfig.instance().cfg is not None


def test_loggers_are_as_they_were_after_a_launch(tmp_path):
    root = logging.getLogger()
    before = list(root.handlers), root.level
    seen = []
    run(lambda cfg: seen.append(1), [TWO, "a=1,2"], tmp_path, before_sweep=lambda: seen.append(2))
    assert (list(root.handlers), root.level) == before


# --- In a process of its own ---------------------------------------------------------------------


def app(tmp_path, body, overrides, expect=0):
    """Write an app whose task is ``body``; run its multirun; return what it printed."""
    (tmp_path / "app.py").write_text(
        textwrap.dedent(
            """
            import logging, os, signal, sys, threading
            import hydra
            from hydra.core.hydra_config import HydraConfig
            log = logging.getLogger(__name__)

            @hydra.main(version_base=None, config_path=None)
            def main(cfg):
            """
        )
        + textwrap.indent(textwrap.dedent(body), "    ")
        + "\nmain()\n"
    )
    command = ["app.py", "-m", "hydra/launcher=junky", "hydra.sweep.dir=out", *overrides]
    done = warm_start.run(command, cwd=tmp_path)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_hydra_starts_without_torch():
    code = (
        "import sys; from hydra.core.plugins import Plugins; from hydra.plugins.launcher import Launcher;"
        "names = [p.__name__ for p in Plugins.instance().discover(Launcher)];"
        "assert 'JunkyLauncher' in names; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_failed_job_makes_the_exit_status_one(tmp_path):
    body = """
    if cfg.a == 1:
        sys.exit(7)
    log.info("fine %s", cfg.a)
    """
    said = app(tmp_path, body, ["+a=0,1,2", TWO], expect=1)
    assert "job #1 called sys.exit(7)" in said
    assert "fine 0" in said
    assert "fine 2" in said


def test_ctrl_c_ends_the_sweep_with_its_own_status(tmp_path):
    body = """
    log.info("interrupting")
    os.kill(os.getpid(), signal.SIGINT)
    from junky_core import current_job
    while True:
        current_job().check()
        threading.Event().wait(0.01)
    """
    said = app(tmp_path, body, ["+a=0,1,2"], expect=130)
    assert "interrupting" in said
    assert signal.SIGINT.name in said


def test_each_line_of_a_job_is_on_the_console_once(tmp_path):
    said = app(tmp_path, 'log.info("line of %s", cfg.a)', ["+a=0,1,2,3", FOUR])
    for num in range(4):
        lines = [line for line in said.splitlines() if line.endswith(f"line of {num}")]
        assert len(lines) == 1
        assert re.match(r"\[.*\]\[__main__\]\[INFO\] - line of \d", lines[0])
    assert "[HYDRA] Launching 4 jobs on 4 slots" in said
