"""Running multiruns in this process, for the tests of the launcher."""

import contextlib
import logging
import os
from pathlib import Path

import hydra.version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf

ON_1_4 = hydra.__version__ >= "1.4"


@contextlib.contextmanager
def trusted():
    """Let configs name any callable, as Hydra 1.3 does; 1.4 warns if this is not requested."""
    if not ON_1_4:
        yield
        return
    from hydra.utils import UNSAFE_DISABLE_EXECUTION_CHECKS, execution_whitelist

    with execution_whitelist(UNSAFE_DISABLE_EXECUTION_CHECKS):
        yield


@contextlib.contextmanager
def as_before():
    """Put loggers and Hydra's singletons back: Hydra's own multirun changes them."""
    root = logging.getLogger()
    loggers = [
        root,
        *(x for x in root.manager.loggerDict.values() if isinstance(x, logging.Logger)),
    ]
    before = [(x, list(x.handlers), x.level, x.disabled, x.propagate) for x in loggers]
    Plugins.instance()  # what it registers is part of the state
    state = Singleton.get_state()
    folder = os.getcwd()
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().clear()
        Singleton.set_state(state)
        os.chdir(folder)
        for logger, handlers, level, disabled, propagate in before:
            logger.handlers[:] = handlers
            logger.setLevel(level)
            logger.disabled, logger.propagate = disabled, propagate


def collect_returns(launcher, collect):
    (plugin,) = (
        plugin
        for plugin in Plugins.instance().discover(Launcher)
        if plugin.__name__.lower() == f"{launcher}launcher"
    )
    launch = plugin.launch

    def launch_and_collect(self, job_overrides, initial_job_idx):
        returns = launch(self, job_overrides, initial_job_idx)
        collect.extend(returns)
        plugin.launch = launch
        return returns

    plugin.launch = launch_and_collect


def multirun(
    task,
    overrides,
    config,
    folder: Path,
    launcher="junky",
    logs=False,
    sweep_dir=None,
    before_sweep=lambda: None,
    name="app",
    collect=None,
):
    """Run a multirun of ``task``; return its ``JobReturn``s, one flat list.

    Args:
        task: The task function.
        overrides: The command line's.
        config: Primary config, a dict; or None if ``folder/conf`` is there already.
        folder: For the configs, and ``sweep`` for the sweep.
        launcher: Which.
        logs: Whether Hydra configures logging for itself too, as ``hydra.main`` does.
        sweep_dir: Another folder for the sweep.
        before_sweep: Called when plugins and config store are set up.
        collect: A list that gets what ``launch`` returned, also where the sweeper raises.
    """
    conf = folder / "conf"
    conf.mkdir(exist_ok=True, parents=True)
    if config is not None:
        (conf / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    sweep_dir = folder / "sweep" if sweep_dir is None else sweep_dir
    with as_before(), trusted():
        if not ON_1_4:
            hydra.version.setbase("1.3")  # as hydra.main(version_base="1.3") does
        app = Hydra.create_main_hydra2(name, create_config_search_path(str(conf)))
        before_sweep()
        if collect is not None:
            collect_returns(launcher, collect)
        batches = app.multirun(
            config_name="config",
            task_function=task,
            overrides=[f"hydra/launcher={launcher}", f"hydra.sweep.dir={sweep_dir}", *overrides],
            with_log_configuration=logs,
        )
        return [job for batch in batches for job in batch]
