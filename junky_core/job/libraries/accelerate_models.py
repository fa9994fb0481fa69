"""Models that ``accelerate`` builds on the meta device while other jobs build theirs.

``init_empty_weights`` and ``init_on_device`` replace ``nn.Module.register_parameter`` for the
whole process: a model that another job builds would be on the meta device too, and two
such blocks at a time would leave the replacement in place for good. While a sweep runs
on several slots, only the thread that enters the block is affected, and jobs take turns
(:mod:`junky_core.job.turns`).

With ``include_buffers``, accelerate up to 0.20 replaces functions of ``torch`` as well; other
threads see those.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from torch import nn

from junky_core.job.libraries.imports import when_imported
from junky_core.job.patches import replaced, shared
from junky_core.job.turns import turn

__all__ = ["empty_models_apart"]

MODULE, FUNCTION = "accelerate.big_modeling", "init_on_device"


@shared
@contextlib.contextmanager
def empty_models_apart() -> Iterator[None]:
    """Let jobs build models with ``init_empty_weights`` at the same time inside the block.

    Process-wide while it lasts; several blocks may overlap.
    """

    def replace(module: ModuleType) -> None:
        plain = getattr(module, FUNCTION, None)
        if plain is not None:
            stack.enter_context(replaced(module, FUNCTION, _in_own_thread(plain)))

    with contextlib.ExitStack() as stack, when_imported(MODULE, replace):
        yield


def _in_own_thread(plain: Callable[..., Any]) -> Callable[..., Any]:
    @contextlib.contextmanager
    @functools.wraps(plain)
    def init_on_device(*args: Any, **kwargs: Any) -> Iterator[None]:
        builder = threading.get_ident()
        with turn():
            usual: Any = nn.Module.register_parameter
            with plain(*args, **kwargs):
                theirs: Any = nn.Module.register_parameter

                def register_parameter(self: Any, *args: Any, **kwargs: Any) -> None:
                    (theirs if threading.get_ident() == builder else usual)(self, *args, **kwargs)

                nn.Module.register_parameter = register_parameter  # type: ignore[method-assign]
                try:
                    yield
                finally:
                    nn.Module.register_parameter = theirs  # type: ignore[method-assign]

    return init_on_device
