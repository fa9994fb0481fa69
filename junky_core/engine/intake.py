"""The source of jobs, asked by one slot at a time and outside the scheduler's lock.

What the source should know (ends, intermediate scores) is queued; who asks
next hands it over first.

    state        meaning                        next state
    ready        may be asked                   asking
    asking       a slot is asking               ready (it gave a job), not_now, exhausted, broken
    not_now      it has no job yet              ready, once there is news for it
    exhausted    it has no more jobs            -
    broken       it raised; not called again    -
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import Enum

from junky_core.errors import SourceError
from junky_core.events import ScoreReported
from junky_core.jobs import NOT_NOW, Job, JobResult, JobSource, NotNow
from junky_core.values.user_text import class_name, error_line, shown

__all__ = ["Intake", "News", "SourceState"]

News = JobResult | ScoreReported


class SourceState(Enum):
    """Whether the source can be asked for a job."""

    READY = "ready"
    ASKING = "asking"
    NOT_NOW = "not_now"
    EXHAUSTED = "exhausted"
    BROKEN = "broken"


class Intake:
    """A source and the news that wait for it.

    Everything is called under the scheduler's lock, but for :meth:`ask`. A slot that finds the
    state ``READY`` calls ``begin`` under the lock, ``ask`` outside it, and ``done`` under it again.
    """

    def __init__(self, source: JobSource) -> None:
        self.state = SourceState.READY
        self._source = source
        self._news: deque[News] = deque()
        self._pulled = 0

    @property
    def left(self) -> int | None:
        """How many jobs were never pulled, ``None`` if unknown."""
        if self.state is SourceState.EXHAUSTED:
            return 0
        total = self._source.total
        return None if total is None else max(0, total - self._pulled)

    def add(self, news: News) -> bool:
        """Queue news; return whether the source can be asked again because of it."""
        if isinstance(news, ScoreReported) and not self._source.hears_scores:
            return False
        self._news.append(news)
        if self.state is not SourceState.NOT_NOW:
            return False
        self.state = SourceState.READY
        return True

    def begin(self) -> list[News]:
        """Take the turn to ask; return the news to hand over."""
        assert self.state is SourceState.READY
        self.state = SourceState.ASKING
        return self._take_news()

    def ask(self, news: Iterable[News]) -> Job | NotNow | None:
        """Hand over the news and ask for a job. Outside the lock; may take long.

        Raises:
            SourceError: The source raised, or returned something else.
        """
        self._hand_over(news)
        try:
            answer = self._source.next_job()
        except Exception as error:
            raise self._broken(error) from error
        if answer is None or answer is NOT_NOW or isinstance(answer, Job):
            return answer
        raise SourceError(
            f"{self.name} returned {shown(answer)}; next_job() must return a Job, NOT_NOW, "
            "or None when there are no more"
        )

    def done(self, answer: Job | NotNow | None) -> None:
        """Give the turn back."""
        if answer is None:
            self.state = SourceState.EXHAUSTED
        elif answer is NOT_NOW and not self._news:  # news that came since may change the answer
            self.state = SourceState.NOT_NOW
        else:
            self.state = SourceState.READY
            self._pulled += answer is not NOT_NOW

    def hand_over_rest(self) -> None:
        """Hand over the news that nobody asked after; once, when no slot is at work.

        Raises:
            SourceError: The source raised.
        """
        if self.state not in (SourceState.ASKING, SourceState.BROKEN):
            self._hand_over(self._take_news())

    @property
    def name(self) -> str:
        """How messages call the source."""
        return f"the source of jobs ({class_name(self._source)})"

    def _take_news(self) -> list[News]:
        news = list(self._news)
        self._news.clear()
        return news

    def _hand_over(self, news: Iterable[News]) -> None:
        try:
            for one in news:
                if isinstance(one, JobResult):
                    self._source.tell(one)
                else:
                    self._source.tell_score(one)
        except Exception as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> SourceError:
        return SourceError(f"{self.name} failed, so the sweep ended: {error_line(error)}")
