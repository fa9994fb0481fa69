"""``torch_autotrain``: a sweep from plain Python."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from junky_core.devices import parse_devices
from junky_core.engine.settings import SweepSettings
from junky_core.engine.signals import noted_until_here
from junky_core.engine.sweep import Sweep
from junky_core.errors import (
    BestModelError,
    ConfigError,
    DeviceError,
    ModelLoadError,
    SweepFailed,
    SweepInterrupted,
)
from junky_core.events import Notice, NoticeLevel, Observer
from junky_core.executors.functions import UserFunctions
from junky_core.executors.kinds import ExecutorKind
from junky_core.executors.processes.main_module import (
    refuse_unguarded_script,
    refuse_while_main_is_imported,
)
from junky_core.job.best import BestModel
from junky_core.job.failures import showable
from junky_core.job.scopes import enter_scope
from junky_core.jobs import GridSource, Job, JobResult
from junky_core.logs.standard_streams import unbreakable_streams
from junky_core.logs.text_log import FileWriter, SweepLog
from junky_core.paths import user_path
from junky_core.record.best_path import best_model_path
from junky_core.record.folder import LOG_NAME
from junky_core.record.sweep_record import REPAIR, Plan, SweepRecord, open_record
from junky_core.space.grammar import expand_fit_params
from junky_core.values.identity import digest
from junky_core.values.user_text import dict_text, error_line, is_ctrl_c, repr_of, shown
from junky_core.values.wording import count
from junky_core.views.leaderboard import publish_leaderboard
from junky_core.views.preview import preview_text
from junky_core.views.progress import Progress
from junky_core.views.report import publish_report
from junky_core.views.results import AutotrainResult

__all__ = ["torch_autotrain"]


def torch_autotrain(
    make_model_method: Callable[..., Any],
    train_method: Callable[..., Any],
    create_loaders_method: Callable[[], Any] | None = None,
    make_model_args: Sequence[Any] = (),
    make_model_kwargs: Mapping[str, Any] | None = None,
    make_model_fit_params: Any = None,
    train_args: Sequence[Any] = (),
    train_kwargs: Mapping[str, Any] | None = None,
    devices: Any = torch.device("cpu"),  # noqa: B008 - the documented default
    best_model_file_name: str | Path = "model.pt",
    best_model_device: Any = None,
    seed: int | None = None,
    *,
    max_retries: int = 1,
    direction: str = "maximize",
    threads_per_slot: int | None = None,
    fail_fast: int | None = 5,
    job_timeout_s: float | None = None,
    sweep_timeout_s: float | None = None,
    executor: str = "threads",
    kill_after_s: float = 10.0,
    sweep_dir: str | Path | None = None,
    resume: bool | str = False,
    progress: bool | None = None,
    report: bool = False,
    dry_run: bool = False,
    observers: Sequence[Observer] = (),
) -> AutotrainResult:
    """Train a model for each combination of ``make_model_fit_params``; return the best.

    Jobs run on slots, each a thread or a process (``executor``); ``devices`` says how
    many. A job that fails runs again after all others.

    Args:
        make_model_method: ``callable(*make_model_args, **make_model_kwargs,
            **fit_kwargs)``; returns the model, or ``(model, *other_train_args)``.
        train_method: ``callable(device, loaders, model, *other_train_args,
            best_model_backup_method, log_prefix, *train_args,
            **train_kwargs)``; its return value is in ``stats``. It calls
            ``best_model_backup_method(best_model, best_model_score)`` with
            its best model so far, and begins each line it prints with ``log_prefix``.
            The model is on ``device`` already.
        create_loaders_method: ``callable()``; called once for each slot, in its
            thread or process. Its return value is passed to each job of that slot as
            ``loaders``. ``None``: ``loaders`` is ``()``.
        make_model_args: Positional arguments, passed as they are.
        make_model_kwargs: Keyword arguments, passed as they are.
        make_model_fit_params: The grid, see
            :func:`~junky_core.expand_fit_params`. ``None``: one job.
        train_args: Positional arguments, passed as they are.
        train_kwargs: Keyword arguments, passed as they are.
        devices: A device, a sequence of devices (repeat one for more
            slots), or a mapping device -> slots. A string may have a count,
            ``'cuda:0*3'``; ``'auto'`` is each visible GPU once, or the CPU if there is none.
        best_model_file_name: File for the best model's state dict; relative to
            ``sweep_dir`` if there is one, else to the working folder. If a
            model is wrapped by ``torch.compile``, ``DataParallel`` or
            ``AveragedModel``, the weights of the model inside are saved.
        best_model_device: Where to load the best model at the end. ``None``:
            it is not loaded.
        seed: The seed of every job; a job's result then depends only on its
            parameters and the seed.
        max_retries: How often a job may run again.
        direction: ``"maximize"`` or ``"minimize"`` the score.
        threads_per_slot: Torch threads of each slot, 1 to 1024. ``None``:
            ``OMP_NUM_THREADS`` if it is set, 1 with a seed, else the cores
            divided by the slots.
        fail_fast: Stop if this many jobs, the first of the sweep, all fail with
            the same error at the same line. ``None``: never.
        job_timeout_s: Seconds after which a job ends at its next call of its
            model, loader, optimizer, ``best_model_backup_method`` or
            ``current_job().check()``. It has then failed, and is not retried.
        sweep_timeout_s: Seconds after which no more jobs start.
        executor: ``"threads"`` of this process; or ``"processes"``, which share neither the
            interpreter lock nor a crash. Functions, arguments and grid are then sent to
            the worker processes, and a script must start its sweep under
            ``if __name__ == "__main__":``.
        kill_after_s: With ``executor="processes"``: seconds after which a job that exceeded
            ``job_timeout_s``, or was interrupted, and has not ended is killed.
        sweep_dir: Folder for journal, log and best model; makes the sweep
            resumable. ``None``: no journal.
        resume: Continue the sweep in ``sweep_dir``. ``"repair"``: also if its
            journal is damaged, with its intact records; a message says what is lost.
        progress: Live progress: ``None`` in a terminal, ``True`` plain lines
            elsewhere too, ``False`` never.
        report: Write ``report.html`` to ``sweep_dir`` at the end.
        dry_run: Print the jobs and explain their number; run none.
        observers: Called with each event, see :class:`junky_core.events.Observer`.

    Returns:
        ``(best_model, best_model_name, best_model_score, best_model_params,
        stats)``, a named tuple. ``stats`` is ``[(name, score, params, return value
        of train_method), ...]``, best first. The attribute ``failed`` has the jobs
        that failed for good.

    Raises:
        JunkyError: An argument is invalid; raised before any training.
        SweepFailed: No job succeeded, or ``fail_fast`` stopped the sweep.
        ModelError: ``make_model_method`` did not return a module.
        BestModelError: The best model could not be written by the end of the
            sweep; its attribute ``result`` has the result, with the best
            model that is on disk.
        ModelLoadError: The best model could not be loaded; the attribute ``result``
            has the result.
        SweepInterrupted: Ctrl-C, SIGTERM or SIGHUP; the attribute ``result`` has the
            results so far, which are also saved.

    Not thread-safe.

    Example:
        >>> import tempfile, torch
        >>> def make_model(width):
        ...     return torch.nn.Linear(width, 1)
        >>> def train(device, loaders, model, save_best, log_prefix):
        ...     save_best(model, 1 / model.in_features)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = torch_autotrain(make_model, train, sweep_dir=folder,
        ...                              make_model_fit_params=[("width", [4, 2])])
        ... # doctest: +ELLIPSIS
        AUTOTRAIN STARTED
        ...
        >>> result.best_model_params, result.best_model_score
        ({'width': 2}, 0.5)
    """
    refuse_while_main_is_imported()
    functions = UserFunctions(
        make_model_method,
        train_method,
        create_loaders_method,
        make_model_args,
        make_model_kwargs,
        train_args,
        train_kwargs,
    )
    grid = expand_fit_params(make_model_fit_params)
    functions.check_grid(grid)
    slots = parse_devices(devices)
    _check_device(best_model_device)
    _check_flags(report=report, dry_run=dry_run)
    _check_listeners(progress, observers)
    _check_resume(resume, sweep_dir)
    folder = Path() if sweep_dir is None else user_path("sweep_dir", sweep_dir)
    hint = f"torch_autotrain(..., sweep_dir={str(sweep_dir)!r}, resume=True)"
    settings = SweepSettings(
        direction=direction,  # type: ignore[arg-type]  # read there
        max_retries=max_retries,
        seed=seed,
        threads_per_slot=threads_per_slot,
        fail_fast=fail_fast,
        job_timeout_s=job_timeout_s,
        sweep_timeout_s=sweep_timeout_s,
        executor=executor,  # type: ignore[arg-type]  # likewise
        kill_after_s=kill_after_s,
        resume_hint="" if sweep_dir is None else hint,
        spec={
            "fit_params": repr_of(make_model_fit_params),
            "devices": repr_of(devices),
            "executor": repr_of(executor),
        },
    )
    best_path = best_model_path(best_model_file_name, None if sweep_dir is None else folder)
    best = BestModel(best_path, settings.direction)
    if dry_run:
        sys.stdout.write(preview_text(grid.size, grid.explain(), grid.__getitem__))
        return AutotrainResult.empty(settings.direction)
    if report and sweep_dir is None:
        raise ConfigError("report=True needs sweep_dir, the folder to write it to")
    if settings.executor is ExecutorKind.PROCESSES:
        refuse_unguarded_script()
        functions.check_sending(grid)
    display = Progress(progress, plain=progress is True)
    listeners: list[Observer] = [display, SweepLog(), *observers]
    record: SweepRecord | None = None
    with unbreakable_streams(), noted_until_here() as signals, contextlib.ExitStack() as stack:
        stack.callback(best.close)
        best.check_folder()  # before the sweep's folder is made: a refusal leaves nothing behind
        if sweep_dir is None:
            jobs: Iterable[Job] = (Job(num, params) for num, params in enumerate(grid))
            plan = Plan(GridSource(jobs, grid.size))
        else:
            fixed = functions.fixed()
            record = stack.enter_context(
                open_record(
                    folder,
                    resume=resume,
                    direction=settings.direction,
                    seed=seed,
                    how_to_resume="resume=True",
                    fixed=fixed,
                )
            )
            settings = replace(record.begin(best, settings), folder=record.path)
            info = {"fixed": fixed.key}
            jobs = (
                Job(num, params, key=digest(dict(params)), info=info)
                for num, params in enumerate(grid)
            )
            plan = record.plan(jobs, grid.size, best)
            plan.done += record.leftovers()
            file_log = SweepLog(FileWriter(record.path / LOG_NAME))
            stack.callback(file_log.close)
            listeners = [file_log, *listeners]
        stack.callback(display.close)
        journal = None if record is None else record.open_journal()
        sweep = Sweep(slots, functions, best, listeners, settings, recorder=journal)
        stack.callback(sweep.close)
        if record is not None:
            record.hand_over(sweep.emit)
        if report and record is not None:
            stack.callback(publish_report, record.path)
        result = _finish(
            functions, sweep, plan, best_model_device, None if record is None else record.path
        )
    signals.raise_if_noted(result)
    return result


def _finish(
    functions: UserFunctions,
    sweep: Sweep,
    plan: Plan,
    device: Any,
    folder: Path | None,
) -> AutotrainResult:
    """Run the sweep and make the result of what comes out."""
    results: list[JobResult] = []
    try:
        results = [*plan.done, *sweep.run(plan.source, already_finished=len(plan.done))]
    except SweepInterrupted as interrupt:
        results = [*plan.done, *interrupt.result]
        direction = sweep.settings.direction
        interrupt.result = AutotrainResult.of(results, sweep.best.saved, direction)
        raise
    finally:
        results = results or [*plan.done, *sweep.results()]
        publish_leaderboard(
            results,
            sweep.settings.direction,
            folder,
            lambda message: sweep.emit(Notice(level=NoticeLevel.ERROR, message=message)),
        )
    finished = [result for result in results if result.status == "finished"]
    failed = [result for result in results if result.status == "failed"]
    if not finished and results:
        raise _nothing_succeeded(sweep, results, failed)
    model, trouble = _best_model(functions, sweep, results, device)
    result = AutotrainResult.of(results, sweep.best.saved, sweep.settings.direction, model)
    if sweep.best.problem:
        raise BestModelError(sweep.best.problem, result) from trouble
    if trouble is not None:
        raise ModelLoadError(
            f"the sweep is complete, but its best model could not be loaded to {device}: "
            f"{error_line(trouble)}. Its weights are in {sweep.best.path}; "
            "the result without it is in this error's attribute `result`",
            result,
        ) from trouble
    return result


def _best_model(
    functions: UserFunctions, sweep: Sweep, results: Sequence[JobResult], device: Any
) -> tuple[torch.nn.Module | None, BaseException | None]:
    """Load the best model on disk to ``device``, if one is given; return what went wrong."""
    best = sweep.best.saved
    lead = next((r for r in results if best is not None and r.num == best.job), None)
    if lead is None or device is None:
        return None, None
    try:
        with enter_scope(sweep.scope_of(lead)):
            return functions.load(sweep.best.path, lead.params, device), None
    except BaseException as error:  # days of training must not be lost by it
        if is_ctrl_c(error):
            raise
        return None, error


def _nothing_succeeded(
    sweep: Sweep, results: Sequence[JobResult], failed: Sequence[JobResult]
) -> SweepFailed:
    if not failed:
        return SweepFailed(
            f"no job finished: the sweep ended ({sweep.stop_reason or 'stopped'}) "
            f"with {count(len(results), 'job')} begun",
            results,
        )
    first = failed[0]
    what = "the only job" if len(failed) == 1 else f"all {len(failed)} jobs"
    error = SweepFailed(
        f"{what} failed. The first, job {first.num} with "
        f"{dict_text(first.params)}, after {count(first.attempts, 'attempt')}:\n{first.traceback}",
        failed,
    )
    error.__cause__ = showable(first.exception)
    return error


def _check_flags(**flags: Any) -> None:
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise ConfigError(f"{name} is {shown(flag)}; it must be True or False")


def _check_resume(resume: Any, sweep_dir: Any) -> None:
    if not isinstance(resume, bool) and not (isinstance(resume, str) and resume == REPAIR):
        raise ConfigError(f"resume is {shown(resume)}; it must be True, False or {REPAIR!r}")
    if resume and sweep_dir is None:
        raise ConfigError(f"resume={resume!r} needs sweep_dir, the folder of the sweep to resume")


def _check_listeners(progress: Any, observers: Any) -> None:
    if progress is not None and not isinstance(progress, bool):
        raise ConfigError(f"progress is {shown(progress)}; it must be None, True or False")
    if not isinstance(observers, Sequence):
        raise ConfigError(f"observers is {shown(observers)}; it must be a sequence of observers")
    for observer in observers:
        if not callable(getattr(observer, "on_event", None)):
            raise ConfigError(f"observers: {shown(observer)} has no method on_event(event)")


def _check_device(device: Any) -> None:
    if device is None:
        return
    try:
        specs = parse_devices([device])
    except DeviceError as error:
        raise DeviceError(f"best_model_device: {error}") from error
    if len(specs) != 1:
        raise DeviceError(f"best_model_device must be one device, not {shown(device)}")
