"""The launcher plugin and its config; the work is done in ``_core.py``.

Hydra imports this module at the start of every app, whichever launcher it
uses, and maybe twice: it imports little (no torch) and keeps no state.
Annotations are real types here, because OmegaConf reads them before Hydra has
added the module to ``sys.modules``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from hydra_plugins.hydra_junky_launcher._core import HydraSweep
    from junky_core.errors import BestModelError
    from junky_core.job.offers import Best
    from junky_core.jobs import JobResult

__all__ = ["JunkyLauncher", "JunkyLauncherConf"]


class JunkyLauncher(Launcher):
    """Run jobs on device slots, threads of this process or processes, each as if it ran alone.

    Args:
        options: The keys of :class:`JunkyLauncherConf`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options
        self.sweep: Optional[HydraSweep] = None  # noqa: UP045
        # A sweeper that launches several times and raises best_model_error() itself sets it.
        self.sweeper_raises = False

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Check all settings, before anything is written (Hydra calls this)."""
        from hydra_plugins.hydra_junky_launcher._setup import make_sweep

        keys = [key for key in fields(JunkyLauncherConf) if not key.name.startswith("_")]
        defaults = {key.name: key.default for key in keys}
        self.sweep = make_sweep(self.options, defaults, hydra_context, task_function, config)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run jobs; return how each ended, in their order (sweepers call this)."""
        assert self.sweep is not None
        returns = self.sweep.launch(job_overrides, initial_job_idx)
        error = self.best_model_error()
        if error is not None and not self.sweeper_raises:
            try:
                raise error
            finally:  # else this frame would keep the sweep, and so the lock of its folder
                del error
        return returns

    def sweep_results(self) -> "list[JobResult]":
        """Return how the jobs of all launches so far ended, by number."""
        return [] if self.sweep is None else self.sweep.results

    def saved_best(self) -> "Best | None":
        """Return the record of the saved best model, ``None`` if there is none."""
        return None if self.sweep is None else self.sweep.saved_best

    def best_model_error(self) -> "BestModelError | None":
        """Return why the best model is not on disk after the last launch, ``None`` if it is."""
        return None if self.sweep is None else self.sweep.best_model_error()

    def best_model_path(self) -> Optional[Path]:  # noqa: UP045
        """Return the best model's file, ``None`` if no job saved one."""
        return None if self.sweep is None else self.sweep.best_model_path


@dataclass
class JunkyLauncherConf:
    """Keys of ``hydra.launcher``."""

    _target_: str = "hydra_plugins.hydra_junky_launcher.junky_launcher.JunkyLauncher"
    _recursive_: bool = False

    # Slots, each of which runs one job at a time: cpu | cuda:0 | cuda:0*3 |
    # [cuda:0*3,cuda:1] | a mapping device -> slots | auto (each visible GPU once, else the CPU).
    # A scalar by default, so that the command line can replace it by any form.
    devices: Any = "cpu"

    # Torch threads of each slot. null: OMP_NUM_THREADS if it is set, 1 with a seed, else the
    # cores divided by the slots.
    threads_per_slot: Optional[int] = None  # noqa: UP045

    # How often a job that failed runs again, after all others of its launch.
    max_retries: int = 1

    # Seeds every job alike; a job's result then depends on its config and the seed alone.
    seed: Optional[int] = None  # noqa: UP045

    # File in the sweep's folder for the best model's state dict.
    best_model_file_name: str = "model.pt"

    # maximize | minimize: which scores are better. null: the sweeper's, else maximize.
    direction: Any = None

    # Stop if the first jobs, this many, all fail with the same error at the same line. null: never.
    fail_fast: Optional[int] = 5  # noqa: UP045

    # Seconds after which a job ends at its next cancellation point, as failed and without a retry.
    job_timeout_s: Optional[float] = None  # noqa: UP045

    # Seconds after which no new job starts; running jobs finish.
    sweep_timeout_s: Optional[float] = None  # noqa: UP045

    # false | true | repair: continue the sweep in the sweep's folder; repair: also if its journal
    # is damaged, from the intact lines.
    resume: Any = False

    # threads | processes: where jobs run: in threads of this process, or each slot's in a process.
    executor: str = "threads"

    # With processes: seconds after which a job that was asked to end, and has not, is killed.
    kill_after_s: float = 10.0

    # With processes: modules that are imported once for all of them, such as [lightning].
    preload: Any = None

    # Key of the job's config that gets the device of its slot, such as trainer.device; must exist.
    device_key: Optional[str] = None  # noqa: UP045

    # Live progress. null: in a terminal; true: plain lines elsewhere too; false: never.
    progress: Optional[bool] = None  # noqa: UP045

    # Write report.html to the sweep's folder after each launch.
    report: bool = False


ConfigStore.instance().store(
    group="hydra/launcher", name="junky", node=JunkyLauncherConf, provider="junky_launcher"
)
