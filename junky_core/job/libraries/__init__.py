"""Other libraries whose internals a sweep has to know.

One module for each library, and what they have in common:

- ``accelerate`` keeps its state in classes; each slot gets its own;
- ``accelerate_models`` and ``transformers`` change the whole process while they build a model;
- ``safe_globals`` is torch's list of what ``torch.load`` accepts;
- ``torchscript`` compiles for the whole process;
- ``process_wide`` lists libraries whose state slots have to share;
- ``imports`` acts on a library as soon as it is imported.
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
    """Separate by slot what libraries keep for the whole process, inside the block.

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
    """Clear what the last job of a slot left behind, before the next one starts."""
    accelerate.begin_job(slot_facets)
