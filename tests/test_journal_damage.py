"""Journals with changed bits, with lost, doubled or swapped lines, or with fields of a wrong type."""

import io
import json
import random
import zlib

import pytest
from sweep_events import attempt_failed, begin, ended, fail, finish, score, started

from junky_core import parse_autotrain_log
from junky_core.__main__ import main as run_command
from junky_core.errors import JournalError, LogError, SweepFolderError
from junky_core.events import BestSaved, BestSaving, Notice, SlotClosed
from junky_core.record.codec import encode_event
from junky_core.record.journal import Journal
from junky_core.record.lines import seal
from junky_core.record.reader import load_state, read_journal
from junky_core.record.repair import repair_journal
from junky_core.views.history import load_history
from junky_core.views.report import report_html
from junky_core.views.watch import watch

SAVE = {"job": 0, "name": "Thread-1_0", "score": 0.5, "path": "/x/model.pt", "sha256": "00ff"}
EVENTS = [
    started(3, spec={"crc": 1, "n": 2}),
    begin(0, params={"lr": 0.1, "n": 7, "crc": 12}),
    score(0, 0.5),
    BestSaving(time=1001.0, **SAVE),
    BestSaved(time=1001.5, **SAVE),
    finish(0, 0.5, params={"lr": 0.1, "n": 7, "crc": 12}),
    begin(1, params={"a": (1, float("inf"))}),
    attempt_failed(1),
    begin(1, attempt=2),
    fail(1, attempt=2),
    SlotClosed(time=1003.0, slot=2, device="cpu", reason="gone"),
    Notice(time=1004.0, level="info", message='x, "n": 4, "crc": 5}'),
    begin(2),
    finish(2, 0.7),
    ended(finished=2, failed=1),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.jsonl"


@pytest.fixture
def lines(path):
    """Write an intact journal to ``path``; return its lines."""
    with Journal(path) as journal:
        for event in EVENTS:
            journal.on_event(event)
    return path.read_bytes().splitlines(keepends=True)


def old_lines():
    """The lines of a journal as the first version wrote it."""
    return [encode_event(event) for event in EVENTS]


def numbers(path):
    """Return the numbers in an intact journal."""
    assert len(list(read_journal(path))) == len(path.read_bytes().splitlines())
    return [json.loads(line)["n"] for line in path.read_bytes().splitlines()]


def test_each_line_has_its_number_and_the_checksum_of_what_is_before_it(lines):
    for number, line in enumerate(lines, 1):
        record = json.loads(line)
        assert list(record)[-2:] == ["n", "crc"]
        assert record["n"] == number
        assert record["crc"] == zlib.crc32(line[: line.rindex(b', "crc"')])


def test_numbers_continue_when_a_journal_is_continued(path, lines):
    with Journal(path) as journal:
        journal.on_event(Notice(level="info", message="more"))
    assert numbers(path) == [*range(1, len(lines) + 2)]


# -- changed bits --------------------------------------------------------------------------------


def check_flip(path, data, whole, at, bit):
    """Change one bit: reading is an error that names the line, or gives the same content."""
    flipped = bytearray(data)
    flipped[at] ^= 1 << bit
    path.write_bytes(flipped)
    try:
        assert list(read_journal(path)) == whole, (at, bit)
    except JournalError as error:
        line = data.count(b"\n", 0, at) + 1
        said = str(error)
        assert any(f"line {n}: " in said for n in (line, line + 1)), (at, bit, said)
        return 1
    return 0


def test_no_changed_bit_changes_content(path, lines):
    data = path.read_bytes()
    whole = list(read_journal(path))
    refused = sum(
        check_flip(path, data, whole, at, bit) for at in range(len(data)) for bit in (0, 5)
    )
    assert refused == 2 * len(data)


def test_no_changed_bit_changes_content_at_random(path, lines):
    data = path.read_bytes()
    whole = list(read_journal(path))
    dice = random.Random(4)
    for _ in range(1500):
        check_flip(path, data, whole, dice.randrange(len(data)), dice.randrange(8))


def test_no_changed_bit_of_a_single_record_changes_content(path):
    with Journal(path) as journal:
        journal.on_event(EVENTS[0])
    data = path.read_bytes()
    whole = list(read_journal(path))
    for at in range(len(data)):
        for bit in range(8):
            check_flip(path, data, whole, at, bit)


@pytest.mark.parametrize("torn", [1, 8, 40, 100])
def test_no_changed_bit_changes_content_where_the_last_line_is_torn(path, lines, torn):
    data = b"".join(lines[:-1])
    path.write_bytes(data)
    whole = list(read_journal(path))
    tail = lines[-1][:torn]
    for at in range(len(b"".join(lines[:-2])), len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            path.write_bytes(bytes(flipped) + tail)
            try:
                assert list(read_journal(path)) == whole, (at, bit)
            except JournalError as error:
                assert f"line {len(lines) - 1}: " in str(error) or f"line {len(lines)}: " in str(  # noqa: PT017
                    error
                )


def test_a_journal_with_a_changed_bit_in_its_last_line_is_not_continued(path, lines):
    data = bytearray(path.read_bytes())
    data[-30] ^= 1
    path.write_bytes(data)
    with pytest.raises(SweepFolderError, match="last line is damaged"):
        Journal(path)
    assert path.read_bytes() == data


# -- lines lost, doubled, swapped ----------------------------------------------------------------


def without(lines, at):
    return [*lines[:at], *lines[at + 1 :]]


def doubled(lines, at):
    return [*lines[: at + 1], *lines[at:]]


def swapped(lines, at):
    return [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]


@pytest.mark.parametrize("change", [without, doubled, swapped])
@pytest.mark.parametrize("at", range(len(EVENTS) - 1))
def test_lines_that_are_not_in_order_are_refused(path, lines, change, at):
    path.write_bytes(b"".join(change(lines, at)))
    with pytest.raises(JournalError, match=r"line \d+"):
        list(read_journal(path))


def test_the_message_says_what_is_missing(path, lines):
    path.write_bytes(b"".join([*lines[:3], *lines[6:]]))
    with pytest.raises(JournalError, match=r"line 4: .* record 7, and records 4 to 6 are missing"):
        list(read_journal(path))


def test_a_line_of_another_journal_is_refused(path, lines):
    other = seal(encode_event(Notice(level="info", message="of another")), 3)
    path.write_bytes(b"".join([*lines[:5], other, *lines[5:]]))
    with pytest.raises(JournalError, match="line 6"):
        list(read_journal(path))


def test_an_appended_line_without_checksum_is_refused(path, lines):
    path.write_bytes(b"".join([*lines, old_lines()[3]]))
    with pytest.raises(JournalError, match=f"line {len(lines) + 1}: .*no checksum"):
        list(read_journal(path))


# -- journals of the first version ---------------------------------------------------------------


def test_an_old_journal_is_read_unchanged(path):
    path.write_bytes(b"".join(old_lines()))
    assert list(read_journal(path)) == [json.loads(line) for line in old_lines()]
    assert load_state(path).jobs[0].status == "finished"


def test_an_old_journal_gets_checksums_when_it_is_continued(path):
    path.write_bytes(b"".join(old_lines()))
    with Journal(path) as journal:
        journal.on_event(Notice(level="info", message="more"))
    assert numbers(path) == [*range(1, len(EVENTS) + 2)]
    records = list(read_journal(path))
    assert records[:-1] == [json.loads(line) for line in old_lines()]
    data = path.read_bytes()
    assert check_flip(path, data, records, data.index(b"0.5"), 0) == 1


def test_an_old_journal_with_a_torn_end_gets_checksums_too(path):
    path.write_bytes(b"".join(old_lines()) + old_lines()[3][:50])
    Journal(path).close()
    assert numbers(path) == [*range(1, len(EVENTS) + 1)]


def test_old_lines_before_new_ones_are_read(path, lines):
    path.write_bytes(b"".join([*old_lines()[:4], *lines[4:]]))
    assert len(list(read_journal(path))) == len(lines)
    path.write_bytes(b"".join([*old_lines()[:3], *lines[4:]]))
    with pytest.raises(JournalError, match=r"line 4: .*record 4 is missing"):
        list(read_journal(path))


def test_a_damaged_old_journal_is_not_continued(path):
    lines = old_lines()
    lines[4] = lines[4][:20] + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(JournalError, match="line 5"):
        Journal(path)
    assert path.read_bytes() == b"".join(lines)


# -- repair --------------------------------------------------------------------------------------


def events_of(path):
    return [(r["event"], r.get("time")) for r in read_journal(path)]


def test_an_intact_journal_is_not_changed(path, lines):
    assert repair_journal(path, "minimize", 7) is None
    path.write_bytes(path.read_bytes()[:-10])  # torn
    before = path.read_bytes()
    assert repair_journal(path, "minimize", 7) is None
    assert path.read_bytes() == before


@pytest.mark.parametrize("at", range(1, len(EVENTS)))
def test_repair_keeps_all_lines_but_the_damaged_one(path, lines, at):
    events = events_of(path)
    broken = bytearray(lines[at])
    broken[30] ^= 4
    damaged = b"".join([*lines[:at], bytes(broken), *lines[at + 1 :]])
    path.write_bytes(damaged)
    said = repair_journal(path, "minimize", 7)
    assert f"line {at + 1} (its checksum does not match)" in said
    assert f"{len(lines) - 1} records" in said
    assert events_of(path) == without(events, at)
    assert path.with_name("journal.jsonl.damaged").read_bytes() == damaged


def test_repair_says_what_is_missing(path, lines):
    path.write_bytes(b"".join([*lines[:3], *lines[6:]]))
    assert "3 records missing from the file" in repair_journal(path, "minimize", 7)
    assert len(events_of(path)) == len(lines) - 3


def test_repair_puts_lines_back_in_order_and_drops_copies(path, lines):
    events = events_of(path)
    path.write_bytes(b"".join(doubled(swapped(lines, 5), 8)))
    assert "line 10 (a copy of line 9)" in repair_journal(path, "minimize", 7)
    assert events_of(path) == events


def test_repair_counts_copies_neither_as_records_nor_for_missing_ones(path, lines):
    path.write_bytes(b"".join([*lines[:3], *lines[6:], *lines[-3:]]))
    said = repair_journal(path, "minimize", 7)
    assert f" {len(lines) - 3} records" in said
    assert "3 records missing from the file" in said


def test_repair_keeps_the_intact_record_on_a_line_with_two(path, lines):
    events = events_of(path)
    joined = lines[4].rstrip(b"\n") + b"?" + lines[5]
    path.write_bytes(b"".join([*lines[:4], joined, *lines[6:]]))
    repair_journal(path, "minimize", 7)
    assert events_of(path) == events
    path.write_bytes(b"".join([*lines[:4], lines[4][:33], *lines[5:]]))  # written behind a torn one
    assert "line 5 in part" in repair_journal(path, "minimize", 7)
    assert events_of(path) == without(events, 4)


def test_repair_drops_a_copy_on_the_same_line(path, lines):
    events = events_of(path)
    joined = lines[4].rstrip(b"\n") + lines[4]
    path.write_bytes(b"".join([*lines[:4], joined, *lines[5:]]))
    assert "line 5 (a copy of line 5)" in repair_journal(path, "minimize", 7)
    assert events_of(path) == events


def test_repair_replaces_a_lost_start(path, lines):
    path.write_bytes(b"".join([lines[0][:40] + b"\n", *lines[1:]]))
    assert "a start of the sweep" in repair_journal(path, "minimize", 7)
    state = load_state(path)
    assert (state.direction, state.seed) == ("minimize", 7)
    assert len(state.by_num) == 3
    assert len(list(read_journal(path))) == len(lines)
    path.write_bytes(b"".join(lines[1:]))
    assert "a start of the sweep" in repair_journal(path, "minimize", 7)
    assert load_state(path).direction == "minimize"


def test_jobs_after_a_lost_start_are_not_mistaken_for_earlier_jobs(path):
    fixed = [{"fixed": {"train_kwargs['epochs']": epochs}} for epochs in ("10", "100")]
    events = [started(1, spec=fixed[0]), begin(0), finish(0, 0.5), ended(finished=1)]
    events += [started(1, spec=fixed[1], resumed=True, superseded=[0]), begin(1), finish(1, 0.6)]
    with Journal(path) as journal:
        for event in events:
            journal.on_event(event)
    path.write_bytes(path.read_bytes().replace(b'"resumed": true', b'"resumed": tru?'))
    repair_journal(path, "minimize", 7)
    jobs = load_state(path).by_num
    assert jobs[0].fixed == fixed[0]["fixed"]
    assert jobs[1].fixed is None


def test_repair_of_a_file_without_an_intact_record_is_refused(path):
    path.write_bytes(b"hello\nworld\n")
    with pytest.raises(JournalError, match="it has no intact record"):
        repair_journal(path, "minimize", 7)
    assert path.read_bytes() == b"hello\nworld\n"


def test_a_second_repair_keeps_the_first_damaged_file(path, lines):
    for at in (3, 5):
        now = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(without(now, at)))
        repair_journal(path, "minimize", 7)
    assert path.with_name("journal.jsonl.damaged-2").exists()
    assert len(events_of(path)) == len(lines) - 2


def test_repair_of_an_old_journal(path):
    lines = old_lines()
    lines[4] = b"garbage\n"
    path.write_bytes(b"".join(lines))
    said = repair_journal(path, "minimize", 7)
    assert "line 5 (it is not a record)" in said
    assert "perhaps a start of the sweep" in said
    assert numbers(path) == [*range(1, len(EVENTS) + 1)]
    assert list(read_journal(path))[4]["event"] == "sweep_started"


# -- fields of a wrong type ----------------------------------------------------------------------

WRONG = [
    None,
    True,
    -1,
    10**400,
    1e308,
    float("nan"),
    "text",
    "\x1b",
    [],
    [[1]],
    {},
    {"a": [1]},
    {"__tuple__": 5},
    {"__float__": "x"},
    {"__int__": "zz"},
    {"__dict__": [[[], 1]]},
    {"__dict__": [1]},
]


def deep(levels):
    value = 0
    for _ in range(levels):
        value = [value]
    return value


def every_wrong_record():
    for at, line in enumerate(old_lines()):
        record = json.loads(line)
        for field in record:
            if field != "event":
                for value in WRONG:
                    yield at, {**record, field: value}
                    yield at, {**record, f"{field}_exact": value}
                yield at, {k: v for k, v in record.items() if k != field}
        yield at, {**record, "params": {"a": deep(400)}}
        yield at, {**record, "params": {"a": 10**400}, "value": deep(150)}


def parse(path):
    parse_autotrain_log(path, silent=True)


def report(path):
    report_html(load_history(path), "title")


def watch_once(path):
    watch(path, once=True, interval_s=0.1, stream=io.StringIO())


def leaderboard(path):
    run_command(["leaderboard", str(path)])


@pytest.mark.parametrize("look", [parse, report, watch_once, leaderboard, load_state])
def test_fields_of_a_wrong_type_never_give_a_raw_traceback(path, capsys, look):
    plain = old_lines()
    cases = list(every_wrong_record())
    refused = 0
    for at, record in random.Random(look.__name__).sample(cases, 400):
        lines = [*plain[:at], json.dumps(record).encode() + b"\n", *plain[at + 1 :]]
        path.write_bytes(b"".join(lines))
        said = ""
        try:
            look(path)
            said = capsys.readouterr().err
        except (JournalError, LogError) as error:
            said = str(error)
        if said:
            assert f"line {at + 1}: " in said
            refused += 1
    assert 100 < refused < 400
