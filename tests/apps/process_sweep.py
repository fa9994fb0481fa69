"""A sweep on worker processes, for scripts: what jobs run is the script's own."""

import functools
import sys
import tempfile
from pathlib import Path

from junky_core.devices import parse_devices
from junky_core.engine.settings import SweepSettings
from junky_core.engine.sweep import Sweep
from junky_core.executors.processes.executor import ProcessExecutor
from junky_core.job.best import BestModel
from junky_core.jobs import GridSource, Job


class FunctionRunner:
    """Calls a function of the script with the job."""

    def __init__(self, function):
        self.function = function

    def open_slot(self, slot):
        pass

    def run(self, _attempt, job):
        return self.function(job)

    def keep(self, _attempt, _exception):
        pass


class Notices:
    """Prints what the user is told."""

    def on_event(self, event):
        if type(event).__name__ in ("Notice", "SlotClosed"):
            print(getattr(event, "message", "") or event.reason, file=sys.stderr)


def run_jobs(function, jobs=2, slots=1, devices=None, preload=()):
    """Return what ``function(job)`` returned for each job."""
    with tempfile.TemporaryDirectory() as folder:
        sweep = Sweep(
            parse_devices(devices or f"cpu*{slots}"),
            FunctionRunner(function),
            BestModel(Path(folder) / "model.pt"),
            settings=SweepSettings(max_retries=0),
            recorder=Notices(),
            make_executor=functools.partial(ProcessExecutor, preload=preload),
        )
        try:
            results = sweep.run(GridSource([Job(num, {}) for num in range(jobs)], jobs))
        finally:
            sweep.close()
        for result in results:
            if result.error:
                raise SystemExit(result.traceback)
        return [result.value for result in results]
