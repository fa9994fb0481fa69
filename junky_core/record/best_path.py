"""The path of the best model's file, from ``best_model_file_name``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from junky_core.errors import ConfigError
from junky_core.paths import user_path
from junky_core.record.folder import JOURNAL_NAME, LOCK_NAME, LOG_NAME

__all__ = ["best_model_path"]

# Files that a sweep writes to its folder besides the best model.
_SWEEP_FILES = (
    JOURNAL_NAME,
    LOCK_NAME,
    LOG_NAME,
    "leaderboard.csv",
    "multirun.yaml",
    "optimization_results.yaml",
    "report.html",
)


def best_model_path(name: Any, sweep_folder: Path | None) -> Path:
    """Return the best model's path; a relative name is in the sweep's folder.

    Args:
        name: ``best_model_file_name``, a string or a path; ``~`` is the home folder.
        sweep_folder: ``None`` if the sweep has none; the working folder is used then.

    Raises:
        ConfigError: It names a folder or a file that the sweep itself writes, or is
            relative and outside the sweep's folder.

    >>> best_model_path("model.pt", Path("/sweeps/one")).as_posix()
    '/sweeps/one/model.pt'
    """
    given = user_path("best_model_file_name", name)
    text = os.fspath(name)
    if Path(text).name in ("", "..") or text.endswith(("/", os.sep)):
        raise ConfigError(f"best_model_file_name={text} names a folder, not a file")
    if sweep_folder is None:
        return given
    path = sweep_folder / given
    home = Path(os.path.realpath(sweep_folder))
    parent = Path(os.path.realpath(path.parent))  # a folder on the way may be a link
    if not given.is_absolute() and parent != home and home not in parent.parents:
        raise ConfigError(
            f"best_model_file_name={text} is outside the sweep's folder {sweep_folder}; "
            "to write the best model elsewhere, give an absolute path"
        )
    if parent / path.name in (home, *home.parents):  # the folder may not exist yet
        raise ConfigError(f"best_model_file_name={text} names a folder, not a file")
    if parent == home and path.name in _SWEEP_FILES:
        raise ConfigError(
            f"best_model_file_name={text}: the sweep itself writes that file; choose another "
            "name, such as model.pt"
        )
    return path
