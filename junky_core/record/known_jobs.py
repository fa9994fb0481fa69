"""Find the jobs of a journal whose results a resumed sweep can use.

A job is identified by its key. In Python the key is made of the job's parameters, and the journal
records the fixed arguments at each start of the sweep. For a job of the resumed sweep:

    in the journal                               the journal's job is
    same key, same fixed arguments               this job
    same key, other fixed arguments              superseded
    not in the resumed sweep, other fixed        superseded
    .. arguments
    no key: the record of its start is lost      superseded
    fixed arguments not recorded (old journals)
    .. with the same names                       taken to be this job, with a warning
    .. with other names                          superseded
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from junky_core.errors import ResumeError
from junky_core.events import Notice, NoticeLevel
from junky_core.jobs import Job
from junky_core.record.rows import JobRecord
from junky_core.record.state import SweepState
from junky_core.values.fixed_arguments import FixedArguments, earlier_key
from junky_core.values.identity import digest
from junky_core.values.wording import count

__all__ = ["KnownJobs", "put_model_aside"]

_NO_VALUE = "an object that has neither a value nor a name to import it by"


class KnownJobs:
    """The jobs of a journal, found by the jobs of a resumed sweep.

    Args:
        state: The state that the journal gives.
        fixed: The fixed arguments of this run; ``None`` if the key covers everything (Hydra).

    Attributes:
        superseded: Numbers of the jobs that ran with other, or unknown, fixed arguments.
        changed: For each of them, by number, the names of the fixed arguments that differ.
        undated: Whether some jobs count although their fixed arguments were not recorded.
    """

    def __init__(self, state: SweepState, fixed: FixedArguments | None) -> None:
        self._fixed = fixed
        self._journaled = list(state.by_num.values())
        self._by_key: dict[str, list[JobRecord]] = defaultdict(list)
        self.superseded: set[int] = set()
        self.changed: dict[int, list[str]] = {}
        self.undated = False
        self._newly: list[int] = []  # those that this run supersedes
        self._lost: list[int] = []  # those whose start is lost, until that was reported
        for job in self._journaled:
            if not job.key:
                self.superseded.add(job.num)
                self._lost += [] if job.num in state.superseded else [job.num]
                continue
            changes = self._changes(job)
            if changes:
                self.superseded.add(job.num)
                self._newly += [] if job.num in state.superseded else [job.num]
                self.changed[job.num] = changes
            noted = job.fixed is not None or job.fixed_key
            self.undated |= fixed is not None and not noted and not changes
            keys = {job.key} if fixed is None else {job.key, digest(dict(job.params))}
            for key in keys:
                self._by_key[key].append(job)

    def find(self, job: Job) -> JobRecord | None:
        """Return the journal's record of ``job``, ``None`` if there is none."""
        return next((j for j in self._alike(job) if j.num not in self.superseded), None)

    def were_superseded(self, job: Job) -> bool:
        """Return whether there are superseded jobs with the parameters of ``job``."""
        return any(j.num in self.superseded for j in self._alike(job))

    def with_other_configs(self, jobs: Sequence[Job]) -> list[JobRecord]:
        """Return the journal's jobs with the overrides of one of ``jobs`` but another config.

        Only under Hydra: a config file that the overrides name was edited.

        Args:
            jobs: Jobs that are not in the journal.
        """
        if self._fixed is not None:
            return []
        asked = {_overrides(job.info): job.key.partition("#")[0] for job in jobs}
        return [
            job
            for job in self._journaled
            if job.num not in self.superseded
            and _overrides(job.info) in asked
            and asked[_overrides(job.info)] != job.key.partition("#")[0]
        ]

    def notes(self, replaced: Sequence[Job], unknown: Sequence[Job]) -> list[str]:
        """Return warnings for the user about what changed.

        Args:
            replaced: Jobs that run again because fixed arguments changed.
            unknown: Jobs whose parameters cannot be compared.
        """
        found = []
        if self._lost:
            which = f"job{'s' if self._lost[1:] else ''} {', '.join(map(str, self._lost))}"
            found.append(
                f"the journal lost the start of {which}, and with it the parameters. Such a "
                "result no longer counts: the job runs again, with a new number"
            )
            self._lost = []
        if replaced or self._newly:
            old = self._newly or sorted(self.changed)
            names = dict.fromkeys(name for num in old for name in self.changed[num])
            again = f"; {count(len(replaced), 'job')} to run again, with new numbers"
            found.append(
                f"{', '.join(names)} changed since {count(len(old), 'job')} of "
                f"this sweep ran{again if replaced else ''}. The old records stay in the journal "
                "as superseded, and no longer count as results"
            )
        if self.undated:
            found.append(
                "the journal was written by a version that did not record the values of "
                "make_model_args, make_model_kwargs, train_args and train_kwargs. They are assumed "
                "to be the same as now. If one has changed, use another folder"
            )
        if self._fixed is not None and self._fixed.unknown:
            found.append(
                f"{', '.join(self._fixed.unknown)} cannot be compared with its earlier value: it "
                f"contains {_NO_VALUE}. It is assumed to be unchanged"
            )
        return found + [f"{why}. They run again" for why in self.incomparable(unknown)]

    def incomparable(self, jobs: Sequence[Job]) -> list[str]:
        """Return a message that names the parameters which cannot be compared."""
        if not jobs:
            return []
        names = [name for name, value in jobs[0].params.items() if digest(value)[0] == "~"]
        what = f"{count(len(jobs), 'job')} cannot be compared with those in the journal"
        return [f"{what}: {', '.join(names)} contains {_NO_VALUE}"]

    def another_sweep(
        self, path: Path, asked: Sequence[Job], unknown: Sequence[Job], what_differs: str
    ) -> ResumeError:
        """Return the error for a resumed sweep of which no job is in the journal."""
        why = [*self.incomparable(unknown), what_differs or self._other_parameters(asked)]
        return ResumeError(
            f"{path} holds another sweep: none of its {count(len(self._journaled), 'job')} is "
            f"among the {len(asked)} asked for. "
            + "".join(f"{one}. " for one in why if one)
            + "Choose another folder, or start without resume in a new one"
        )

    def _other_parameters(self, asked: Sequence[Job]) -> str:
        """Return which parameters only the journal's jobs have, and which only the new ones."""
        before = dict.fromkeys(name for job in self._journaled for name in job.params)
        now = dict.fromkeys(name for job in asked for name in job.params)
        only = [(before.keys() - now.keys(), "its"), (now.keys() - before.keys(), "these")]
        told = [
            f"Only {whose} jobs have {', '.join(sorted(names))}" for names, whose in only if names
        ]
        return ". ".join(told)

    def _alike(self, job: Job) -> list[JobRecord]:
        found = self._by_key.get(job.key, [])
        if not found and self._fixed is not None:
            found = self._by_key.get(earlier_key(job.params, self._fixed.names), [])
        return found

    def _changes(self, job: JobRecord) -> list[str]:
        """Return the names of the fixed arguments that differ from those of ``job``."""
        if self._fixed is None or job.fixed_key == self._fixed.key:
            return []
        if not job.key:  # of a journal that was repaired
            return ["the journal (the record of a job's start is lost)"]
        if job.fixed_key and job.fixed is None:
            return ["a fixed argument"]
        if job.fixed is not None:
            return self._fixed.changes(job.fixed)
        if _is_exact(job.params) and job.key != earlier_key(job.params, self._fixed.names):
            return ["the names in make_model_kwargs and train_kwargs"]
        return []


def _overrides(info: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(sorted(map(str, info.get("overrides") or ())))


def _is_exact(params: Mapping[str, Any]) -> bool:
    """Return whether the journal has the parameters themselves, not only their text."""
    return "'__repr__'" not in repr(params)


def put_model_aside(path: Path, job: int) -> Notice:
    """Rename the model of a superseded job, so that it is not taken for the best; report that."""
    kept = path.with_name(f"{path.stem}-superseded-job{job}{path.suffix}")
    try:
        path.replace(kept)
    except OSError as error:
        return Notice(
            level=NoticeLevel.ERROR,
            message=f"{path} is the model of job {job}, which is superseded, and it could not be "
            f"renamed: {error.strerror}. The first best model of this sweep will replace it",
        )
    return Notice(
        level=NoticeLevel.WARNING,
        message=f"the best model so far was that of job {job}, which is superseded: "
        f"its file is now {kept.name}",
    )
