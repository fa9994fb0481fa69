"""How long a slot is idle between two jobs of a second each.

As a script (the measured process): ``python -m benchmarks.idle JOBS``.
"""

import itertools
import json
import sys
from pathlib import Path

from benchmarks.hydra_noop import APP
from benchmarks.measure import REPOSITORY, Row, Section, child, interleaved, median


def autotrain(jobs):
    import torch

    from benchmarks import probes
    from junky_core import torch_autotrain

    scores = itertools.count()

    def make_model(seed):  # noqa: ARG001 - they differ by number alone
        return torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.Linear(512, 512))

    def train(_device, _loaders, model, save_best, _log_prefix):
        with probes.busy_job():
            probes.burn(1.0)
        save_best(model, next(scores))  # each job leads: its 2 MB are copied and written

    torch_autotrain(
        make_model,
        train,
        make_model_fit_params=[("seed", range(jobs))],
        devices={"cpu": 2},
        sweep_dir="sweep",
    )
    probes.report(idle=probes.idle_share(), journal=_journal_idle("sweep/journal.jsonl"))


def _journal_idle(path):
    """Return the same as the journal tells it: from a job's last event to the next one's start."""
    spans = {1: {}, 2: {}}  # by slot and job
    for line in Path(path).read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "job_started":
            spans[event["slot"]][event["job"]] = [event["time"], None]
        elif event["event"] == "job_finished":
            # Not the line's own time: it is written once the job's best model is on disk.
            span = spans[event["slot"]][event["job"]]
            span[1] = span[0] + event["duration_s"]
    gaps = total = 0.0
    for jobs in spans.values():
        times = list(jobs.values())
        gaps += sum(later[0] - earlier[1] for earlier, later in itertools.pairwise(times))
        total += times[-1][1] - times[0][0]
    return gaps / total


def cost(options):
    """Row 5: the idle part of a slot's time."""
    jobs = 12 if options.quick else 24
    section = Section(
        "Slot idle time between two jobs of 1 second, 2 slots",
        note="From the end of one job's training loop to the start of the next one's, by the jobs' "
        "own clocks. Each job of torch_autotrain saves a best model of 2 MB.",
    )
    hydra_jobs = [
        REPOSITORY / APP,
        "--multirun",
        "hydra/sweeper=junky",
        "hydra/launcher=junky",
        "hydra.launcher.devices=cpu*2",
        f"seed=range(0,{jobs})",
    ]
    results = interleaved(
        {
            "torch_autotrain with a journal": lambda: (
                child(["-m", "benchmarks.idle", jobs]).figures
            ),
            "Hydra, junky sweeper and launcher": lambda: (
                child(hydra_jobs, env={"BENCH_BUSY_S": "1.0"}).figures
            ),
        },
        options.rounds,
    )
    for name, got in results.items():
        if isinstance(got, str):
            section.rows.append(Row(name, got))
            continue
        idle = median(one["idle"] for one in got)
        figure = f"{idle:.2%}"
        if "journal" in got[0]:
            figure += f" ({median(one['journal'] for one in got):.2%} by the journal's times)"
        section.rows.append(Row(name, figure, "", "under 2%", idle < 0.02))
    return section


if __name__ == "__main__":
    autotrain(int(sys.argv[1]))
