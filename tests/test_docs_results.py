"""Runs what docs/results.md shows."""

import doctest
import os
import re
import shlex
from pathlib import Path

import pytest
from sweep_events import attempt_failed, begin, ended, finish, score, started, write_journal

from junky_core.__main__ import main
from junky_core.leaderboard import write_leaderboard_csv
from junky_core.sweep_history import load_history
from junky_core.sweep_log import FileWriter, SweepLog

GUIDE = Path(__file__).parents[1] / "docs" / "results.md"
FIRST, SECOND = {"width": 128, "lr": 0.01}, {"width": 256, "lr": 0.01}


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    folder = tmp_path / "SWEEP"
    folder.mkdir()
    events = [
        started(2),
        begin(0, params=FIRST),
        begin(1, params=SECOND, slot=2, name="Thread-2_0"),
        score(0, 0.9583),
        finish(0, 0.9583, params=FIRST),
    ]
    log = SweepLog(FileWriter(folder / "autotrain.log"))
    for event in events:
        log.on_event(event)
    log.close()
    failed = attempt_failed(1, slot=2, retry=False)
    write_journal(folder / "journal.jsonl", [*events, failed, ended(finished=1)])
    write_leaderboard_csv(folder / "leaderboard.csv", load_history(folder).results(), "maximize")
    monkeypatch.chdir(tmp_path)
    return folder


def test_the_commands_run(sweep, capsys):
    (block,) = re.findall(r"```sh\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    commands = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert [command[0] for command in commands] == ["junky"] * 3
    assert [main(command[1:]) for command in commands] == [0, 0, 1]
    assert os.path.join("SWEEP", "report.html") in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_snippets_run(sweep):
    pytest.importorskip("pandas")
    text = GUIDE.read_text(encoding="utf-8")
    test = doctest.DocTestParser().get_doctest(text.expandtabs(8), {}, "results.md", str(GUIDE), 0)
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert runner.run(test).failed == 0
