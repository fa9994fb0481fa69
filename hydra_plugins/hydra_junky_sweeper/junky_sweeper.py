"""The sweeper plugin and its config; the work is done in ``_core.py``.

Hydra imports this module at the start of every app, whichever sweeper it uses:
it imports little and keeps no state. Annotations are real types here, because
OmegaConf reads them before Hydra has added the module to ``sys.modules``.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.hydra_junky_sweeper._raw_grid import check_plugins

if TYPE_CHECKING:
    from hydra.plugins.launcher import Launcher

__all__ = ["JunkySweeper", "JunkySweeperConf"]


class JunkySweeper(Sweeper):
    """Run a grid with alternatives, crossed with ordinary Hydra sweeps.

    Args:
        fit_params: Ignored. The sweep reads the grammar from its config, where
            interpolations are unresolved.
        params: Overrides by key, with the sweep syntax of the command line.
        direction: ``maximize`` or ``minimize``; ``None``: the launcher's, else ``maximize``.
        max_batch_size: Jobs in one launch, ``None`` for all.
        dry_run: Print the jobs and run none.
    """

    def __init__(
        self,
        fit_params: Any = None,
        params: Any = None,
        direction: Any = None,
        max_batch_size: Optional[int] = None,  # noqa: UP045
        dry_run: bool = False,
    ) -> None:
        super().__init__()
        del fit_params
        self.params: Any = params
        self.direction = direction
        self.max_batch_size = max_batch_size
        self.dry_run = dry_run
        self.fit_params: Any = None
        self.hydra_context: Optional[HydraContext] = None  # noqa: UP045
        self.config: Optional[DictConfig] = None  # noqa: UP045
        self.launcher: Optional[Launcher] = None  # noqa: UP045

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Check the settings, read the grammar and make the launcher (Hydra calls this)."""
        from hydra.core.plugins import Plugins

        from hydra_plugins.hydra_junky_launcher._direction import one_direction, read_direction
        from hydra_plugins.hydra_junky_sweeper._core import check_batch_size
        from hydra_plugins.hydra_junky_sweeper._space import read_fit_params, read_params

        if self.direction is not None:
            read_direction("hydra.sweeper.direction", self.direction)  # a list is for objectives
        self.direction = one_direction({"direction": self.direction}, config.hydra.launcher)
        self.max_batch_size = check_batch_size(self.max_batch_size)
        self.params = read_params(self.params)
        self.fit_params = read_fit_params(config)
        self.hydra_context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep; see ``_core.SweepRun.run``."""
        from hydra_plugins.hydra_junky_sweeper._core import SweepRun

        assert self.config is not None
        assert self.hydra_context is not None
        assert self.launcher is not None
        return SweepRun(
            config=self.config,
            context=self.hydra_context,
            launcher=self.launcher,
            fit_params=self.fit_params,
            params=self.params,
            direction=self.direction,
            max_batch_size=self.max_batch_size,
            dry_run=self.dry_run,
        ).run(arguments)


@dataclass
class JunkySweeperConf:
    """Keys of ``hydra.sweeper``."""

    _target_: str = "hydra_plugins.hydra_junky_sweeper.junky_sweeper.JunkySweeper"
    # The grammar is data: a `_target_` in it is a value like any other.
    _recursive_: bool = False

    # The grid: pairs [key, values] and sub-grids, which are alternatives. null: one job.
    fit_params: Any = None

    # Ordinary sweeps, `lr: 0.1,0.01`, as on the command line, which comes after them and wins.
    # Any: if it had a mapping's type, the command line could not replace the null by a mapping.
    params: Any = None

    # maximize | minimize: which scores are better. null: the launcher's, else maximize.
    direction: Any = None

    # Jobs in one launch; null: all of them.
    max_batch_size: Optional[int] = None  # noqa: UP045

    # Print the number of jobs, its factors and the jobs, and run none.
    dry_run: bool = False


check_plugins(JunkySweeperConf._target_)
ConfigStore.instance().store(
    group="hydra/sweeper", name="junky", node=JunkySweeperConf, provider="junky_sweeper"
)
