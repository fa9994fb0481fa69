"""Give each job its own singletons of Hydra and resolvers of OmegaConf.

Neither Hydra nor OmegaConf has a public way to replace where it keeps them:
``Singleton._instances`` and ``BaseContainer._resolvers``. If they move, the checks
at the end of this module fail.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import hydra.core.utils as hydra_utils
import hydra.utils
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime, setup_globals
from omegaconf import OmegaConf
from omegaconf.basecontainer import BaseContainer

from hydra_plugins.hydra_junky_launcher._environment import env_before_sweep
from hydra_plugins.hydra_junky_launcher._job_state import (
    JobState,
    LayeredMapping,
    set_job_state,
)
from hydra_plugins.hydra_junky_launcher._quick import copy_config
from junky_core.job.patches import replaced
from junky_core.job.scopes import JobScope, current_scope, enter_scope

__all__ = [
    "configs_are_separate",
    "other_singletons_are_separate",
    "process_state",
    "put_back_after_job",
    "resolvers_are_separate",
    "run_job_is_known",
    "singletons_per_job",
    "take_over_state",
]

_SINGLETONS = {"GlobalHydra", "HydraConfig", "JobRuntime", "VersionBase"}


@contextlib.contextmanager
def singletons_per_job() -> Iterator[None]:
    """Let each job have its own singletons and resolvers, inside the ``with`` block."""
    instances = Singleton._instances  # noqa: SLF001 - see above
    resolvers = BaseContainer._resolvers  # noqa: SLF001 - see above
    own = LayeredMapping(instances, _is_hydra_singleton, _copy_singleton)
    plain = resolvers["oc.env"]
    resolvers["oc.env"] = ours = env_before_sweep(plain)
    try:
        with (
            replaced(Singleton, "_instances", own),
            replaced(BaseContainer, "_resolvers", LayeredMapping(resolvers)),
        ):
            yield
    finally:
        if resolvers.get("oc.env") is ours:  # else other code has replaced it: it stays
            resolvers["oc.env"] = plain


def process_state() -> tuple[dict[type, Any], dict[str, Any]]:
    """Return the singletons of Hydra, and the resolvers of OmegaConf, as they are now.

    But for ``Plugins``, which each process finds by itself.
    """
    instances = Singleton._instances  # noqa: SLF001 - see above
    resolvers = BaseContainer._resolvers  # noqa: SLF001 - see above
    singletons = {kind: instances[kind] for kind in instances if kind is not Plugins}
    return singletons, {name: resolvers[name] for name in resolvers}


def take_over_state(singletons: Mapping[type, Any], resolvers: Mapping[str, Any]) -> None:
    """Let this process have what :func:`process_state` found in another.

    Modules may hold singletons of this process already, so these are changed in place.
    """
    instances: dict[Any, Any] = Singleton._instances  # noqa: SLF001 - see above
    for kind, sent in singletons.items():
        if kind in instances:
            instances[kind].__dict__.clear()
            instances[kind].__dict__.update(vars(sent))
        else:
            instances[kind] = sent
    BaseContainer._resolvers.update(resolvers)  # noqa: SLF001 - see above


@contextlib.contextmanager
def put_back_after_job() -> Iterator[None]:
    """Put Hydra's singletons and OmegaConf's resolvers back when a job is over.

    For a process that runs one job at a time. As on threads, a resolver stays if a module
    registered it that was imported in the job. Enter it within the job's scope.
    """
    scope = current_scope()
    assert scope is not None
    set_job_state(scope, JobState())
    instances: dict[Any, Any] = Singleton._instances  # noqa: SLF001 - see above
    own = [instances[kind] for kind in instances if _is_hydra_singleton(kind)]
    before = [(one, vars(_copy_singleton(one))) for one in own]
    resolvers = LayeredMapping(BaseContainer._resolvers)  # noqa: SLF001 - see above
    try:
        with replaced(BaseContainer, "_resolvers", resolvers):
            yield
    finally:
        for one, state in before:
            one.__dict__.clear()
            one.__dict__.update(state)


def _is_hydra_singleton(key: Any) -> bool:
    return getattr(key, "__name__", "") in _SINGLETONS and key.__module__.startswith("hydra.")


def _copy_singleton(instance: Any) -> Any:
    own = copy.copy(instance)
    if isinstance(own, JobRuntime):
        own.conf = copy_config(own.conf)
    return own


def configs_are_separate(first: JobScope, second: JobScope) -> bool:
    """Return whether two jobs, and the process, each find their own ``HydraConfig``."""
    before = HydraConfig.instance().cfg
    late = OmegaConf.create({"cwd": "${hydra:runtime.cwd}"})
    for scope, cwd in (first, "/first"), (second, "/second"):
        with enter_scope(scope):
            node = OmegaConf.create({"runtime": {"cwd": cwd}})
            HydraConfig.instance().cfg = cast(Any, SimpleNamespace(hydra=node))
    found = []
    for scope in (first, second):
        with enter_scope(scope):
            found.append((hydra.utils.get_original_cwd(), late.cwd))
    separate = found == [("/first", "/first"), ("/second", "/second")]
    return separate and HydraConfig.instance().cfg is before


def other_singletons_are_separate(first: JobScope, second: JobScope) -> bool:
    """Return whether two jobs, and the process, each find their own ``JobRuntime`` and such."""
    marks = ["isolation check 1", "isolation check 2"]  # no app has such a name
    names: list[Any] = []
    loaders: list[Any] = []
    for scope, name in zip((first, second), marks, strict=True):
        with enter_scope(scope):
            JobRuntime.instance().set("name", name)
            GlobalHydra.instance().hydra = cast(Any, name)
    for scope in (first, second):
        with enter_scope(scope):
            names.append(JobRuntime.instance().get("name"))
            loaders.append(GlobalHydra.instance().hydra)
    outside = (JobRuntime.instance().get("name"), GlobalHydra.instance().hydra)
    return names == loaders == marks and not {*outside} & {*marks}


def resolvers_are_separate(first: JobScope, second: JobScope) -> bool:
    """Return whether resolvers that a job registers or clears are its own.

    One job clears a resolver of Hydra and registers it again, the other clears it.
    """
    before = OmegaConf.has_resolver("now")
    for scope in (first, second):
        with enter_scope(scope):
            OmegaConf.clear_resolver("now")
    with enter_scope(first):
        setup_globals()
        one = OmegaConf.has_resolver("now")
    with enter_scope(second):
        two = OmegaConf.has_resolver("now")
    return one and not two and OmegaConf.has_resolver("now") == before


def run_job_is_known(_first: JobScope, _second: JobScope) -> bool:
    """Return whether ``run_job`` takes and uses what the launcher counts on."""
    asked = {
        "task_function",
        "config",
        "job_dir_key",
        "job_subdir_key",
        "hydra_context",
        "configure_logging",
    }
    body = getattr(hydra_utils, "_run_job", hydra_utils.run_job)
    return set(inspect.signature(hydra_utils.run_job).parameters) == asked and {
        "HydraConfig",
        "chdir",
        "configure_log",
        "env_override",
    } <= set(body.__code__.co_names)
