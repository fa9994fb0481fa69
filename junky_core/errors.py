"""Every exception this project raises on purpose.

Each message says what was given, what was expected and where to look. Classes
also derive from the built-in a caller would expect (``ValueError`` for a bad
value), so that code which knows nothing of this project still catches them.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "BestModelError",
    "ConfigError",
    "DeviceError",
    "FitParamsError",
    "ForkedChildError",
    "IsolationError",
    "JobError",
    "JobExited",
    "JobStopped",
    "JournalError",
    "JunkyError",
    "LogError",
    "LogNotFoundError",
    "ModelError",
    "ModelLoadError",
    "ResumeError",
    "SourceError",
    "SweepFailed",
    "SweepFolderError",
    "SweepInterrupted",
    "in_session",
]


class JunkyError(Exception):
    """Base of all errors of this project."""


class FitParamsError(JunkyError, ValueError):
    """The fit params do not follow the grammar."""


class DeviceError(JunkyError, ValueError):
    """A device or a slot count is unknown, absent or malformed."""


class ConfigError(JunkyError, ValueError):
    """An argument or a config value cannot be used."""


class IsolationError(JunkyError, RuntimeError):
    """The installed Hydra or Python does not allow jobs to be isolated from each other."""


class ForkedChildError(JunkyError, RuntimeError):
    """A forked child of a job tried to do what only the job's own process can do."""


class JobError(JunkyError, RuntimeError):
    """Replaces an exception that a job's process could not send; has its text."""


class JobExited(JunkyError, RuntimeError):
    """A job called ``sys.exit`` with a status other than 0, or raised ``SystemExit``.

    Attributes:
        code: What it gave to ``sys.exit``.
    """

    def __init__(self, message: str, code: Any = None) -> None:
        super().__init__(message)
        self.code = code


class ModelError(JunkyError, TypeError):
    """Something is not a model, or its weights could not be loaded again after a save."""


class BestModelError(JunkyError, OSError):
    """The sweep is over, and its best model is not on disk.

    Attributes:
        result: What ``torch_autotrain`` would have returned, with the best
            model that *is* on disk, if there is one.
    """

    def __init__(self, message: str, result: Any = None) -> None:
        super().__init__(message)
        self.result = result


class ModelLoadError(JunkyError, RuntimeError):
    """The sweep is complete, but its best model could not be built again and loaded.

    Attributes:
        result: What ``torch_autotrain`` would have returned, without the model.
    """

    def __init__(self, message: str, result: Any = None) -> None:
        super().__init__(message)
        self.result = result


class LogError(JunkyError, ValueError):
    """A file contains no log of a sweep."""


class LogNotFoundError(LogError, FileNotFoundError):
    """The log file does not exist."""


class JournalError(JunkyError, ValueError):
    """A journal is damaged or was written by an unknown version."""


class ResumeError(JunkyError, ValueError):
    """A sweep cannot be resumed from this folder."""


class SweepFolderError(JunkyError, OSError):
    """The sweep folder is in use by another sweep, holds one, or cannot be written."""


class SweepFailed(JunkyError, RuntimeError):
    """A sweep ended without what was asked of it.

    Attributes:
        failed: One record for each job that failed for good
            (:class:`junky_core.jobs.JobResult`).
    """

    def __init__(self, message: str, failed: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.failed = tuple(failed)


class SourceError(SweepFailed):
    """The source of jobs raised, or broke its contract; the message names it."""


class SweepInterrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP ended the sweep, after all of it was written down.

    In a script it is a ``SystemExit`` too, so that one which does not handle it
    ends with the status shells use for a signal: 130 for SIGINT, 143 for
    SIGTERM, 129 for SIGHUP. In a notebook and at a Python prompt it is not, for
    there it would ask to leave the session.

    Attributes:
        signum: The signal's number.
        code: The exit status, ``128 + signum``.
        result: What the sweep has so far, where there is something.
    """

    def __init__(self, message: str, signum: int = signal.SIGINT, result: Any = None) -> None:
        super().__init__(message)
        self.signum = int(signum)
        self.code = 128 + int(signum)
        self.result = result

    @classmethod
    def here(cls, message: str, signum: int, result: Any = None) -> SweepInterrupted:
        """Return the error to raise in this process: one for a script, or one for a session."""
        kind = SweepInterrupted if in_session() else _ScriptInterrupted
        return kind(message, signum, result)

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows: an orderly end needs no traceback."""
        return [f"{SweepInterrupted.__name__}: {self}"]


class _ScriptInterrupted(SweepInterrupted, SystemExit):  # type: ignore[misc] # code: an int
    """As it ends a script."""


def in_session() -> bool:
    """Tell whether a user is at a prompt of this process: Python's, IPython's, a notebook."""
    return hasattr(sys, "ps1")  # IPython and its kernels set it as well


class JobStopped(BaseException):
    """Ends a running job at its next cancellation point; not an error of the job.

    Derived from ``BaseException``, so that a job's own ``except Exception``
    does not swallow it.

    Attributes:
        reason: ``"timeout"`` (the job exceeded its time limit) or ``"interrupted"``
            (the sweep is ending).
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason
