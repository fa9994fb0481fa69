"""First imports of several jobs, one at a time."""

import importlib
import importlib.util
import sys
import threading
import time
import traceback

import pytest
import warm_start
from watched_turns import WatchedCondition

from junky_core.job import turns
from junky_core.job.first_imports import first_imports_in_turn
from junky_core.job.scopes import JobScope, enter_scope, inherit_scopes

BOOTSTRAP = importlib._bootstrap


@pytest.fixture(autouse=True)
def python_s_own_functions_are_back():
    before = BOOTSTRAP._find_and_load, BOOTSTRAP._lock_unlock_module
    yield
    assert (BOOTSTRAP._find_and_load, BOOTSTRAP._lock_unlock_module) == before


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write a module that is imported in this test alone."""
    names = []

    def write(name, text):
        names.append(name)
        (tmp_path / f"{name}.py").write_text(text)

    monkeypatch.syspath_prepend(str(tmp_path))
    yield write
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def other_waits(monkeypatch):
    """An event: a job has to wait for its turn."""
    event = threading.Event()
    monkeypatch.setattr(turns._turns, "changed", WatchedCondition(event.set))
    return event


class Gate:
    """Sees whether two modules are being imported at the same time."""

    def __init__(self, other_is_there):
        self.other_is_there = other_is_there  # an event: it is inside, or waits for its turn
        self.lock = threading.Lock()
        self.inside = 0
        self.most = 0

    def go_through(self):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            if self.inside > 1:
                self.other_is_there.set()
        assert self.other_is_there.wait(60)
        with self.lock:
            self.inside -= 1


def in_jobs(*works):
    """Run each in its own job, all at the same time; return what they raised."""
    together, raised = threading.Barrier(len(works), timeout=30), []

    def run(work):
        with enter_scope(JobScope(None)):
            together.wait()
            try:
                work()
            except BaseException as error:
                raised.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return raised


def imports(name):
    return lambda: importlib.import_module(name)


@pytest.mark.parametrize("statement", [False, True])
def test_modules_of_two_jobs_are_imported_one_after_the_other(
    written, monkeypatch, other_waits, statement
):
    gate = Gate(other_waits)
    monkeypatch.setattr(sys, "gate_of_test", gate, raising=False)
    for name in ("first_of_two", "second_of_two"):
        written(name, "import sys\nsys.gate_of_test.go_through()\n")

    def first():
        import first_of_two  # noqa: F401

    with first_imports_in_turn():
        works = first if statement else imports("first_of_two"), imports("second_of_two")
        assert in_jobs(*works) == []
    assert gate.most == 1


def test_modules_that_import_each_other_are_complete_in_all_jobs(written, monkeypatch, other_waits):
    # Each order is fine by itself. At the same time, `circle_b` would wait for `circle_a`,
    # which waits for `circle_b`, and continue with a `circle_a` that has no `value` yet.
    checked, begun = threading.Event(), other_waits
    monkeypatch.setattr(sys, "events_of_test", (checked, begun), raising=False)
    written(
        "circle_a",
        "import sys\nsys.events_of_test[1].set()\nimport circle_b\nvalue = circle_b.number\n",
    )
    written(
        "circle_b",
        "import sys\nnumber = 1\nif 'circle_a' not in sys.modules:\n"
        "    sys.events_of_test[0].set()\n    sys.events_of_test[1].wait(60)\n"
        "    import circle_a\n    assert circle_a.value == 1\n",
    )

    def begin_with_a():
        checked.wait(30)
        import circle_a

        assert circle_a.value == 1

    with first_imports_in_turn():
        assert in_jobs(begin_with_a, imports("circle_b")) == []


def test_a_module_that_replaces_itself_is_what_a_waiting_job_gets(written, monkeypatch):
    begun, may_end = threading.Event(), threading.Event()
    monkeypatch.setattr(sys, "events_of_test", (begun, may_end), raising=False)
    written(
        "replaces_itself",
        "import sys, types\nsys.events_of_test[0].set()\nsys.events_of_test[1].wait(30)\n"
        "module = types.ModuleType(__name__)\nmodule.lazy = 'there'\n"
        "module.__spec__ = __spec__\nsys.modules[__name__] = module\n",
    )
    found, waiting = [], []

    def wait_for_it():
        begun.wait(30)
        waiting.append(threading.get_ident())
        import replaces_itself
        from replaces_itself import lazy

        found.append((lazy, replaces_itself.lazy))

    def end_when_it_waits():
        give_up = time.monotonic() + 20
        while time.monotonic() < give_up:
            if waiting and BOOTSTRAP._blocking_on.get(waiting[0]):
                break
            threading.Event().wait(0.005)
        may_end.set()

    with first_imports_in_turn():
        assert in_jobs(imports("replaces_itself"), wait_for_it, end_when_it_waits) == []
    assert found == [("there", "there")]


def test_a_module_may_wait_for_a_thread_that_imports(written):
    written("imported_by_thread", "value = 3\n")
    written(
        "starts_a_thread",
        "import threading\n"
        "def work():\n    import imported_by_thread\n"
        "thread = threading.Thread(target=work)\nthread.start()\nthread.join(20)\n"
        "done = not thread.is_alive()\n",
    )
    with inherit_scopes(), first_imports_in_turn():
        assert in_jobs(imports("starts_a_thread")) == []
    assert sys.modules["starts_a_thread"].done


def test_an_import_error_has_its_usual_traceback():
    with first_imports_in_turn(), pytest.raises(ModuleNotFoundError) as caught:
        import no_such_module_at_all  # noqa: F401
    assert len(traceback.extract_tb(caught.value.__traceback__)) == 1


def test_an_error_in_a_module_has_its_usual_traceback(written):
    written("raises_an_error", "1 / 0\n")
    with first_imports_in_turn(), pytest.raises(ZeroDivisionError) as caught:
        import raises_an_error  # noqa: F401
    files = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert len(files) == 2
    assert files[1].endswith("raises_an_error.py")


TORCH = """
import os, tempfile, threading
import torch
from junky_core import torch_autotrain

together = threading.Barrier(4, timeout=120)

def train(_device, _loaders, model, at, _save, _prefix):
    together.wait()
    rows = torch.randn(4, 4, requires_grad=True)
    if at == 0:
        torch.compile(model, backend="eager")(rows).sum().backward()
    elif at == 1:
        optimizer = torch.optim.Adam(model.parameters())
        model(rows).sum().backward()
        optimizer.step()
    elif at == 2:
        from torch.utils.checkpoint import checkpoint
        checkpoint(model, rows, use_reentrant=False).sum().backward()
    else:
        from torch._inductor import utils  # noqa: F401
        torch.compile(model, backend="aot_eager")(rows).sum().backward()

os.chdir(tempfile.mkdtemp())
result = torch_autotrain(
    lambda at: (torch.nn.Linear(4, 4), at),
    train,
    make_model_fit_params=[("at", [0, 1, 2, 3])],
    devices="cpu*4",
    max_retries=0,
    progress=False,
)
assert not result.failed, result.failed[0].traceback
"""


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="needs torch")
def test_modules_that_torch_imports_late_are_complete_in_all_jobs():
    warm_start.checked(["-c", TORCH])
