"""Everything process-wide that a Hydra job uses, given to each job separately.

Hydra runs one job at a time in a process: its config, its logging, its folder
and its environment are the process's. Here many jobs run at once, each in the
thread of its slot. Hydra's own ``run_job`` does all the work, unchanged. What it
reads and writes is replaced by objects that look up the job of the calling
thread (:func:`junky_core.job.scopes.current_scope`), so threads that a job starts
see what their job sees. Threads of no job see the process's own state.

====================  =====================================================  ===================
What is process-wide  How each job gets its own                              Module
====================  =====================================================  ===================
Hydra's singletons    ``Singleton._instances`` is a mapping with a layer     ``_job_singletons``
                      for each job: a job finds copies of ``HydraConfig``,
                      ``GlobalHydra``, ``JobRuntime`` and ``VersionBase``,
                      which it may change
OmegaConf's           ``BaseContainer._resolvers``, the same way: a          ``_job_singletons``
resolvers             resolver that a job registers is its own
State of loggers      their attributes are descriptors with a layer for      ``_job_logging``
                      each job, so ``configure_log`` in a job configures
                      that job alone, whatever ``hydra.job_logging`` says
Handlers              names of handlers have layers; handlers made in a job  ``_job_logging``
                      are closed with it, and ``dictConfig`` in a job
                      closes only that job's handlers
Environment           ``hydra.job.env_set`` is set once for the launch       ``_environment``
Working folder        ``unshare(CLONE_FS)`` in the slot's thread, again for  ``_folders``
                      each job, so a thread that outlives its job keeps the
                      old folder
``sys.stdout``,       shared; what jobs leave behind by racing               here
``warnings.filters``  ``redirect_stdout`` or ``catch_warnings`` blocks is
                      undone after the launch
====================  =====================================================  ===================

A module that is imported while a job runs belongs to the process, so what its code
does to loggers and resolvers changes the process too (and that job).

The replacements are in place only while a launch, or a job of it, is running.
:func:`check_isolation` tests them at the start of each launch with the installed
Hydra, OmegaConf and Python: a version that keeps its state elsewhere gives an
error, not mixed-up jobs.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import hydra

from hydra_plugins.hydra_junky_launcher import _job_logging as job_logging
from hydra_plugins.hydra_junky_launcher import _job_singletons as job_singletons
from hydra_plugins.hydra_junky_launcher._environment import environment_per_launch, environment_set
from hydra_plugins.hydra_junky_launcher._errors import HydraIsolationError
from hydra_plugins.hydra_junky_launcher._folders import (
    folders_per_thread,
    in_this_folder,
    unshare_folder,
)
from hydra_plugins.hydra_junky_launcher._job_state import JobState, set_job_state
from hydra_plugins.hydra_junky_launcher._quick import quick_hydra
from junky_core.job.first_imports import first_imports_in_turn
from junky_core.job.patches import shared
from junky_core.job.scopes import JobScope, current_scope, enter_scope

__all__ = [
    "LaunchState",
    "check_isolation",
    "isolated_job",
    "isolated_launch",
    "private_log_config",
    "scratch_job",
]

_CHECKS: dict[str, Callable[[JobScope, JobScope], bool]] = {
    "the config of a job (HydraConfig)": job_singletons.configs_are_separate,
    "Hydra's other singletons": job_singletons.other_singletons_are_separate,
    "the resolvers of OmegaConf": job_singletons.resolvers_are_separate,
    "the state of loggers": job_logging.loggers_are_separate,
    "what run_job needs": job_singletons.run_job_is_known,
}


@shared
@contextlib.contextmanager
def _patched() -> Iterator[None]:
    """Keep all replacements in place inside the ``with`` block."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(first_imports_in_turn())  # it knows whether an import is running
        stack.enter_context(job_singletons.singletons_per_job())
        stack.enter_context(job_logging.logging_per_job())
        stack.enter_context(environment_per_launch())
        stack.enter_context(quick_hydra())
        yield


@dataclass(frozen=True)
class LaunchState:
    """What the jobs of one launch share.

    Attributes:
        slots: How many jobs may run at once.
        env: What ``hydra.job.env_set`` has set for all jobs, ``None`` if each sets its own.
        env_before: What those variables were before; ``None`` for unset.
        folder: The working folder of the process, where each job begins.
        own_folders: Whether each job has its own working folder.
    """

    slots: int
    env: Mapping[str, str] | None
    env_before: Mapping[str, str | None]
    folder: str
    own_folders: bool


@contextlib.contextmanager
def isolated_launch(slots: int, env: Mapping[str, str] | None = None) -> Iterator[LaunchState]:
    """Let jobs have their own state inside the ``with`` block. For the main thread.

    Args:
        slots: How many jobs may run at once.
        env: The environment variables that all jobs set; ``None`` if each job
            may set its own, which takes one slot.

    Raises:
        IsolationError: The installed Hydra, OmegaConf or Python keeps its state
            where the replacements do not reach.
    """
    with _patched(), _process_restored():
        check_isolation()
        with environment_set(env or {}) as before:
            yield LaunchState(slots, env, before, str(Path.cwd()), folders_per_thread())


@contextlib.contextmanager
def isolated_job(launch: LaunchState) -> Iterator[JobState]:
    """Give the calling thread's job its own state inside the ``with`` block.

    Enter it in the slot's thread, within the job's scope, before Hydra is called
    for the job and before the job starts a thread.
    """
    scope = current_scope()
    assert scope is not None
    with _patched():
        state = set_job_state(scope, JobState(launch.env, launch.env_before))
        # A thread that outlives its job may log once more, which opens a closed file again.
        weakref.finalize(state, job_logging.close_handlers, state.handlers)
        own_folder = launch.own_folders and unshare_folder()
        if own_folder:
            os.chdir(launch.folder)
            scope.work_setups.append(in_this_folder)
        try:
            yield state
        finally:
            job_logging.close_handlers(state.handlers)
            if own_folder or launch.slots == 1:
                os.chdir(launch.folder)


@contextlib.contextmanager
def scratch_job() -> Iterator[None]:
    """Let the calling thread read a job's config as that job would, inside the ``with`` block.

    What it sets in Hydra, such as ``HydraConfig``, is gone afterwards.
    """
    scope = JobScope(None)
    set_job_state(scope, JobState())
    with _patched(), enter_scope(scope):
        yield


@contextlib.contextmanager
def private_log_config(configure: Callable[[], None]) -> Iterator[None]:
    """Log as ``configure`` sets it up inside the ``with`` block, for threads of no job.

    Afterwards the process's loggers are as they were.
    """
    with _patched(), job_logging.private_log_config(configure):
        yield


@contextlib.contextmanager
def _process_restored() -> Iterator[None]:
    """Undo what jobs leave behind by racing on blocks that are process-wide."""
    folder = str(Path.cwd())
    streams = sys.stdout, sys.stderr
    filters, showwarning = warnings.filters, warnings.showwarning
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.chdir(folder)
        sys.stdout, sys.stderr = streams
        # catch_warnings puts a new list in place, and at its end the old one back. A list that
        # is left in place is undone; what filterwarnings() changed inside the old one stays.
        if warnings.filters is not filters:
            warnings.filters = filters
            warnings.showwarning = showwarning
            getattr(warnings, "_filters_mutated", lambda: None)()


def check_isolation() -> None:
    """Test that two jobs see neither each other's state nor the process's.

    Raises:
        IsolationError: They do.
    """
    with _patched():
        wrong = [name for name, separate in _CHECKS.items() if not _holds(separate)]
    if wrong:
        versions = f"hydra-core {hydra.__version__}, Python {sys.version.split()[0]}"
        raise HydraIsolationError(
            f"jobs cannot be kept apart with {versions}: this version of the junky launcher does "
            f"not know where they keep {', '.join(wrong)}. Use hydra/launcher=basic, or a version "
            "of hydra-core that the launcher supports (see its documentation)"
        )


def _holds(separate: Callable[[JobScope, JobScope], bool]) -> bool:
    scopes = JobScope(None), JobScope(None)
    for scope in scopes:
        set_job_state(scope, JobState())
    try:
        return separate(*scopes)
    except Exception:  # noqa: BLE001  # whatever a future version does there, jobs are not separate
        return False
