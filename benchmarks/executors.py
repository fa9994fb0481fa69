"""Jobs in worker processes and on threads, side by side."""

from benchmarks import digits, hydra_noop
from benchmarks.measure import REPOSITORY, Row, Section, child, interleaved, median

EXECUTORS = ("threads", "processes")
MOST_MS = 2.0  # that a job in a process may cost more than one on a thread
MOST_WAIT_S = 0.3  # that training may wait for a save, besides the copy


def _figures(*arguments):
    return lambda: child(["-m", "benchmarks.executors_work", *arguments]).figures


def _medians(results):
    """Return for each contestant that finished the medians of its figures."""
    return {
        name: {key: median(one[key] for one in got) for key in got[0]}
        for name, got in results.items()
        if not isinstance(got, str)
    }


def _failures(results):
    return [Row(name, got) for name, got in results.items() if isinstance(got, str)]


def tiny(options):
    """How much faster two slots are than one where training holds the interpreter lock."""
    steps = _figures("speed", 0.5 if options.quick else 5.5)()["steps"]
    section = Section(
        "8 trainings of tiny networks on 2 CPU slots",
        note=f"64 units, batches of 64, Adam, {steps:,} steps each. From the first job's start "
        "to the last one's end. Ratio: to 1 slot of the same executor.",
    )
    bare = "2 processes without this project: the limit"
    contestants = {
        f"{executor}, {slots} slot{'s' * (slots > 1)}": (executor, slots)
        for executor in EXECUTORS
        for slots in (1, 2)
    }
    contestants[bare] = ("bare", 2)
    results = interleaved(
        {name: _figures("tiny", *given, steps) for name, given in contestants.items()},
        options.rounds,
    )
    section.rows += _failures(results)
    mid = _medians(results)
    for name, got in mid.items():
        executor, slots = contestants[name]
        one = mid.get(f"{'processes' if executor == 'bare' else executor}, 1 slot")
        ratio, target, met = "", "", None
        if one and slots > 1:
            times = one["seconds"] / got["seconds"]
            ratio = f"{times:.2f}x 1 slot"
            if executor == "processes":
                target, met = "1.85x 1 slot", times >= 1.85
        figure = f"{got['seconds']:.1f} s; the shortest training {got['shortest']:.1f} s"
        section.rows.append(Row(name, figure, ratio, target, met))
    return section


def of_digits(options):
    """The digit trainings on threads, in our processes and by peers: five rounds."""
    return digits.compare(
        Section(
            "Digit trainings on threads and in processes",
            note="The 24 trainings of the table above on 2 slots, five rounds (Ray Tune: one). "
            f"{digits.SECONDS}",
        ),
        ("autotrain", "processes", "optuna", "joblib", "ray"),
        1 if options.quick else max(options.rounds, 5),
        once=("ray",),
    )


def worker(options):
    """How soon a worker is ready, and the memory it adds."""
    count = 3 if options.quick else 8
    section = Section(
        "Start and memory of a worker process",
        note="Ready: torch is imported and the slot's loaders are built (here there are none). The "
        "first one includes the start of the fork server. Memory: what the worker shares with no "
        "other process.",
    )
    seeds = "no seed", "seed"
    results = interleaved({seed: _figures("worker", count, seed) for seed in seeds}, options.rounds)
    section.rows += _failures(results)
    for seed, got in results.items():
        if isinstance(got, str):
            continue
        first = median(one["ready"][0] for one in got)
        later = median(max(one["ready"][1:]) for one in got)
        idle, used = (median(max(one[key]) / 1e6 for one in got) for key in ("idle", "used"))
        more = f"the slowest of {count - 1} more, {seed}"
        section.rows += [
            Row(f"the first worker, {seed}", f"ready after {first:.2f} s"),
            Row(more, f"ready after {later:.3f} s", "", "under 0.3 s", later < 0.3),
            Row(f"an idle worker, {seed}", f"{idle:.1f} MB", "", "under 30 MB", idle < 30),
            Row(f"after a tiny training, {seed}", f"{used:.1f} MB"),
        ]
    return section


def job(options):
    """What a job that does nothing costs more in a process than on a thread."""
    jobs = 200 if options.quick else 2_000
    few, many = (10, 60) if options.quick else (20, 820)
    section = Section(
        "Jobs that do nothing, on a thread and in a worker process",
        note="ms per job, 1 slot. torch_autotrain: from one job to the next, by the jobs' clock. "
        "Hydra: the difference in time between two sweeps, divided by the difference in jobs.",
    )

    def through_hydra(executor):
        key = f"hydra.launcher.executor={executor}"
        both = hydra_noop.JUNKY, hydra_noop.JUNKY
        return {"ms": hydra_noop.additional_job(*both, few, many, key)[0]}

    contestants = {}
    for executor in EXECUTORS:
        contestants[f"torch_autotrain, {executor}"] = _figures("job", executor, jobs)
        contestants[f"Hydra, {executor}"] = lambda e=executor: through_hydra(e)
    results = interleaved(contestants, options.rounds)
    section.rows += _failures(results)
    mid = _medians(results)
    for name in sorted(mid, reverse=True):
        ms, ratio, target, met = mid[name]["ms"], "", "", None
        door, _, executor = name.partition(", ")
        thread = mid.get(f"{door}, threads")
        if executor == "processes" and thread:
            more = ms - thread["ms"]
            ratio = f"{more:+.2f} ms to threads"
            target, met = f"at most {MOST_MS:.0f} ms more than threads", more <= MOST_MS
        section.rows.append(Row(name, f"{ms:.2f} ms a job", ratio, target, met))
    return section


def save(options):
    """How long training waits in a save of a large best model."""
    width, saves = (1_000, 2) if options.quick else (5_000, 5)
    section = Section(
        "Saving a large best model",
        note=f"Each of {saves} saves leads; a second of training comes before each. Figures: the "
        "longest wait of a run. The copy of the state dict is timed just before, in the same job.",
    )
    results = interleaved(
        {executor: _figures("save", executor, width, saves) for executor in EXECUTORS},
        options.rounds,
    )
    section.rows += _failures(results)
    for executor, got in results.items():
        if isinstance(got, str):
            continue
        wait, copy = (median(max(one[key]) for one in got) for key in ("waits", "copies"))
        more = median(
            max(waited - copied for waited, copied in zip(one["waits"], one["copies"], strict=True))
            for one in got
        )
        ours = executor == "processes"
        section.rows.append(
            Row(
                f"save_best of {got[0]['size'] / 1e6:.0f} MB, {executor}",
                f"{wait:.3f} s; the copy alone {copy:.3f} s",
                f"{more:+.3f} s to the copy",
                f"the copy and at most {MOST_WAIT_S} s" if ours else "",
                more <= MOST_WAIT_S if ours else None,
            )
        )
    return section


def seeds(_options):
    """How many seeded jobs get another result than the plain script."""
    section = Section(
        "Seeded jobs and the plain script",
        note="The 24 digit networks, one epoch, `seed=7`, 2 slots. Compared to the last bit: the "
        "weights, the score, and numbers drawn at the end from torch, Python and NumPy.",
    )
    results = interleaved({"seeds": _figures("seeds")}, 1)
    section.rows += _failures(results)
    if not section.rows:
        (got,) = results["seeds"]
        assert got["distinct"] == got["jobs"], got
        section.rows += [
            Row(executor, f"{got[executor]} of {got['jobs']} differ", "", "0", got[executor] == 0)
            for executor in EXECUTORS
        ]
    return section


def example(options):
    """The README's example on one slot and on two, by threads and processes."""
    section = Section(
        "The README's example",
        note="`python train.py --multirun`: 18 trainings. Seconds of the whole process.",
    )
    more = ["epochs=1"] if options.quick else []

    def run(executor, slots):
        keys = [f"hydra.launcher.executor={executor}", f"hydra.launcher.devices=cpu*{slots}"]
        used = child([REPOSITORY / "train.py", "--multirun", *keys, *more])
        return {"seconds": used.wall_s, "cpu": used.cpu_s}

    results = interleaved(
        {
            "threads, 1 slot": lambda: run("threads", 1),
            "threads, 2 slots": lambda: run("threads", 2),
            "processes, 2 slots": lambda: run("processes", 2),
        },
        options.rounds,
    )
    section.rows += _failures(results)
    mid = _medians(results)
    one = mid.get("threads, 1 slot")
    for name, got in mid.items():
        ratio = f"{one['seconds'] / got['seconds']:.2f}x 1 slot" if one and got is not one else ""
        figure = f"{got['seconds']:.1f} s (CPU {got['cpu']:.1f} s)"
        section.rows.append(Row(name, figure, ratio))
    return section
