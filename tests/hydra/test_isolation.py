"""Hydra's process-wide state is separate for each job: ``_isolation`` on plain threads, without a sweep."""

import concurrent.futures
import importlib
import io
import logging
import logging.config
import multiprocessing.pool
import os
import sys
import threading
import warnings

import hydra.core.utils as hydra_utils
import hydra.utils
import omegaconf
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime, setup_globals
from omegaconf import OmegaConf
from omegaconf.basecontainer import BaseContainer

from hydra_plugins.hydra_junky_launcher import _folders, _job_logging
from hydra_plugins.hydra_junky_launcher._folders import folders_per_thread
from hydra_plugins.hydra_junky_launcher._isolation import (
    check_isolation,
    isolated_job,
    isolated_launch,
    private_log_config,
)
from junky_core.errors import ConfigError, IsolationError
from junky_core.job.scopes import JobScope, current_scope, enter_scope, inherit_scopes

# OmegaConf 2.4 gave it the name of the legacy one, and deprecates this.
register_resolver = (
    OmegaConf.register_resolver
    if omegaconf.__version__ >= "2.4"
    else OmegaConf.register_new_resolver
)
needs_folders = pytest.mark.skipif(
    not folders_per_thread(), reason="this system cannot give a thread its own folder"
)


@pytest.fixture(autouse=True)
def _globals():
    setup_globals()


def on_thread(function, *args):
    """Run it in a new thread; return its result or raise its exception."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result(timeout=30)


def in_jobs(work, count=2, env=None, slots=None):
    """Run ``work(number, meet)`` in ``count`` jobs at once; ``meet()`` waits for all of them."""
    barrier = threading.Barrier(count, timeout=30)

    def job(launch, number):
        with enter_scope(JobScope(None)), isolated_job(launch):
            return work(number, barrier.wait)

    with inherit_scopes(), isolated_launch(slots or count, env) as launch:
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            return [
                f.result(timeout=60) for f in [pool.submit(job, launch, n) for n in range(count)]
            ]


def fake_cfg(cwd):
    class Cfg:
        hydra = OmegaConf.create({"runtime": {"cwd": cwd}})

    return Cfg


def process_state():
    root = logging.getLogger()
    return (
        list(root.handlers),
        root.level,
        root.isEnabledFor(logging.DEBUG),
        {
            name: (logger.disabled, logger.level, list(logger.handlers), logger.propagate)
            for name, logger in root.manager.loggerDict.items()
            if isinstance(logger, logging.Logger)
        },
        HydraConfig.instance().cfg,
        os.getcwd(),
        dict(os.environ),
        sys.stdout,
        type(Singleton._instances),
        type(BaseContainer._resolvers),
        hydra_utils.env_override,
        logging.Handler.__init__,
        logging.config._clearExistingHandlers,
        logging.Logger.addHandler,
        sorted(set(vars(logging.Logger)) & {"handlers", "level", "_cache"}),
    )


@pytest.mark.parametrize("how", ["logging.disable", "root.disabled"])
def test_jobs_are_kept_apart_where_the_script_has_disabled_logging(how):
    root = logging.getLogger()

    def work(number, meet):
        found = root.isEnabledFor(logging.CRITICAL)
        meet()
        logging.disable(logging.NOTSET)
        root.disabled = False
        return found, root.isEnabledFor(logging.CRITICAL)

    try:
        if how == "root.disabled":
            root.disabled = True
        else:
            logging.disable(logging.CRITICAL)
        before = process_state()
        assert in_jobs(work) == [(False, True), (False, True)]
        assert process_state() == before
        assert not root.isEnabledFor(logging.CRITICAL)
    finally:
        logging.disable(logging.NOTSET)
        root.disabled = False


def test_each_job_has_its_own_hydra_config():
    def work(number, meet):
        HydraConfig.instance().cfg = fake_cfg(f"/job/{number}")
        meet()
        return hydra.utils.get_original_cwd(), hydra.utils.to_absolute_path("x")

    before = HydraConfig.instance().cfg
    assert in_jobs(work) == [("/job/0", "/job/0/x"), ("/job/1", "/job/1/x")]
    assert HydraConfig.instance().cfg is before


def test_late_interpolation_of_hydra_is_the_jobs_own():
    shared = OmegaConf.create({"a": "${hydra:runtime.cwd}"})

    def work(number, meet):
        HydraConfig.instance().cfg = fake_cfg(str(number))
        meet()
        return shared.a

    assert in_jobs(work) == ["0", "1"]


def test_threads_of_a_job_have_its_config():
    def work(number, meet):
        HydraConfig.instance().cfg = fake_cfg(str(number))
        meet()
        return on_thread(lambda: on_thread(hydra.utils.get_original_cwd))

    assert in_jobs(work) == ["0", "1"]


def test_a_thread_of_no_job_sees_the_process():
    ready, go = threading.Event(), threading.Event()
    seen = []

    def outside():
        ready.set()
        go.wait(30)
        seen.append((HydraConfig.instance().cfg, logging.getLogger().level))

    thread = threading.Thread(target=outside)
    thread.start()
    ready.wait(30)

    def work(number, meet):
        HydraConfig.instance().cfg = fake_cfg("x")
        logging.getLogger().setLevel(7)
        go.set()
        thread.join(30)

    before = HydraConfig.instance().cfg, logging.getLogger().level
    in_jobs(work, 1)
    assert seen == [before]


def test_global_hydra_and_job_runtime_are_the_jobs_own():
    def work(number, meet):
        GlobalHydra.instance().hydra = number
        JobRuntime.instance().set("name", f"job{number}")
        meet()
        return GlobalHydra.instance().hydra, JobRuntime.instance().get("name")

    before = JobRuntime.instance().get("name")
    assert in_jobs(work) == [(0, "job0"), (1, "job1")]
    assert JobRuntime.instance().get("name") == before


def test_a_replaced_singleton_instance_is_seen_by_its_job_only():
    def work(number, meet):
        if number == 0:  # as hydra.initialize() does at its end
            del Singleton._instances[GlobalHydra]
        meet()
        return GlobalHydra in Singleton._instances

    GlobalHydra.instance()
    assert in_jobs(work) == [False, True]
    assert GlobalHydra in Singleton._instances


def test_resolvers_that_a_job_registers_are_its_own():
    def work(number, meet):
        register_resolver("mine", lambda: number)
        meet()
        return OmegaConf.create({"a": "${mine:}"}).a

    assert in_jobs(work) == [0, 1]
    assert not OmegaConf.has_resolver("mine")


def test_logging_is_configured_for_one_job_alone(tmp_path):
    log = logging.getLogger("some.module")

    def work(number, meet):
        logging.config.dictConfig(
            {
                "version": 1,
                "handlers": {
                    "file": {
                        "class": "logging.FileHandler",
                        "filename": str(tmp_path / f"{number}.log"),
                    }
                },
                "root": {"level": "DEBUG" if number else "INFO", "handlers": ["file"]},
                "disable_existing_loggers": False,
            }
        )
        meet()
        for _ in range(100):
            log.info("info %d", number)
            log.debug("debug %d", number)
        meet()
        on_thread(log.warning, "thread %d", number)

    before = process_state()
    in_jobs(work)
    assert process_state() == before
    assert (tmp_path / "0.log").read_text() == "info 0\n" * 100 + "thread 0\n"
    assert (tmp_path / "1.log").read_text() == "info 1\ndebug 1\n" * 100 + "thread 1\n"


def test_disabled_loggers_are_disabled_in_that_job_alone():
    log = logging.getLogger("to.be.disabled")

    def work(number, meet):
        if number == 0:
            logging.config.dictConfig({"version": 1, "root": {"level": "ERROR"}})
        meet()
        return log.disabled

    assert in_jobs(work) == [True, False]
    assert not log.disabled


def test_a_handler_that_a_job_adds_takes_that_jobs_lines_only():
    log = logging.getLogger("shared.logger")

    def work(number, meet):
        stream = io.StringIO()
        if not log.handlers:  # a common guard
            log.addHandler(logging.StreamHandler(stream))
        meet()
        log.error("from %d", number)
        meet()
        return stream.getvalue()

    assert in_jobs(work) == ["from 0\n", "from 1\n"]
    assert log.handlers == []


def test_a_jobs_handlers_are_closed_at_its_end_and_the_process_ones_stay_open(tmp_path):
    outer = logging.FileHandler(tmp_path / "outer.log")
    logging.getLogger("outer").addHandler(outer)
    made = []

    def work(number, meet):
        logging.config.dictConfig(
            {
                "version": 1,
                "handlers": {
                    "f": {"class": "logging.FileHandler", "filename": str(tmp_path / "j.log")}
                },
                "root": {"handlers": ["f"]},
            }
        )
        made.extend(logging.getLogger().handlers)

    in_jobs(work, 1)
    try:
        assert made[0].stream is None
        assert not outer.stream.closed
    finally:
        logging.getLogger("outer").removeHandler(outer)
        outer.close()


def test_what_an_import_does_to_logging_is_the_processes(tmp_path, monkeypatch):
    (tmp_path / "lazy_module.py").write_text(
        "import logging\n"
        "from omegaconf.basecontainer import BaseContainer\n"
        "log = logging.getLogger('lazy')\n"
        "log.setLevel(logging.ERROR)\n"
        "log.addHandler(logging.NullHandler())\n"
        "BaseContainer._resolvers['lazy'] = lambda *args: 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    log = logging.getLogger("lazy")

    def work(number, meet):
        if number == 0:
            importlib.import_module("lazy_module")
        meet()
        return log.level, len(log.handlers), OmegaConf.has_resolver("lazy")

    try:
        assert not log.isEnabledFor(logging.INFO) or log.isEnabledFor(
            logging.INFO
        )  # fills its cache
        assert in_jobs(work) == [(logging.ERROR, 1, True)] * 2
        assert not log.isEnabledFor(logging.WARNING)
    finally:
        log.setLevel(logging.NOTSET)
        log.handlers.clear()
        OmegaConf.clear_resolver("lazy")
        sys.modules.pop("lazy_module", None)


@needs_folders
def test_each_job_has_its_own_working_folder(tmp_path):
    def work(number, meet):
        folder = tmp_path / str(number)
        folder.mkdir()
        os.chdir(folder)
        meet()
        (folder / "here").write_text("")
        return os.getcwd(), os.path.exists("here"), on_thread(os.getcwd)

    before = os.getcwd()
    found = in_jobs(work)
    assert found == [(str(tmp_path / str(n)), True, str(tmp_path / str(n))) for n in range(2)]
    assert os.getcwd() == before


@needs_folders
def test_each_piece_of_a_pool_s_work_is_done_in_the_job_s_folder(tmp_path):
    def work(number, meet):
        folder = tmp_path / str(number)
        folder.mkdir()
        os.chdir(folder)
        meet()
        with multiprocessing.pool.ThreadPool(2) as pool:
            return set(pool.map(lambda _: os.getcwd(), range(4), chunksize=2))

    assert in_jobs(work) == [{str(tmp_path / str(number))} for number in range(2)]


@needs_folders
def test_a_thread_that_outlives_its_job_is_not_moved_by_the_next_one(tmp_path):
    ask, answer = threading.Event(), []

    def outlive():
        ask.wait(30)
        answer.append(os.getcwd())

    threads = []

    def first(launch):
        with enter_scope(JobScope(None)), isolated_job(launch):
            threads.append(threading.Thread(target=outlive))
            threads[0].start()
        with enter_scope(JobScope(None)), isolated_job(launch):  # the slot's next job
            os.chdir(tmp_path)
            ask.set()
            threads[0].join(30)

    with inherit_scopes(), isolated_launch(2) as launch:
        on_thread(first, launch)
    assert answer == [os.getcwd()]


def test_without_folders_per_thread_one_slot_returns_to_its_first_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(_folders, "_found", False)
    before = os.getcwd()
    in_jobs(lambda number, meet: os.chdir(tmp_path), 1)
    assert os.getcwd() == before


def test_a_system_that_forbids_it_is_detected(monkeypatch):
    monkeypatch.setattr(_folders, "_found", None)
    monkeypatch.setattr(_folders, "unshare_folder", lambda: False)
    assert not folders_per_thread()


def test_a_system_that_only_pretends_is_detected(monkeypatch):
    monkeypatch.setattr(_folders, "_found", None)
    monkeypatch.setattr(_folders, "unshare_folder", lambda: True)
    before = os.getcwd()
    assert not folders_per_thread()
    assert os.getcwd() == before


def test_variables_are_set_once_for_all_jobs(monkeypatch):
    monkeypatch.setenv("JUNKY_OLD", "old")
    monkeypatch.delenv("JUNKY_NEW", raising=False)
    env = {"JUNKY_OLD": "set", "JUNKY_NEW": "new"}
    cfg = OmegaConf.create({"old": "${oc.env:JUNKY_OLD}", "new": "${oc.env:JUNKY_NEW,none}"})

    def work(number, meet):
        prepared = cfg.old, cfg.new
        meet()
        with hydra_utils.env_override(env):
            meet()
            running = os.environ["JUNKY_OLD"], cfg.old, cfg.new
            if number == 0:
                meet()
        if number == 1:
            meet()  # job 1 has ended its task, job 0 not
        return prepared, running

    assert in_jobs(work, env=env) == [(("old", "none"), ("set", "set", "new"))] * 2
    assert os.environ["JUNKY_OLD"] == "old"
    assert "JUNKY_NEW" not in os.environ


def test_an_unset_variable_is_unset_while_a_job_is_prepared(monkeypatch):
    monkeypatch.delenv("JUNKY_NEW", raising=False)
    cfg = OmegaConf.create({"a": "${oc.env:JUNKY_NEW}"})

    def work(number, meet):
        with pytest.raises(Exception, match="Environment variable 'JUNKY_NEW' not found"):
            _ = cfg.a

    in_jobs(work, 1, env={"JUNKY_NEW": "1"}, slots=2)


def test_a_job_that_wants_other_variables_is_an_error():
    def work(number, meet):
        with hydra_utils.env_override({"SAME": "1", "JUNKY_A": "2"}):
            pass

    with pytest.raises(ConfigError, match=r"env_set differs.* JUNKY_A .*'1' and '2'"):
        in_jobs(work, 1, env={"SAME": "1", "JUNKY_A": "1"}, slots=2)


def test_one_slot_sets_each_jobs_own_variables(monkeypatch):
    monkeypatch.delenv("JUNKY_A", raising=False)

    def work(number, meet):
        with hydra_utils.env_override({"JUNKY_A": "2"}):
            return os.environ["JUNKY_A"]

    assert in_jobs(work, 1) == ["2"]
    assert "JUNKY_A" not in os.environ


def test_the_process_is_as_it_was_after_an_error(tmp_path):
    def work(number, meet):
        HydraConfig.instance().cfg = fake_cfg("x")
        logging.getLogger().setLevel(3)
        logging.getLogger("brand.new").disabled = True
        logging.basicConfig(filename=tmp_path / "x.log", force=False)
        os.chdir(tmp_path)
        raise KeyboardInterrupt

    logging.getLogger("brand.new")
    before = process_state()
    with pytest.raises(KeyboardInterrupt):
        in_jobs(work, 1, env={"JUNKY_A": "1"}, slots=2)
    assert process_state() == before


def test_unpaired_blocks_that_are_process_wide_are_put_back():
    filters = warnings.filters
    stdout = sys.stdout
    with isolated_launch(1):
        warnings.catch_warnings().__enter__()
        warnings.simplefilter("ignore")
        sys.stdout = io.StringIO()
    assert warnings.filters is filters
    assert sys.stdout is stdout


def test_patches_stay_until_the_last_job_has_ended():
    entered, leave = threading.Event(), threading.Event()

    def straggler(launch):
        with enter_scope(JobScope(None)), isolated_job(launch):
            HydraConfig.instance().cfg = fake_cfg("late")
            entered.set()
            leave.wait(30)
            return hydra.utils.get_original_cwd()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with isolated_launch(2) as launch:
            late = pool.submit(straggler, launch)
            entered.wait(30)
        before = HydraConfig.instance().cfg
        leave.set()
        assert late.result(30) == "late"
    assert HydraConfig.instance().cfg is before
    assert isinstance(Singleton._instances, dict)


def test_a_private_log_config_is_undone_and_closes_nothing_of_the_process(tmp_path):
    root = logging.getLogger()
    outer = logging.FileHandler(tmp_path / "outer.log")
    root.addHandler(outer)
    named = logging.getLogger("named.logger")
    before = process_state()

    def configure():
        logging.config.dictConfig(
            {
                "version": 1,
                "handlers": {
                    "f": {"class": "logging.FileHandler", "filename": str(tmp_path / "inner.log")}
                },
                "root": {"level": "INFO", "handlers": ["f"]},
                "loggers": {"named.logger": {"level": "ERROR"}},
                "disable_existing_loggers": True,
            }
        )

    try:
        with private_log_config(configure):
            inner = root.handlers
            assert [type(h) for h in inner] == [logging.FileHandler]
            root.error("inside")
            assert named.level == logging.ERROR
        assert process_state() == before
        root.error("outside")
        assert (tmp_path / "inner.log").read_text() == "inside\n"
        assert (tmp_path / "outer.log").read_text() == "outside\n"
    finally:
        root.removeHandler(outer)
        outer.close()


def test_a_private_log_config_keeps_changes_of_other_code():
    log = logging.getLogger("changed.by.others")
    with private_log_config(lambda: log.setLevel(10)):
        log.setLevel(20)
    try:
        assert log.level == 20
    finally:
        log.setLevel(0)


@pytest.mark.parametrize("broken", ["config", "loggers", "run_job"])
def test_a_hydra_that_keeps_its_state_elsewhere_is_detected(broken, monkeypatch):
    if broken == "config":
        elsewhere = HydraConfig.instance()
        monkeypatch.setattr(elsewhere, "cfg", None, raising=False)  # and put back
        monkeypatch.setattr(HydraConfig, "instance", staticmethod(lambda: elsewhere))
        named = "HydraConfig"
    elif broken == "loggers":
        monkeypatch.delitem(_job_logging.LOGGER_STATE, "handlers")
        monkeypatch.setattr(logging.getLogger(), "handlers", list(logging.getLogger().handlers))
        named = "state of loggers"
    else:
        monkeypatch.setattr(hydra_utils, "run_job", lambda **kwargs: None)
        named = "what run_job needs"
    with pytest.raises(IsolationError, match=named):
        check_isolation()


def test_the_check_passes_and_changes_nothing():
    before = process_state()
    check_isolation()
    assert process_state() == before


def test_a_job_inside_a_job_keeps_the_outer_jobs_config():
    def work(number, meet):
        HydraConfig.instance().cfg = fake_cfg(str(number))
        inner = JobScope(None, parent=current_scope())

        def inner_job():
            with enter_scope(inner):
                return hydra.utils.get_original_cwd()

        meet()
        return on_thread(inner_job)

    assert in_jobs(work) == ["0", "1"]
