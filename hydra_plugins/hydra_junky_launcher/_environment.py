"""Environment variables of jobs that run at the same time.

C code reads the environment, so it cannot be made per thread. ``hydra.job.env_set``,
which must be the same for all jobs then, is set once for the whole launch. But Hydra
prepares a job before it sets its variables, so until the job's task runs, ``oc.env``
gives that job what was there before the launch:

    the process   | A=old |        A=new (all of the launch)         | A=old |
    job 1                 | prepared: A=old | task: A=new |
    job 2                    | prepared: A=old | task: A=new |
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import hydra.core.utils as hydra_utils

from hydra_plugins.hydra_junky_launcher._errors import HydraConfigError
from hydra_plugins.hydra_junky_launcher._job_state import job_state
from junky_core.errors import ConfigError
from junky_core.job.patches import replaced

__all__ = ["env_before_sweep", "env_error", "environment_per_launch", "environment_set"]

_ABSENT = object()


@contextlib.contextmanager
def environment_set(env: Mapping[str, str]) -> Iterator[dict[str, str | None]]:
    """Set variables inside the ``with`` block; give their values before, ``None`` for unset."""
    before = {name: os.environ.get(name) for name in env}
    os.environ.update(env)
    try:
        yield before
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def environment_per_launch() -> Iterator[None]:
    """Keep ``run_job`` from setting variables that the launch has set, inside the ``with`` block.

    ``run_job`` enters ``env_override`` around a job's task, which also shows when it runs.
    """
    with replaced(hydra_utils, "env_override", _mark_task(hydra_utils.env_override)):
        yield


def _mark_task(plain: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @contextlib.contextmanager
    def env_override(env: Any) -> Iterator[None]:
        state = job_state()
        if state is None or state.env is None:  # one slot: the job may set what it likes
            with plain(env):
                yield
            return
        wanted = {str(name): str(value) for name, value in env.items()}
        if wanted != dict(state.env):
            raise env_error(dict(state.env), wanted)
        state.task_runs = True
        try:
            yield
        finally:
            state.task_runs = False

    return env_override


def env_before_sweep(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``oc.env`` for jobs: the old values until the job's task runs.

    Args:
        plain: OmegaConf's own.
    """

    def resolve(root: Any, parent: Any, node: Any, args: Any, args_str: Any) -> Any:
        state = job_state()
        before = {} if state is None or state.task_runs else state.env_before or {}
        if not args or args[0] not in before:
            return plain(root, parent, node, args, args_str)
        value = before[args[0]]
        if value is not None:
            return value
        if len(args) > 1:
            return None if args[1] is None else str(args[1])
        raise KeyError(f"Environment variable '{args[0]}' not found")

    return resolve


def env_error(first: Mapping[str, str], other: Mapping[str, str], where: str = "") -> ConfigError:
    """Return the error that names the variables in which two jobs' ``env_set`` differ."""
    names = sorted(
        name for name in {*first, *other} if first.get(name, _ABSENT) != other.get(name, _ABSENT)
    )
    shown = "; ".join(f"{name}: {first.get(name)!r} and {other.get(name)!r}" for name in names)
    return HydraConfigError(
        f"hydra.job.env_set differs between jobs in {', '.join(names)} ({shown}){where}. "
        "A process has one environment, so jobs that run at the same time must share it: "
        "use one slot (hydra.launcher.devices=cpu) or hydra/launcher=basic"
    )
