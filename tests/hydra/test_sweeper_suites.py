"""Hydra's own suites, with this sweeper and Hydra's own launcher."""

import traceback

import pytest
from hydra.core.plugins import Plugins
from hydra.test_utils.launcher_common_tests import BatchedSweeperTestSuite, LauncherTestSuite

from junky_core.errors import SweepFailed

Plugins.instance()

pytestmark = [
    # The suites' apps give no version_base, which 1.3 warns about, and 1.4 warns where one does.
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.mark.parametrize(("launcher_name", "overrides"), [("basic", ["hydra/sweeper=junky"])])
class TestJunkySweeper(LauncherTestSuite):
    def test_failure_preserves_task_traceback(
        self, launcher_name, overrides, hydra_sweep_runner, tmpdir
    ):
        """Hydra 1.4 expects the job's exception itself; here it is the cause of one that names all jobs."""

        def task(_):
            raise RuntimeError("launcher failure")

        runner = hydra_sweep_runner(
            calling_file=None,
            calling_module="hydra.test_utils.a_module",
            task_function=task,
            config_path="configs",
            config_name="compose.yaml",
            overrides=[f"hydra/launcher={launcher_name}", *overrides],
            temp_dir=tmpdir,
        )
        with pytest.raises(SweepFailed) as caught, runner:
            pass
        assert str(caught.value.__cause__) == "launcher failure"
        frames = traceback.extract_tb(caught.value.__cause__.__traceback__)
        assert frames[-1].name == "task"


@pytest.mark.parametrize(
    ("launcher_name", "overrides"),
    [("basic", ["hydra/sweeper=junky", "hydra.sweeper.max_batch_size=2"])],
)
class TestJunkySweeperInBatches(BatchedSweeperTestSuite):
    pass
