"""Hydra's own complete test suites for launchers, with the junky launcher on 1 slot and on 4.

On threads and in processes.
"""

import pytest
import warm_start
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.test_utils import test_utils
from hydra.test_utils.launcher_common_tests import (
    BatchedSweeperTestSuite,
    IntegrationTestSuite,
    LauncherTestSuite,
)
from sizes import LONG

from junky_core.executors.processes.fork_server import is_supported

PROCESSES = "hydra.launcher.executor=processes"
FOUR = "hydra.launcher.devices=cpu*4"
THREAD_SLOTS = [pytest.param([], id="1-slot"), pytest.param([FOUR], id="4-slots")]
PROCESS_SLOTS = [
    pytest.param([PROCESSES], id="1-process"),
    pytest.param([PROCESSES, FOUR], id="4-processes"),
]
SLOTS = THREAD_SLOTS + (PROCESS_SLOTS if is_supported() else [])
# Each of these tests starts an app in a process.
INTEGRATION_SLOTS = SLOTS if LONG else THREAD_SLOTS[1:]

# Caused by the suites: they pass no version_base, and 1.3.8 warns of changes in 1.4.
pytestmark = [
    pytest.mark.usefixtures("shared_server"),
    pytest.mark.filterwarnings("ignore:.*Future Hydra versions:UserWarning"),
    pytest.mark.filterwarnings("ignore::hydra.errors.Hydra14MigrationWarning"),
]


def test_the_launcher_is_discovered():
    assert "JunkyLauncher" in [plugin.__name__ for plugin in Plugins.instance().discover(Launcher)]


@pytest.mark.parametrize(
    ("launcher_name", "overrides"),
    [pytest.param("junky", slots.values[0], id=slots.id) for slots in SLOTS],
)
class TestLauncher(LauncherTestSuite):
    pass


@pytest.mark.parametrize(
    ("launcher_name", "overrides"),
    [
        pytest.param(
            "junky",
            ["hydra/sweeper=basic", "hydra.sweeper.max_batch_size=2", *slots.values[0]],
            id=slots.id,
        )
        for slots in SLOTS
    ],
)
class TestBatchedSweeper(BatchedSweeperTestSuite):
    pass


@pytest.mark.parametrize(
    ("task_launcher_cfg", "extra_flags"),
    [
        pytest.param(
            {},
            [
                "-m",
                "hydra/job_logging=hydra_debug",
                "hydra/job_logging=disabled",
                "hydra/launcher=junky",
                *slots.values[0],
            ],
            id=slots.id,
        )
        for slots in INTEGRATION_SLOTS
    ],
)
class TestIntegration(IntegrationTestSuite):
    @pytest.fixture(autouse=True)
    def apps_start_quickly(self, monkeypatch):
        """Run each app in a fork of a process that has imported torch and Hydra."""
        monkeypatch.setattr(
            test_utils.subprocess,
            "check_call",
            lambda command, env: warm_start.checked(command[1:], env=env),
        )
