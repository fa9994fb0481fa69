"""Sweeps on worker processes, for tests."""

import os
from pathlib import Path

from executor_contract import Recorder
from served import FaultRunner

from junky_core.devices import parse_devices
from junky_core.engine.settings import SweepSettings
from junky_core.engine.sweep import Sweep
from junky_core.events import AttemptFailed
from junky_core.executors.processes.executor import ProcessExecutor
from junky_core.job.best import BestModel
from junky_core.jobs import GridSource, Job


class ProcessRuns:
    """Runs jobs with the parameters it is called with.

    Attributes:
        best: The best model of the last run.
        recorder: What heard its events.
    """

    def __init__(self, folder, server):
        self.folder, self.server, self.sweeps = folder, server, []
        self._before = _children(os.getpid())  # of other tests

    def __call__(self, *params, slots=1, devices=None, runner=None, recorder=None, **settings):
        settings.setdefault("fail_fast", None)
        self.best = BestModel(self.folder / "model.pt")
        self.recorder = recorder or Recorder()
        sweep = Sweep(
            parse_devices(devices or f"cpu*{slots}"),
            runner or FaultRunner(),
            self.best,
            settings=SweepSettings(**settings),
            recorder=self.recorder,
            make_executor=self.make_executor,
        )
        self.sweeps.append(sweep)
        jobs = [Job(num, one) for num, one in enumerate(params)]
        return sweep.run(GridSource(jobs, len(jobs)))

    def make_executor(self, *given):
        return ProcessExecutor(*given, server=self.server, kill_after_s=0.5)

    def failures(self):
        return self.recorder.all(AttemptFailed)

    def close(self):
        """End the sweeps; fail if one of their processes is left."""
        for sweep in self.sweeps:
            sweep.close()
        assert _children(os.getpid()) <= {self.server.pid, *self._before}
        if self.server.pid is not None:
            assert _children(self.server.pid) == set()


def _children(pid):
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
