import json
import math
import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from junky_core.errors import LogError, LogNotFoundError
from junky_core.events import (
    AttemptFailed,
    JobFinished,
    JobStarted,
    ScoreReported,
    SlotClosed,
    SweepStarted,
)
from junky_core.jobs import rank_key
from junky_core.logs.parser import parse_autotrain_log
from junky_core.logs.text_log import SweepLog
from junky_core.record.codec import encode_event

OLD = """AUTOTRAIN STARTED
=================
make_model args: ()
make_model kwargs: {}
=========
make_model fit kwargs (total 4 combinations): [{
    a: 100, b: 0.1
}, {
    a: 50, b: 0.5
}]
=========
train args: ()
train kwargs: {}
=========
devices: [cpu
          cpu]
=========


=== Creating 2 threads ===

Thread-7 started: cpu

Thread-7_0: (('a', 100), ('b', 0.1))


Thread-7_0 model: Linear(in_features=2, out_features=2, bias=True) cpu

Thread-7_0: Epoch 1:
            Losses: train = 0.50000000, test = 0.40000000
Thread-8 started: cpu

Thread-8_0: (('a', 100), ('b', 0.5))

Thread-7_0: new maximum score 0.61290000: OVERALL MAXIMUM
Thread-8_0: new maximum score 0.50000000 (less than maximum 0.61290000 of Thread-7_0)
Thread-7_0: new maximum score 0.62000000: OVERALL MAXIMUM
Thread-7_0: Maximum bad epochs exceeded. Process has been stopped. Best score 0.62 (on epoch 2)

Thread-7_1: (('a', 50), ('b', 0.1))

Thread-7_1: new maximum score 0.10000000 (less than maximum 0.62000000 of Thread-7_0)
"""
OLD_ROWS = [
    ("Thread-7_0", 0.62, {"a": 100, "b": 0.1}, True),
    ("Thread-8_0", 0.5, {"a": 100, "b": 0.5}, False),
    ("Thread-7_1", 0.1, {"a": 50, "b": 0.1}, False),
]


@pytest.fixture
def parse(tmp_path):
    def parse(text, encoding="utf-8", **kwargs):
        path = tmp_path / "some.log"
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return parse_autotrain_log(path, **{"silent": True, **kwargs})

    return parse


def new_log(*jobs, sweep="s", direction="maximize", resumed=False):
    head = f"AUTOTRAIN STARTED\n=====\nsweep: {sweep}{' (resumed)' if resumed else ''}\n"
    return head + f"direction: {direction}\n=====\n" + "".join(jobs)


def new_job(num, name, score=None, params="(('a', 1),)", *, finished=True, attempt=1):
    again = f", attempt {attempt}" if attempt > 1 else ""
    text = f"{name}: job {num} on cpu{again}\n{name}: {params}\n"
    if score is not None:
        text += f"{name}: new maximum score {score}: OVERALL MAXIMUM\n"
    if finished:
        text += f"{name}: finished: {'no score' if score is None else f'score {score}'}, 1.000 s\n"
    return text


# -- logs of the old tool


def test_old_log(parse):
    assert parse(OLD) == OLD_ROWS


def test_old_job_is_finished_by_a_later_one_of_its_thread(parse):
    rows = parse("Thread-1_0: (('a', 1),)\nThread-1_1: (('a', 2),)\n")
    assert [(row[0], row[3]) for row in rows] == [("Thread-1_0", True), ("Thread-1_1", False)]


def test_old_job_is_finished_by_the_end_of_its_thread(parse):
    text = "Thread-1_0: (('a', 1),)\nThread-11_0: (('a', 2),)\nThread-1 finished: cpu (1 cycles)\n"
    assert {row[0]: row[3] for row in parse(text)} == {"Thread-1_0": True, "Thread-11_0": False}


@pytest.mark.parametrize(
    "end",
    [
        "Maximum bad epochs exceeded. Process has stopped",
        "Maximum bad epochs exceeded. Process has been stopped. Best score 1 (on epoch 2)",
        "Maximum epochs exceeded. Process has been stopped.",
    ],
)
def test_old_job_is_finished_by_its_end_line(parse, end):
    assert parse(f"Thread-1_0: (('a', 1),)\nThread-1_0: {end}\n")[0][3] is True


def test_old_names_of_newer_pythons(parse):
    text = OLD.replace("Thread-7", "Thread-7 (run_model)").replace(
        "Thread-8", "Thread-8 (run_model)"
    )
    text += "Thread-7 (run_model) finished: cpu (2 cycles)\n"
    assert [(row[0], row[3]) for row in parse(text)] == [
        ("Thread-7 (run_model)_0", True),
        ("Thread-8 (run_model)_0", False),
        ("Thread-7 (run_model)_1", True),
    ]


def test_old_retry_is_one_row(parse):
    text = (
        "Thread-1_0: (('a', 1),)\nThread-1_0: new maximum score 0.9: OVERALL MAXIMUM\n"
        "Thread-2_0: (('a', 2),)\nThread-2 finished: cpu (1 cycles)\n"
        "\n=== 1 thread was terminated abnormally. Repeating ===\n\n"
        "Thread-3_0: (('a', 1),)\nThread-3_0: new maximum score 0.5 (less than ...\n"
    )
    assert parse(text) == [
        ("Thread-3_0", 0.5, {"a": 1}, False),
        ("Thread-2_0", None, {"a": 2}, True),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "Thread-1_0: (0.5, 0.3)",
        "Thread-1_0: (('acc', 0.5), ('loss', 0.1))",
        "Thread-1_0: (('a', 1),)",
        "Thread-1_0: ()",
        "Thread-1_0: score 0.7",
        "Thread-1_0: new best at epoch 3",
        "Thread-1_0: (('a', 5), ('b', 6)) -> 0.5",
    ],
)
def test_output_of_the_training_is_ignored(parse, line):
    text = "Thread-1_0: (('a', 1),)\nThread-1_0: new maximum score 0.5: OVERALL MAXIMUM\n"
    assert parse(text + line + "\n") == parse(text)


# -- values


@pytest.mark.parametrize(
    ("text", "score"),
    [("-0.5", -0.5), ("1e-05", 1e-5), ("-1.5E+3", -1500.0), ("3", 3.0), ("inf", math.inf)],
)
def test_scores(parse, text, score):
    rows = parse(f"Thread-1_0: (('a', 1),)\nThread-1_0: new maximum score {text}: OVERALL MAXIMUM")
    assert rows[0][1] == score


def test_params_that_are_no_literals_stay_text(parse):
    text = "(('a', <class 'int'>), ('b', don't))"
    assert parse(f"Thread-1_0: {text}\n")[0][2] == text


def test_params_are_never_evaluated(parse, tmp_path):
    gone = tmp_path / "gone"
    text = f"(('a', __import__('os').mkdir('{gone}')),)"
    assert parse(f"Thread-1_0: {text}\n")[0][2] == text
    assert not gone.exists()


def test_params_that_quote_a_log_line(parse):
    value = "Thread-2_0: new maximum score 9: OVERALL MAXIMUM"
    assert parse(new_log(new_job(0, "Thread-1_0", 0.5, f"(('a', {value!r}),)"))) == [
        ("Thread-1_0", 0.5, {"a": value}, True)
    ]


@pytest.mark.parametrize(
    ("lines", "params"),
    [
        ("(('a', 50), ('b',\n 0.1))", {"a": 50, "b": 0.1}),
        ("(('a', 50), ('long_na\nme', 0.1))", {"a": 50, "long_name": 0.1}),
        ("(('a', tensor([1,\n    2])),)", "(('a', tensor([1,\n    2])),)"),
    ],
)
def test_params_over_several_lines(parse, lines, params):
    text = f"Thread-1_0: {lines}\nThread-1_0: new maximum score 0.5: OVERALL MAXIMUM\n"
    assert parse(text) == [("Thread-1_0", 0.5, params, False)]


def test_unfinished_params_do_not_hide_another_job(parse):
    text = "Thread-1_0: (('a', 5\nThread-2_0: (('a', 2),)\nThread-2_0: new maximum score 0.5\n"
    assert parse(text) == [
        ("Thread-2_0", 0.5, {"a": 2}, False),
        ("Thread-1_0", None, "(('a', 5", False),
    ]


def test_a_job_without_params(parse):
    assert parse(new_log(new_job(0, "Thread-1_0", 0.5, "()"))) == [("Thread-1_0", 0.5, {}, True)]


def test_the_tail_of_a_log(parse):
    text = "Thread-1_3: new maximum score 0.5: OVERALL MAXIMUM\n"
    assert parse(text) == [("Thread-1_3", 0.5, None, False)]


# -- logs of this project


def test_the_finished_score_is_final(parse):
    text = new_log(
        "Thread-1_0: job 0 on cpu\nThread-1_0: (('a', 1),)\n"
        "Thread-1_0: new maximum score 0.5: OVERALL MAXIMUM\n"
        "Thread-1_0: finished: score 0.7, 1.0 s\n"
    )
    assert parse(text) == [("Thread-1_0", 0.7, {"a": 1}, True)]


def test_a_retried_job_has_one_row_with_its_last_name(parse):
    text = new_log(
        new_job(0, "Thread-1_0", finished=False),
        "Thread-1_0: failed: ValueError: bad (attempt 1, runs again at the end)\n",
        new_job(1, "Thread-1_1", 0.3),
        new_job(0, "Thread-2_5", 0.6, attempt=2),
    )
    assert [row[0] for row in parse(text)] == ["Thread-2_5", "Thread-1_1"]


def test_a_failed_job_is_not_finished(parse):
    text = new_log(
        new_job(0, "Thread-1_0", finished=False),
        "Thread-1_0: failed: ValueError: bad (attempt 2, given up)\n",
        new_job(1, "Thread-1_1", 0.3),
        "Thread-1 finished: cpu (2 jobs)\n",
    )
    assert {row[0]: row[3] for row in parse(text)} == {"Thread-1_0": False, "Thread-1_1": True}


def test_a_traceback_that_quotes_a_log_line_is_ignored(parse):
    text = new_log(
        new_job(0, "Thread-1_0", 0.5),
        "Thread-1_0: failed: X: Thread-1_0: new maximum score 7 (attempt 2, given up)\n"
        "Thread-1_0: | Thread-1_0: new maximum score 8: OVERALL MAXIMUM\n"
        "junky warning: Thread-1_0: new maximum score 9: OVERALL MAXIMUM\n",
    )
    assert parse(text)[0][1] == 0.5


def test_best_first_then_not_finite_then_none(parse):
    text = new_log(
        *(new_job(i, f"Thread-1_{i}", s) for i, s in enumerate(["0.1", None, "nan", "0.5", "inf"]))
    )
    assert [row[0][-1] for row in parse(text)] == ["3", "0", "2", "4", "1"]


def test_minimize(parse):
    jobs = [new_job(i, f"Thread-1_{i}", s) for i, s in enumerate([0.5, 0.1])]
    assert [row[1] for row in parse(new_log(*jobs, direction="minimize"))] == [0.1, 0.5]


def test_minimize_is_known_from_its_lines(parse):
    text = (
        "Thread-1_0: (('a', 1),)\nThread-1_0: new minimum score 0.5: OVERALL MINIMUM\n"
        "Thread-2_0: (('a', 2),)\nThread-2_0: new minimum score 0.2: OVERALL MINIMUM\n"
        "Thread-2_0: new minimum score 0.1: OVERALL MINIMUM\n"
    )
    assert [row[1] for row in parse(text)] == [0.1, 0.5]


def test_a_config_printed_by_the_training_does_not_change_the_direction(parse):
    text = new_log(new_job(0, "Thread-1_0", 0.1), "direction: minimize\n")
    text += new_job(1, "Thread-1_1", 0.2)
    assert [row[1] for row in parse(text)] == [0.2, 0.1]


def test_ties_go_to_the_lower_job_number(parse):
    text = new_log(new_job(1, "Thread-2_0", 0.5), new_job(0, "Thread-1_0", 0.5))
    assert [row[0] for row in parse(text)] == ["Thread-1_0", "Thread-2_0"]


# -- several sweeps


def test_rows_of_all_sweeps_of_a_file(parse):
    text = new_log(new_job(0, "Thread-1_0", 0.3), sweep="x") + OLD
    text += new_log(new_job(0, "Thread-1_0", 0.9), sweep="y")
    assert [row[1] for row in parse(text)] == [0.9, 0.62, 0.5, 0.3, 0.1]


def test_sweeps_without_a_header_between(parse):
    text = (
        "Thread-1_0: (('a', 1),)\nThread-1_0: new maximum score 0.5: OVERALL MAXIMUM\n"
        "Thread-1 finished: cpu (1 cycles)\n"
        "Thread-1_0: (('a', 1),)\nThread-1_0: new maximum score 0.6: OVERALL MAXIMUM\n"
    )
    assert [(row[1], row[3]) for row in parse(text)] == [(0.6, False), (0.5, True)]


def test_new_sweeps_without_a_header_between(parse):
    text = new_job(0, "Thread-1_0", 0.5) + new_job(0, "Thread-1_0", 0.6)
    assert [row[1] for row in parse(text)] == [0.6, 0.5]


def test_a_resumed_sweep_is_one_sweep(parse):
    text = new_log(
        new_job(0, "Thread-1_0", 0.3), new_job(1, "Thread-2_0", 0.8, finished=False)
    ) + new_log(new_job(1, "Thread-1_0", 0.6), resumed=True)
    assert parse(text) == [
        ("Thread-1_0", 0.6, {"a": 1}, True),
        ("Thread-1_0", 0.3, {"a": 1}, True),
    ]


def test_a_job_that_a_resumed_sweep_runs_again_begins_without_a_score(parse):
    scored = "Thread-1_0: new maximum score 0.8: OVERALL MAXIMUM\n"
    text = new_log(new_job(0, "Thread-1_0", finished=False), scored)
    assert parse(text + new_log(new_job(0, "Thread-1_1", finished=False), resumed=True)) == [
        ("Thread-1_1", None, {"a": 1}, False)
    ]
    again = new_log(new_job(0, "Thread-1_1", finished=False, attempt=2), resumed=True)
    assert parse(text + again)[0][1] == 0.8


def test_batches_of_a_sweep_are_one_sweep(parse):
    text = new_log(new_job(0, "Thread-1_0", 0.3)) + new_log(new_job(1, "Thread-1_1", 0.6))
    assert [row[1] for row in parse(text)] == [0.6, 0.3]


def test_sweeps_of_opposite_directions_are_ranked_separately(parse):
    text = new_log(new_job(0, "Thread-1_0", 1), new_job(1, "Thread-1_1", 2), sweep="x")
    text += new_log(
        new_job(0, "Thread-1_0", 3),
        new_job(1, "Thread-1_1", 4),
        sweep="y",
        direction="minimize",
    )
    assert [row[1] for row in parse(text)] == [2, 1, 3, 4]


# -- noise


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: f"[2026-11-22 20:00:00,123][junky][INFO] - {line}",
        lambda line: f"    {line}",
        lambda line: f">>> {line}",
        lambda line: f"\x1b[32m{line}\x1b[0m",
        lambda line: line.replace(" ", "\xa0"),
        lambda line: f"Epoch 3:  45%|████▌     | 450/1000{line}",
        lambda line: f"\r 10%|#  |\r{line}\r",
        lambda line: f"{line}   ",
        lambda line: f"In [3]: plt.show()\n{line}\n\n<Figure size 640x480>",
        lambda line: f"\ufeff{line}",
    ],
)
@pytest.mark.parametrize(
    "log", [OLD, new_log(new_job(0, "Thread-1_0", -0.5), new_job(3, "Thread-2_0", 0.5))]
)
def test_noise_changes_nothing(parse, spoil, log):
    noisy = "\n".join(spoil(line) if line else line for line in log.split("\n"))
    assert parse(noisy) == parse(log)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_encodings(parse, encoding):
    assert parse(OLD.replace("\n", "\r\n"), encoding) == OLD_ROWS


def test_invalid_bytes_are_ignored(parse):
    assert parse(b"\xff\xfe\xfa"[2:] + b"\x80\x81\n" + OLD.encode()) == OLD_ROWS


def test_a_line_that_is_printed_twice_counts_once(parse):
    lines = new_log(new_job(0, "Thread-1_0", 0.5), new_job(1, "Thread-1_1", 0.4)).splitlines()
    twice = "\n".join(line + "\n" + line for line in lines)
    assert parse(twice) == parse("\n".join(lines))


# -- sources


def test_a_sweep_folder(tmp_path):
    (tmp_path / "autotrain.log").write_text(OLD)
    assert parse_autotrain_log(str(tmp_path), silent=True) == OLD_ROWS


def test_a_sweep_folder_with_only_a_journal(tmp_path):
    write_journal(tmp_path / "journal.jsonl")
    assert parse_autotrain_log(tmp_path, silent=True) == JOURNAL_ROWS


def test_a_sweep_folder_whose_log_is_another_file(tmp_path):
    (tmp_path / "a.log").write_text("nothing of a sweep\n")
    (tmp_path / "stdout.log").write_text(OLD)
    assert parse_autotrain_log(tmp_path, silent=True) == OLD_ROWS


def test_a_journal(tmp_path):
    write_journal(tmp_path / "journal.jsonl")
    assert parse_autotrain_log(tmp_path / "journal.jsonl", silent=True) == JOURNAL_ROWS


def test_a_saved_notebook(tmp_path):
    path = tmp_path / "x.ipynb"
    lines = OLD.splitlines(keepends=True)
    outputs = [{"text": lines[:30]}, {"data": {}}, {"text": "".join(lines[30:])}]
    cells = [{"source": "code"}, {"outputs": outputs[:2]}, {"outputs": outputs[2:]}]
    path.write_text(json.dumps({"cells": cells}))
    assert parse_autotrain_log(path, silent=True) == OLD_ROWS
    path.write_text("{}")
    with pytest.raises(LogError, match="not a notebook"):
        parse_autotrain_log(path)


JOURNAL_ROWS = [("Thread-2_1", 0.2, {"a": (1, 2)}, True), ("Thread-2_0", 0.4, {"a": 2}, False)]


def write_journal(path):
    def end(name, score, slot):
        return {
            "job": 0,
            "name": name,
            "slot": slot,
            "device": "cpu",
            "score": score,
            "duration_s": 1.0,
        }

    def begin(job, name, params, slot, attempt=1):
        return JobStarted(
            job=job,
            key=str(job),
            params=params,
            name=name,
            slot=slot,
            device="cpu",
            attempt=attempt,
        )

    def score(value, name="Thread-2_0"):
        return ScoreReported(
            job=1,
            name=name,
            score=value,
            improved=True,
            overall=True,
            best_score=value,
            best_name=name,
        )

    events = [
        SweepStarted(sweep_id="s", kind="python", total=2, direction="minimize"),
        begin(0, "Thread-1_0", {"a": (1, 2)}, 1),
        begin(1, "Thread-2_0", {"a": 2}, 2),
        score(0.5),
        score(0.4),
        begin(0, "Thread-2_1", {"a": (1, 2)}, 2, attempt=2),
        JobFinished(params={"a": (1, 2)}, attempt=2, value=None, **end("Thread-2_1", 0.2, 2)),
    ]
    path.write_bytes(b"".join(map(encode_event, events)) + b'{"event": "job_fin')


def test_a_damaged_journal(tmp_path):
    path = tmp_path / "journal.jsonl"
    write_journal(path)
    path.write_bytes(path.read_bytes().replace(b'"score_improved"', b'"score_im', 1))
    with pytest.raises(LogError, match="line 4"):
        parse_autotrain_log(path)


# -- errors


def test_a_missing_log(tmp_path):
    with pytest.raises(LogNotFoundError, match=r"no\.log"):
        parse_autotrain_log(tmp_path / "no.log")


def test_a_missing_log_is_also_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        parse_autotrain_log(tmp_path / "no.log")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"just\nsome text\nThread-1 is a thread\n", "not the log of a sweep"),
        (bytes(range(256)) * 100, "not the log of a sweep"),
    ],
)
def test_a_file_that_is_not_a_log(tmp_path, content, message):
    path = tmp_path / "x.log"
    path.write_bytes(content)
    with pytest.raises(LogError, match=message) as error:
        parse_autotrain_log(path)
    assert "x.log" in str(error.value)


def test_a_folder_with_no_log(tmp_path):
    (tmp_path / "run1").mkdir()
    (tmp_path / "run1" / "autotrain.log").write_text(OLD)
    with pytest.raises(LogError, match=r"autotrain\.log.*run1"):
        parse_autotrain_log(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_log_that_may_not_be_read(tmp_path):
    path = tmp_path / "x.log"
    path.write_text(OLD)
    path.chmod(0)
    with pytest.raises(LogError, match="cannot be read"):
        parse_autotrain_log(path)


def test_a_sweep_with_no_job_yet(parse):
    assert parse(new_log()) == []


# -- what it prints


def test_prints_a_line_a_row_with_a_star_before_unfinished_names(parse, capsys):
    parse(OLD, silent=False)
    assert capsys.readouterr().out.splitlines() == [
        "Thread-7_0\t0.62\t{'a': 100, 'b': 0.1}",
        "*Thread-8_0\t0.5\t{'a': 100, 'b': 0.5}",
        "*Thread-7_1\t0.1\t{'a': 50, 'b': 0.1}",
    ]


def test_silent_prints_nothing(parse, capsys):
    parse(OLD)
    assert capsys.readouterr().out == ""


# -- size


@pytest.mark.parametrize(
    "line",
    [
        "Thread-1_0: Epoch 1: loss 0.5",
        "Thread-1_0: (" * 20_000,
        "Thread-1_0: failed: " * 20_000,
        "Thread-1_0: (('a', '" + "\\" * 300_000,
        "(" * 300_000,
        "Thread-1 (" * 30_000,
        "Thread-" + "1" * 300_000,
        "Thread-1_0: new maximum score " + "1" * 300_000,
        "Thread-1_0: finished: score " + "1" * 300_000,
    ],
)
def test_time_is_linear_in_hostile_lines(parse, line):
    began = time.process_time()  # quadratic time would take minutes
    parse("Thread-1_0: (('a', 1),)\n" + (line + "\n") * 3)
    assert time.process_time() - began < 20


# -- round trip: what the log writes is what the parser reads

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.sampled_from(["Thread-1_0: new maximum score 9", 'it\'s "q"', "\\", "AUTOTRAIN STARTED"]),
)
values = st.recursive(
    scalars, lambda v: st.one_of(st.lists(v, max_size=3), st.tuples(v, v)), max_leaves=5
)
param_sets = st.dictionaries(st.text(min_size=1, max_size=8), values, max_size=4)
scores = st.one_of(st.none(), st.floats())
noise = st.sampled_from(
    [
        "",
        " 45%|####  | 9/20",
        "    ",
        "\x1b[1m",
        "[2026-11-22 20:00:00,123][x][INFO] - ",
        "In [3]: ",
    ]
)


class Emitter:
    """Logs made-up jobs, as a sweep would."""

    def __init__(self, direction, data):
        self.direction, self.data, self.text, self.best = direction, data, "", None
        self.log = SweepLog(self)

    def write(self, text):
        for line in text.splitlines(keepends=True):
            self.text += self.data.draw(noise) + line

    def close(self):
        pass

    def better(self, score, than):
        return rank_key(score, 0, self.direction) < rank_key(than, 0, self.direction)

    def start(self, num, name, params, attempt):
        self.log.on_event(
            JobStarted(
                job=num, key="", params=params, name=name, slot=1, device="cpu", attempt=attempt
            )
        )

    def score(self, num, name, score, best_of_job):
        improved = math.isfinite(score) and self.better(score, best_of_job)
        overall = improved and (self.best is None or self.better(score, self.best[0]))
        if overall:
            self.best = (score, name)
        best = self.best or (None, None)
        self.log.on_event(
            ScoreReported(
                job=num,
                name=name,
                score=score,
                improved=improved,
                overall=overall,
                best_score=best[0],
                best_name=best[1],
            )
        )
        return score if self.better(score, best_of_job) else best_of_job

    def fail(self, num, name):
        self.log.on_event(
            AttemptFailed(
                job=num,
                name=name,
                slot=1,
                device="cpu",
                attempt=1,
                kind="error",
                error="X: Thread-1_0: new maximum score 5",
                traceback="Traceback\n  Thread-1_0: (('a', 2),)\nX",
                duration_s=0.1,
                retry=True,
            )
        )

    def finish(self, num, name, score):
        self.log.on_event(
            JobFinished(
                job=num,
                name=name,
                params={},
                slot=1,
                device="cpu",
                attempt=1,
                score=score,
                duration_s=1,
                value=None,
            )
        )


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(),
    direction=st.sampled_from(["maximize", "minimize"]),
    jobs=st.lists(
        st.tuples(param_sets, st.lists(st.floats(), max_size=3), st.booleans(), st.booleans()),
        min_size=1,
        max_size=5,
    ),
)
def test_reads_what_the_log_wrote(tmp_path_factory, data, direction, jobs):
    sweep = Emitter(direction, data)
    sweep.log.on_event(
        SweepStarted(sweep_id="s", kind="python", total=len(jobs), direction=direction)
    )
    expected = []
    for num, (params, scores, retried, finished) in enumerate(jobs):
        name, best = f"Thread-1_{num}", None
        sweep.start(num, name, params, 1)
        if retried:
            sweep.fail(num, name)
            name = f"Thread-2_{num}"
            sweep.start(num, name, params, 2)
        for score in scores:
            best = sweep.score(num, name, score, best)
        if finished:
            sweep.finish(num, name, best)
        expected.append((name, best, params, finished))
    sweep.log.on_event(SlotClosed(slot=1, device="cpu", reason="finished"))
    ranks = sorted(rank_key(row[1], num, direction) for num, row in enumerate(expected))
    path = tmp_path_factory.mktemp("log") / "x.log"
    path.write_text(sweep.text, encoding="utf-8", errors="backslashreplace")
    rows = parse_autotrain_log(path, silent=True)
    assert repr(rows) == repr([expected[num] for *_, num in ranks])
