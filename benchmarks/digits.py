"""24 digit trainings on two CPU slots, by each tool as its documentation shows.

As a script (the measured process): ``python -m benchmarks.digits CONTESTANT``.

Favours to the peers: data is made once in a process for all of them, and of the parallel ones only
torch_autotrain and the junky launcher keep a best model on disk.
"""

import functools
import os
import sys
import time

from benchmarks.measure import REPOSITORY, Row, Section, child, interleaved, median, missing

APP = REPOSITORY / "benchmarks" / "apps" / "digits.py"
# The grammar's grid, in the words of Hydra's ordinary sweeps: one command cannot say
# alternatives, so the optimizers of the 24 are given as experiments are: choices of a group.
HYDRA_GRID = ("width=1024,512,256,128", "optimizer=adam1,adam2,sgd1,sgd2,sgd3,sgd4")


def serial():
    import torch

    from benchmarks import digits_work as work

    torch.set_num_threads(int(os.environ.get("BENCH_THREADS", "1")))
    data = work.prepared()
    best = [0.0]

    def keep(model, score):
        if score > best[0]:
            best[0] = score
            torch.save(model.state_dict(), "model.pt")

    return [
        work.fit(*work.make_model(**params), data, keep) for params in work.grid()
    ]  # fmt: skip


def autotrain(executor="threads"):
    from benchmarks import digits_work as work
    from junky_core import torch_autotrain

    result = torch_autotrain(
        work.make_model,
        train_saving,
        work.prepared,  # read only, so that both slots may have the same
        make_model_fit_params=work.FIT_PARAMS,
        devices={"cpu": 2},
        threads_per_slot=1,
        executor=executor,
    )
    return [value for _name, _score, _params, value in result.stats]


def train_saving(_device, data, model, optimizer, save_best, _log_prefix):
    from benchmarks import digits_work as work

    return work.fit(model, optimizer, data, save_best)


def threads():
    from concurrent.futures import ThreadPoolExecutor

    from benchmarks import digits_work as work

    data = work.prepared()
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda params: work.train(params, data), work.grid()))


def optuna():
    import optuna

    from benchmarks import digits_work as work

    data = work.prepared()

    def objective(trial):
        params = {"width": trial.suggest_categorical("width", work.WIDTHS)}
        params["name"] = trial.suggest_categorical("name", ["adam", "sgd"])
        if params["name"] == "adam":
            params["lr"] = trial.suggest_categorical("adam_lr", work.ADAM_RATES)
        else:
            params["lr"] = trial.suggest_categorical("sgd_lr", work.SGD_RATES)
            params["momentum"] = trial.suggest_categorical("momentum", work.MOMENTA)
        return work.train(params, data)

    study = optuna.create_study(direction="maximize")
    for params in work.grid():
        rate = {f"{params['name']}_lr": params["lr"]}
        study.enqueue_trial({**{k: v for k, v in params.items() if k != "lr"}, **rate})
    study.optimize(objective, n_trials=24, n_jobs=2)
    return [trial.value for trial in study.trials]


def joblib():
    from joblib import Parallel, delayed

    from benchmarks import digits_work as work

    data = work.prepared()  # arrays go to the workers as memory maps, joblib's own way
    return Parallel(n_jobs=2)(delayed(work.train)(params, data) for params in work.grid())


def ray():
    import ray
    from ray import tune

    from benchmarks import digits_work as work

    def trainable(config, data):
        tune.report({"score": work.train(config["params"], data)})

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    tuner = tune.Tuner(
        tune.with_parameters(trainable, data=work.prepared()),
        param_space={"params": tune.grid_search(work.grid())},
    )
    scores = [result.metrics["score"] for result in tuner.fit()]
    ray.shutdown()
    return scores


CONTESTANTS = {
    "serial": serial,
    "autotrain": autotrain,
    "processes": functools.partial(autotrain, "processes"),
    "threads": threads,
    "optuna": optuna,
    "joblib": joblib,
    "ray": ray,
}


def _in_process(name, **env):
    def run():
        return child(["-m", "benchmarks.digits", name], env=env)

    return run


def _hydra(*arguments):
    def run():
        return child([APP, "--multirun", *arguments])

    return run


JUNKY_GRID = (
    "hydra/sweeper=junky",
    (
        "hydra.sweeper.fit_params=[[width,[1024,512,256,128]],"
        "{optimizer:adam,optimizer.lr:[0.001,0.003]},"
        "{optimizer:sgd,optimizer.lr:[0.1,0.03],optimizer.momentum:[0.0,0.9]}]"
    ),
)
JUNKY_SLOTS = (
    "hydra/launcher=junky",
    "hydra.launcher.devices=cpu*2",
    "hydra.launcher.threads_per_slot=1",
)

TITLES = {
    "serial": "a plain loop, 1 torch thread",
    "serial2": "a plain loop, 2 torch threads",
    "autotrain": "torch_autotrain, 2 slots",
    "processes": "torch_autotrain, 2 slots, processes",
    "hydra-junky": "Hydra, junky sweeper and launcher, 2 slots",
    "hydra-processes": "Hydra, junky sweeper and launcher, 2 slots, processes",
    "threads": "a plain pool of 2 threads: the limit for threads",
    "optuna": "Optuna, n_jobs=2",
    "joblib": "joblib, 2 processes",
    "hydra-basic": "Hydra, basic launcher",
    "hydra-joblib": "Hydra, joblib launcher, 2 processes",
    "ray": "Ray Tune, 2 CPUs",
}
OURS = ("autotrain", "hydra-junky")
IN_PROCESSES = ("processes", "hydra-processes")
YARDSTICKS = ("serial", "serial2", "threads")  # no tools, so nobody's peers
SECONDS = (
    "Seconds from the end of `import torch, sklearn` to the last result, including the start of "
    "the tool; in brackets, the whole process."
)


def cost(options):
    """Row 4: seconds of the 24 trainings."""
    section = Section("24 digit trainings on 2 CPU slots", note=SECONDS)
    return compare(section, TITLES, 1 if options.quick else options.rounds)


def compare(section, names, rounds, *, once=()):
    """Let the named contestants run in turns, those in ``once`` a single time; fill the table."""
    contestants = {
        "serial": _in_process("serial"),
        "autotrain": _in_process("autotrain"),
        "processes": _in_process("processes"),
        "hydra-junky": _hydra(*JUNKY_GRID, *JUNKY_SLOTS),
        "hydra-processes": _hydra(
            *JUNKY_GRID, *JUNKY_SLOTS, "hydra.launcher.executor=processes"
        ),
        "threads": _in_process("threads"),
        "optuna": _in_process("optuna"),
        "joblib": _in_process("joblib"),
        "hydra-basic": _hydra(*HYDRA_GRID),
        "hydra-joblib": _hydra(*HYDRA_GRID, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
        "ray": _in_process("ray"),
        "serial2": _in_process("serial", BENCH_THREADS="2"),
    }  # fmt: skip
    needs = {
        "optuna": ("optuna",),
        "joblib": ("joblib",),
        "hydra-joblib": ("hydra_plugins.hydra_joblib_launcher",),
        "ray": ("ray", "pyarrow", "pandas"),
    }
    why_not = {name: missing(*needs.get(name, ()), "sklearn") for name in contestants}
    results = interleaved(
        {name: contestants[name] for name in names if not why_not[name]}, rounds, once=once
    )
    seconds = {
        name: median(one.figures["seconds"] for one in got)
        for name, got in results.items()
        if not isinstance(got, str)
    }
    others = (*OURS, *IN_PROCESSES, *YARDSTICKS)
    rivals = [value for name, value in seconds.items() if name not in others]
    for name in names:
        got, title = results.get(name, why_not[name]), TITLES[name]
        if isinstance(got, str):
            section.rows.append(Row(title, got))
            continue
        ratio = target = ""
        met = None
        if "serial" in seconds and name != "serial":
            times = seconds["serial"] / seconds[name]
            ratio = f"{times:.2f}x serial"
            if name in OURS:
                target = "1.95x serial, no peer faster"
                met = times >= 1.95 and all(seconds[name] <= rival for rival in rivals)
        if name in IN_PROCESSES and rivals:
            times = seconds[name] / min(rivals)
            ratio = ", ".join(filter(None, [ratio, f"{times:.3f}x the fastest peer's time"]))
            target, met = "at most 3 % slower than the fastest peer", times <= 1.03
        whole = median(one.wall_s for one in got)
        section.rows.append(
            Row(title, f"{seconds[name]:.1f} s ({whole:.1f} s)", ratio, target, met)
        )
    return section


def main(name):
    from benchmarks import digits_work, probes

    began = time.perf_counter()
    scores = CONTESTANTS[name]()
    seconds = time.perf_counter() - began
    assert len(scores) == len(digits_work.grid()), scores
    assert min(scores) > 0.5, scores
    probes.report(seconds=seconds, best=max(scores))


if __name__ == "__main__":
    main(sys.argv[1])
