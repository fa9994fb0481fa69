"""Libraries with process-wide state are named once."""

import sys
import types

import pytest
import torch

from junky_core import torch_autotrain
from junky_core.events import Notice
from junky_core.job.libraries import libraries_apart
from junky_core.job.libraries.process_wide import LIBRARIES, named


def stand_in(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))


@pytest.fixture(autouse=True)
def none_is_there(monkeypatch):
    for library in LIBRARIES:
        monkeypatch.delitem(sys.modules, library.module, raising=False)


@pytest.mark.parametrize("name", [library.module for library in LIBRARIES])
def test_each_is_named_with_what_to_do(monkeypatch, name):
    stand_in(monkeypatch, name)
    said = []
    with named(said.append, slots=2):
        pass
    (message,) = said
    assert message.startswith(f"{name} on 2 slots: ")
    assert "one slot in `devices`" in message


def test_a_library_that_is_not_imported_is_not_named():
    with named(pytest.fail, slots=2):
        pass


def test_one_slot_causes_no_warning(monkeypatch):
    stand_in(monkeypatch, "wandb")
    with libraries_apart(pytest.fail, slots=1):
        pass


def test_a_sweep_names_it_once_also_if_a_job_imports_it(monkeypatch, tmp_path):
    (tmp_path / "wandb.py").write_text("")
    stand_in(monkeypatch, "gin")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    messages = []

    class Listener:
        def on_event(self, event):
            if isinstance(event, Notice):
                messages.append((event.level, event.message.split()[0]))

    def train(*_args):
        import wandb  # noqa: F401

    torch_autotrain(
        lambda at: (torch.nn.Linear(1, 1), at),
        train,
        make_model_fit_params=[("at", [1, 2, 3])],
        devices="cpu*2",
        progress=False,
        observers=[Listener()],
    )
    assert messages == [("warning", "gin"), ("warning", "wandb")]
