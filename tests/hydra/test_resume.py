"""Resuming under Hydra: a folder that holds another sweep is refused, and the message says why."""

import json

import pytest
from launching import multirun

from hydra_plugins.hydra_junky_launcher._differences import what_differs
from junky_core.errors import ResumeError
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
