"""Control characters of parameters, errors and names reach no terminal, log, table or report raw."""

import csv
import io

import pytest
import torch
from sweep_events import begin, ended, fail, finish, started, write_journal
from view_contract import EVIL, Evil, raw

from junky_core import parse_autotrain_log, torch_autotrain
from junky_core.__main__ import main
from junky_core.events import SlotClosed
from junky_core.jobs import JobResult
from junky_core.views.leaderboard import leaderboard_text, write_leaderboard_csv
from junky_core.views.preview import preview_text


def evil_function():
    pass


evil_function.__qualname__ = EVIL


def results():
    params = {EVIL: EVIL, "b": Evil(), "c": evil_function, "d": 0.5}
    return [
        JobResult(0, EVIL, params, "finished", 0.5, device=EVIL, slot=1),
        JobResult(1, EVIL, {**params, "d": 1}, "failed", error=f"{EVIL}\n{EVIL}", device="cpu"),
        JobResult(2, EVIL, {**params, EVIL: 1}, "stopped"),
    ]


@pytest.mark.parametrize("width", [40, 200])
def test_leaderboard(width):
    text = leaderboard_text(results(), "maximize", width=width)
    assert not raw(text)
    assert r"\x1b[2J" in text


def test_csv(tmp_path):
    path = tmp_path / "x.csv"
    write_leaderboard_csv(path, results(), "maximize")
    text = path.read_bytes().decode()
    assert not raw(text.replace("\r\n", ""))
    rows = list(csv.reader(io.StringIO(text)))
    assert len(rows) == 4
    assert rows[1][4] == r"a\x1b[2Jb\x00c\rd\x9b31me\u202ef\x07g\x08"


def test_preview():
    text = preview_text(1, [EVIL], lambda _num: {EVIL: Evil(), "b": EVIL})
    assert not raw(text)


def events():
    params = {EVIL: EVIL, "b": Evil()}
    return [
        started(5, devices=[EVIL, "cpu"]),
        begin(0, params=params, name=EVIL),
        finish(0, 0.5, params=params, name=EVIL),
        begin(1, params={**params, EVIL: 2}, slot=2),
        begin(2, params=params, name=EVIL),
        SlotClosed(slot=3, device=EVIL, reason=EVIL),
    ]


def test_commands(tmp_path, capsys):
    more = [fail(1, params={EVIL: 1}), ended(reason=EVIL, finished=1, failed=1)]
    write_journal(tmp_path / "journal.jsonl", [*events(), *more])
    for command in (["leaderboard"], ["watch", "--once"], ["report"], ["watch"]):
        main([*command, str(tmp_path)])
        said = capsys.readouterr()
        assert not raw(said.out), command
        assert not raw(said.err)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not raw(page)
    assert "\\u001b" not in page
    assert main(["leaderboard", str(tmp_path / "\x1b[2J")]) == 2
    assert not raw(capsys.readouterr().err)


def test_a_sweep_and_its_log_read_back(tmp_path, capsys):
    def train(device, loaders, model, params, save_best, log_prefix):
        if params[EVIL] == "x":
            raise ValueError(EVIL)
        save_best(model, 0.5)

    result = torch_autotrain(
        lambda **params: (torch.nn.Linear(1, 1), params),
        train,
        make_model_fit_params=[(EVIL, ["y\x1b[31m", "x"]), ("b", Evil())],
        sweep_dir=tmp_path,
        report=True,
        max_retries=0,
    )
    out = capsys.readouterr().out
    log = (tmp_path / "autotrain.log").read_bytes().decode()
    for text in (out, log, repr(result), (tmp_path / "report.html").read_text()):
        assert not raw(text)
    rows = parse_autotrain_log(tmp_path / "autotrain.log")
    assert not raw(capsys.readouterr().out, allowed="\n\t")
    assert [(row[1], row[3]) for row in rows] == [(0.5, True), (None, False)]
    (tmp_path / "autotrain.log").unlink()
    assert parse_autotrain_log(tmp_path, silent=True)[0][2][EVIL] == "y\x1b[31m"


def test_a_log_reads_back_strings_as_they_were(tmp_path, capsys):
    torch_autotrain(
        lambda **params: (torch.nn.Linear(1, 1),),
        lambda device, loaders, model, save_best, log_prefix: save_best(model, 1),
        make_model_fit_params=[("a", [EVIL, "\ttab\n"]), (EVIL, [1])],
        sweep_dir=tmp_path,
    )
    rows = parse_autotrain_log(tmp_path, silent=True)
    assert sorted((row[2] for row in rows), key=str) == [
        {"a": "\ttab\n", EVIL: 1},
        {"a": EVIL, EVIL: 1},
    ]


# -- formulas ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", " =1", "\uff1d1", "-", "+", "=", "-1_0"],
)
def test_a_text_in_the_table_is_no_formula(tmp_path, text):
    path = tmp_path / "x.csv"
    result = JobResult(0, text, {text: text, "f": [text]}, "failed", error=text, device=text)
    write_leaderboard_csv(path, [result], "maximize")
    for row in csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")):
        for cell in row:
            assert cell.lstrip()[:1] not in ("=", "+", "-", "@", "\uff1d")


@pytest.mark.parametrize(("start", "shown"), [("\t", "\\t"), ("\r", "\\r"), ("\n", "\\n")])
def test_a_tab_or_a_return_before_a_formula_is_escaped(tmp_path, start, shown):
    path = tmp_path / "x.csv"
    write_leaderboard_csv(path, [JobResult(0, "n", {}, "failed", error=f"{start}=1")], "maximize")
    assert path.read_text().splitlines()[1].endswith(f",{shown}=1")


def test_numbers_stay_numbers(tmp_path):
    import pandas as pd

    path = tmp_path / "x.csv"
    params = {"a": -0.5, "b": -3, "c": "-1e-3", "d": "+4", "e": -1e300}
    jobs = [JobResult(n, "n", params, "finished", score) for n, score in enumerate([-0.25, -1e-9])]
    jobs.append(JobResult(2, "n", params, "finished", float("-inf")))
    write_leaderboard_csv(path, jobs, "maximize")
    frame = pd.read_csv(path)
    assert frame["score"].tolist() == [-1e-9, -0.25, float("-inf")]
    assert frame.iloc[0][list(params)].tolist() == [-0.5, -3, -1e-3, 4, -1e300]
