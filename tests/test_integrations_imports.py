"""Acting on a module as soon as it is imported."""

import importlib
import sys
import threading

import pytest

from junky_core.job.libraries.imports import when_imported


@pytest.fixture(autouse=True)
def meta_path_stays():
    before = list(sys.meta_path)
    yield
    assert sys.meta_path == before


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """The name of a module that has not been imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "freshly_made.py").write_text("value = 1\n")
    yield "freshly_made"
    sys.modules.pop("freshly_made", None)


def test_an_imported_module_is_acted_on_immediately():
    seen = []
    with when_imported("json", seen.append):
        assert seen == [sys.modules["json"]]


def test_a_module_is_seen_when_it_is_imported_and_only_then(fresh):
    seen = []
    with when_imported(fresh, lambda module: seen.append(module.value)):
        assert seen == []
        importlib.import_module(fresh)
        importlib.import_module(fresh)
        assert seen == [1]
        module = sys.modules[fresh]
        assert "exec_module" not in vars(module.__loader__)


def test_the_action_is_complete_before_any_thread_gets_the_module(fresh):
    def change(module):
        module.value = 2

    found = []
    together = threading.Barrier(4, timeout=30)

    def use():
        together.wait()
        found.append(importlib.import_module(fresh).value)

    with when_imported(fresh, change):
        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [2] * 4


def test_each_of_several_is_called(fresh):
    seen = []
    with (
        when_imported(fresh, lambda _: seen.append("a")),
        when_imported(fresh, lambda _: seen.append("b")),
    ):
        importlib.import_module(fresh)
    assert seen == ["a", "b"]


def test_an_import_that_fails_calls_nothing(fresh, tmp_path):
    (tmp_path / "freshly_made.py").write_text("raise RuntimeError('no luck')\n")
    seen = []
    with when_imported(fresh, seen.append):
        with pytest.raises(RuntimeError, match="no luck"):
            importlib.import_module(fresh)
        assert seen == []
        (tmp_path / "freshly_made.py").write_text("value = 1  # this time\n")
        importlib.import_module(fresh)
        assert [module.value for module in seen] == [1]


def test_a_missing_module_is_still_an_import_error():
    with when_imported("no_such_module_at_all", pytest.fail):
        with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
            importlib.import_module("no_such_module_at_all")


def test_after_the_block_nothing_is_called(fresh):
    with when_imported(fresh, pytest.fail):
        pass
    importlib.import_module(fresh)


def test_a_module_that_is_reloaded_is_seen_again(fresh):
    seen = []
    with when_imported(fresh, lambda module: seen.append(module.value)):
        module = importlib.import_module(fresh)
        module.value = 2
        importlib.reload(module)
    assert seen == [1, 1]


def test_an_import_that_ends_after_the_block_calls_nothing(fresh, tmp_path, monkeypatch):
    begun, may_end = threading.Event(), threading.Event()
    monkeypatch.setattr(sys, "events_of_test", (begun, may_end), raising=False)
    (tmp_path / "freshly_made.py").write_text(
        "import sys\nsys.events_of_test[0].set()\nsys.events_of_test[1].wait(30)\n"
    )
    thread = threading.Thread(target=importlib.import_module, args=(fresh,))
    with when_imported(fresh, pytest.fail), when_imported("json", lambda _: thread.start()):
        assert begun.wait(30)
    may_end.set()
    thread.join(30)
    assert fresh in sys.modules
