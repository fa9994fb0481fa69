"""Read the log of a sweep: :func:`parse_autotrain_log`."""

from __future__ import annotations

import codecs
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

from junky_core.errors import JournalError, LogError, LogNotFoundError
from junky_core.jobs import JobStatus, rank_key
from junky_core.logs.lines import LogReader, Row
from junky_core.paths import user_path
from junky_core.record.folder import JOURNAL_NAME
from junky_core.record.reader import load_state
from junky_core.record.regular_files import open_regular
from junky_core.record.state import SweepState
from junky_core.values.texts import visible

__all__ = ["find_log", "parse_autotrain_log"]


def parse_autotrain_log(log_fn: str | os.PathLike[str], silent: bool = False) -> list[Row]:
    r"""Extract the results of a sweep from its log.

    Args:
        log_fn: A log file of ``torch_autotrain`` or of a Hydra sweep, a console
            capture, text copied from a notebook, a log of the old tool, a sweep
            folder, or a ``journal.jsonl``. Several sweeps in one file give the rows of all.
        silent: Print nothing. Otherwise a line ``name<TAB>score<TAB>params`` is printed
            for each row, with ``*`` before the name of a job that has not finished.

    Returns:
        ``(name, score, params, finished)`` for each job, best first. Jobs whose score is
        NaN or infinite come after the others, and jobs without a score (``None``) last.
        ``params`` is a dict. It is the text from the log if that is not made of literals,
        and ``None`` if the log does not contain it. A job that was retried has one row,
        with the name of its last attempt.

    Raises:
        LogNotFoundError: There is no such file or folder.
        LogError: The file is empty, cannot be read, or is not the log of a sweep.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = Path(folder, "run.log")
        ...     _ = log.write_text("Thread-1_0: (('a', 50),)\n"
        ...                        "Thread-1_0: new maximum score 0.5: OVERALL MAXIMUM\n")
        ...     rows = parse_autotrain_log(log, silent=True)
        >>> rows
        [('Thread-1_0', 0.5, {'a': 50}, False)]
    """
    path = user_path("log_fn", log_fn, LogError)
    if not path.exists():
        raise LogNotFoundError(f"there is no log at {str(path)!r}")
    found = find_log(path)
    rows = found.rows() if isinstance(found, LogReader) else _journal_rows(found)
    if not silent:
        for name, score, params, finished in rows:
            cells = (f"{'' if finished else '*'}{name}", str(score), str(params))
            _print("\t".join(map(visible, cells)))
    return rows


def find_log(path: Path) -> LogReader | SweepState:
    """Read a log, a journal, or the one that a sweep folder has.

    Raises:
        LogError: As for :func:`parse_autotrain_log`.
    """
    return _read_folder(path) if path.is_dir() else _read_file(path)


def _read_folder(folder: Path) -> LogReader | SweepState:
    """Read the log in a sweep folder, or its journal if there is no log."""
    try:
        candidates = [folder / "autotrain.log", folder / JOURNAL_NAME]
        candidates += sorted(p for p in folder.glob("*.log") if p not in candidates)
        inner = sorted({p.parent.name for p in folder.glob("*/autotrain.log")})
    except OSError as error:
        raise LogError(f"the folder {str(folder)!r} cannot be read: {error}") from error
    damage = ""
    for path in candidates:
        if path.is_file():
            try:
                return _read_file(path)
            except LogError as error:
                if path.name == JOURNAL_NAME:
                    damage = f"; {error}"
    hint = f"; sweeps are in its folders {', '.join(inner[:5])}" if inner else ""
    raise LogError(
        f"the folder {str(folder)!r} contains no log of a sweep:"
        f" no 'autotrain.log', 'journal.jsonl' or other '*.log' that can be read{hint}{damage}"
    )


def _read_file(path: Path) -> LogReader | SweepState:
    log = LogReader()
    try:
        with open_regular(path) as stream:
            head = stream.read(4096)
            stream.seek(0)
            if not head and not stream.read(1):
                raise LogError(f"the log {str(path)!r} is empty")
            utf16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            if path.name == JOURNAL_NAME or head.startswith(b'{"event"'):
                return _read_journal(path)
            # Universal newlines: a progress bar's carriage returns end lines as well.
            if path.suffix == ".ipynb":
                log.read(_notebook_lines(path))
                return _checked(log, path)
            encoding = "utf-16" if utf16 else "utf-8-sig"
            with io.TextIOWrapper(stream, encoding, errors="replace", newline=None) as text:
                log.read(text)
    except OSError as error:
        if isinstance(error, LogError):
            raise
        raise LogError(f"the log {str(path)!r} cannot be read: {error}") from error
    return _checked(log, path)


def _checked(log: LogReader, path: Path) -> LogReader:
    if not log.seen:
        raise LogError(
            f"{str(path)!r} is not the log of a sweep: it has neither 'AUTOTRAIN STARTED'"
            " nor a line such as \"Thread-1_0: (('a', 50), ('b', 0.1))\""
        )
    return log


def _notebook_lines(path: Path) -> Iterator[str]:
    """Yield the lines that the cells of a saved notebook printed."""
    try:
        cells = json.loads(path.read_bytes())["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", ())]
        texts = [output.get("text", "") for output in outputs]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LogError(f"{str(path)!r} is not a notebook: {error}") from error
    for text in texts:
        yield from ("".join(text) if isinstance(text, list) else str(text)).split("\n")


def _read_journal(path: Path) -> SweepState:
    try:
        return load_state(path)
    except JournalError as error:
        raise LogError(str(error)) from error


def _journal_rows(state: SweepState) -> list[Row]:
    jobs = sorted(state.counting(), key=lambda j: rank_key(j.score, j.num, state.direction))
    return [(job.name, job.score, job.params, job.status is JobStatus.FINISHED) for job in jobs]


def _print(text: str) -> None:
    try:
        print(text)  # noqa: T201 - what the function is asked to do
    except UnicodeEncodeError:
        print(ascii(text))  # noqa: T201
