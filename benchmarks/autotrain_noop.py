"""What a ``torch_autotrain`` job costs that does nothing but save a small model.

As a script (the measured process):
``python -m benchmarks.autotrain_noop autotrain JOBS ORDER JOURNAL TRACE``, or ``optuna TRIALS``,
or ``ray TRIALS``.
"""

import sys
import time

from benchmarks.measure import Row, Section, child, interleaved, median, missing


def autotrain(jobs, order, journal, trace):
    import resource
    import tracemalloc

    import torch

    from benchmarks import probes
    from junky_core import torch_autotrain

    def make_model(width, lr, seed):
        return torch.nn.Linear(2, 2), seed * 100 + width * 10 + lr

    sign = 1 if order == "ascending" else -1

    def train(_device, _loaders, model, place, save_best, _log_prefix):
        save_best(model, sign * place)

    def sweep(name, n):
        return torch_autotrain(
            make_model,
            train,
            make_model_fit_params=[
                ("seed", range(n // 100)), ("width", range(10)), ("lr", range(10)),
            ],
            best_model_file_name="model.pt" if journal else f"{name}.pt",
            sweep_dir=name if journal else None,
        )  # fmt: skip

    sweep("warm", 200)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if trace:
        tracemalloc.start()
        traced = tracemalloc.get_traced_memory()[0]
    wall, cpu = time.perf_counter(), time.process_time()
    result = sweep("measured", jobs)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert len(result.stats) == jobs
    probes.report(
        wall_ms=wall / jobs * 1e3,
        cpu_ms=cpu / jobs * 1e3,
        rss=(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / jobs,
        traced_kept=(tracemalloc.get_traced_memory()[0] - traced) / jobs if trace else None,
        traced_peak=(tracemalloc.get_traced_memory()[1] - traced) / jobs if trace else None,
    )


def optuna_trials(jobs):
    import optuna

    from benchmarks import probes

    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial):
        trial.suggest_int("width", 0, 9)
        return -trial.number

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler())
    study.optimize(objective, n_trials=50, n_jobs=2)
    began = time.perf_counter()
    study.optimize(objective, n_trials=jobs, n_jobs=2)
    probes.report(wall_ms=(time.perf_counter() - began) / jobs * 1e3)


def ray_trials(jobs):
    import ray
    from ray import tune

    from benchmarks import probes

    def objective(config):
        tune.report({"score": -config["seed"]})

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    began = time.perf_counter()
    tune.Tuner(objective, param_space={"seed": tune.grid_search(list(range(jobs)))}).fit()
    probes.report(wall_ms=(time.perf_counter() - began) / jobs * 1e3)
    ray.shutdown()


def _measure(jobs, order, *, journal=False, trace=False):
    return child(
        [
            "-m", "benchmarks.autotrain_noop", "autotrain", jobs, order, int(journal), int(trace),
        ],
        timeout_s=1200,
    ).figures  # fmt: skip


def cost(options):
    """Row 2: ms and bytes a job."""
    largest = 20_000 if options.quick else 100_000
    sizes = [1_000, 10_000, largest]
    section = Section(
        "A torch_autotrain job that does nothing but save a small model, 1 slot",
        note="Descending scores: only the first job saves. Ascending: every job leads and saves.",
    )
    cases = [
        (jobs, order, journal)
        for order in ("descending", "ascending")
        for journal in (False, True)
        for jobs in (sizes if order == "descending" else sizes[:2])
    ]

    def name(jobs, order, journal):
        return f"{jobs:,} jobs, {order}{', with a journal' if journal else ''}"

    timed = interleaved(
        {
            name(*case): lambda c=case: _measure(c[0], c[1], journal=c[2]) for case in cases
        },
        options.rounds,
    )  # fmt: skip
    traced = interleaved(
        {
            name(*case): lambda c=case: _measure(c[0], c[1], journal=c[2], trace=True)
            for case in cases
            if case[0] <= 10_000 and case[1] == "descending"
        },
        1,
    )
    base = {}
    for case in cases:
        jobs, order, journal = case
        got = timed[name(*case)]
        if isinstance(got, str):
            section.rows.append(Row(name(*case), got))
            continue
        wall, cpu, rss = (median(one[key] for one in got) for key in ("wall_ms", "cpu_ms", "rss"))
        base.setdefault((order, journal), wall)
        figure = f"{wall:.3f} ms (CPU {cpu:.3f} ms), {rss / 1024:.2f} KB more at the peak"
        trace = traced.get(name(*case))
        if trace and not isinstance(trace, str):
            kept, peak = trace[0]["traced_kept"] / 1024, trace[0]["traced_peak"] / 1024
            figure += f"; traced: {kept:.2f} KB kept, {peak:.2f} KB peak"
        target, met = "", None
        if order == "descending":
            limit = 0.6 if journal else 0.4
            target = f"{limit} ms at any number, at most 2 KB"
            met = wall <= limit and (rss <= 2048 or jobs < 10_000)
        ratio = f"{wall / base[order, journal]:.2f}x the time of 1,000" if jobs > 1_000 else ""
        section.rows.append(Row(name(*case), figure, ratio, target, met))
    _peers(section, options, base.get(("descending", False)))
    return section


def _peers(section, options, ours):
    trials = {
        "Optuna, n_jobs=2, random sampler, in memory": ("optuna", 300 if options.quick else 1_000),
        "Ray Tune, 2 CPUs": ("ray", 6 if options.quick else 20),
    }
    for name, (module, jobs) in trials.items():
        why_not = missing(module)
        got = (
            why_not
            or interleaved(
                {
                    name: lambda m=module, j=jobs: child(
                        ["-m", "benchmarks.autotrain_noop", m, j], timeout_s=600
                    ).figures["wall_ms"]
                },
                1,
            )[name]
        )
        if isinstance(got, str):
            section.rows.append(Row(name, got))
            continue
        ratio = f"{got[0] / ours:.0f}x ours at 1,000" if ours else ""
        section.rows.append(
            Row(f"{name}: a trial that does nothing, {jobs} of them", f"{got[0]:.2f} ms", ratio)
        )


if __name__ == "__main__":
    what, jobs, *rest = sys.argv[1:]
    if what == "autotrain":
        autotrain(int(jobs), rest[0], bool(int(rest[1])), bool(int(rest[2])))
    else:
        {"optuna": optuna_trials, "ray": ray_trials}[what](int(jobs))
