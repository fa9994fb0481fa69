"""Users' code is sent by name where a worker finds the name, else by value, else refused."""

import functools
import pickletools
import sys
import threading
import types

import pytest
import torch

from junky_core.errors import ConfigError
from junky_core.executors.processes.sending import dumps, loads, packed

SCRIPT = """
import functools
import torch

def decorated(function):
    @functools.wraps(function)
    def wrapper():
        return "wrapper of " + function()
    return wrapper

def task():
    return "task"

@decorated
@decorated
def hidden():
    return "hidden"

class Net(torch.nn.Module):
    class Config:
        pass

    def method(self):
        return "method"

if task:
    def conditional():
        return "conditional"

nameless = lambda: "nameless"

def make():
    value = "closure"
    def closure():
        return value
    return closure

closure = make()

def uses_cudnn():
    return torch.backends.cudnn.enabled

if __name__ == "__main__":
    def guarded():
        return task() + ", guarded"

    class Guarded:
        pass
"""


@pytest.fixture
def main(tmp_path, monkeypatch):
    """A script that runs as ``__main__``."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    main = types.ModuleType("__main__")
    main.__file__ = str(path)
    monkeypatch.setitem(sys.modules, "__main__", main)
    exec(compile(SCRIPT, str(path), "exec"), vars(main))
    return main


def code_is_in(data):
    return any(
        "CodeType" in str(arg) or "_make_function" in str(arg)
        for _, arg, _ in pickletools.genops(data)
    )


@pytest.mark.parametrize("name", ["task", "conditional", "Net", "uses_cudnn"])
def test_what_the_script_defines_is_sent_by_name(main, name):
    data = dumps(getattr(main, name))
    assert loads(data) is getattr(main, name)
    assert not code_is_in(data)


def test_what_belongs_to_a_class_is_sent_by_name(main):
    assert loads(dumps(main.Net.Config)) is main.Net.Config
    assert loads(dumps(main.Net.method)) is main.Net.method
    assert type(loads(dumps(main.Net()))) is main.Net


def test_a_function_that_decorators_hide_is_found_behind_them(main):
    once, bare = main.hidden.__wrapped__, main.hidden.__wrapped__.__wrapped__
    assert bare() == "hidden"
    for function in (main.hidden, once, bare):
        assert loads(dumps(function)) is function


def test_the_same_is_so_for_a_function_of_a_module(monkeypatch, tmp_path):
    (tmp_path / "module_with_task.py").write_text(SCRIPT)
    monkeypatch.syspath_prepend(tmp_path)
    import module_with_task as module

    assert loads(dumps(module.hidden.__wrapped__)) is module.hidden.__wrapped__
    assert not code_is_in(dumps(module.hidden.__wrapped__))


@pytest.mark.parametrize(
    ("name", "value"),
    [("nameless", "nameless"), ("closure", "closure"), ("guarded", "task, guarded")],
)
def test_what_a_worker_does_not_find_is_sent_by_value(main, name, value):
    data = dumps(getattr(main, name))
    assert code_is_in(data)
    assert loads(data)() == value


def test_a_function_by_value_takes_what_the_script_defines_by_name(main):
    assert loads(dumps(main.guarded)).__globals__["task"] is main.task


def test_nothing_of_a_session_is_sent_by_name(main):
    del main.__file__
    assert code_is_in(dumps(main.task))


def test_nothing_of_a_package_that_runs_as_a_program_is_sent_by_name(main):
    main.__spec__ = types.SimpleNamespace(name="package.__main__")
    assert code_is_in(dumps(main.task))


def test_what_was_defined_after_the_script_at_a_prompt_is_sent_by_value(main):
    exec("def later(): return 'later'", vars(main))
    assert code_is_in(dumps(main.later))


def test_a_module_of_a_class_of_its_own_is_sent_by_name(main):
    assert loads(dumps(torch.backends.cudnn)) is torch.backends.cudnn
    # By value it takes its globals along.
    uses = types.FunctionType(main.uses_cudnn.__code__, {"torch": torch}, "uses")
    uses.__module__ = "__main__"
    assert loads(dumps(uses))() == torch.backends.cudnn.enabled


LOCK = threading.Lock()


class Holder:
    def __init__(self):
        self.parts = {"lock": LOCK}

    def run(self):
        pass


def holds_a_lock():
    lock = LOCK

    def train():
        return lock

    return train


def uses_global():
    function = types.FunctionType((lambda: LOCK).__code__, {"LOCK": LOCK}, "uses")
    function.__module__ = "__main__"
    return function


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (LOCK, "a lock cannot be pickled"),
        ([1, (LOCK,)], r"train\[1\]\[0\] is a lock"),
        ({"a": LOCK}, r"train\['a'\] is a lock"),
        (Holder(), r"train.parts\['lock'\] is a lock"),
        (Holder().run, r"train.__self__.parts\['lock'\] is a lock"),
        (functools.partial(len, x=LOCK), r"train.keywords\['x'\] is a lock"),
        (holds_a_lock(), "train's variable 'lock' is a lock"),
        (uses_global(), "train's global 'LOCK' is a lock"),
    ],
)
def test_what_cannot_be_sent_is_named(value, path):
    with pytest.raises(
        ConfigError, match=f"^train cannot be sent to worker processes: {path}"
    ) as e:
        packed(value, "train")
    assert "threads" in str(e.value)


def test_something_that_holds_itself_is_refused_as_well():
    value = [LOCK]
    value.insert(0, value)
    with pytest.raises(ConfigError, match="a lock"):
        packed(value, "train")


def test_a_reference_that_leads_nowhere_is_an_error_when_it_is_loaded(main):
    data = dumps(main.task)
    del main.task
    with pytest.raises(AttributeError, match="task"):
        loads(data)
