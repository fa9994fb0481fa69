"""The page in a real browser, in frames as wide as a phone and a desktop."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from sweep_events import (
    ERROR,
    attempt_failed,
    begin,
    big_sweep,
    ended,
    fail,
    finish,
    started,
    write_journal,
)

from junky_core.record.state import SweepState
from junky_core.views.report import report_html, write_report
from junky_core.views.report.payload import payload_of

CHROMIUM = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None
)


def needs_browser(test):
    skip = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
    return pytest.mark.browser(skip(test))


PHONE, DESK = 390, 1200
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    " --disable-background-networking --disable-component-update --disable-sync"
    " --virtual-time-budget=20000 --dump-dom"
).split()

WRAPPER = """<!DOCTYPE html><meta charset="utf-8"><pre id="result"></pre>
<script>
const script = (win, doc) => { %s };
const look = (source, k) => new Promise((done) => {
  const frame = document.createElement("iframe");
  frame.style.cssText = "width:%dpx;height:900px;border:0";
  frame.srcdoc = source;
  document.body.append(frame);
  frame.addEventListener("load", () => setTimeout(() => {
    const doc = frame.contentDocument;
    const error = doc.documentElement.dataset.ready === "yes" ? null : "the script did not end";
    new Promise((resolve) => resolve(script(frame.contentWindow, doc)))
      .then((value) => done({ value, error }), (e) => done({ value: null, error: String(e) }));
  }, 300));
});
Promise.all(%s.map(look)).then((found) => {
  document.getElementById("result").textContent = "@@" + JSON.stringify(found) + "@@";
});
</script>"""


def history_of(events):
    history = SweepState()
    for event in events:
        history.on_event(event)
    return history


@pytest.fixture
def browse(tmp_path):
    def browse(sweeps, script, width=DESK):
        sweeps = list(sweeps)
        pages = [report_html(history_of(events), "a sweep") for events in sweeps]
        sources = json.dumps(pages).replace("<", "\\u003c")
        wrapper = tmp_path / "wrapper.html"
        wrapper.write_text(WRAPPER % (script, width, sources), encoding="utf-8")
        done = subprocess.run(
            [
                CHROMIUM,
                *FLAGS,
                f"--user-data-dir={tmp_path / 'profile'}",
                f"--window-size={width + 200},1000",
                wrapper.as_uri(),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=120,
            check=True,
        )
        found = re.search(r'id="result">@@(.*?)@@</pre>', done.stdout.decode(), re.DOTALL)
        assert found, done.stdout[-2000:]
        text = found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        answers = json.loads(text)
        assert [answer["error"] for answer in answers] == [None] * len(sweeps)
        return [answer["value"] for answer in answers]

    return browse


SMALL = [
    started(4),
    begin(0, params={"opt": "adam", "lr": 0.1}),
    finish(0, 0.5, params={"opt": "adam", "lr": 0.1}),
    begin(1, params={"opt": "sgd", "lr": 0.2, "momentum": 0.9}, slot=2),
    attempt_failed(1, slot=2, retry=False),
    fail(1, params={"opt": "sgd", "lr": 0.2, "momentum": 0.9}, slot=2),
    begin(2, 1003, params={"opt": "sgd", "lr": None, "momentum": 0}),
    finish(2, 0.7, 1005, params={"opt": "sgd", "lr": None, "momentum": 0}),
    begin(3, 1006, params={"opt": "</script><b>", "lr": 0.3}),
]


# -- what the page is given


def test_columns_hold_numbers_labels_and_absent_values():
    data = payload_of(history_of(SMALL), "x")
    assert data["num"] == [2, 0, 1, 3]
    columns = {p["name"]: (p["labels"], p["values"]) for p in data["params"]}
    assert columns["momentum"] == ([], [0, None, 0.9, None])
    assert columns["lr"] == (["None"], [[0], 0.1, 0.2, 0.3])


def test_values_that_json_cannot_hold_are_labels():
    params = [{"a": float("inf")}, {"a": 2**70}, {"a": True}, {"a": 1}]
    events = [started()]
    for num, one in enumerate(params):
        events += [begin(num, params=one), finish(num, float("nan"), params=one)]
    data = payload_of(history_of(events), "x")
    assert data["params"][0]["labels"] == ["inf", str(2**70), "True"]
    assert data["score"] == [None] * 4
    assert data["scoreText"] == ["nan"] * 4
    json.dumps(data, allow_nan=False)


def test_pauses_between_sessions_are_taken_out():
    events = [
        started(time=1000),
        begin(0, 1000),
        finish(0, 1, 1010),
        ended(1010, "interrupted"),
        started(time=9000, resumed=True, already_finished=1),
        begin(1, 9002),
        finish(1, 2, 9005),
        ended(9005),
    ]
    data = payload_of(history_of(events), "x")
    assert data["sessions"] == [10]
    assert [span[2:4] for span in data["spans"]] == [[0, 10], [12, 15]]
    assert data["runTime"] == 15


# -- the file


def test_is_written_into_the_sweep_folder(tmp_path):
    write_journal(tmp_path / "journal.jsonl", SMALL)
    assert write_report(tmp_path) == tmp_path / "report.html"
    assert write_report(tmp_path / "journal.jsonl") == tmp_path / "report.html"
    assert (tmp_path / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_is_written_next_to_a_log(tmp_path):
    (tmp_path / "x.log").write_text("Thread-1_0: (('a', 1),)\n")
    assert write_report(tmp_path / "x.log") == tmp_path / "x.log.html"


def test_is_written_to_the_given_path(tmp_path):
    write_journal(tmp_path / "journal.jsonl", SMALL)
    assert write_report(tmp_path, tmp_path / "y.html") == tmp_path / "y.html"
    assert not (tmp_path / "report.html").exists()


def test_loads_nothing_from_elsewhere():
    page = report_html(history_of(SMALL), "x")
    assert "default-src 'none'" in page
    assert not re.search(r"""(src|href)\s*=|url\(|@import|fetch\(|XMLHttp|https?://""", page)


def test_values_cannot_break_out_of_the_page():
    page = report_html(history_of(SMALL), "<script>alert(1)</script>")
    assert page.count("</script>") == 2
    assert "<script>alert" not in page


def test_says_the_leaderboard_without_scripts():
    page = report_html(history_of(SMALL), "x")
    noscript = page[page.index("<noscript>") : page.index("</noscript>")]
    assert "rank" in noscript
    assert "0.7" in noscript


# -- in the browser

CANVASES = """
const painted = [...doc.querySelectorAll("canvas")].map((canvas) => {
  const g = canvas.getContext("2d"), d = g.getImageData(0, 0, canvas.width, canvas.height).data;
  let n = 0;
  for (let k = 3; k < d.length; k += 4) if (d[k]) n++;
  return n;
});
return { painted, rows: doc.querySelectorAll("tbody tr").length,
  wide: doc.documentElement.scrollWidth > doc.documentElement.clientWidth,
  count: doc.getElementById("count").textContent };
"""


@needs_browser
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_draws_all_charts_and_fits(browse, width):
    sizes = [5, 500, 20_000]
    for jobs, seen in zip(sizes, browse(map(big_sweep, sizes), CANVASES, width), strict=True):
        assert len(seen["painted"]) >= 3 + 4  # best so far, parallel, timeline; a scatter a param
        assert min(seen["painted"]) > 500
        assert seen["rows"] == min(jobs, 100)
        assert not seen["wide"]
        assert seen["count"] == f"{jobs:,} jobs"


ODD_SWEEPS = {
    "no job": [started(0)],
    "running": [started(1), begin(0)],
    "failed": [started(1), begin(0), fail(0), ended()],
    "no params": [started(1), begin(0, params={}), finish(0, 0.5, params={}), ended()],
    "no score": [started(1), begin(0), finish(0, None), ended()],
    "huge scores": [started(2), begin(0), finish(0, 1.7e308), begin(1), finish(1, -1.7e308)],
    "one score": [started(2), begin(0), finish(0, 0.0), begin(1), finish(1, 0.0)],
    "log scores": [
        started(20, direction="minimize"),
        *(e for n in range(20) for e in (begin(n), finish(n, 10.0 ** (n % 7 - 3)))),
    ],
    "minimize": big_sweep(30, direction="minimize"),
    "another best": [started(1), finish(0, 0.5), ended()],
}


@needs_browser
def test_unusual_sweeps_do_not_break_it(browse):
    browse(list(ODD_SWEEPS.values()), "return 1;")


@needs_browser
def test_the_table_sorts_and_filters(browse):
    script = """
    const $ = (s) => doc.querySelector(s), jobs = () =>
      [...doc.querySelectorAll("tbody tr")].map((tr) => tr.children[2].textContent);
    const filter = (text) => {
      $("#filter").value = text;
      $("#filter").dispatchEvent(new win.Event("input"));
      return jobs();
    };
    const head = (name) => [...doc.querySelectorAll("th button")]
      .find((b) => b.textContent.startsWith(name)).click();
    const out = { first: jobs() };
    head("job"); out.up = jobs();
    head("job"); out.down = jobs();
    head("momentum"); out.momentum = jobs();
    out.word = filter("SGD failed");
    out.less = filter("lr<0.15");
    out.equal = filter("opt=sgd");
    out.none = filter("nothing here");
    filter("");
    $("#status").value = "failed";
    $("#status").dispatchEvent(new win.Event("change"));
    out.failed = jobs();
    out.error = $("td.error").textContent;
    out.absent = doc.querySelectorAll("td.absent").length;
    return out;
    """
    (seen,) = browse([SMALL], script)
    assert seen["first"] == ["2", "0", "1", "3"]
    assert seen["up"] == ["0", "1", "2", "3"]
    assert seen["down"] == ["3", "2", "1", "0"]
    assert seen["momentum"] == ["2", "1", "0", "3"]
    assert seen["word"] == ["1"]
    assert seen["less"] == ["0"]
    assert sorted(seen["equal"]) == ["1", "2"]
    assert seen["none"] == []
    assert seen["failed"] == ["1"]
    assert seen["error"] == ERROR


@needs_browser
def test_a_drag_along_an_axis_selects_jobs(browse):
    script = """
    const canvas = doc.querySelector("#parallel canvas"), box = canvas.getBoundingClientRect();
    canvas.setPointerCapture = () => {};
    const send = (kind, y) => canvas.dispatchEvent(new win.PointerEvent(kind,
      { clientX: box.left + 46, clientY: box.top + y, pointerId: 1, buttons: 1 }));
    const after = (text) => new Promise((done) => win.setTimeout(
      () => done([...text, doc.getElementById("count").textContent]), 300));
    send("pointerdown", 40); send("pointermove", 180); send("pointerup", 180);
    return after([]).then((text) => {
      doc.getElementById("unbrush").click();
      return after(text);
    });
    """
    ((selected, all_again),) = browse([big_sweep(300)], script)
    assert re.fullmatch(r"1\d\d of 300 jobs", selected)
    assert all_again == "300 jobs"


@needs_browser
def test_hovering_shows_the_job(browse):
    script = """
    const canvas = doc.querySelector("#timeline canvas"), box = canvas.getBoundingClientRect();
    canvas.dispatchEvent(new win.PointerEvent("pointermove",
      { clientX: box.left + box.width / 2, clientY: box.top + 10 }));
    const tip = doc.getElementById("tip");
    return [tip.hidden, tip.textContent];
    """
    ((hidden, text),) = browse([big_sweep(40)], script)
    assert not hidden
    assert re.match(r"slot 1", text)


def test_is_quick_enough_to_write_for_many_jobs(tmp_path):
    path = write_journal(tmp_path / "journal.jsonl", big_sweep(20_000))
    assert write_report(path).stat().st_size < 8 << 20


def test_does_not_import_torch(tmp_path):
    code = "import sys, junky_core.views.report; sys.exit('torch' in sys.modules)"
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0
