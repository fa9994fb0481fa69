"""What ``best_model_file_name`` means, and which names are refused."""

import os
from pathlib import Path

import pytest

from junky_core.errors import ConfigError
from junky_core.record.best_path import best_model_path


@pytest.mark.parametrize("name", ["model.pt", Path("sub/model.pt"), "a/../model.pt"])
def test_a_relative_name_is_in_the_sweeps_folder(tmp_path, name):
    assert best_model_path(name, tmp_path) == tmp_path / name


def test_an_absolute_name_may_be_anywhere(tmp_path):
    assert best_model_path(tmp_path / "m.pt", tmp_path / "sweep") == tmp_path / "m.pt"


def test_without_a_sweeps_folder_a_name_belongs_to_the_working_folder():
    assert best_model_path("../model.pt", None) == Path("../model.pt")


@pytest.mark.parametrize("name", ["../model.pt", "a/../../model.pt", "./../x/model.pt"])
def test_a_relative_name_outside_the_sweeps_folder_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=r"is outside the .*absolute path"):
        best_model_path(name, tmp_path / "sweep")


def test_a_linked_folder_outside_the_sweeps_folder_is_refused(tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="is outside"):
        best_model_path("link/model.pt", tmp_path / "sweep")


def test_a_sweeps_folder_may_be_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "sweep").symlink_to(tmp_path / "real")
    assert best_model_path("model.pt", tmp_path / "sweep") == tmp_path / "sweep" / "model.pt"


@pytest.mark.parametrize("name", ["", ".", "..", "models/", "a/..", "/"])
def test_a_name_of_a_folder_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="names a folder"):
        best_model_path(name, tmp_path)


@pytest.mark.parametrize("up", [1, 2])
def test_the_sweeps_own_folder_and_those_above_are_refused(tmp_path, up):
    folder = tmp_path / "a" / "sweep"  # does not exist yet
    with pytest.raises(ConfigError, match="names a folder"):
        best_model_path(os.fspath(folder.parents[up - 1]), folder)


@pytest.mark.parametrize("name", ["journal.jsonl", "./autotrain.log", "a/../leaderboard.csv"])
def test_a_file_that_the_sweep_writes_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="the sweep itself writes that file"):
        best_model_path(name, tmp_path)


@pytest.mark.parametrize("name", [None, 3, b"model.pt"])
def test_a_value_that_is_not_a_name_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="string or a path"):
        best_model_path(name, tmp_path)
