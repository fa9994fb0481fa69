"""The launcher's work: Hydra jobs as a source for the sweep engine, and back as ``JobReturn``s."""

from __future__ import annotations

import enum
import inspect
import logging
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import (
    JobReturn,
    JobStatus,
    configure_log,
    filter_overrides,
    setup_globals,
)
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.hydra_junky_launcher._errors import HydraConfigError, HydraDeviceError
from hydra_plugins.hydra_junky_launcher._isolation import isolated_launch, private_log_config
from hydra_plugins.hydra_junky_launcher._job import JobRunner
from hydra_plugins.hydra_junky_launcher._preflight import shared_environment
from junky_core.best import BestModel
from junky_core.devices import SlotSpec, parse_devices
from junky_core.errors import ConfigError, DeviceError, SweepFailed
from junky_core.events import Observer
from junky_core.jobs import GridSource, Job, JobResult
from junky_core.sweep import Sweep, SweepSettings
from junky_core.sweep_log import FileWriter, SweepLog

if TYPE_CHECKING:
    from hydra.types import HydraContext, TaskFunction

__all__ = ["LOG_NAME", "HydraSweep", "read_devices", "read_direction"]

log = logging.getLogger(__name__)

LOG_NAME = "autotrain.log"


def read_devices(devices: Any) -> list[SlotSpec]:
    """Return the slots that ``hydra.launcher.devices`` asks for, in any form of it.

    Raises:
        DeviceError: It is unknown, absent or malformed; shows the forms.
    """
    if OmegaConf.is_config(devices):
        devices = OmegaConf.to_container(devices, resolve=True)
    try:
        return parse_devices(devices)
    except DeviceError as error:
        raise HydraDeviceError(f"hydra.launcher.devices: {error}") from error


def read_direction(direction: Any) -> str:
    """Return ``"maximize"`` or ``"minimize"`` from what the sweeper has for it.

    Optuna's sweeper has an enum member, or a list of one for each objective;
    with several, the first one ranks models.

    Raises:
        ConfigError: It is neither.
    """
    given = direction
    if OmegaConf.is_list(direction) or isinstance(direction, (list, tuple)):
        direction = direction[0] if direction else None
    if direction is None:
        return "maximize"
    name = direction.name if isinstance(direction, enum.Enum) else str(direction)
    name = name.lower().rpartition(".")[2]
    if name not in ("maximize", "minimize"):
        raise HydraConfigError(f"hydra.launcher.direction={given!r}: expected maximize or minimize")
    return name


@dataclass(frozen=True)
class HydraSweepSpec:
    """What a sweep under Hydra is made of.

    Attributes:
        config: The sweep's own composed config.
        hydra_context: Config loader and callbacks.
        task_function: The user's.
        slots: The seats.
        settings: How the engine runs it.
        best_model_file_name: File in the sweep's folder.
        device_key: Key of a job's config that gets the slot's device, if any.
    """

    config: DictConfig
    hydra_context: HydraContext
    task_function: TaskFunction
    slots: Sequence[SlotSpec]
    settings: SweepSettings
    best_model_file_name: str
    device_key: str | None = None


class HydraSweep:
    """All launches of one sweep: slots, their loaders and the best model live on between them.

    For one thread at a time. Slot threads end when it is no longer referenced.
    """

    def __init__(self, spec: HydraSweepSpec) -> None:
        self._spec = spec
        self._runner = JobRunner(
            spec.hydra_context, spec.task_function, spec.config, spec.device_key
        )
        self._sweep: Sweep | None = None
        self._results: dict[int, JobResult] = {}

    @property
    def results(self) -> list[JobResult]:
        """How the jobs of all launches ended, by number."""
        return [self._results[num] for num in sorted(self._results)]

    @property
    def best_model_path(self) -> Path | None:
        """The best model's file, ``None`` if there is none."""
        if self._sweep is None or self._sweep.best.saved is None:
            return None
        return self._sweep.best.path

    def launch(self, job_overrides: Sequence[Sequence[str]], first_num: int) -> list[JobReturn]:
        """Run jobs; return how each ended, in their order.

        Args:
            job_overrides: The overrides of each job. A ``params_of(place)``
                method, if it has one, gives a job's parameters as plain data.
            first_num: The number of the first one.

        Raises:
            ConfigError: Jobs that cannot run side by side; nothing has run.
            SweepInterrupted: Ctrl-C or SIGTERM; all is written down.
            SweepFailed: The first jobs all died of one error.
        """
        spec = self._spec
        setup_globals()
        slots = min(len(spec.slots), len(job_overrides))
        if not slots:
            return []
        with private_log_config(self._configure_log):
            env = shared_environment(
                spec.hydra_context, spec.config, job_overrides, first_num, slots, spec.device_key
            )
            folder = Path(str(spec.config.hydra.sweep.dir)).absolute()
            folder.mkdir(parents=True, exist_ok=True)
            sweep = self._open(folder)
            log.info(
                "Launching %d jobs on %d %s: %s",
                len(job_overrides),
                slots,
                "slot" if slots == 1 else "slots",
                ", ".join(slot.device for slot in spec.slots[:slots]),
            )
            with isolated_launch(slots, env) as launch:
                self._runner.begin(launch)
                jobs = _jobs(job_overrides, first_num, spec.hydra_context)
                try:
                    sweep.run(GridSource(jobs, len(job_overrides)))
                finally:
                    self._results.update({result.num: result for result in sweep.results()})
                    self._log.close()  # the next launch opens it again, and appends
            return [self._return(num) for num in range(first_num, first_num + len(job_overrides))]

    def _open(self, folder: Path) -> Sweep:
        if self._sweep is None:
            spec = self._spec
            best = BestModel(folder / spec.best_model_file_name, spec.settings.direction)
            try:
                best.check_folder()
            except ConfigError as error:
                raise HydraConfigError(str(error)) from error
            self._log = SweepLog(FileWriter(folder / LOG_NAME))
            observers: list[Observer] = [self._log, SweepLog()]
            self._sweep = Sweep(
                spec.slots, self._runner, best, observers, spec.settings, kind="hydra"
            )
            weakref.finalize(self, self._sweep.close)
        return self._sweep

    def _configure_log(self) -> None:
        hydra_config = self._spec.config.hydra
        extra = {}
        if "execution_whitelist" in inspect.signature(configure_log).parameters:  # Hydra 1.4
            whitelist = self._spec.hydra_context.execution_whitelist  # type: ignore[attr-defined]
            extra["execution_whitelist"] = whitelist
        configure_log(hydra_config.hydra_logging, hydra_config.verbose, **extra)

    def _return(self, num: int) -> JobReturn:
        ret = self._runner.take_return(num)
        result = self._results.get(num)
        if ret is not None and result is not None and result.status != "finished":
            if ret.status is JobStatus.FAILED:
                return ret
            ret.status, ret.return_value = JobStatus.FAILED, result.exception or _not_run(num, self)
        if ret is None:
            ret = JobReturn(status=JobStatus.FAILED)
            ret.return_value = (result and result.exception) or _not_run(num, self)
        return ret

    @property
    def stop_reason(self) -> str:
        """Why the last launch ended before its jobs did, ``""`` if it did not."""
        return "" if self._sweep is None else self._sweep.stop_reason


def _not_run(num: int, sweep: HydraSweep) -> SweepFailed:
    reason = sweep.stop_reason or "the sweep ended"
    return SweepFailed(f"job #{num} did not run to its end ({reason})")


def _jobs(
    job_overrides: Sequence[Sequence[str]], first_num: int, hydra_context: HydraContext
) -> Iterator[Job]:
    """Yield the jobs of a launch, one by one as slots become free."""
    params_of = getattr(job_overrides, "params_of", None)
    parser = OverridesParser.create(config_loader=hydra_context.config_loader)
    for place, overrides in enumerate(job_overrides):
        num = first_num + place
        listed = list(overrides)
        log.info("\t#%d : %s", num, " ".join(filter_overrides(listed)))
        params = params_of(place) if params_of is not None else _params(listed, parser)
        yield Job(num, params, payload=listed, info={"overrides": listed})


def _params(overrides: list[str], parser: OverridesParser) -> Mapping[str, Any]:
    """Return a job's parameters, by their overrides' keys."""
    params: dict[str, Any] = {}
    for override in parser.parse_overrides(overrides):
        if override.key_or_group.partition(".")[0].partition("/")[0] == "hydra":
            continue
        key = override.key_or_group + (f"@{override.package}" if override.package else "")
        params[f"~{key}" if override.is_delete() else key] = override.value()
    return params
