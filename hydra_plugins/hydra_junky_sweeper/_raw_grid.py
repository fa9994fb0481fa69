"""Check this project's plugins before Hydra makes them, and keep their grammar unresolved.

A value that cannot be read is an error that names its key.

Hydra 1.3 resolves a plugin's whole config before it calls the plugin's class (1.4
does not). But an interpolation in the grammar is meant for the job, and may name
what only the job has: ``${hydra:job.num}``, or a key of an option that only some
jobs choose. With it, such a sweep would fail before it begins.

Hydra has no hook between composing and resolving, so the method that makes a plugin
is wrapped: while it makes this sweeper, the config has no grammar. Other plugins are
made as before. The sweeper reads the grammar from its config in ``setup``.
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

    Also keeps Hydra from resolving ``fit_params``. A second call does nothing: Hydra may
    import a plugin's module twice.

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
