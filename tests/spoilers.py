"""Changes of the interpreter's settings that a job may make, and a fixture that undoes them."""

import os
import sys
import tempfile

import pytest


@pytest.fixture
def as_before(tmp_path, monkeypatch):
    """Run the test in its own folder; put ``sys.path`` and the recursion limit back after it."""
    monkeypatch.chdir(tmp_path)
    path, limit = list(sys.path), sys.getrecursionlimit()
    yield
    sys.path[:] = path
    sys.setrecursionlimit(limit)


def clear_path():
    sys.path.clear()


def lower_limit():
    sys.setrecursionlimit(120)


def leave_for_a_deleted_folder():
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    os.rmdir(folder)
