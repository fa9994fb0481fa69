r"""The lines of a journal: numbering, checksums, and reading in order.

A line ends with its number in the file, from 1, and a CRC-32 of everything before it on the line:

    {"event": "notice", ..., "message": "hello", "n": 7, "crc": 2774811370}

This detects changed bits, and lines that are missing, doubled or out of order. The first journals
have neither; they are read without these checks, and get both when their sweep is resumed. A last
line without a line end is one of these:

    a part of a record                     cut short by a kill ("torn"): ignored
    a complete record                      only its line end is lost: read
    a complete record, followed by more    damage
"""

from __future__ import annotations

import json
import os
import re
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from junky_core.errors import JournalError
from junky_core.record.codec import JOURNAL_VERSION, FieldError, event_of

if TYPE_CHECKING:
    from pathlib import Path

    from junky_core.events import Event

__all__ = [
    "BLANK",
    "Line",
    "LineError",
    "LineReader",
    "parse_line",
    "seal",
    "whole_length",
    "whole_parts",
]

BLANK = b"\0 \t\r\n"  # a power cut may leave zeros at a file's end
HEAD = b'{"event"'  # how every record begins
_SEAL = re.compile(rb', "n": (\d{1,18}), "crc": (\d{1,10})\}')
_parse = json.JSONDecoder().raw_decode
_EXCERPT = 60  # characters of a damaged line to show


class Line(NamedTuple):
    """A complete record.

    Attributes:
        record: The record, without its number and checksum.
        event: The event it records; ``None`` if this release does not know it.
        n: Its number; ``None`` in a journal without numbers.
        text: The line without number and checksum.
    """

    record: dict[str, Any]
    event: Event | None
    n: int | None
    text: bytes


class LineError(ValueError):
    """A line is not a complete record; the message says why."""


def seal(line: bytes, n: int) -> bytes:
    r"""Return an encoded record with its number and checksum.

    >>> seal(b'{"event": "x", "time": 1.5}\n', 7)
    b'{"event": "x", "time": 1.5, "n": 7, "crc": 1343427752}\n'
    """
    body = b'%b, "n": %d' % (line[:-2], n)
    return b'%b, "crc": %d}\n' % (body, zlib.crc32(body))


def parse_line(line: bytes) -> Line:
    """Return the record on a line.

    Raises:
        LineError: It is not a complete record.
    """
    text = line.strip(BLANK)
    found = _SEAL.fullmatch(text, max(0, text.rfind(b', "n": ')))
    if found is not None and not _is_sealed_by(found, text):
        raise LineError("its checksum does not match")
    try:
        decoded = text.decode()
        record, end = _parse(decoded)  # json.loads would look for the encoding first
    except (ValueError, RecursionError):
        raise LineError("it is not a record") from None
    if end < len(decoded) or type(record) is not dict or type(record.get("event")) is not str:
        raise LineError("it is not a record")
    if found is None and ("n" in record or "crc" in record):
        raise LineError("its checksum is damaged")
    try:
        event = event_of(record)
    except FieldError as error:
        raise LineError(f"{record['event']}: {error}") from None
    if found is None:
        return Line(record, event, None, text + b"\n")
    del record["n"], record["crc"]
    return Line(record, event, int(found[1]), text[: found.start()] + b"}\n")


def whole_parts(line: bytes) -> list[bytes]:
    """Return the records on a damaged line whose checksums match.

    There can be several, if line ends were lost.
    """
    parts, free = [], 0
    for head in re.finditer(re.escape(HEAD), line):
        if head.start() < free:
            continue
        for found in _SEAL.finditer(line, head.start()):
            part = line[head.start() : found.end()]
            if _is_sealed_by(found, part):
                parts.append(part + b"\n")
                free = found.end()
                break
    return parts


class LineReader:
    """Parses the lines of one journal, in order.

    Args:
        path: The journal, for messages.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = 0
        self._records = 0
        self._sealed = False

    def take(self, text: bytes) -> Line | None:
        """Return the next line parsed, ``None`` if it is blank or torn.

        Args:
            text: The line, with its end; only the last of the file may lack that.

        Raises:
            JournalError: It is damaged, or not the next record.
        """
        self._lines += 1
        if not text.strip(BLANK):
            return None
        try:
            line = parse_line(text)
        except LineError as error:
            if is_torn(text):
                if self._records or _may_be_torn_first(text):
                    return None
                raise self._not_a_journal(text) from None
            raise self._damage(f"{error}{self._other_version(text)}: {_excerpt(text)}") from None
        if not self._records:
            check_version(line.record, self._path)
        self._check_order(line.n)
        self._records += 1
        return line

    def _check_order(self, n: int | None) -> None:
        expected = self._records + 1
        if n is None:
            if self._sealed:
                raise self._damage("it has no checksum, but the lines before it have one")
            return
        self._sealed = True
        if n > expected:
            some = (
                f"record {expected} is"
                if n == expected + 1
                else (f"records {expected} to {n - 1} are")
            )
            raise self._damage(f"it is record {n}, and {some} missing before it")
        if n < expected:
            raise self._damage(
                f"it is record {n} where record {expected} should be: lines are doubled or out of "
                "order"
            )

    def _other_version(self, line: bytes) -> str:
        """Return a note for the message, if a later release may have written the first line."""
        found = re.search(rb'"journal_version": (\d{1,9})', line)
        if self._records or found is None or int(found[1]) == JOURNAL_VERSION:
            return ""
        return f" (it says version {int(found[1])}; this release reads version {JOURNAL_VERSION})"

    def _damage(self, why: str) -> JournalError:
        return JournalError(
            f"{self._path}, line {self._lines}: the journal is damaged there: {why}. Resume with "
            "resume='repair' (Hydra: hydra.launcher.resume=repair) to continue with the intact "
            "records, or move the file away and start again"
        )

    def _not_a_journal(self, line: bytes) -> JournalError:
        return JournalError(
            f"{self._path} is not the journal of a sweep: line {self._lines} is {_excerpt(line)}"
        )


def is_torn(line: bytes) -> bool:
    """Return whether a line that is not a record was cut short, and contains no complete one."""
    return not line.endswith(b"\n") and not whole_parts(line)


def check_version(record: dict[str, Any], path: Path) -> None:
    """Check that a journal's first record is one, and of a version that this release reads.

    Raises:
        JournalError: It is not.
    """
    version = record.get("journal_version")
    if version is None:
        raise JournalError(
            f"{path}, line 1: it is not the journal of a sweep, or its beginning is lost: "
            "this line has no journal_version"
        )
    if version != JOURNAL_VERSION:
        raise JournalError(
            f"{path}, line 1: it is version {version!r} of the journal; "
            f"this release reads version {JOURNAL_VERSION}"
        )


def whole_length(descriptor: int) -> tuple[int, int | None]:
    """Return the size of an open journal without a torn last line.

    Returns:
        The size in bytes, and the number of the last record: ``None`` if it has no number, 0 if
        there is no record. That record may lack its line end.

    Raises:
        OSError: The file cannot be read, its last line is damaged, or it is not a journal.
    """
    end = os.fstat(descriptor).st_size
    while True:
        start, last = _last_line(descriptor, end)
        if not last.strip(BLANK):
            return 0, 0
        try:
            n = parse_line(last).n
        except LineError as error:
            if start == 0 and not _may_be_torn_first(last):
                raise OSError(None, f"it is not the journal of a sweep: {_excerpt(last)}") from None
            if not is_torn(last):
                raise OSError(None, f"its last line is damaged: {error}") from None
            end = start
        else:
            return start + len(last.rstrip(b"\0")), n


def _last_line(descriptor: int, end: int) -> tuple[int, bytes]:
    """Return the start of the last line before ``end`` that is not blank, and all from there."""
    take = 1 << 16
    while True:
        start = max(0, end - take)
        tail = _read_from(descriptor, start, end)
        cut = tail.rstrip(BLANK).rfind(b"\n") + 1
        if cut or start == 0:
            return start + cut, tail[cut:]
        take *= 4


def _read_from(descriptor: int, start: int, end: int) -> bytes:
    os.lseek(descriptor, start, os.SEEK_SET)
    parts = []
    while start < end and (part := os.read(descriptor, end - start)):
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def _is_sealed_by(found: re.Match[bytes], text: bytes) -> bool:
    return zlib.crc32(text[: text.rindex(b', "crc": ')]) == int(found[2])


def _may_be_torn_first(line: bytes) -> bool:
    """Return whether the only line of a file may be the start of a journal's first record."""
    text = line.rstrip(BLANK)
    return text.startswith(HEAD) or HEAD.startswith(text)


def _excerpt(line: bytes) -> str:
    text = line.strip(b"\r\n").decode("utf-8", "replace")
    return repr(text if len(text) <= _EXCERPT else text[:_EXCERPT] + "...")
