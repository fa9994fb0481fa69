"""Read values of a config; an error is one message that names the key.

For any error other than ``CompactHydraException``, Hydra prints a traceback of its
own code: for an interpolation of a missing key, a path that contains NUL, a number
with too many digits for Python.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.errors import CompactHydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_plugins.hydra_junky_launcher._errors import HydraConfigError
from junky_core.errors import JunkyError
from junky_core.paths import check_path, folder_trouble
from junky_core.values.user_text import shown

__all__ = ["check_values", "reading", "usable_folder"]

_EXPECTED = (OmegaConfBaseException, OSError, ValueError, ArithmeticError, RecursionError)


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn the errors of reading a value into one message that begins with ``what``.

    Raises:
        HydraConfigError: In place of errors that Hydra would print with a traceback.
    """
    try:
        yield
    except (CompactHydraException, JunkyError):
        raise
    except _EXPECTED as error:
        raise HydraConfigError(f"{what}: {_reason(error)}") from error


def check_values(node: DictConfig, prefix: str) -> None:
    """Check that all values of a plugin's config can be read.

    Args:
        node: The config.
        prefix: Its key, ``hydra.launcher``.

    Raises:
        HydraConfigError: One is missing, or holds an interpolation that does not resolve.
    """
    written: Any = OmegaConf.to_container(node, resolve=False)
    for key in map(str, node):
        what = f"{prefix}.{key}"
        if OmegaConf.is_missing(node, key):
            raise HydraConfigError(f"{what} is missing ('???'): give it a value")
        with reading(f"{what}={shown(written[key])}"):
            value = node[key]
            if OmegaConf.is_config(value):
                OmegaConf.to_container(value, resolve=True, throw_on_missing=True)


def usable_folder(what: str, config: Any, key: str, inside: Path = Path()) -> Path:
    """Return a folder that a config names, if it can be created and written to; create nothing.

    Args:
        what: The whole key, for the message.
        config: The config that has ``key``; a ``DictConfig``.
        key: The key there.
        inside: The folder that a relative one belongs to.

    Raises:
        HydraConfigError: It cannot.
    """
    if OmegaConf.is_missing(config, key):
        raise HydraConfigError(f"{what} is missing ('???'): give it a folder")
    with reading(f"{what}={shown(OmegaConf.to_container(config, resolve=False)[key])}"):  # type: ignore[index, call-overload]
        text = str(config[key])
    folder = (inside / check_path(what, text, HydraConfigError)).absolute()
    check_path(what, folder, HydraConfigError)
    trouble = folder_trouble(folder)
    if trouble:
        raise HydraConfigError(
            f"{what} is {shown(text)}: the folder cannot be created and written to: {trouble}"
        )
    return folder


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    text = str(error).partition("\n")[0]
    if isinstance(error, OmegaConfBaseException):
        return text
    if "integer string conversion" in text:
        return "it contains a number with more digits than Python reads or writes"
    return f"{type(error).__name__}: {text}"
