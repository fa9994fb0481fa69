"""What Hydra does for each job, with the same outcome in a fraction of the time.

Most of the time that a short job takes under Hydra goes into copying configs
with ``copy.deepcopy`` and into writing them down with PyYAML's own emitter:

| Done by ``run_job``            | Hydra, ms | here, ms | how |
| ------------------------------ | --------- | -------- | --- |
| deep copies of a job's config  | 2.4 each  | 0.05     | ``_copies`` |
| ``HydraConfig.set_config``     | 2.1 each  | 0.05     | the same copier |
| three YAML files               | 4         | 0.2      | ``_yaml_text`` |
| resolving ``${...}``           | 0.5 each  | 0.05     | parse trees are kept |
| logging                        | 1.5       | 0.3      | ``_job_logging`` |

:func:`quick_run_job` puts these in the place of what ``run_job`` calls, for as
long as a launch lasts. Each has a way back to the plain thing where the outcome
could differ: an unknown kind of node, text that the two emitters might fold or
escape in different ways, a logging handler of another kind, a Hydra that no
longer has the name.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import re
import sys
import threading
from types import CodeType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from hydra.conf import HydraConf
from hydra.core import utils as hydra_utils
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf import base as omegaconf_base

from hydra_plugins.hydra_junky_launcher._copies import copy_config, copy_hydra_only, copy_task
from hydra_plugins.hydra_junky_launcher._job_logging import configure_quickly
from hydra_plugins.hydra_junky_launcher._yaml_text import yaml_text

try:
    from hydra._internal import logging_config
except ImportError:  # Hydra before 1.3.3 calls dictConfig itself
    logging_config = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["quick_run_job"]


def _set_config(self: HydraConfig, cfg: DictConfig) -> None:
    """Do as ``HydraConfig.set_config`` does."""
    OmegaConf.set_readonly(cfg.hydra, True)
    hydra_type = OmegaConf.get_type(cfg, "hydra")
    assert hydra_type is not None
    assert issubclass(hydra_type, HydraConf)
    masked = copy_hydra_only(cfg)
    self.cfg = masked  # type: ignore[assignment]  # Hydra declares it otherwise; one assignment: what ``cfg`` is may be a matter of the thread
    masked.hydra._set_parent(cfg)  # noqa: SLF001


def _save_config(cfg: DictConfig, filename: str, output_dir: Path) -> None:
    """Do as Hydra's ``_save_config`` does."""
    path = output_dir / filename
    try:
        file = path.open("w", encoding="utf-8")
    except OSError:  # mostly the folder is there: from the file before
        output_dir.mkdir(parents=True, exist_ok=True)
        file = path.open("w", encoding="utf-8")
    with file:
        file.write(yaml_text(cfg))


_installs_lock = threading.Lock()  # guards _installs and the patches
_installs = 0
_plain: dict[str, Any] = {}


@contextlib.contextmanager
def quick_run_job() -> Iterator[None]:
    """Let ``run_job`` copy and write configs the quick way inside the ``with`` block.

    Process-wide while it lasts, which harms nobody: the outcome is the same.
    Several blocks may overlap.
    """
    global _installs
    with _installs_lock:
        if _installs == 0:
            _install()
        _installs += 1
    try:
        yield
    finally:
        with _installs_lock:
            _installs -= 1
            if _installs == 0:
                _remove()


def _install() -> None:
    if getattr(hydra_utils, "copy", None) is copy:
        _plain["copy"] = copy
        names = {**vars(copy), "deepcopy": _deepcopy}
        hydra_utils.copy = SimpleNamespace(**names)  # type: ignore[assignment, attr-defined]
    if hasattr(hydra_utils, "_save_config"):
        _plain["_save_config"] = hydra_utils._save_config  # noqa: SLF001
        hydra_utils._save_config = _save_config  # noqa: SLF001
    parse = getattr(omegaconf_base, "parse", None)
    if parse is not None:
        # ${...} is parsed each time that it is resolved; who resolves it only reads the tree.
        _plain["parse"] = parse
        omegaconf_base.parse = functools.lru_cache(maxsize=1024)(parse)  # type: ignore[attr-defined]
    plain = getattr(logging_config, "configure_logging", None)
    if plain is not None:
        _plain["configure_logging"] = plain
        logging_config.configure_logging = configure_quickly(plain)
    _plain["set_config"] = HydraConfig.set_config
    HydraConfig.set_config = _set_config  # type: ignore[method-assign]


def _remove() -> None:
    HydraConfig.set_config = _plain.pop("set_config")  # type: ignore[method-assign]
    if "parse" in _plain:
        omegaconf_base.parse = _plain.pop("parse")  # type: ignore[attr-defined]
    if "configure_logging" in _plain:
        logging_config.configure_logging = _plain.pop("configure_logging")
    for name in list(_plain):
        setattr(hydra_utils, name, _plain.pop(name))


# run_job copies the whole config of a job, and deletes the larger part of the copy.
_COPIES_TASK = re.compile(
    r"task_cfg = copy\.deepcopy\(config\)\s+with read_write\(task_cfg\):"
    r"\s+with open_dict\(task_cfg\):\s+del task_cfg\[.hydra.\]"
)


@functools.lru_cache(maxsize=1)
def _copier_of_task() -> CodeType | None:
    """Return the code of ``run_job`` if it is one that copies the task's config in this way."""
    body = getattr(hydra_utils, "_run_job", hydra_utils.run_job)
    try:
        known = len(_COPIES_TASK.findall(inspect.getsource(body))) == 1
    except (OSError, TypeError):
        return None
    return body.__code__ if known else None


def _deepcopy(value: Any, memo: Any = None) -> Any:
    if memo is not None:
        return copy.deepcopy(value, memo)
    if (
        type(value) is DictConfig
        and sys._getframe(1).f_code is _copier_of_task()  # noqa: SLF001
        and _is_whole(value)
    ):
        return copy_task(value)
    return copy_config(value)


def _is_whole(config: DictConfig) -> bool:
    """Tell a job's config from its ``hydra`` node alone, which ``run_job`` copies too."""
    content = config.__dict__["_content"]
    return isinstance(content, dict) and "hydra" in content and len(content) > 1
