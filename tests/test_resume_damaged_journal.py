"""Resuming with a damaged journal, or with one of an older version."""

import json

import pytest
import torch

from junky_core import torch_autotrain
from junky_core.errors import ConfigError, JournalError
from junky_core.record.reader import load_state, read_journal


def numbers(path):
    """Return the numbers in an intact journal."""
    assert len(list(read_journal(path))) == len(path.read_bytes().splitlines())
    return [json.loads(line)["n"] for line in path.read_bytes().splitlines()]


def make_model(a):
    return torch.nn.Linear(2, 1), a


class Sweep:
    def __init__(self, folder):
        self.folder = folder
        self.journal = folder / "journal.jsonl"
        self.ran = []

    def run(self, **kwargs):
        self.ran.clear()

        def train(device, loaders, model, a, save_best, log_prefix):
            self.ran.append(a)
            save_best(model, a / 10)
            return a

        return torch_autotrain(
            make_model,
            train,
            make_model_fit_params=[("a", [1, 2, 3])],
            sweep_dir=self.folder,
            threads_per_slot=1,
            **kwargs,
        )

    def damage(self, event, job):
        """Change a bit of the last record of this kind."""
        lines = self.journal.read_bytes().splitlines(keepends=True)
        records = [json.loads(line) for line in lines]
        at = max(i for i, r in enumerate(records) if r["event"] == event and r.get("job") == job)
        line = bytearray(lines[at])
        line[line.index(b'"time": ') + 9] ^= 1
        lines[at] = bytes(line)
        self.journal.write_bytes(b"".join(lines))
        return at + 1


@pytest.fixture
def sweep(tmp_path):
    sweep = Sweep(tmp_path)
    sweep.run()
    return sweep


def test_resume_refuses_damage_and_runs_nothing(sweep):
    line = sweep.damage("job_finished", 1)
    before = sweep.journal.read_bytes()
    with pytest.raises(JournalError, match=f"line {line}: .*resume='repair'"):
        sweep.run(resume=True)
    assert sweep.ran == []
    assert sweep.journal.read_bytes() == before


def test_resume_repair_runs_what_was_lost_and_keeps_the_rest(sweep, capsys):
    line = sweep.damage("job_finished", 1)
    result = sweep.run(resume="repair")
    assert sweep.ran == [2]
    assert [row[2]["a"] for row in result.stats] == [3, 2, 1]
    assert result.best_model_params == {"a": 3}
    said = capsys.readouterr().out
    assert f"line {line} (" in said
    assert "journal.jsonl.damaged" in said
    notices = [r["message"] for r in read_journal(sweep.journal) if r["event"] == "notice"]
    assert f"line {line} (" in notices[-1]
    assert sweep.run(resume=True).stats == result.stats
    assert sweep.ran == []


def test_a_job_whose_start_was_lost_runs_again(sweep, capsys):
    """Check that the model on disk is that of the job."""
    sweep.damage("job_started", 2)
    result = sweep.run(resume="repair", best_model_device="cpu")
    assert 3 in sweep.ran
    assert [row[2]["a"] for row in result.stats] == [3, 2, 1]
    assert result.best_model_params == {"a": 3}
    said = capsys.readouterr().out
    assert "lost the start of job 2" in said
    assert "changed since" not in said
    assert load_state(sweep.journal).match_best_file(sweep.folder / "model.pt").job == 3


def test_resume_repair_of_a_whole_journal_is_a_resume(sweep, capsys):
    sweep.run(resume="repair")
    assert sweep.ran == []
    assert "damaged" not in capsys.readouterr().out
    assert not sweep.journal.with_name("journal.jsonl.damaged").exists()


@pytest.mark.parametrize("saves", [["best_saving", "best_saved"], ["best_saved"]])
def test_a_best_model_whose_record_was_lost_is_trained_again(sweep, saves):
    for event in saves:
        sweep.damage(event, 2)
    result = sweep.run(resume="repair", best_model_device="cpu")
    assert sweep.ran == ([3] if "best_saving" in saves else [])
    assert result.best_model_params == {"a": 3}
    assert result.best_model_score == 0.3


def test_a_best_model_is_trained_again_if_all_records_of_saving_were_lost(sweep):
    lines = sweep.journal.read_bytes().splitlines(keepends=True)
    sweep.journal.write_bytes(b"".join(line for line in lines if b'"best_sav' not in line))
    result = sweep.run(resume="repair", best_model_device="cpu")
    assert sweep.ran == [3]
    assert result.best_model_score == 0.3


def test_an_old_journal_is_resumed(sweep):
    old = list(read_journal(sweep.journal))
    sweep.journal.write_text("".join(json.dumps(record) + "\n" for record in old))
    sweep.run(resume=True)
    assert sweep.ran == []
    count = len(numbers(sweep.journal))
    assert numbers(sweep.journal) == [*range(1, count + 1)]
    assert count > len(old)


@pytest.mark.parametrize("resume", ["true", "Repair", 1, None, ""])
def test_resume_must_be_one_of_three(tmp_path, resume):
    with pytest.raises(ConfigError, match=r"True, False or 'repair'"):
        Sweep(tmp_path).run(resume=resume)
