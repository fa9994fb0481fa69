import csv
import subprocess
import sys

import pytest
from sweep_events import begin, ended, fail, finish, started, write_journal

from junky_core.__main__ import main

GOOD = [started(2), begin(0), finish(0, 0.5), begin(1), finish(1, 0.7), ended(finished=2)]
BAD = [started(1), begin(0), fail(0), ended(failed=1)]


@pytest.fixture
def good(tmp_path):
    write_journal(tmp_path / "journal.jsonl", GOOD)
    return str(tmp_path)


@pytest.fixture
def bad(tmp_path):
    write_journal(tmp_path / "journal.jsonl", BAD)
    return str(tmp_path)


def test_leaderboard_prints_the_ranks(good, capsys):
    assert main(["leaderboard", good]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["rank", "score", "job"]
    assert lines[2].split()[:3] == ["1", "0.7", "1"]


def test_leaderboard_of_a_log(tmp_path, capsys):
    (tmp_path / "x.log").write_text(
        "Thread-1_0: (('a', 1),)\nThread-1_0: new maximum score 0.5: OVERALL MAXIMUM\n"
        "Thread-1 finished: cpu (1 cycles)\n"
    )
    assert main(["leaderboard", str(tmp_path / "x.log")]) == 0
    assert "0.5" in capsys.readouterr().out


def test_leaderboard_writes_csv(good, tmp_path, capsys):
    assert main(["leaderboard", good, "--csv", str(tmp_path / "x.csv"), "-n", "1"]) == 0
    with (tmp_path / "x.csv").open() as file:
        assert [row["score"] for row in csv.DictReader(file)] == ["0.7", "0.5"]
    assert "... and 1 more finished job" in capsys.readouterr().out


def test_nothing_finished_is_status_1(bad, capsys):
    assert main(["leaderboard", bad]) == 1
    assert "no job finished" in capsys.readouterr().out
    assert main(["report", bad]) == 1


def test_report_prints_the_page_it_wrote(good, tmp_path, capsys):
    assert main(["report", good]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "report.html")
    assert main(["report", good, "-o", str(tmp_path / "y.html")]) == 0
    assert (tmp_path / "y.html").stat().st_size > 10_000


def test_the_path_of_the_page_is_printed_without_control_characters(good, tmp_path, capsys):
    assert main(["report", good, "-o", str(tmp_path / "a\x1b[1mb.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "a\\x1b[1mb.html")


@pytest.mark.parametrize("command", ["leaderboard", "report", "watch"])
def test_what_cannot_be_read_is_status_2(command, tmp_path, capsys):
    assert main([command, str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert main([command, str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize("command", ["leaderboard", "report", "watch"])
def test_help_says_what_the_exit_status_means(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert "exit status:" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["fly"],
        ["leaderboard"],
        ["leaderboard", "x", "-n", "0"],
        ["watch", "--interval", "0", "x"],
    ],
)
def test_a_wrong_command_line_is_status_2(argv, capsys):
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2


def test_a_closed_pipe_is_not_an_error(good):
    done = subprocess.run(
        f"{sys.executable} -m junky_core leaderboard {good} | true",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
