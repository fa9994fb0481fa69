"""``hydra.launcher.resume``: a damaged journal is refused, or repaired with ``repair``."""

import io
import json
import os

import pytest
from launching import multirun

from junky_core.errors import ConfigError, JournalError, SweepFolderError
from junky_core.events import SweepStarted
from junky_core.record.live_state import LiveState
from junky_core.record.reader import load_state
from junky_core.views.history import load_history
from junky_core.views.watch import watch


class Sweep:
    def __init__(self, folder):
        self.folder = folder
        self.journal = folder / "sweep" / "journal.jsonl"
        self.ran = []

    def run(self, *overrides):
        self.ran.clear()

        def task(cfg):
            self.ran.append(cfg.width)
            return cfg.width

        multirun(task, ["width=1,2,3", *overrides], {"width": 0}, self.folder)

    def damage(self, job, event="job_finished"):
        """Change a bit of a record; return the number of its line."""
        lines = self.journal.read_bytes().splitlines(keepends=True)
        records = [json.loads(line) for line in lines]
        at = next(
            i
            for i, record in enumerate(records)
            if record["event"] == event and record["job"] == job
        )
        lines[at] = lines[at].replace(b'"name"', b'"namf"', 1)
        self.journal.write_bytes(b"".join(lines))
        return at + 1


@pytest.fixture
def sweep(tmp_path):
    sweep = Sweep(tmp_path)
    sweep.run()
    return sweep


def test_damage_is_refused_with_the_line_and_no_traceback(sweep):
    from hydra.errors import CompactHydraException

    line = sweep.damage(1)
    with pytest.raises(
        JournalError, match=f"line {line}: .*hydra.launcher.resume=repair"
    ) as caught:
        sweep.run("hydra.launcher.resume=true")
    assert isinstance(caught.value, CompactHydraException)
    assert sweep.ran == []


def test_repair_runs_what_was_lost(sweep, capsys):
    line = sweep.damage(1)
    sweep.run("hydra.launcher.resume=repair")
    assert sweep.ran == [2]
    assert f"line {line} (" in capsys.readouterr().out
    assert (sweep.folder / "sweep" / "journal.jsonl.damaged").exists()
    assert [job.score for job in load_state(sweep.journal).by_num.values()] == [1, 2, 3]
    sweep.run("hydra.launcher.resume=true")
    assert sweep.ran == []


def test_a_job_whose_start_was_lost_is_no_result_twice(sweep, capsys):
    sweep.damage(1, "job_started")
    for resume, ran in [("repair", [2]), ("true", [])]:
        sweep.run(f"hydra.launcher.resume={resume}")
        assert sweep.ran == ran
        table = (sweep.folder / "sweep" / "leaderboard.csv").read_text()
        assert [line.split(",")[2] for line in table.splitlines()[1:]] == ["3.0", "2.0", "1.0"]
        assert ("lost the start of job 1" in capsys.readouterr().out) == bool(ran)


@pytest.mark.parametrize("resume", ["false", "no", "null"])
def test_a_sweep_is_not_resumed_unasked(sweep, resume):
    with pytest.raises(OSError, match="already contains a sweep"):
        sweep.run(f"hydra.launcher.resume={resume}")


@pytest.mark.parametrize("resume", ["repiar", "[true]", "2.5"])
def test_resume_must_be_one_of_three(sweep, resume):
    with pytest.raises(ConfigError, match=r"resume=.*must be true, false or repair"):
        sweep.run(f"hydra.launcher.resume={resume}")


def test_batches_of_a_resumed_sweep_add_up(tmp_path, capsys):
    """Four of six jobs are finished; the sweep continues in batches of three."""
    folder = tmp_path / "sweep"

    def run(widths, *overrides):
        given = [f"width={widths}", "hydra.sweeper.max_batch_size=3", *overrides]
        multirun(lambda cfg: cfg.width, given, {"width": 0}, tmp_path)

    run("0,1,2,3")
    seen = []
    publish = LiveState.on_event

    def note(self, event):
        publish(self, event)
        if isinstance(event, SweepStarted):
            seen.append((self.finished, self.total))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LiveState, "on_event", note)
        run("0,1,2,3,4,5", "hydra.launcher.resume=true")
    assert seen == [(3, 3), (4, 6)]
    assert load_history(folder).total == 6
    stream = io.StringIO()
    watch(folder, once=True, interval_s=0.1, stream=stream)
    assert "6/6 done" in stream.getvalue()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs fifos")
@pytest.mark.parametrize("name", ["journal.jsonl", "autotrain.log"])
def test_a_fifo_in_place_of_a_file_of_the_sweep_is_refused(tmp_path, name):
    (tmp_path / "sweep").mkdir()
    os.mkfifo(tmp_path / "sweep" / name)
    with pytest.raises(SweepFolderError, match=f"{name}: it is a fifo"):
        multirun(lambda cfg: cfg.width, ["width=1,2"], {"width": 0}, tmp_path)
    assert os.listdir(tmp_path / "sweep") == [name]
