"""What Hydra does for each job, with the same outcome in a fraction of the time.

Most of the time that a short job takes under Hydra goes into copying configs
with ``copy.deepcopy`` and into writing them down with PyYAML's own emitter:

| Done by ``run_job``               | Hydra, ms | here, ms | how |
| --------------------------------- | --------- | -------- | --- |
| deep copies of a job's config     | 2.4 each  | 0.02-0.1 | ``_copies`` |
| ``HydraConfig.set_config``, twice | 5.4       | 0.2      | the same copier; once |
| three YAML files                  | 6         | 0.3      | ``_yaml_text`` |
| resolving ``${...}``              | 0.5 each  | 0.05     | parse trees are kept |
| logging, in a job's layer         | 2         | 0.8      | ``_job_logging`` |

:func:`quick_run_job` puts these in the place of what ``run_job`` calls, for as
long as a launch lasts. Each has a way back to the plain thing where the outcome
could differ: an unknown kind of node, text that the two emitters might fold or
escape in different ways, a logging handler of another kind, a Hydra that no
longer has the name.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import functools
import inspect
import logging
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
from hydra_plugins.hydra_junky_launcher._job_logging import configure_quickly, resolve_quickly
from hydra_plugins.hydra_junky_launcher._yaml_text import yaml_text

try:
    from hydra._internal import logging_config
except ImportError:  # Hydra before 1.3.3 calls dictConfig itself
    logging_config = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["quick_run_job"]

log = logging.getLogger(__name__)

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


def _set_config(self: HydraConfig, cfg: DictConfig) -> None:
    """Do as ``HydraConfig.set_config`` does.

    ``run_job`` calls it twice, and between the two hardly anybody reads
    ``HydraConfig``: the first time, the copy waits for who does.
    """
    hydra: Any = cfg._get_node("hydra")  # noqa: SLF001
    if (hydra._metadata.flags or {}).get("readonly") is not True:  # noqa: SLF001
        OmegaConf.set_readonly(cfg.hydra, True)
    hydra_type = OmegaConf.get_type(cfg, "hydra")
    assert hydra_type is not None
    assert issubclass(hydra_type, HydraConf)
    body = _body_of_run_job()
    first = body is not None and sys._getframe(1).f_code is body and _has_no_folder(hydra)  # noqa: SLF001
    # One assignment: what ``cfg`` is may be a matter of the thread. Hydra declares it otherwise.
    self.cfg = _Pending(cfg) if first else _hydra_of(cfg)  # type: ignore[assignment]


def _hydra_of(cfg: DictConfig) -> DictConfig:
    masked = copy_hydra_only(cfg)
    masked.hydra._set_parent(cfg)  # noqa: SLF001
    return masked


def _has_no_folder(hydra: Any) -> bool:
    """Tell whether ``run_job`` has yet to write the job's folder into its config."""
    node = hydra._get_node("runtime")._get_node("output_dir")  # noqa: SLF001
    return bool(node._is_missing())  # noqa: SLF001


class _Pending:
    """What ``HydraConfig.cfg`` is to be made of when it is read."""

    __slots__ = ("config",)

    def __init__(self, config: DictConfig) -> None:
        self.config = config


class _PendingAttribute:
    """``HydraConfig.cfg``, made when it is read."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            raise AttributeError("cfg")
        try:
            value = instance.__dict__["cfg"]
        except KeyError:
            raise AttributeError("cfg") from None
        if type(value) is _Pending:
            value = instance.__dict__["cfg"] = _hydra_of(value.config)
        return value

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__["cfg"] = value

    def __delete__(self, instance: Any) -> None:
        instance.__dict__.pop("cfg", None)


def _save_config(cfg: DictConfig, filename: str, output_dir: Path) -> None:
    """Do as Hydra's ``_save_config`` does; but a full disk does not fail the job."""
    path = output_dir / filename
    text = yaml_text(cfg)
    try:
        try:
            file = path.open("w", encoding="utf-8")
        except FileNotFoundError:  # mostly the folder is there: from the file before
            output_dir.mkdir(parents=True, exist_ok=True)
            file = path.open("w", encoding="utf-8")
        with file:
            file.write(text)
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        log.warning("%s could not be written: %s. The job goes on without it", path, error.strerror)
        with contextlib.suppress(OSError):
            path.unlink()  # no half of a file


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
        _plain["configure_log"] = hydra_utils.configure_log
        hydra_utils.configure_log = resolve_quickly(
            hydra_utils.configure_log, logging_config.configure_logging
        )
    _plain["set_config"] = HydraConfig.set_config
    HydraConfig.set_config = _set_config  # type: ignore[method-assign]
    HydraConfig.cfg = _PendingAttribute()  # type: ignore[assignment]


def _remove() -> None:
    HydraConfig.set_config = _plain.pop("set_config")  # type: ignore[method-assign]
    del HydraConfig.cfg  # type: ignore[misc]
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
def _body_of_run_job() -> CodeType | None:
    """Return the code of ``run_job`` if it is one that works in the way known here."""
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
        and sys._getframe(1).f_code is _body_of_run_job()  # noqa: SLF001
        and _is_whole(value)
    ):
        return copy_task(value)
    return copy_config(value)


def _is_whole(config: DictConfig) -> bool:
    """Tell a job's config from its ``hydra`` node alone, which ``run_job`` copies too."""
    content = config.__dict__["_content"]
    return isinstance(content, dict) and "hydra" in content and len(content) > 1
