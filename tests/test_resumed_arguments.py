"""Resuming with changed fixed arguments: only the affected jobs run again."""

import argparse
import json

import pytest
import torch

from junky_core import parse_autotrain_log, torch_autotrain
from junky_core.errors import BestModelError, ResumeError
from junky_core.record.codec import event_of
from junky_core.record.live_state import LiveState
from junky_core.record.reader import load_state, read_journal
from junky_core.values.fixed_arguments import earlier_key
from junky_core.views.history import load_history


def make(width, bias=True):
    model = torch.nn.Linear(width, 1, bias=bias)
    torch.nn.init.constant_(model.weight, width)
    return model


class Runs:
    """A sweep over ``width`` in one folder, which records the jobs that ran."""

    def __init__(self, folder):
        self.folder = folder
        self.ran = []

    def __call__(self, *train_args, widths=(1, 2, 3), sign=1.0, make_model=make, **options):
        self.ran = []

        def train(_device, _loaders, model, save_best, _prefix, *args, **kwargs):
            self.ran.append(model.in_features)
            score = sign * (model.in_features + kwargs.get("epochs", 0))
            save_best(model, score)
            return score

        return torch_autotrain(
            make_model,
            train,
            make_model_fit_params=[("width", list(widths))],
            train_args=train_args,
            sweep_dir=self.folder,
            **options,
        )

    def resume(self, *train_args, **options):
        return self(*train_args, **{"resume": True, **options})


@pytest.fixture
def sweep(tmp_path):
    return Runs(tmp_path / "sweep")


def test_jobs_whose_fixed_value_changed_run_again(sweep, capsys):
    sweep(train_kwargs={"epochs": 10})
    assert sweep.resume(train_kwargs={"epochs": 10}).best_model_score == 13
    assert sweep.ran == []
    capsys.readouterr()
    result = sweep.resume(train_kwargs={"epochs": 100})
    assert sweep.ran == [1, 2, 3]
    assert result.best_model_score == 103
    assert len(result.stats) == 3
    assert "train_kwargs['epochs'] changed since 3 jobs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"train_kwargs": {"a": 1}}, {"train_kwargs": {"a": 2}}, "train_kwargs['a']"),
        ({"train_kwargs": {"a": 1}}, {"train_kwargs": {"a": True}}, "train_kwargs['a']"),
        ({"train_kwargs": {"a": 1}}, {}, "train_kwargs['a']"),
        ({}, {"train_kwargs": {"a": 1}}, "train_kwargs['a']"),
        ({"train_kwargs": {"a": 1}}, {"train_kwargs": {"b": 1}}, "['b'], train_kwargs['a']"),
        (
            {"make_model_kwargs": {"bias": True}},
            {"make_model_kwargs": {"bias": False}},
            "make_model_kwargs['bias']",
        ),
        (
            {"train_kwargs": {"a": [torch.ones(2)]}},
            {"train_kwargs": {"a": [torch.zeros(2)]}},
            "train_kwargs['a']",
        ),
    ],
)
def test_each_change_is_noticed_and_named(sweep, capsys, before, after, said):
    sweep(**before)
    sweep.resume(**after)
    assert sweep.ran == [1, 2, 3]
    assert f"{said} changed since 3 jobs" in capsys.readouterr().out


def test_positional_arguments_count_too(sweep, capsys):
    def make_scaled(scale, width):
        return make(width * scale)

    sweep("a", 1, make_model=make_scaled, make_model_args=(1,))
    sweep.resume("a", 2, make_model=make_scaled, make_model_args=(2,))
    assert sweep.ran == [2, 4, 6]
    out = capsys.readouterr().out
    assert "make_model_args[0], train_args[1] changed since 3 jobs" in out


def test_superseded_jobs_are_not_ranked(sweep):
    """The superseded ones have the better scores."""
    sweep(train_kwargs={"epochs": 100})
    result = sweep.resume(train_kwargs={"epochs": 10})
    assert [score for _, score, _, _ in result.stats] == [13, 12, 11]
    assert (sweep.folder / "leaderboard.csv").read_text().count("\n") == 4
    assert [row[1] for row in parse_autotrain_log(sweep.folder, silent=True)] == [13, 12, 11]
    journal = sweep.folder / "journal.jsonl"
    assert [row[1] for row in parse_autotrain_log(journal, silent=True)] == [13, 12, 11]
    history = load_history(sweep.folder)
    assert [r.score for r in history.results()] == [11, 12, 13]
    assert [best[1] for best in history.bests] == [11, 12, 13]
    state = LiveState()
    for record in read_journal(journal):
        state.on_event(event_of(record)) if event_of(record) is not None else None
    assert state.best[0] == 13
    assert (state.finished, state.total) == (3, 3)


def test_superseded_rows_stay_in_the_journal(sweep):
    sweep(train_kwargs={"epochs": 100})
    sweep.resume(train_kwargs={"epochs": 10})
    state = load_state(sweep.folder)
    assert {num: (num in state.superseded, job.score) for num, job in state.by_num.items()} == {
        0: (True, 101),
        1: (True, 102),
        2: (True, 103),
        3: (False, 11),
        4: (False, 12),
        5: (False, 13),
    }
    assert state.best_job().num == 5


def test_the_model_of_a_superseded_job_is_not_the_best(sweep, capsys):
    """The superseded best had the better score; its file must not count as this sweep's."""
    sweep(train_kwargs={"epochs": 100}, widths=[3])
    result = sweep.resume(train_kwargs={"epochs": 10}, widths=[3, 2], best_model_device="cpu")
    assert (result.best_model_score, result.best_model_params) == (13, {"width": 3})
    weights = torch.load(sweep.folder / "model.pt", weights_only=True)
    assert weights["weight"].tolist() == [[3.0, 3.0, 3.0]]
    assert load_state(sweep.folder).match_best_file(sweep.folder / "model.pt").job == 1
    kept = sweep.folder / "model-superseded-job0.pt"
    assert load_state(sweep.folder).match_best_file(kept).job == 0
    assert "model-superseded-job0.pt" in capsys.readouterr().out


def test_no_model_of_a_superseded_job_is_left_if_no_other_is_saved(sweep):
    sweep(train_kwargs={"epochs": 10})
    result = sweep.resume(train_kwargs={"epochs": 100}, sign=float("nan"))
    assert (result.best_model_name, result.best_model_score) == (None, None)
    assert not (sweep.folder / "model.pt").exists()


def test_the_old_values_make_the_old_jobs_count_again(sweep):
    sweep(train_kwargs={"epochs": 10})
    sweep.resume(train_kwargs={"epochs": 100})
    result = sweep.resume(train_kwargs={"epochs": 10}, best_model_device="cpu")
    assert sweep.ran == [3]  # for the best model, because another sweep had written its file
    assert [score for _, score, _, _ in result.stats] == [13, 12, 11]
    assert result.best_model_score == 13
    assert [row[1] for row in parse_autotrain_log(sweep.folder, silent=True)] == [13, 12, 11]
    assert [best[1] for best in load_history(sweep.folder).bests] == [11, 12, 13]
    sweep.resume(train_kwargs={"epochs": 10})
    assert sweep.ran == []


def test_only_what_changed_since_the_last_run_is_named(sweep, capsys):
    for a, b in ((1, 1), (2, 1), (2, 2)):
        capsys.readouterr()
        sweep(train_kwargs={"a": a, "b": b}, resume=(a, b) != (1, 1))
    assert "junky warning: train_kwargs['b'] changed since 3 jobs of" in capsys.readouterr().out


def test_a_job_no_longer_in_the_grid_is_superseded_with_the_others(sweep):
    sweep(train_kwargs={"epochs": 100}, widths=[1, 9])
    result = sweep.resume(train_kwargs={"epochs": 10}, widths=[1, 2])
    assert [score for _, score, _, _ in result.stats] == [12, 11]


def test_a_sweep_that_was_interrupted_after_a_change_continues(sweep):
    sweep(train_kwargs={"epochs": 10})
    sweep.resume(train_kwargs={"epochs": 100}, widths=[1])
    result = sweep.resume(train_kwargs={"epochs": 100})
    assert sweep.ran == [2, 3]
    assert [score for _, score, _, _ in result.stats] == [103, 102, 101]


def test_a_fixed_argument_changed_by_a_job_is_not_a_change(sweep):
    seen = []
    sweep(train_kwargs={"seen": seen})

    def changing(width):
        seen.append(width)
        return make(width)

    other = Runs(sweep.folder.with_name("other"))
    other(train_kwargs={"seen": seen}, make_model=changing)
    assert seen == [1, 2, 3]
    other.resume(train_kwargs={"seen": []})
    assert other.ran == []


def test_incomparable_arguments_are_reported_once_and_assumed_unchanged(sweep, capsys):
    class Logger:
        pass

    sweep(train_kwargs={"a": {"log": Logger(), "epochs": 10}})
    assert "cannot be compared" not in capsys.readouterr().out
    sweep.resume(train_kwargs={"a": {"log": Logger(), "epochs": 10}})
    assert sweep.ran == []
    assert capsys.readouterr().out.count("train_kwargs['a'] cannot be compared") == 1
    sweep.resume(train_kwargs={"a": {"log": Logger(), "epochs": 11}})
    assert sweep.ran == [1, 2, 3]  # its other items count


def test_parameters_that_cannot_be_compared_are_named(sweep, capsys):
    def make_model(width, extra):
        return make(width)

    def run(**options):
        return torch_autotrain(
            make_model,
            lambda *_: None,
            make_model_fit_params=[("width", [1, 2]), ("extra", [None, object()])],
            sweep_dir=sweep.folder,
            **options,
        )

    run()
    run(resume=True)
    out = capsys.readouterr().out
    assert out.count("2 jobs cannot be compared with those in the journal: extra contains") == 1
    with pytest.raises(ResumeError, match=r"1 job cannot be compared.*extra contains"):
        torch_autotrain(
            make_model,
            lambda *_: None,
            make_model_fit_params=[("width", [5]), ("extra", [object()])],
            sweep_dir=sweep.folder,
            resume=True,
        )


def test_a_namespace_of_settings_is_compared_by_its_content(sweep):
    sweep(argparse.Namespace(epochs=10, opt=torch.optim.Adam))
    sweep.resume(argparse.Namespace(epochs=10, opt=torch.optim.Adam))
    assert sweep.ran == []
    sweep.resume(argparse.Namespace(epochs=11, opt=torch.optim.Adam))
    assert sweep.ran == [1, 2, 3]


def test_another_sweep_is_refused_with_the_parameters_it_has(sweep):
    sweep()
    with pytest.raises(
        ResumeError, match=r"none of its 3 jobs .* Only its jobs have width\. Choose"
    ):
        torch_autotrain(lambda: make(1), lambda *_: None, sweep_dir=sweep.folder, resume=True)


@pytest.mark.parametrize(
    ("epochs", "scores"), [(10, [13, 12, 11]), (100, [103, 102, 101]), (7, [10, 9, 8])]
)
def test_a_lost_start_of_the_sweep_mixes_up_no_jobs(sweep, epochs, scores):
    """Each job records its arguments, so that those of another start are not assumed for it."""
    sweep(train_kwargs={"epochs": 10})
    sweep.resume(train_kwargs={"epochs": 100})
    path = sweep.folder / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    starts = [n for n, line in enumerate(lines) if b'"sweep_started"' in line[:40]]
    lines[starts[1]] = b"#" * (len(lines[starts[1]]) - 1) + b"\n"
    path.write_bytes(b"".join(lines))
    result = sweep.resume(train_kwargs={"epochs": epochs}, resume="repair")
    assert [score for _, score, _, _ in result.stats] == scores


def test_a_lost_best_model_that_is_not_trained_again_is_an_error(sweep, capsys):
    sweep()
    (sweep.folder / "model.pt").unlink()
    with pytest.raises(BestModelError, match="of job 2 is no longer in") as caught:
        sweep.resume(widths=[1, 2])
    assert sweep.ran == []
    assert caught.value.result[:4] == (None, None, None, None)
    assert [score for _, score, _, _ in caught.value.result.stats] == [3, 2, 1]
    assert "runs again if it is in this sweep" in capsys.readouterr().out
    assert sweep.resume(best_model_device="cpu").best_model_score == 3
    assert sweep.ran == [3]


# --- Journals of versions that did not record the values -------------------------------------------


def age(folder, names=()):
    """Turn the journal into one that does not record fixed values."""
    path = folder / "journal.jsonl"
    lines = []
    for record in read_journal(path):
        if record["event"] == "sweep_started":
            del record["spec"]["fixed"], record["spec"]["fixed_key"], record["superseded"]
        if record["event"] == "job_started":
            record["key"] = earlier_key(record["params"], sorted(names))
            record["info"] = {}
        lines.append(json.dumps(record) + "\n")
    path.write_text("".join(lines))


def test_jobs_of_an_older_journal_count_with_a_warning(sweep, capsys):
    sweep(train_kwargs={"epochs": 10})
    age(sweep.folder, ["epochs"])
    sweep.resume(train_kwargs={"epochs": 10})
    assert sweep.ran == []
    assert capsys.readouterr().out.count("did not record the values") == 1
    sweep.resume(train_kwargs={"epochs": 10})
    assert sweep.ran == []
    assert "did not record" not in capsys.readouterr().out
    result = sweep.resume(train_kwargs={"epochs": 100})  # recorded since, so the change is detected
    assert sweep.ran == [1, 2, 3]
    assert len(result.stats) == 3


def test_other_names_in_an_older_journal_are_a_change(sweep, capsys):
    sweep(train_kwargs={"epochs": 10})
    age(sweep.folder, ["epochs"])
    result = sweep.resume(train_kwargs={"epochs": 10, "lr": 1})
    assert sweep.ran == [1, 2, 3]
    assert len(result.stats) == 3
    assert "make_model_kwargs and train_kwargs changed since 3 jobs" in capsys.readouterr().out


def test_an_older_journal_of_other_jobs_is_another_sweep(sweep):
    sweep()
    age(sweep.folder)
    with pytest.raises(ResumeError, match="holds another sweep: none of its 3 jobs"):
        sweep.resume(widths=[7, 8])
