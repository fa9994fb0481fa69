"""Other libraries, where a sweep has to know how they work inside.

One module for each library, and what they need in common:

- ``accelerate`` keeps its state by class; each slot gets its own;
- ``accelerate_models`` and ``transformers`` change the whole process while they build a model;
- ``safe_globals`` is torch's list of what ``torch.load`` accepts;
- ``torchscript`` compiles for the whole process;
- ``process_wide`` lists libraries whose state cannot be kept apart;
- ``imports`` does something as soon as a library is imported.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from junky_core.job.libraries import accelerate, process_wide, transformers
from junky_core.job.libraries.accelerate_models import empty_models_apart
from junky_core.job.libraries.safe_globals import safe_globals_counted
from junky_core.job.libraries.torchscript import scripts_in_turn

__all__ = ["begin_job", "libraries_apart"]


@contextlib.contextmanager
def libraries_apart(warn: Callable[[str], None], *, slots: int) -> Iterator[None]:
    """Keep apart what libraries hold for the whole process, for each slot, inside the block.

    Process-wide while it lasts; several blocks may overlap.

    Args:
        warn: Called with a message for each library whose state the slots
            share, when the block begins or when a job imports the library.
        slots: How many slots run jobs at the same time.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(accelerate.states_apart(warn, slots=slots))
        if slots > 1:
            stack.enter_context(empty_models_apart())
            stack.enter_context(safe_globals_counted())
            stack.enter_context(scripts_in_turn())
            stack.enter_context(transformers.builds_apart(warn))
            stack.enter_context(process_wide.named(warn, slots=slots))
        yield


def begin_job(slot_facets: dict[str, Any]) -> None:
    """Let a job begin on a slot without what the slot's last job left behind."""
    accelerate.begin_job(slot_facets)
