"""Keeps hydra-core 1.3 from resolving the interpolations of the grammar.

Up to 1.3 Hydra resolves a plugin's whole config in place before it calls the
plugin's class (1.4 does not). An interpolation in the grammar is meant for the
job, though, and may name what only the job has: ``${hydra:job.num}``, a key of
an option that only some jobs choose. There such a sweep would die before the
plugin is asked, and what does resolve would be written back into the config
that the jobs are composed from.

There is no hook between composing and resolving, so that the one method that
makes a plugin is wrapped: it gets a copy without the grammar if, and only if,
it is this sweeper that it makes. Nothing else changes for any other plugin.
The sweeper reads the grammar from its config in ``setup``, on every version.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import hydra
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf, flag_override

__all__ = ["keep_grid_raw"]

_MARK = "_junky_keeps_grid_raw"


def keep_grid_raw(target: str) -> None:
    """Make sure that Hydra leaves ``fit_params`` alone when it makes the plugin ``target``.

    Does nothing from 1.4 on, nor when it was done before: Hydra may import a
    plugin's module twice.
    """
    plain = getattr(Plugins, "_instantiate", None)
    if not hydra.__version__.startswith("1.3.") or plain is None or hasattr(plain, _MARK):
        return

    @functools.wraps(plain)
    def instantiate(self: Plugins, config: DictConfig) -> Any:
        if OmegaConf.is_dict(config) and config.get("_target_") == target:
            config = _without_grid(config)
        return plain(self, config)

    setattr(instantiate, _MARK, True)
    Plugins._instantiate = instantiate  # type: ignore[method-assign]  # noqa: SLF001 - see above


def _without_grid(config: DictConfig) -> DictConfig:
    parent = config._get_parent()  # noqa: SLF001 - interpolations elsewhere in it need it
    config = copy.deepcopy(config)
    config._set_parent(parent)  # noqa: SLF001
    with flag_override(config, ["readonly", "struct"], [False, False]):
        config["fit_params"] = None
    return config
