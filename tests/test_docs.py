"""Every command and snippet of README and docs is run, in page order.

A page is run in a folder of its own. What a block is, its fence says:

- ``python`` with ``>>>``: a doctest; without: executed. All of a page share their names.
- ``sh``: commands, one after the other; the exit status must be 0, or what ``EXITS`` says.
- ``text``: what is printed; not run.
- any, below ``<!-- file: NAME -->``: written to that file.
- ``yaml`` that goes to no file: a grid, which must expand.

Devices ``cuda:N`` become ``cpu``, except in doctests. This file defines what a page does not.
"""

import doctest
import importlib.util
import io
import os
import re
import shlex
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch
import warm_start
import yaml
from sweep_events import attempt_failed, begin, ended, finish, score, started, write_journal

import junky_core
from junky_core import devices, torch_autotrain
from junky_core.__main__ import main as junky
from junky_core.logs.text_log import FileWriter, SweepLog
from junky_core.views.history import load_history
from junky_core.views.leaderboard import write_leaderboard_csv

ROOT = Path(__file__).parents[1]
# Measuring takes half an hour; its commands are run by the tests of benchmarks themselves.
PAGES = sorted({ROOT / "README.md", *ROOT.glob("docs/*.md")} - {ROOT / "docs/benchmarks.md"})
BLOCK = re.compile(
    r"(?:<!-- file: (?P<file>\S+) -->\n)?^```(?P<kind>\w*)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
# Commands with another exit status: their sweep has a failed job.
EXITS = {"junky watch SWEEP --once": 1}

# --- What pages do not define -----------------------------------------------------------------------


def make_model(width=4, lr=0.1, **_rates):
    return torch.nn.Linear(1, width)


def train(_device, _loaders, model, *others):
    *_, save_best, _log_prefix = others
    save_best(model, model.out_features)


def sweep_with_a_failed_job(folder):
    """Write the files of a sweep of two jobs, of which the second failed."""
    folder.mkdir()
    first, second = {"width": 128, "lr": 0.01}, {"width": 256, "lr": 0.01}
    events = [
        started(2),
        begin(0, params=first),
        begin(1, params=second, slot=2, name="Thread-2_0"),
        score(0, 0.9583),
        finish(0, 0.9583, params=first),
    ]
    log = SweepLog(FileWriter(folder / "autotrain.log"))
    for event in events:
        log.on_event(event)
    log.close()
    failed = attempt_failed(1, slot=2, retry=False)
    write_journal(folder / "journal.jsonl", [*events, failed, ended(finished=1)])
    write_leaderboard_csv(folder / "leaderboard.csv", load_history(folder).results(), "maximize")


def own_app(page):
    """Copy train.py and its configs, for short trainings."""
    shutil.copy(ROOT / "train.py", page.folder)
    shutil.copytree(ROOT / "conf", page.folder / "conf")
    config = page.folder / "conf/config.yaml"
    config.write_text(re.sub(r"epochs: \d+", "epochs: 1", config.read_text()))


def two_gpus(page):
    own_app(page)
    page.monkeypatch.setattr(devices, "_visible", lambda: ["cuda:0", "cuda:1"])
    page.monkeypatch.setattr(devices, "_present", lambda device, _given: str(device))


def readme(page):
    own_app(page)
    page.names.update(make_model=make_model, train=train, make_loaders=tuple)
    sweep_with_a_failed_job(page.folder / "SWEEP")


def resume(page):
    own_app(page)
    run_python(["train.py", "--multirun", "hydra.sweep.dir=DIR", "optimizer=adam"])
    page.names.update(
        DIR="OTHER", torch_autotrain=lambda _, **kw: torch_autotrain(make_model, train, **kw)
    )


def plain_script(page):
    page.names.update(
        create_loaders=list,
        make_model=make_model,
        params={},
        train=lambda _model, _loaders: None,
        seed=2**32,
    )
    page.names.update(torch=torch, random=__import__("random"), numpy=pytest.importorskip("numpy"))


PREPARE = {
    "README.md": readme,
    "grammar.md": own_app,
    "devices-and-slots.md": two_gpus,
    "results.md": lambda page: sweep_with_a_failed_job(page.folder / "SWEEP"),
    "resume-and-faults.md": resume,
    "reproducibility.md": plain_script,
}
# Definitions that a file of a page lacks: put before a module's text, or after a config's.
OPEN_ENDS = {
    ("README.md", "app.py"): """
import torch
def make_loaders(batch_size):
    return [torch.ones(batch_size, 1)], [torch.ones(batch_size, 1)]
def make_model(cfg):
    return torch.nn.Linear(1, cfg.model.width)
def train_one_epoch(model, train_loader, valid_loader):
    for x in train_loader:
        return float(model(x).mean())
""",
    ("README.md", "conf/config.yaml"): """
model: {width: 1}
data: {batch_size: 2}
epochs: 1
seed: 0
""",
}

# --- Running -------------------------------------------------------------------------------------


class Page:
    """One page in a folder, which is the working folder."""

    def __init__(self, path, folder, monkeypatch):
        self.name = path.name
        self.folder = folder
        self.monkeypatch = monkeypatch
        self.names = {"__name__": "page"}
        self.text = path.read_text(encoding="utf-8")
        monkeypatch.chdir(folder)
        PREPARE.get(self.name, lambda _page: None)(self)

    def run(self):
        for block in BLOCK.finditer(self.text):
            line = self.text[: block.start("body")].count("\n")
            body = (
                block["body"]
                if ">>>" in block["body"]
                else re.sub(r"cuda:\d", "cpu", block["body"])
            )
            getattr(self, f"run_{block['kind']}")(body, block["file"], line)

    def write(self, body, file):
        path = self.folder / file
        path.parent.mkdir(exist_ok=True, parents=True)
        more = OPEN_ENDS.get((self.name, file), "")
        path.write_text(more + body if file.endswith(".py") else body + more)

    def run_text(self, body, file, _line):
        if file:
            self.write(body, file)

    def run_yaml(self, body, file, _line):
        if file:
            self.write(body, file)
        else:
            assert len(junky_core.expand_fit_params(yaml.safe_load(body))) > 0

    def run_python(self, body, file, line):
        if file:
            self.write(body, file)
        elif ">>>" in body:
            test = doctest.DocTestParser().get_doctest(
                body.expandtabs(8), self.names, self.name, self.name, line
            )
            output = io.StringIO()
            flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
            runner = doctest.DocTestRunner(verbose=False, optionflags=flags)
            runner.run(test, clear_globs=False, out=output.write)
            assert not runner.failures, output.getvalue()
            self.names.update(test.globs)
        else:
            exec(compile("\n" * line + body, self.name, "exec"), self.names)

    def run_sh(self, body, _file, _line):
        for command in body.replace("\\\n", "").splitlines():
            words = shlex.split(command, comments=True)
            if not words:
                continue
            asked = EXITS.get(shlex.join(words), 0)
            if words[0] == "junky":
                assert junky(words[1:]) == asked, command
            elif words[:3] == ["python", "-m", "junky_core"]:
                assert junky(words[3:]) == asked, command
            else:
                assert words[0] == "python", f"{self.name}: cannot run {command}"
                run_python(words[1:], asked)


def run_python(words, status=0):
    done = warm_start.run(words, env={**os.environ, "TERM": "dumb"}, timeout=300)
    assert done.returncode == status, f"{words}\n{done.stdout}{done.stderr}"


# pandas itself causes warnings.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_commands_and_snippets_of_a_page_run(path, tmp_path, monkeypatch):
    if "import pandas" in path.read_text() and importlib.util.find_spec("pandas") is None:
        pytest.skip("the page needs pandas")
    Page(path, tmp_path, monkeypatch).run()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_block_of_a_page_is_run(path):
    rest = BLOCK.sub("", path.read_text(encoding="utf-8"))
    assert "```" not in rest
    indented = re.findall(r"(?:<!-- ci: \w+ -->\n)?^    \S.*$", rest, re.MULTILINE)
    passed_over = [line for line in indented if not line.startswith("<!-- ci: ")]
    assert passed_over == []  # except the lines that .ci/run runs


def test_every_python_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for example in sorted(ROOT.glob("examples/*.py")):
        text = example.read_text().replace("EPOCHS = 15", "EPOCHS = 1")
        (tmp_path / example.name).write_text(text)
        run_python([example.name])


@pytest.mark.parametrize(
    "path", [*PAGES, *ROOT.glob("*.md"), ROOT / "docs/benchmarks.md"], ids=lambda path: path.stem
)
def test_links_point_to_existing_files(path):
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_the_picture_shows_the_jobs_of_its_grid():
    page = (ROOT / "docs/grammar.md").read_text(encoding="utf-8")
    grid = next(block["body"] for block in BLOCK.finditer(page) if block["kind"] == "yaml")
    jobs = junky_core.expand_fit_params(yaml.safe_load(grid))
    name = "{http://www.w3.org/2000/svg}"
    drawn = {}
    for box in ET.parse(ROOT / "docs/img/grid.svg").getroot().iter(f"{name}g"):
        params = dict(pair.split("=") for pair in box.find(f"{name}title").text.split())
        values = {key: yaml.safe_load(value) for key, value in params.items()}
        drawn[int(box.find(f"{name}text").text)] = {k: number(v) for k, v in values.items()}
    listed = [{key: number(value) for key, value in job.items()} for job in jobs]
    assert drawn == dict(enumerate(listed))


def number(value):
    try:
        return float(value)  # YAML 1.1 reads 1e-3 as text, Hydra as a number
    except ValueError:
        return value


def test_the_readme_names_every_key_and_argument():
    import dataclasses
    import inspect

    from hydra_plugins.hydra_junky_launcher.junky_launcher import JunkyLauncherConf
    from hydra_plugins.hydra_junky_sweeper.junky_sweeper import JunkySweeperConf

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    names = [
        field.name
        for conf in (JunkyLauncherConf, JunkySweeperConf)
        for field in dataclasses.fields(conf)
        if not field.name.startswith("_")
    ]
    names += inspect.signature(torch_autotrain).parameters
    assert [name for name in names if f"`{name}`" not in text] == []
