"""From the keys of ``hydra.launcher`` to a sweep that can be launched; every check is here."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import BooleanNode, DictConfig, ListConfig, OmegaConf, ValidationError

from hydra_plugins.hydra_junky_launcher._core import (
    HOW_TO_RESUME,
    HydraSweep,
    HydraSweepSpec,
)
from hydra_plugins.hydra_junky_launcher._devices import read_devices
from hydra_plugins.hydra_junky_launcher._direction import one_direction
from hydra_plugins.hydra_junky_launcher._errors import (
    HydraConfigError,
    HydraResumeError,
    HydraSweepFolderError,
    hydra_error,
)
from hydra_plugins.hydra_junky_launcher._reading import reading, usable_folder
from junky_core.engine.settings import SweepSettings
from junky_core.errors import ConfigError, SweepFolderError
from junky_core.executors.kinds import ExecutorKind
from junky_core.executors.processes.fork_server import is_supported
from junky_core.executors.processes.main_module import (
    refuse_unguarded_script,
    refuse_while_main_is_imported,
)
from junky_core.job.best import BestModel
from junky_core.jobs import Direction
from junky_core.record.best_path import best_model_path
from junky_core.record.folder import SweepFolder
from junky_core.record.sweep_record import REPAIR, is_spent, refusal
from junky_core.values.user_text import shown

if TYPE_CHECKING:
    from hydra.types import HydraContext, TaskFunction

__all__ = ["make_sweep"]

# Sweepers that ask for the same jobs each time.
_SWEEPERS_TO_RESUME = ("JunkySweeper", "BasicSweeper")
# Keys that the engine takes as they are.
_ENGINE_KEYS = (
    "max_retries",
    "seed",
    "threads_per_slot",
    "fail_fast",
    "job_timeout_s",
    "sweep_timeout_s",
    "executor",
    "kill_after_s",
)


def make_sweep(
    options: Mapping[str, Any],
    defaults: Mapping[str, Any],
    hydra_context: HydraContext,
    task_function: TaskFunction,
    config: DictConfig,
) -> HydraSweep:
    """Return the sweep that the launcher's settings describe; nothing is written or started.

    Args:
        options: The keys of ``hydra.launcher`` that were given.
        defaults: All keys, with their defaults.
        hydra_context: Config loader and callbacks.
        task_function: The user's.
        config: The sweep's own composed config.

    Raises:
        DeviceError, ConfigError: A setting cannot be used; the message names it.
    """
    try:
        refuse_while_main_is_imported()
    except ConfigError as error:
        raise HydraConfigError(str(error)) from error
    unknown = sorted(set(options) - set(defaults))
    if unknown:
        raise HydraConfigError(
            f"hydra.launcher has no key {', '.join(unknown)}; it has {', '.join(defaults)}"
        )
    given = {**defaults, **options}
    slots = read_devices(given["devices"])
    folder = usable_folder("hydra.sweep.dir", config.hydra.sweep, "dir")
    try:
        settings = SweepSettings(
            direction=one_direction(config.hydra.get("sweeper"), given),
            value_is_score=True,
            spec={
                "config_name": str(config.hydra.job.config_name),
                "overrides": _as_written(config.hydra.overrides.task),
                "devices": [slot.device for slot in slots],
            },
            resume_hint=_how_to_resume(config),
            **{name: given[name] for name in _ENGINE_KEYS},
        )
    except HydraConfigError:
        raise
    except ConfigError as error:
        raise HydraConfigError(f"hydra.launcher: {error}") from error
    if settings.executor is ExecutorKind.PROCESSES:
        _check_processes()
    resume = _read_resume(given["resume"])
    _check_folder(folder, resume, config)
    best_path = _best_model_path(folder, given["best_model_file_name"], settings.direction)
    return HydraSweep(
        HydraSweepSpec(
            config=config,
            hydra_context=hydra_context,
            task_function=task_function,
            slots=slots,
            settings=settings,
            folder=folder,
            resume=resume,
            progress=given["progress"],
            report=bool(given["report"]),
            best_model_path=best_path,
            device_key=_read_device_key(given["device_key"]),
            preload=_read_preload(given["preload"]),
        )
    )


def _check_processes() -> None:
    """Check that jobs can run in worker processes.

    Raises:
        ConfigError: This system cannot start them, or the script would start the sweep again
            in each of them.
    """
    if not is_supported():
        raise HydraConfigError(
            f"hydra.launcher.executor=processes needs Linux, and this is {sys.platform}; use "
            "hydra.launcher.executor=threads"
        )
    try:
        refuse_unguarded_script()
    except ConfigError as error:
        raise HydraConfigError(f"hydra.launcher.executor=processes: {error}") from error


def _read_device_key(key: str | None) -> str | None:
    if key is not None and key.partition(".")[0] == "hydra":
        raise HydraConfigError(
            f"hydra.launcher.device_key={key}: it must name a key of the app's own config, "
            "for example trainer.device, not one of Hydra's"
        )
    return key


def _read_preload(given: Any) -> list[str]:
    """Return the modules that ``hydra.launcher.preload`` names.

    Raises:
        ConfigError: It is neither a name nor a list of names, or there is no such module.
    """
    if OmegaConf.is_config(given):
        with reading("hydra.launcher.preload"):
            given = OmegaConf.to_container(given, resolve=True)
    names = [] if given is None else given if isinstance(given, list) else [given]
    for name in names:
        if not isinstance(name, str) or not name.replace(".", "_").isidentifier():
            raise HydraConfigError(
                f"hydra.launcher.preload: {shown(name)} is not the name of a module; write a list "
                "of names, such as [lightning]"
            )
        if importlib.util.find_spec(name.partition(".")[0]) is None:
            raise HydraConfigError(f"hydra.launcher.preload: there is no module named {name}")
    return names


def _read_resume(given: Any) -> bool | str:
    """Return what ``hydra.launcher.resume`` asks for.

    Raises:
        ConfigError: It is not true, false or repair.
    """
    if given == REPAIR:
        return REPAIR
    try:
        return bool(OmegaConf.create({"resume": BooleanNode(given)}).resume)  # true, "on", 1, ...
    except ValidationError as error:
        raise HydraConfigError(
            f"hydra.launcher.resume={given}: it must be true, false or {REPAIR}"
        ) from error


def _check_folder(folder: Path, resume: bool | str, config: DictConfig) -> None:
    """Refuse before anything is written: Hydra's sweepers write to the folder before they launch.

    Raises:
        SweepFolderError: It holds a sweep, and ``resume`` is not asked for.
        ResumeError: The sweeper's jobs depend on earlier scores.
    """
    sweeper = str(config.hydra.sweeper.get("_target_", ""))
    if resume and sweeper.rpartition(".")[2] not in _SWEEPERS_TO_RESUME:
        raise HydraResumeError(
            f"hydra.launcher.resume=true needs hydra/sweeper=junky or basic, this is {sweeper}: "
            "its next jobs depend on earlier scores, so its batches cannot be repeated"
        )
    try:
        holds_sweep = SweepFolder(folder).holds_sweep()
    except SweepFolderError as error:
        raise hydra_error(error) from error
    if not resume and holds_sweep and not is_spent(folder):
        raise HydraSweepFolderError(refusal(folder, HOW_TO_RESUME))


def _best_model_path(folder: Path, name: Any, direction: Direction) -> Path:
    """Return the best model's file.

    Raises:
        ConfigError: It cannot be written, or is the place of another file; says why.
    """
    try:
        path = best_model_path(name, folder)
        best = BestModel(path, direction)
        try:
            best.check_folder()
        finally:
            best.close()
    except ConfigError as error:
        raise HydraConfigError(f"hydra.launcher: {error}") from error
    return path


def _how_to_resume(config: DictConfig) -> str:
    """Return the command line that continues this sweep."""
    overrides = config.hydra.overrides
    given = [*_as_written(overrides.hydra), *_as_written(overrides.task)]
    kept = [
        override
        for override in given
        if override.lstrip("+").partition("=")[0]
        not in ("hydra.sweep.dir", "hydra.launcher.resume", "hydra.mode")
    ]
    words = [
        "python",
        sys.argv[0],
        "--multirun",
        *kept,
        f"hydra.sweep.dir={config.hydra.sweep.dir}",
        "hydra.launcher.resume=true",
    ]
    return shlex.join(words)


def _as_written(overrides: ListConfig) -> list[str]:
    """Return overrides as text; reading them one by one would resolve interpolations in them."""
    listed: Any = OmegaConf.to_container(overrides, resolve=False)
    return [str(override) for override in listed]
