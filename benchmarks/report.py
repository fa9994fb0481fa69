"""The table, for a terminal and for the docs."""

import datetime as dt
import os
import platform
import re
from importlib import metadata
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.measure import REPOSITORY

DOCUMENT = REPOSITORY / "docs" / "benchmarks.md"
BEGIN, END = "<!-- table: written by python -m benchmarks --write -->", "<!-- end of table -->"
PACKAGES = (
    "hydra-junky", "torch", "hydra-core", "omegaconf", "hydra-joblib-launcher", "optuna", "joblib",
    "ray", "scikit-learn",
)  # fmt: skip


def verdict(met):
    return {True: "yes", False: "NO", None: ""}[met]


def circumstances(load):
    """Return date, machine and versions, one line each."""
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{name} absent")
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in _lines("/proc/cpuinfo")
            if line.startswith("model name")
        ),
        platform.processor() or "unknown CPU",
    )
    memory = next((line.split()[1] for line in _lines("/proc/meminfo")), "0")
    return [
        f"Date: {dt.datetime.now(dt.timezone.utc):%Y-%m-%d %H:%M} UTC",
        (
            f"Machine: {cpu}, {len(os.sched_getaffinity(0))} cores, {int(memory) / 2**20:.0f} GiB, "
            f"{platform.system()} {platform.release()}; load average before: {load:.2f}"
        ),
        f"Versions: Python {platform.python_version()}, {', '.join(versions)}",
    ]


def _lines(path):
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def show(sections, facts):
    """Print the table."""
    console = Console(width=None if os.isatty(1) else 200)
    for section in sections:
        table = Table(title=section.title, title_justify="left", box=box.SIMPLE, expand=True)
        for name, share in (("What", 5), ("Figure", 8), ("Ratio", 3), ("Target", 4), ("Met", 1)):
            table.add_column(name, ratio=share, overflow="fold")
        for row in section.rows:
            table.add_row(row.what, row.figure, row.ratio, row.target, verdict(row.met))
        console.print(table)
        if section.note:
            console.print(section.note, style="dim")
    for fact in facts:
        console.print(fact)


def markdown(section, apart=()):
    """Return the table of one benchmark as Markdown.

    ``apart``: when and how it was measured, if not with the others.
    """
    lines = [f"### {section.title}", ""]
    if section.note:
        lines += [section.note, ""]
    if apart:
        lines += [f"Measured separately. {'. '.join(apart)}.", ""]
    lines += ["| What | Figure | Ratio | Target | Met |", "| --- | --- | --- | --- | --- |"]
    for row in section.rows:
        cells = (row.what, row.figure, row.ratio, row.target, verdict(row.met))
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def write(sections, facts, *, whole):
    """Put the tables between the marks in the document.

    ``whole``: all benchmarks were measured; else those that were not keep their tables.
    """
    before, begin, rest = DOCUMENT.read_text().partition(BEGIN)
    old, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{DOCUMENT} lacks the marks {BEGIN} and {END}")
    if whole:
        listed = "\n".join(f"- {fact}" for fact in facts)
        parts = [f"\n\n{listed}\n\n", *(f"{markdown(section)}\n" for section in sections)]
    else:
        parts = re.split(r"(?m)^(?=### )", old)
        for section in sections:
            heading = f"### {section.title.partition(':')[0]}"  # the GPU's name is behind a colon
            new = f"{markdown(section, facts)}\n"
            places = (at for at, part in enumerate(parts) if part.startswith(heading))
            place = next(places, len(parts))
            parts[place : place + 1] = [new]
    DOCUMENT.write_text(f"{before}{begin}{''.join(parts)}{end}{after}")
