"""Patches that several sweeps share."""

import contextlib
import importlib
import os
import sys
import threading
import types

import pytest

from junky_core.job.patches import replaced, shared


@pytest.fixture
def module():
    made = types.ModuleType("patched_module")
    made.greet = lambda: "plain"
    return made


def louder(module):
    """Return a shared block that wraps ``module.greet``, as a sweep's patches do."""

    @shared
    @contextlib.contextmanager
    def patched():
        plain = module.greet
        with replaced(module, "greet", lambda: plain() + "!"):
            yield

    return patched


def test_the_last_of_overlapping_blocks_removes_the_patch(module):
    patched = louder(module)
    first, second = patched(), patched()
    first.__enter__()
    second.__enter__()
    assert module.greet() == "plain!"
    first.__exit__(None, None, None)
    assert module.greet() == "plain!"
    second.__exit__(None, None, None)
    assert module.greet() == "plain"


def test_blocks_one_after_another_patch_once_each(module):
    patched = louder(module)
    for _ in range(2):
        with patched():
            assert module.greet() == "plain!"
        assert module.greet() == "plain"


def test_blocks_of_two_threads_overlap(module):
    patched, entered, may_leave = louder(module), threading.Event(), threading.Event()

    def hold():
        with patched():
            entered.set()
            may_leave.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(30)
    with patched():
        may_leave.set()
        thread.join(30)
        assert module.greet() == "plain!"
    assert module.greet() == "plain"


def test_an_error_inside_the_block_removes_the_patch(module):
    with pytest.raises(KeyError), louder(module)():
        raise KeyError
    assert module.greet() == "plain"


def test_a_patch_that_fails_halfway_is_undone_and_retried(module):
    failures = [OSError("full")]

    @shared
    @contextlib.contextmanager
    def patched():
        with replaced(module, "greet", lambda: "ours"):
            if failures:
                raise failures.pop()
            yield

    with pytest.raises(OSError, match="full"), patched():
        pytest.fail("entered")
    assert module.greet() == "plain"
    with patched():
        assert module.greet() == "ours"
    assert module.greet() == "plain"


def test_a_wrapper_of_the_patch_stays_and_works(module):
    patched = louder(module)
    with patched():
        ours = module.greet
        module.greet = lambda: f"<{ours()}>"
    assert module.greet() == "<plain!>"
    with patched():
        assert module.greet() == "<plain!>!"
    assert module.greet() == "<plain!>"


def test_a_patch_restored_late_by_other_code_still_works(module):
    patched = louder(module)
    with patched():
        ours = module.greet
        module.greet = lambda: "theirs"
    module.greet = ours
    assert module.greet() == "plain!"


def test_a_replacement_of_the_patch_stays(module):
    with replaced(module, "greet", "ours"):
        module.greet = "theirs"
    assert module.greet == "theirs"


def test_an_attribute_that_was_deleted_is_not_restored(module):
    with replaced(module, "greet", "ours"):
        del module.greet
    assert not hasattr(module, "greet")


def test_an_inherited_attribute_is_inherited_again():
    class Base:
        name = "base"

    class Derived(Base):
        pass

    with replaced(Derived, "name", "ours"):
        assert Derived.name == "ours"
    assert "name" not in vars(Derived)
    assert Derived.name == "base"


def test_a_static_method_remains_a_static_method():
    class Owner:
        @staticmethod
        def name():
            return "plain"

    before = vars(Owner)["name"]
    with replaced(Owner, "name", None):
        pass
    assert vars(Owner)["name"] is before


def test_a_reloaded_module_keeps_its_own_attribute(tmp_path, monkeypatch):
    (tmp_path / "reloaded_while_patched.py").write_text("def greet():\n    return 'plain'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("reloaded_while_patched")
    monkeypatch.delitem(sys.modules, "reloaded_while_patched", raising=False)
    sys.modules["reloaded_while_patched"] = module
    with louder(module)():
        importlib.reload(module)
    assert module.greet() == "plain"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_while_another_thread_patches_can_patch():
    patching, may_go_on = threading.Event(), threading.Event()

    @shared
    @contextlib.contextmanager
    def patched():
        patching.set()
        may_go_on.wait(30)
        yield

    def patch():
        with patched():
            pass

    thread = threading.Thread(target=patch)
    thread.start()
    assert patching.wait(30)
    child = os.fork()
    if child == 0:
        may_go_on.set()
        in_child = threading.Thread(target=patch, daemon=True)
        in_child.start()
        in_child.join(10)
        os._exit(int(in_child.is_alive()))
    may_go_on.set()
    thread.join(30)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
