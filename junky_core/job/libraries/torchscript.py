"""TorchScript, which several jobs compile to at the same time.

``torch.jit.script`` and ``torch.jit.trace`` put the classes of modules into one compilation unit
of the process. Of two jobs that compile the same class at the same time, one gets ``Can't
redefine method``. While a sweep runs on several slots, jobs take turns
(:mod:`junky_core.job.turns`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch.jit

from junky_core.job.patches import replaced, shared
from junky_core.job.turns import in_turn

__all__ = ["scripts_in_turn"]

# What compiling a module goes through. The module is private, so it may be missing.
_MODULE, _FUNCTION = "_recursive", "create_script_module"


@shared
@contextlib.contextmanager
def scripts_in_turn() -> Iterator[None]:
    """Let jobs take turns at compiling to TorchScript inside the ``with`` block.

    Process-wide while it lasts; several blocks may overlap.
    """
    module = getattr(torch.jit, _MODULE, None)
    plain = getattr(module, _FUNCTION, None)
    if plain is None:
        yield
        return
    with replaced(module, _FUNCTION, in_turn(plain)):
        yield
