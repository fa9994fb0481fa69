"""The sweep: check all jobs, launch them, rank and report the results.

Our launcher, which has ``sweep_results()``, gets jobs lazily; it ranks, retries and
keeps the best model. Any other launcher gets plain lists; its jobs are ranked here
by what they return, and failed jobs are launched once more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobStatus
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.hydra_junky_launcher._reading import usable_folder
from hydra_plugins.hydra_junky_sweeper._errors import HydraConfigError, HydraSweepFailed
from hydra_plugins.hydra_junky_sweeper._preview import preview_of
from hydra_plugins.hydra_junky_sweeper._results import (
    best_of,
    failure_text,
    result_of,
    write_results,
)
from hydra_plugins.hydra_junky_sweeper._space import JobOverrides, build_jobs
from hydra_plugins.hydra_junky_sweeper._validation import validate_jobs
from junky_core.engine.signals import noted_until_here
from junky_core.errors import JunkyError, SweepFailed
from junky_core.job.failures import showable
from junky_core.jobs import Direction
from junky_core.logs.standard_streams import unbreakable_streams
from junky_core.paths import remove_empty
from junky_core.record.folder import LOCK_NAME
from junky_core.values.texts import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from hydra.plugins.launcher import Launcher
    from hydra.types import HydraContext

    from junky_core.errors import BestModelError
    from junky_core.job.offers import Best
    from junky_core.jobs import JobResult

__all__ = ["RESULTS_FILE", "SweepRun", "check_batch_size"]

log = logging.getLogger(__name__)

RESULTS_FILE = "optimization_results.yaml"
_FOREIGN_RETRIES = 1


def check_batch_size(size: Any) -> int | None:
    """Return how many jobs go to one launch, ``None`` for all of them.

    Raises:
        HydraConfigError: It is not a positive whole number.
    """
    if size is None or size == -1:
        return None
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise HydraConfigError(
            f"hydra.sweeper.max_batch_size={size!r}: expected a positive whole number of"
            " jobs, or null for all jobs in one batch"
        )
    return size


@dataclasses.dataclass(frozen=True)
class SweepRun:
    """One sweep and its settings.

    Attributes:
        config: The sweep's own composed config.
        context: Hydra's, with the config loader.
        launcher: Where jobs run.
        fit_params: The grammar as plain data.
        params: Overrides from the config file, as ``hydra.sweeper.params`` has them.
        direction: Whether higher or lower scores are better.
        max_batch_size: Jobs in one launch, ``None`` for all.
        dry_run: Print what would run, and run nothing.
    """

    config: DictConfig
    context: HydraContext
    launcher: Launcher
    fit_params: Any
    params: Mapping[str, Any]
    direction: Direction
    max_batch_size: int | None
    dry_run: bool

    def run(self, arguments: Sequence[str]) -> list[Any]:
        """Run all jobs and return the ``JobReturn``s, one sequence for each batch.

        Args:
            arguments: The command line's overrides, without those of ``hydra``.

        Raises:
            HydraFitParamsError, HydraConfigError: Before any job, with nothing written.
            Exception: Hydra's, before any job, if one cannot be composed; ``multirun.yaml``
                is there then, as under Hydra's own sweeper.
            HydraSweepFailed: Jobs failed for good; all others have finished and
                the results are written. The first one's exception is its cause.
        """
        loader = self.context.config_loader
        jobs = build_jobs(self.fit_params, self.params, arguments, loader)
        if self.dry_run:
            validate_jobs(jobs, loader, self.config)
            sys.stdout.write(preview_of(jobs))
            return []
        with unbreakable_streams(), noted_until_here() as signals:
            returns = self._run(jobs)
        signals.raise_if_noted()
        return returns

    def _run(self, jobs: JobOverrides) -> list[Any]:
        folder = usable_folder("hydra.sweep.dir", self.config.hydra.sweep, "dir")
        runner: _OwnRunner | _ForeignRunner = (
            _OwnRunner(self.launcher, jobs)
            if callable(getattr(self.launcher, "sweep_results", None))
            else _ForeignRunner(self.launcher, jobs)
        )
        try:
            with _config_written(self.config, folder, runner):
                validate_jobs(jobs, self.context.config_loader, self.config)
                runner.launch_all(self.max_batch_size)
        except BaseException:
            # Finished jobs get a results file, whatever ended the sweep.
            self._conclude(runner, jobs, folder / RESULTS_FILE)
            raise
        failed = self._conclude(runner, jobs, folder / RESULTS_FILE)
        best_model_error = runner.best_model_error()
        if best_model_error is not None:
            if failed:
                log.error(failure_text(failed, len(jobs), jobs.overrides_of))
            try:
                raise best_model_error
            finally:  # else this frame would keep the sweep, and so the lock of its folder
                del best_model_error
        if failed:
            raise HydraSweepFailed(
                failure_text(failed, len(jobs), jobs.overrides_of)
                + f"\nResults of the others: {folder / RESULTS_FILE}",
                failed,
            ) from showable(failed[0].exception)
        return runner.returns

    def _conclude(
        self, runner: _OwnRunner | _ForeignRunner, jobs: JobOverrides, path: Path
    ) -> list[JobResult]:
        results = runner.results()
        if not results:  # refused before any job ran: the folder stays as it is
            return []
        failed = [result for result in results if result.status == "failed"]
        best, model_path = _best_to_name(runner, results, self.direction)
        overrides = jobs.overrides_of(best) if best else []
        try:
            write_results(
                path,
                best=best,
                overrides=overrides,
                direction=self.direction,
                failed=failed,
                model_path=model_path,
            )
        except OSError as error:
            log.error("The results could not be written to %s: %s", path, error)  # noqa: TRY400
        else:
            log.info("Results: %s", path)
        if best is not None:
            log.info("Best job: #%d, score %s", best.num, best.score)
            log.info("Best overrides: %s", visible(" ".join(overrides)))
            if model_path is not None:
                log.info("Best model: %s", model_path)
        elif runner.best_model_error() is not None:
            log.error("No model is on disk, so no job is named as the best one")
        elif results:
            log.warning("No job has a score, so there is no best one: return a number from the job")
        return failed


class _OwnRunner:
    """Runs jobs with our launcher, which gets them lazily and keeps their results."""

    def __init__(self, launcher: Any, jobs: JobOverrides) -> None:
        self._launcher = launcher
        self._launcher.sweeper_raises = True  # only after the last launch
        self._jobs = jobs
        self.returns: list[Any] = []

    def launch_all(self, batch_size: int | None) -> None:
        for start, batch in _batches(self._jobs, batch_size):
            self.returns.append(self._launcher.launch(batch, initial_job_idx=start))

    def results(self) -> list[JobResult]:
        return list(self._launcher.sweep_results())

    def saved_best(self) -> Best | None:
        best: Best | None = self._launcher.saved_best()
        return best

    def model_path(self) -> Path | None:
        path: Path | None = self._launcher.best_model_path()
        return path

    def best_model_error(self) -> BestModelError | None:
        error: BestModelError | None = self._launcher.best_model_error()
        return error


class _ForeignRunner:
    """Runs jobs with any other launcher: ranks return values, launches failed jobs again."""

    def __init__(self, launcher: Launcher, jobs: JobOverrides) -> None:
        self._launcher = launcher
        self._jobs = jobs
        self._results: dict[int, JobResult] = {}
        self.returns: list[Any] = []

    def launch_all(self, batch_size: int | None) -> None:
        places: dict[int, tuple[list[Any], int]] = {}
        for start, batch in _batches(self._jobs, batch_size):
            returned = list(self._launcher.launch([list(job) for job in batch], start))
            self.returns.append(returned)
            for place, job in enumerate(returned):
                num = start + place
                self._results[num] = result_of(job, num, self._jobs.params_of(num), attempts=1)
                places[num] = (returned, place)
        # After all others: the cause of the failure may be gone by then.
        for attempt in range(2, 2 + _FOREIGN_RETRIES):
            for num in [n for n, result in self._results.items() if result.status == "failed"]:
                self._retry(num, attempt, *places[num])

    def _retry(self, num: int, attempt: int, returned: list[Any], place: int) -> None:
        log.warning("Job #%d failed, and runs again: %s", num, self._results[num].error)
        again = list(self._launcher.launch([list(self._jobs[num])], num))
        returned[place] = again[0]
        result = result_of(again[0], num, self._jobs.params_of(num), attempts=attempt)
        self._results[num] = result
        if getattr(again[0], "status", None) != JobStatus.COMPLETED:
            log.error("Job #%d failed for good:\n%s", num, result.traceback)

    def results(self) -> list[JobResult]:
        return list(self._results.values())

    def saved_best(self) -> Best | None:
        return None

    def model_path(self) -> Path | None:
        return None

    def best_model_error(self) -> BestModelError | None:
        return None


def _best_to_name(
    runner: _OwnRunner | _ForeignRunner, results: Sequence[JobResult], direction: Direction
) -> tuple[JobResult | None, Path | None]:
    """Return the job to name as the best, and the file of its model if it has one.

    If the leader's model could not be written, it is the job whose model is on disk.
    """
    saved = runner.saved_best()
    if runner.best_model_error() is not None:
        held = (result for result in results if saved is not None and result.num == saved.job)
        best = next(held, None)
        if best is not None and saved is not None:
            best = dataclasses.replace(best, score=saved.score)
    else:
        best = best_of(results, direction)
    if best is None or saved is None:
        return best, None
    if best.num == saved.job:
        return best, runner.model_path()
    log.warning(
        "Job #%d has the best score and saved no model; %s holds that of job #%d",
        best.num,
        runner.model_path(),
        saved.job,
    )
    return best, None


@contextlib.contextmanager
def _config_written(
    config: DictConfig, folder: Path, runner: _OwnRunner | _ForeignRunner
) -> Iterator[None]:
    """Write ``multirun.yaml``, as Hydra's own sweeper does; restore the folder if no job could run.

    A launcher refuses jobs (because of a missing ``device_key``, or another sweep's
    folder) only when it gets them.
    """
    path = folder / "multirun.yaml"
    if path.is_symlink():  # replaced, and never followed, as any file of a sweep
        path.unlink()
    before = path.read_bytes() if path.is_file() else None
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    lock = folder / LOCK_NAME
    locked = lock.exists()
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, path)
    try:
        yield
    except JunkyError as error:
        if not isinstance(error, SweepFailed) and not runner.results():
            with contextlib.suppress(OSError):
                if before is not None:
                    path.write_bytes(before)
                else:
                    path.unlink()
                if not locked:
                    lock.unlink(missing_ok=True)
            remove_empty(made)
        raise


def _batches(jobs: JobOverrides, size: int | None) -> Iterable[tuple[int, JobOverrides]]:
    step = size or len(jobs)
    return ((start, jobs[start : start + step]) for start in range(0, len(jobs), step))
