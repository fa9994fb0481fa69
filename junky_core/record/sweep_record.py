"""The record of one sweep: written to its folder while it runs, read to resume it.

Combines the folder's lock, the journal and the best model's file, for both front
ends. What resuming does with a job (:mod:`junky_core.record.known_jobs` finds it
in the journal):

    in the journal           when the sweep is resumed
    finished                 does not run; keeps number, name, score and value
    .. best model lost       runs again, for the model
    failed                   runs again with the same number
    unfinished               runs again with the same number
    not there                runs, with the next free number
    finished, not in the     stays among the results
    .. resumed sweep
    superseded               does not count as a result, nor does its model

A damaged journal is refused, unless ``resume="repair"``.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from junky_core.engine.settings import SweepSettings
from junky_core.errors import JournalError, ResumeError, SweepFolderError
from junky_core.events import Event, Notice, NoticeLevel
from junky_core.files import remove_stale_temporaries
from junky_core.job.best import BestModel
from junky_core.jobs import Direction, GridSource, Job, JobResult, JobStatus, rank_key
from junky_core.record.folder import SweepFolder
from junky_core.record.journal import Journal
from junky_core.record.known_jobs import KnownJobs, put_model_aside
from junky_core.record.reader import load_state
from junky_core.record.repair import repair_journal
from junky_core.record.rows import JobRecord
from junky_core.record.state import SweepState
from junky_core.values.fixed_arguments import FixedArguments
from junky_core.values.user_text import dict_text
from junky_core.values.wording import count

__all__ = ["REPAIR", "Plan", "SweepRecord", "is_spent", "open_record", "refusal"]

REPAIR = "repair"  # resume with the intact records of a damaged journal


@dataclass(slots=True)
class Plan:
    """What to do with a batch of jobs.

    Attributes:
        source: The jobs to run.
        done: The results of the jobs that are already finished.
        nums: The number of each job of the batch, in order; empty for a new sweep.
    """

    source: GridSource
    done: list[JobResult] = field(default_factory=list)
    nums: list[int] = field(default_factory=list)


class SweepRecord:
    """The record of one sweep in its folder. Not thread-safe, except for the journal itself.

    Args:
        path: The sweep's folder; created if it does not exist.
        resume: Continue the sweep in the folder; ``"repair"``: with the intact records of its
            journal, if that is damaged.
        direction: This run's direction; it must be that of the resumed sweep.
        seed: This run's seed; if it differs from the earlier one, the user is warned.
        how_to_resume: For the message that refuses to overwrite a sweep.
        spent_may_go: Start a new sweep in a folder whose sweep is spent, see :func:`is_spent`;
            its journal is kept under another name.
        fixed: The arguments that all jobs share; ``None`` if the jobs' keys cover everything.

    Attributes:
        state: The state that the journal gave, ``None`` for a new sweep.
        notices: Messages for the user, in order, to be shown once the sweep starts.

    Raises:
        SweepFolderError: The folder is in use, cannot be written, or contains a
            sweep and ``resume`` is false.
        ResumeError: The folder's sweep has the other direction.
        JournalError: The journal is damaged, and ``resume`` is not ``"repair"``.
    """

    def __init__(
        self,
        path: Path,
        *,
        resume: bool | str,
        direction: Direction,
        seed: int | None,
        how_to_resume: str,
        spent_may_go: bool = False,
        fixed: FixedArguments | None = None,
    ) -> None:
        self.state: SweepState | None = None
        self.notices: list[Notice] = []
        self._repaired = False  # records may be missing
        self._folder = SweepFolder(path)
        self.path = self._folder.path
        self._fresh_folders = [f for f in (self.path, *self.path.parents) if not f.exists()]
        self._folder.acquire()
        try:
            if self._folder.lock_note:
                self._note(NoticeLevel.WARNING, self._folder.lock_note)
            if self._folder.holds_sweep() and not resume:
                if not spent_may_go or not is_spent(self.path):
                    raise SweepFolderError(refusal(self.path, how_to_resume))
                self._set_aside()
            elif self._folder.holds_sweep():
                if resume == REPAIR:
                    self._repair(direction, seed)
                self.state = load_state(self._folder.journal_path)
                self._check_same_kind(direction, seed)
            elif resume:
                self._note(NoticeLevel.INFO, f"{self.path} contains no sweep yet: a new one starts")
        except BaseException:
            self._folder.release()
            raise
        self._fixed = fixed
        self._jobs = None if self.state is None else KnownJobs(self.state, fixed)
        self._model_of_superseded: tuple[Path, int] | None = None
        self.journal: Journal | None = None
        self.tell: Callable[[Event], None] = self.notices.append  # type: ignore[assignment]
        self._reopened: set[int] = set()
        self._known: set[int] = set()  # numbers of journaled jobs that are in this sweep, too
        self._seen: dict[str, int] = {}  # for each key, how many jobs had it
        self._next_num = 0 if self.state is None else self.state.highest_num + 1

    def open_journal(self) -> Journal:
        """Start writing: from now on the folder contains this sweep."""
        if self._model_of_superseded is not None:
            self.notices.append(put_model_aside(*self._model_of_superseded))
        self.journal = Journal(
            self._folder.journal_path,
            on_trouble=lambda message: self.tell(Notice(level=NoticeLevel.ERROR, message=message)),
            reclaim=self._folder.reclaim,
        )
        return self.journal

    def begin(self, best: BestModel, settings: SweepSettings) -> SweepSettings:
        """Continue from the files on disk; return this sweep's settings. To be called once."""
        if self._fixed is not None:
            fixed = {"fixed": dict(self._fixed.values), "fixed_key": self._fixed.key}
            settings = replace(settings, spec={**settings.spec, **fixed})
        if self.state is None or self._jobs is None:
            return settings
        self.state.supersede(self._jobs.superseded)
        self._restore_best(best)
        return replace(
            settings,
            superseded=sorted(self._jobs.superseded),
            resumed=True,
            next_numbers=dict(self.state.slot_counters),
            sweep_id=self.state.sweep_id,
        )

    def plan(
        self,
        jobs: Iterable[Job],
        total: int,
        best: BestModel,
        what_differs: Callable[[SweepState, Sequence[Job]], str] | None = None,
        what_changed: Callable[[JobRecord], str] | None = None,
    ) -> Plan:
        """Return which of ``jobs`` to run, and which are already finished.

        Args:
            jobs: A batch of jobs, with their keys and, for a new sweep, their numbers.
            total: How many there are.
            best: The sweep's best model, after :meth:`begin`.
            what_differs: Returns a sentence that says how jobs differ from the journal's;
                ``None``: a sentence that compares the names of their parameters.
            what_changed: Names the keys of a job's config that have changed since it ran.

        Raises:
            ResumeError: None of ``jobs`` is in the journal: the folder is another sweep's.
        """
        jobs = self._distinct(jobs)
        if self.state is None:
            return Plan(GridSource(jobs, total))
        return self._split(jobs, best, what_differs, what_changed)

    def leftovers(self) -> list[JobResult]:
        """Return the finished jobs that are not in this sweep, so that the best job has a row."""
        if self.state is None:
            return []
        return [
            before.result()
            for before in self.state.counting()
            if before.status is JobStatus.FINISHED and before.num not in self._known
        ]

    def hand_over(self, emit: Callable[[Event], None]) -> None:
        """Emit all notices so far through ``emit``, and use it from now on."""
        self.tell = emit
        for notice in self.notices:
            emit(notice)
        self.notices.clear()

    def close(self) -> None:
        """Close the journal and unlock the folder."""
        if self.journal is not None:
            self.journal.close()
        self._folder.release()

    def discard(self) -> None:
        """Close, and remove the folders created for a sweep that was refused before it started."""
        self.close()
        if self.journal is None and self._fresh_folders:
            self._folder.lock_path.unlink(missing_ok=True)
            for folder in self._fresh_folders:
                try:
                    folder.rmdir()
                except OSError:
                    return

    def _repair(self, direction: Direction, seed: int | None) -> None:
        """Repair the journal if it is damaged, and warn about what was dropped."""
        dropped = repair_journal(self._folder.journal_path, direction, seed)
        if dropped is not None:
            self._repaired = True
            self._note(NoticeLevel.WARNING, dropped)

    def _set_aside(self) -> None:
        """Rename the journal of a spent sweep."""
        old = self._folder.journal_path
        sweep_id = re.sub(r"[^0-9A-Za-z]", "", load_state(old).sweep_id)[:40]  # it is in a file
        name = f"{old.stem}-{sweep_id or 'old'}{old.suffix}"
        old.replace(old.with_name(name))
        self._note(
            NoticeLevel.INFO, f"the journal of the sweep that was in {self.path} is now {name}"
        )

    def _restore_best(self, best: BestModel) -> None:
        """Use the best model's file as the best so far, if this sweep wrote it."""
        if self.state is None:
            return
        remove_stale_temporaries(best.path)  # left if the process was killed while saving
        record = self.state.match_best_file(best.path)
        if record is not None and self._jobs and record.job in self._jobs.superseded:
            self._model_of_superseded = best.path, record.job
            record = None
        if record is not None:
            best.restore(record.job, record.name, record.score, record.sha256)
        unknown = (  # the record of the save is lost
            self._repaired
            and record is None
            and self._model_of_superseded is None
            and best.path.exists()
        )
        lead = self.state.best_job(saved=not unknown)
        if lead is None:
            return
        direction = self.state.direction
        if record is None or (
            rank_key(lead.score, lead.num, direction)
            < rank_key(record.score, record.job, direction)
        ):
            self._reopened.add(lead.num)
            lost = f"the best model of job {lead.num} is no longer in {best.path}"
            self._note(NoticeLevel.WARNING, f"{lost}: the job runs again if it is in this sweep")
            if record is None:
                best.miss(f"{lost}, and no other was saved since")

    def _split(
        self,
        jobs: Iterable[Job],
        best: BestModel,
        what_differs: Callable[[SweepState, Sequence[Job]], str] | None,
        what_changed: Callable[[JobRecord], str] | None,
    ) -> Plan:
        """Split ``jobs`` into those to run and the results of those that are finished."""
        assert self.state is not None
        assert self._jobs is not None
        first_plan = not self._known
        todo: list[Job] = []
        replaced: list[Job] = []  # jobs that ran with other fixed arguments
        unknown: list[Job] = []  # jobs whose parameters cannot be compared
        plan = Plan(GridSource(iter(todo), 0), nums=[])
        for job in jobs:
            before = self._jobs.find(job)
            if before is None:
                replaced += [job] if self._jobs.were_superseded(job) else []
                unknown += [job] if job.key.startswith("~") else []
                todo.append(replace(job, num=self._next_num))
                plan.nums.append(self._next_num)
                self._next_num += 1
                continue
            self._known.add(before.num)
            plan.nums.append(before.num)
            if before.status is JobStatus.FINISHED and before.num not in self._reopened:
                plan.done.append(replace(before.result(), params=job.params))
            else:
                todo.append(replace(job, num=before.num, score=_score_on_disk(before, best)))
        none_known = first_plan and not self._known and not replaced
        if none_known and any(job.key for job in self.state.by_num.values()):
            other = "" if what_differs is None else what_differs(self.state, todo)
            raise self._jobs.another_sweep(self.path, todo, unknown, other)
        self._refuse_mixture(todo, best, what_changed)
        for message in self._jobs.notes(replaced, unknown):
            self._note(NoticeLevel.WARNING, message)
        plan.source = GridSource(iter(todo), len(todo))
        return plan

    def _refuse_mixture(
        self,
        todo: Sequence[Job],
        best: BestModel,
        what_changed: Callable[[JobRecord], str] | None,
    ) -> None:
        """Refuse to rank results of two configs with the same overrides together."""
        assert self._jobs is not None
        held = best.saved
        mixed = [
            job
            for job in self._jobs.with_other_configs([j for j in todo if j.num not in self._known])
            if job.status is JobStatus.FINISHED or (held is not None and held.job == job.num)
        ]
        if mixed:
            changes = "" if what_changed is None else what_changed(mixed[0])
            raise ResumeError(
                f"{self.path} has results of {count(len(mixed), 'job')} with the same overrides "
                f"as jobs of this sweep but another config, the first being job {mixed[0].num} "
                f"({dict_text(mixed[0].params)}): config files have changed since"
                f"{changes and f', for this job {changes}'}, so the results cannot be ranked "
                "together. Choose another folder, or undo the change"
            )

    def _distinct(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Make the keys unique: the second job with the same key gets ``#2`` at its end."""
        for job in jobs:
            count = self._seen[job.key] = self._seen.get(job.key, 0) + 1
            yield job if count == 1 else replace(job, key=f"{job.key}#{count}")

    def _check_same_kind(self, direction: Direction, seed: int | None) -> None:
        assert self.state is not None
        if self.state.by_num and self.state.direction != direction:
            raise ResumeError(
                f"{self.path} contains a sweep with direction '{self.state.direction}', "
                f"but this one has '{direction}': use the same direction to resume it"
            )
        if self.state.by_num and self.state.seed != seed:
            self._note(
                NoticeLevel.WARNING,
                f"the sweep started with seed {self.state.seed} and continues with {seed}: "
                "not all of its jobs are comparable",
            )

    def _note(self, level: NoticeLevel, message: str) -> None:
        self.notices.append(Notice(level=level, message=message))


def is_spent(path: Path) -> bool:
    """Return whether the sweep in a folder is over and has no results that could be overwritten.

    All its jobs finished, and none gave a score or saved a model.
    """
    try:
        state = load_state(SweepFolder(path).journal_path)
    except (JournalError, OSError):
        return False
    jobs = state.by_num.values()
    return (
        state.ended == "completed"
        and not state.saves
        and all(job.status is JobStatus.FINISHED and job.score is None for job in jobs)
    )


def refusal(path: Path, how_to_resume: str) -> str:
    """Return the message that no new sweep can start in a folder that contains one."""
    return (
        f"{path} already contains a sweep, which is not overwritten. "
        f"Resume it ({how_to_resume}) or choose another folder"
    )


def _score_on_disk(job: JobRecord, best: BestModel) -> float | None:
    """Return the score of the best model on disk, if an attempt of this job saved it."""
    held = best.saved
    return held.score if held is not None and held.job == job.num else None


@contextlib.contextmanager
def open_record(path: Path, **options: Any) -> Iterator[SweepRecord]:
    """Open a :class:`SweepRecord` for the ``with`` block; a refused sweep leaves no files."""
    record = SweepRecord(path, **options)
    try:
        yield record
    except BaseException:
        record.discard()
        raise
    record.close()
