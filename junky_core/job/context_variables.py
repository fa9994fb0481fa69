"""Context variables: each job sees those of the script, and its changes end with it.

A new thread starts without any. So jobs would not see what a script set before the
sweep, and each job of a slot would see what the job before it set. NumPy keeps
``np.seterr`` and its print options there, ``decimal`` its precision.
"""

from __future__ import annotations

import contextvars
import decimal
from collections.abc import Callable
from typing import Any

__all__ = ["ScriptContext"]


class ScriptContext:
    """The context variables of the thread that creates it.

    Thread-safe.

    >>> variable = contextvars.ContextVar("variable", default=1)
    >>> ScriptContext().run(variable.set, 2) and variable.get()
    1
    """

    def __init__(self) -> None:
        self._variables = contextvars.copy_context()

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call ``function`` with a copy of the variables, which is dropped afterwards."""
        return self._variables.copy().run(_with_own_decimal, function, args)


def _with_own_decimal(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    decimal.setcontext(decimal.getcontext().copy())  # it is changed in place
    return function(*args)
