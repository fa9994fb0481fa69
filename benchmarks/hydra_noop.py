"""What a Hydra job costs that does nothing; what a large sweep costs to start and to hold."""

from benchmarks.measure import REPOSITORY, Row, Section, child, interleaved, median, missing
from benchmarks.probes import FIRST_JOB_FILE

APP = "benchmarks/apps/noop.py"
BASIC, JUNKY = "basic", "junky"


def _arguments(sweeper, launcher, jobs, *more, grid=False):
    # Half of the jobs with each of two choices of a config group, the rest plain values.
    half = max(1, jobs // 2)
    swept = [
        "optimizer=adam,sgd" if jobs > 1 else "optimizer=sgd",
        f"seed=range(0,{half})",
    ]
    if grid:  # of at least 10,000 jobs
        sizes = {"seed": 100, "model.width": 50, "data.batch_size": jobs // 10_000}
        pairs = "".join(f",[{key},{list(range(1, n + 1))}]" for key, n in sizes.items())
        swept = [f"hydra.sweeper.fit_params=[[optimizer,[adam,sgd]]{pairs}]"]
    return [
        REPOSITORY / APP,
        "--multirun",
        f"hydra/sweeper={sweeper}",
        f"hydra/launcher={launcher}",
        *swept,
        *more,
    ]


def _check_files(jobs):
    def check(folder):
        (sweep,) = folder.glob("multirun/*/*")
        for num in range(jobs):
            for name in ("config", "hydra", "overrides"):
                assert (sweep / str(num) / ".hydra" / f"{name}.yaml").stat().st_size
            assert (sweep / str(num) / "noop.log").exists()

    return check


def _sweep(sweeper, launcher, jobs, *more):
    return child(
        _arguments(sweeper, launcher, jobs, *more), check=_check_files(jobs), timeout_s=3600
    )


def additional_job(sweeper, launcher, small, large, *more):
    """Return wall-clock and CPU time in ms of one more job, and the seconds of both sweeps."""
    short = _sweep(sweeper, launcher, small, *more)
    long = _sweep(sweeper, launcher, large, *more)
    jobs = large - small
    return (
        (long.wall_s - short.wall_s) / jobs * 1e3,
        (long.cpu_s - short.cpu_s) / jobs * 1e3,
        short.wall_s,
        long.wall_s,
    )


def cost(options):
    """Row 1: what one job more costs, with all of Hydra's files written."""
    few, many = (4, 14) if options.quick else (10, 40)
    ours_few, ours_many = (10, 60) if options.quick else (20, 220)
    slots = "hydra.launcher.devices=cpu*2"
    contestants = {
        "basic sweeper, basic launcher": (BASIC, BASIC, few, many),
        "basic sweeper, joblib launcher, 1 process": (
            BASIC, "joblib", few, many, "hydra.launcher.n_jobs=1",
        ),
        "junky sweeper, basic launcher": (JUNKY, BASIC, few, many),
        "basic sweeper, junky launcher, 1 slot": (BASIC, JUNKY, few, many),
        "junky sweeper, junky launcher, 1 slot": (JUNKY, JUNKY, ours_few, ours_many),
        "junky sweeper, junky launcher, 2 slots": (JUNKY, JUNKY, ours_few, ours_many, slots),
    }  # fmt: skip
    why_not = missing("hydra_plugins.hydra_joblib_launcher")
    joblib = "basic sweeper, joblib launcher, 1 process"
    section = Section(
        "A Hydra job that does nothing, all of Hydra's files written",
        note="ms per additional job: the difference in time between two sweeps, divided by the "
        "difference in jobs. CPU: of the whole process.",
    )

    results = interleaved(
        {
            name: lambda c=contestant: additional_job(*c)
            for name, contestant in contestants.items()
            if not (why_not and name == joblib)
        },
        options.rounds,
    )
    base = results["basic sweeper, basic launcher"]
    for name, (_sweeper, _launcher, small, large, *_more) in contestants.items():
        got = results.get(name, why_not)
        if isinstance(got, str):
            section.rows.append(Row(name, got))
            continue
        wall, cpu, short, long = (median(values) for values in zip(*got, strict=True))
        ratio, target, met = "", "", None
        if not isinstance(base, str):
            factor = median(row[0] for row in base) / wall
            cpu_factor = median(row[1] for row in base) / cpu
            ratio = f"{factor:.2f}x less than Basic (CPU {cpu_factor:.2f}x)"
            if name == "junky sweeper, junky launcher, 1 slot":
                target, met = "8x less CPU than Basic", cpu_factor >= 8
        section.rows.append(
            Row(
                name,
                f"{wall:.1f} ms a job (CPU {cpu:.1f} ms); whole sweeps: {small} jobs {short:.1f} s,"
                f" {large} jobs {long:.1f} s",
                ratio,
                target,
                met,
            )
        )
    return section


def start(options):
    """Row 6: from the start of the process to the start of the first job."""
    section = Section(
        "From the start of the process to its first job",
        note="Basic composes all jobs before the first: its 10,000 jobs are extrapolated from 1 "
        "and a few dozen.",
    )

    def first(sweeper, launcher, jobs, *, grid=False):
        arguments = _arguments(sweeper, launcher, jobs, grid=grid)
        used = child(arguments, env={FIRST_JOB_FILE: "yes"}, timeout_s=900)
        assert used.first_job_s is not None, "no job began"
        return used.first_job_s, used.cpu_s

    few = 20 if options.quick else 60
    results = interleaved(
        {
            "junky, 1 job": lambda: first(JUNKY, JUNKY, 1),
            "junky, 10,000 jobs": lambda: first(JUNKY, JUNKY, 10_000),
            "junky, 10,000 jobs of fit_params": lambda: first(JUNKY, JUNKY, 10_000, grid=True),
            "junky, 100,000 jobs of fit_params": lambda: first(JUNKY, JUNKY, 100_000, grid=True),
            "basic, 1 job": lambda: first(BASIC, BASIC, 1),
            f"basic, {few} jobs": lambda: first(BASIC, BASIC, few),
        },
        max(options.rounds, 1 if options.quick else 3),
    )
    mid = {
        name: tuple(median(values) for values in zip(*got, strict=True))
        for name, got in results.items()
        if not isinstance(got, str)
    }
    for name, got in results.items():
        if isinstance(got, str):
            section.rows.append(Row(name, got))
            continue
        (wall, cpu), ratio, target, met = mid[name], "", "", None
        alone = mid.get(f"{name.partition(',')[0]}, 1 job")
        if alone and not name.endswith(", 1 job"):
            later = wall - alone[0]
            ratio = f"{later:+.2f} s (CPU {cpu - alone[1]:+.2f} s) to 1 job"
            if name.startswith("junky, 10,000 jobs"):
                target, met = "at most 1 s later than 1 job", later <= 1
        section.rows.append(Row(name, f"{wall:.2f} s (CPU {cpu:.2f} s)", ratio, target, met))
    one, some = mid.get("basic, 1 job"), mid.get(f"basic, {few} jobs")
    if one and some:
        later = (some[0] - one[0]) / (few - 1) * 9_999
        section.rows.append(
            Row(
                "basic, 10,000 jobs (extrapolated)",
                f"{one[0] + later:.0f} s",
                f"{later:+.0f} s to 1 job",
            )
        )
    return section


def memory(options):
    """Row 7: memory that one job more of a Hydra sweep takes."""
    jobs = 2_000 if options.quick else 10_000
    few, many = (20, 80) if options.quick else (20, 120)
    section = Section(
        f"Memory of a {jobs:,}-job Hydra sweep",
        note="Peak memory of the process minus that of a short sweep, divided by the difference in "
        "jobs.",
    )

    def grown(sweeper, launcher, small, large):
        short = _sweep(sweeper, launcher, small)
        long = _sweep(sweeper, launcher, large)
        return (long.peak_rss - short.peak_rss) / (large - small), long

    results = interleaved(
        {
            "junky sweeper, junky launcher": lambda: grown(JUNKY, JUNKY, 200, jobs),
            "basic sweeper, basic launcher": lambda: grown(BASIC, BASIC, few, many),
        },
        1,
    )
    sizes = {}
    for name, got in results.items():
        if isinstance(got, str):
            section.rows.append(Row(name, got))
            continue
        sizes[name], long = got[0]
        ours = name.startswith("junky")
        n = jobs if ours else many
        section.rows.append(
            Row(
                f"{name}, {n:,} jobs",
                f"{sizes[name] / 1024:.2f} KB a job (peak {long.peak_rss / 2**20:.0f} MB); "
                f"{long.wall_s:.0f} s, {long.wall_s / n * 1e3:.1f} ms a job",
                "" if ours else f"{sizes[name] / max(1, next(iter(sizes.values()))):.1f}x ours",
                "at most 4 KB a job" if ours else "",
                sizes[name] <= 4096 if ours else None,
            )
        )
    return section
