"""A sampler for tests, which waits for scores."""

import random

from junky_core.jobs import NOT_NOW, Job


class FakeSampler:
    """Proposes ``n_trials`` jobs, at most ``lag`` of them without a result.

    The next job's ``x`` lies near the best one told so far.
    """

    hears_scores = True

    def __init__(self, n_trials, lag=3, seed=0):
        self.total = n_trials
        self.told, self.scores = [], []
        self.said_not_now = 0
        self._lag, self._proposed = lag, 0
        self._dice = random.Random(seed)
        self._best = (float("-inf"), 0.5)

    def next_job(self):
        if self._proposed == self.total:
            return None
        if self._proposed - len(self.told) >= self._lag:
            self.said_not_now += 1
            return NOT_NOW
        num = self._proposed
        self._proposed += 1
        return Job(num, {"x": self._best[1] + self._dice.gauss(0, 0.1)}, key=str(num))

    def tell(self, result):
        self.told.append(result)
        if result.status == "finished" and result.score is not None:
            self._best = max(self._best, (result.score, result.params.get("x", 0.5)))

    def tell_score(self, report):
        self.scores.append((report.job, report.score))
