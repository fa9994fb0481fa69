"""Forked children of a job: they end when the job's code does, and never write the sweep's files.

``os.fork`` copies the thread that calls it, with everything the thread still has to
do. A child whose code returns, raises or calls ``sys.exit`` would continue as the
slot it was forked in: take jobs, write the same journal, and its parent would
wait for its end. So it ends where the job's code ends, as a script would:

    the job's code, in the child     exit status
    returns, ``sys.exit()``          0
    ``sys.exit(n)``                  n
    raises                           1, after the traceback; 130 for ``KeyboardInterrupt``

Functions registered with ``atexit`` do not run in it: many wait for threads that
the child does not have. Children of ``multiprocessing``, and so DataLoader's
workers, end by themselves.

Every object that writes to the sweep's files, or keeps them open, has an
:class:`OwnProcess` and does nothing in a child.
"""

from __future__ import annotations

import contextlib
import os
import sys

from junky_core.values.user_text import str_of

__all__ = ["OwnProcess", "leave_if_forked"]


class OwnProcess:
    """True in the process that created it, false in a forked child.

    >>> bool(OwnProcess())
    True
    """

    __slots__ = ("_pid",)

    def __init__(self) -> None:
        self._pid = os.getpid()

    def __bool__(self) -> bool:
        return os.getpid() == self._pid


def leave_if_forked(own: OwnProcess, error: BaseException | None = None) -> None:
    """End the process if it is a forked child; call it where a job's code has ended.

    Args:
        own: Created before the job's code began.
        error: What it raised.
    """
    if own:
        return
    status = 1
    try:
        status = _status(error)
    finally:  # the child must end in any case
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(BaseException):
                stream.flush()
        os._exit(status)


def _status(error: BaseException | None) -> int:
    """Return the exit status, and write what the interpreter would write."""
    if error is None:
        return 0
    kind = type(error)
    if issubclass(kind, SystemExit):
        code = vars(SystemExit)["code"].__get__(error)
        if code is None or type(code) is int:
            return 0 if code is None else code & 0xFF
        sys.stderr.write(f"{str_of(code)}\n")
        return 1
    from junky_core.job.failures import (
        traceback_text,  # needs torch, which a journal's reader does not
    )

    sys.stderr.write(f"{traceback_text(error)}\n")
    return 130 if issubclass(kind, KeyboardInterrupt) else 1
