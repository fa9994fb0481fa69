"""What happens between the composing of a config and the making of this project's plugins.

Its values are checked, so that one that cannot be read is named. And hydra-core 1.3 is kept from
resolving the interpolations of the grammar.

Up to 1.3 Hydra resolves a plugin's whole config in place before it calls the
plugin's class (1.4 does not). An interpolation in the grammar is meant for the
job, though, and may name what only the job has: ``${hydra:job.num}``, a key of
an option that only some jobs choose. There such a sweep would die before the
plugin is asked, and what does resolve would be written back into the config
that the jobs are composed from.

There is no hook between composing and resolving, so that the one method that
makes a plugin is wrapped: it gets a copy without the grammar if, and only if,
it is this sweeper that it makes. Nothing changes for plugins of others.
The sweeper reads the grammar from its config in ``setup``, on every version.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf, flag_override

__all__ = ["check_plugins"]

_MARK = "_junky_checks_plugins"
_LAUNCHER = "hydra_plugins.hydra_junky_launcher.junky_launcher.JunkyLauncher"


def check_plugins(sweeper: str) -> None:
    """Check the values of this project's plugins when Hydra makes them.

    Hydra is made to leave ``fit_params`` alone besides. Does nothing when it was done before:
    Hydra may import a plugin's module twice.

    Args:
        sweeper: The ``_target_`` of the sweeper.
    """
    plain = getattr(Plugins, "_instantiate", None)
    if plain is None or hasattr(plain, _MARK):
        return

    @functools.wraps(plain)
    def instantiate(self: Plugins, config: DictConfig) -> Any:
        target = str(config.get("_target_")) if OmegaConf.is_dict(config) else ""
        if target not in (sweeper, _LAUNCHER):
            return plain(self, config)
        from hydra_plugins.hydra_junky_launcher._reading import check_values, reading

        prefix = "hydra.launcher" if target == _LAUNCHER else "hydra.sweeper"
        with reading(prefix), _without_grid(config):
            check_values(config, prefix)
            return plain(self, config)

    setattr(instantiate, _MARK, True)
    Plugins._instantiate = instantiate  # type: ignore[method-assign]  # noqa: SLF001 - see above


@contextlib.contextmanager
def _without_grid(config: DictConfig) -> Iterator[None]:
    """Empty the key of the grammar, if ``config`` has it, inside the ``with`` block."""
    grid = config.items_ex(resolve=False, keys=["fit_params"])
    with flag_override(config, ["readonly", "struct"], [False, False]):
        config.update({key: None for key, _ in grid})
    try:
        yield
    finally:
        with flag_override(config, ["readonly", "struct"], [False, False]):
            config.update(dict(grid))
