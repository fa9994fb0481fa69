"""Keep the intact records of a damaged journal; add numbers and checksums to an old one."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from junky_core.errors import JournalError, SweepFolderError
from junky_core.events import SweepKind, SweepStarted
from junky_core.files import write_atomically
from junky_core.jobs import Direction
from junky_core.record.codec import encode_event
from junky_core.record.event_types import EVENT_TYPES
from junky_core.record.lines import (
    BLANK,
    Line,
    LineError,
    LineReader,
    check_version,
    is_torn,
    parse_line,
    seal,
    whole_parts,
)
from junky_core.record.reader import read_journal
from junky_core.values.wording import count

__all__ = ["repair_journal", "seal_old_journal"]

_MOST_LOST = 4  # how many bytes of an event's name may be wrong for it to be recognised
_MOST_NAMED = 10  # how many dropped lines are named one by one


@dataclass(frozen=True, slots=True)
class _Whole:
    """An intact record: its number, its line, and its text without number and checksum.

    An empty text marks a damaged record that may have been a start of the sweep.
    """

    n: int | None
    line: int
    text: bytes = b""


def seal_old_journal(path: Path) -> None:
    """Add numbers and checksums to the lines of an old journal.

    Does nothing if there is no journal, or if it has them.

    Raises:
        JournalError: It is damaged.
        OSError: It cannot be written; it is unchanged.
    """
    try:
        with path.open("rb") as file:
            n = parse_line(file.readline()).n
    except (FileNotFoundError, NotADirectoryError, LineError):
        return
    if n is not None:
        return
    reader = LineReader(path)
    with path.open("rb") as file:
        _write(path, (line.text for text in file if (line := reader.take(text)) is not None))


def repair_journal(path: Path, direction: Direction, seed: int | None) -> str | None:
    """Keep only the intact records of a damaged journal, in order and with new numbers.

    The damaged file is kept next to it, as ``journal.jsonl.damaged``.

    Args:
        path: The journal.
        direction: This run's direction, used where a start of the sweep is lost.
        seed: This run's seed, used in the same way.

    Returns:
        A message for the user that says what was dropped; ``None`` if the journal is intact.

    Raises:
        JournalError: It has no intact record, or a later release wrote it.
        SweepFolderError: It cannot be read or written; it is unchanged.
    """
    try:
        return _repair(path, direction, seed)
    except OSError as error:
        raise SweepFolderError(
            error.errno, f"the journal cannot be repaired: {error.strerror}"
        ) from error


def _repair(path: Path, direction: Direction, seed: int | None) -> str | None:
    try:
        for _ in read_journal(path):
            pass
    except JournalError as error:
        first_damage = error
    else:
        return None
    found, dropped = _sift(path)
    found, doubled = _in_order(found)
    whole = sum(bool(one.text) for one in found)
    if not whole:
        raise JournalError(f"{first_damage} (it has no intact record)") from first_damage
    said = [*dropped, *doubled]
    missing = _missing(found) - (len(dropped) - (len(found) - whole))
    if missing > 0:
        said.append(f"{count(missing, 'record')} missing from the file")
    if _starts_sweep(found[0].text):
        check_version(parse_line(found[0].text).record, path)
    elif found[0].text:
        found.insert(0, _Whole(None, 0))
    if not all(one.text for one in found):
        said.append(
            "perhaps a start of the sweep: this run's seed, direction and fixed arguments take "
            "its place"
        )
    texts = [one.text or _start(direction, seed) for one in found]
    kept = _keep_damaged(path)
    _write(path, texts)
    shown = said[:_MOST_NAMED] or ["nothing: its lines were out of order"]
    if len(said) > _MOST_NAMED:
        shown.append(f"and {len(said) - _MOST_NAMED} more")
    return (
        f"the journal {path} was damaged; the sweep continues with its intact records, "
        f"{count(whole, 'record')}. Dropped: {'; '.join(shown)}. "
        f"The damaged file is kept as {kept.name}"
    )


def _sift(path: Path) -> tuple[list[_Whole], list[str]]:
    """Return the intact records of a journal, in the order of its lines, and what was dropped."""
    found: list[_Whole] = []
    dropped: list[str] = []
    sealed = False
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip(BLANK):
                continue
            try:
                whole = parse_line(line)
                if whole.n is None and sealed:
                    raise LineError("it has no checksum")
                found.append(_Whole(whole.n, number, whole.text))
            except LineError as error:
                parts = _readable(whole_parts(line))
                found += [_Whole(part.n, number, part.text) for part in parts]
                if not is_torn(line):
                    dropped.append(f"line {number}{' in part' if parts else ''} ({error})")
                    if not parts and _may_be_start(line):
                        last = found[-1].n if found else 0
                        found.append(_Whole(None if last is None else last + 1, number))
            sealed = sealed or (bool(found) and found[-1].n is not None)
    return found, dropped


def _start(direction: Direction, seed: int | None) -> bytes:
    """Return an encoded record that replaces a lost start of the sweep."""
    sweep_id = uuid.uuid4().hex[:12]
    event = SweepStarted(
        sweep_id=sweep_id,
        kind=SweepKind.UNKNOWN,
        total=None,
        direction=direction,
        seed=seed,
        resumed=True,
    )
    return encode_event(event) or b""


def _starts_sweep(text: bytes) -> bool:
    return text.startswith(b'{"event": "sweep_started"')


def _may_be_start(line: bytes) -> bool:
    """Return whether a damaged line may have been a start of the sweep."""
    lost: dict[str, int] = {}  # for each event's name, how many bytes differ
    for event in EVENT_TYPES:
        head = b'{"event": "%b"' % event.encode()
        lost[event] = sum(a != b for a, b in itertools.zip_longest(head, line[: len(head)]))
    nearest = min(lost, key=lost.__getitem__)
    return nearest == "sweep_started" or lost[nearest] > _MOST_LOST


def _readable(parts: Iterable[bytes]) -> list[Line]:
    """Parse records; leave out those with fields that are not valid."""
    good = []
    for part in parts:
        with contextlib.suppress(LineError):
            good.append(parse_line(part))
    return good


def _in_order(found: Sequence[_Whole]) -> tuple[list[_Whole], list[str]]:
    """Return the records in the order of their numbers, each once, and notes on copies."""
    kept: list[_Whole] = []
    doubled: list[str] = []
    seen: dict[tuple[int, bytes], int] = {}
    for one in found:
        if one.n is not None and one.text:
            before = seen.get((one.n, one.text))
            if before is not None:
                doubled.append(f"line {one.line} (a copy of line {before})")
                continue
            seen[one.n, one.text] = one.line
        kept.append(one)
    kept.sort(key=lambda one: -1 if one.n is None else one.n)
    return kept, doubled


def _missing(found: Sequence[_Whole]) -> int:
    """Return how many numbers, up to the highest one, belong to no record."""
    numbers = {one.n for one in found if one.n is not None}
    without = sum(one.n is None for one in found)
    return max(numbers, default=without) - without - len(numbers)


def _keep_damaged(path: Path) -> Path:
    for serial in itertools.count(1):
        kept = path.with_name(f"{path.name}.damaged{'' if serial == 1 else f'-{serial}'}")
        if not kept.exists():
            break
    with path.open("rb") as file:
        write_atomically(kept, lambda copy: shutil.copyfileobj(file, copy))
    return kept


def _write(path: Path, texts: Iterable[bytes]) -> None:
    lines = (seal(text, n) for n, text in enumerate(texts, 1))
    write_atomically(path, lambda file: file.writelines(lines))
