"""Resuming under Hydra: a folder with another sweep is refused, and the message says why."""

import json

import pytest
from launching import multirun

from hydra_plugins.hydra_junky_launcher._differences import what_differs
from junky_core.errors import ResumeError, SweepFailed
from junky_core.record.reader import load_state, read_journal

CONFIG = {"lr": 0.1, "epochs": 10, "opt": {"name": "sgd", "betas": [1, 2]}}


@pytest.fixture(params=["basic", "junky"])
def sweep(request, tmp_path):
    """Run a sweep under either sweeper, twice in one folder."""

    def run(*overrides, config=CONFIG, resume=True):
        given = [f"hydra/sweeper={request.param}", f"hydra.launcher.resume={resume}", *overrides]
        return multirun(lambda cfg: cfg.lr, given, config, tmp_path)

    run.folder = tmp_path / "sweep"
    return run


def refusal(sweep, *overrides, **options):
    with pytest.raises(ResumeError, match="holds another sweep") as caught:
        sweep(*overrides, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("first", "then", "said"),
    [
        (["epochs=20"], [], "differ in epochs (was 20, is 10)."),
        ([], ["epochs=20"], "differ in epochs (was 10, is 20)."),
        (["+tag=t"], [], "differ in tag (was 't', is absent)."),
        (["opt.name=adam"], [], "differ in opt.name (was 'adam', is 'sgd')."),
        (["opt.betas=[1,3]"], [], "differ in opt.betas.1 (was 3, is 2)."),
        (["+a.b=1"], ["epochs=9"], "differ in epochs (was 10, is 9), a.b (was 1, is absent)."),
    ],
)
def test_the_keys_that_differ_are_named(sweep, first, then, said):
    """Those that the sweep varies are not: of both, the closest jobs are compared."""
    sweep("lr=0.1,0.2", *first, resume=False)
    assert said in refusal(sweep, "lr=0.3,0.2,0.1", *then)


def test_a_swept_key_is_named_if_nothing_else_differs(sweep):
    sweep("lr=0.1,0.2", resume=False)
    assert "differ in lr (was 0.1, is 0.3)." in refusal(sweep, "lr=0.3,0.4")


def test_a_config_file_that_changed_is_noticed(sweep):
    sweep("lr=0.1,0.2", resume=False)
    changed = {**CONFIG, "epochs": 99}
    assert "differ in epochs (was 10, is 99)." in refusal(sweep, "lr=0.1,0.2", config=changed)


class Groups:
    """A sweep over a config group, whose option files may be edited."""

    def __init__(self, folder):
        self.folder = folder
        self.sweep = folder / "sweep"
        self.ran = []
        self.write("sgd", 0.1)
        self.write("adam", 0.9)
        defaults = {"defaults": [{"opt": "sgd"}, "_self_"], "width": 1}
        (folder / "conf" / "config.yaml").write_text(json.dumps(defaults))

    def write(self, option, lr):
        (self.folder / "conf" / "opt").mkdir(parents=True, exist_ok=True)
        (self.folder / "conf" / "opt" / f"{option}.yaml").write_text(f"lr: {lr}\n")

    def run(self, *overrides, fail=()):
        self.ran = []

        def task(cfg):
            self.ran.append(cfg.opt.lr)
            if cfg.opt.lr in fail:
                raise ValueError
            return cfg.opt.lr

        given = ["hydra/sweeper=junky", "hydra.launcher.max_retries=0", *overrides]
        multirun(task, given, None, self.folder)

    def leaderboard(self):
        lines = (self.sweep / "leaderboard.csv").read_text().splitlines()[1:]
        return [float(line.split(",")[2]) for line in lines if ",finished," in line]


@pytest.mark.parametrize("batch", ["null", "1"])
def test_results_of_an_option_that_was_edited_are_not_mixed_with_those_of_now(tmp_path, batch):
    """The best would be that of the old adam, whose overrides now give another config."""
    groups = Groups(tmp_path)
    groups.run("opt=sgd,adam")
    groups.write("adam", 0.2)
    again = ["hydra.launcher.resume=true", f"hydra.sweeper.max_batch_size={batch}"]
    said = r"same overrides .* the first being job 1 .*'adam'.* opt\.lr \(was 0\.9, is 0\.2\), so"
    with pytest.raises(ResumeError, match=said):
        groups.run("opt=sgd,adam", *again)
    assert groups.ran == []
    assert groups.leaderboard() == [0.9, 0.1]
    groups.write("adam", 0.9)
    groups.run("opt=sgd,adam,sgd", *again)
    assert groups.ran == [0.1]  # the one that is asked for twice


def test_an_edited_option_is_refused_also_where_hydra_wrote_no_config(tmp_path):
    groups = Groups(tmp_path)
    groups.run("opt=sgd,adam", "hydra.output_subdir=null")
    groups.write("adam", 0.2)
    with pytest.raises(ResumeError, match=r"config files have changed since, so"):
        groups.run("opt=sgd,adam", "hydra.output_subdir=null", "hydra.launcher.resume=true")


def test_the_device_of_a_slot_is_not_a_change(tmp_path):
    groups = Groups(tmp_path)
    keys = ["+device=none", "hydra.launcher.device_key=device"]
    groups.run("opt=sgd,adam", *keys)
    groups.write("adam", 0.2)
    with pytest.raises(ResumeError, match=r"this job opt\.lr \(was 0\.9, is 0\.2\), so"):
        groups.run("opt=sgd,adam", *keys, "hydra.launcher.resume=true")


def test_a_job_that_failed_runs_again_with_the_config_that_was_mended(tmp_path):
    groups = Groups(tmp_path)
    with pytest.raises(SweepFailed):
        groups.run("opt=sgd,adam", fail=[0.9])
    groups.write("adam", 0.2)
    groups.run("opt=sgd,adam", "hydra.launcher.resume=true")
    assert groups.ran == [0.2]
    assert groups.leaderboard() == [0.2, 0.1]


def test_the_config_is_noted_once_and_kept_over_batches(tmp_path):
    overrides = ["hydra/sweeper=junky", "hydra.sweeper.max_batch_size=1", "lr=0.1,0.2,0.3"]
    multirun(lambda cfg: cfg.lr, overrides, CONFIG, tmp_path)
    starts = [r for r in read_journal(tmp_path / "sweep") if r["event"] == "sweep_started"]
    assert ["config" in start["spec"] for start in starts] == [True, False, False]
    assert load_state(tmp_path / "sweep").spec["config"]["opt.betas.0"] == "1"


def test_interpolations_are_compared_as_written(sweep):
    first = {**CONFIG, "twice": "${epochs}"}
    sweep("lr=0.1,0.2", config=first, resume=False)
    said = refusal(sweep, "lr=0.1,0.2", config={**CONFIG, "twice": "${lr}"})
    assert "differ in twice (was '${epochs}', is '${lr}')." in said


def test_a_journal_without_a_config_names_overrides(sweep):
    sweep("lr=0.1,0.2", "epochs=20", resume=False)
    path = sweep.folder / "journal.jsonl"
    records = list(read_journal(path))
    del records[0]["spec"]["config"]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert "command lines differ in epochs. " in refusal(sweep, "lr=0.1,0.2")


def test_the_rest_of_many_differences_is_counted():
    before = {"config": {f"k{n}": "1" for n in range(30)}}
    text = what_differs(before, {}, [{f"k{n}": "x" * 100 for n in range(30)}])
    assert text.endswith("k9 (was 1, is " + "x" * 60 + "...), and 20 more")
    same = {"overrides": ["a=1"]}
    assert "config files have changed" in what_differs(same, same, [])
