"""The command line: ``python -m junky_core`` or ``junky``."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence

from junky_core.errors import JunkyError, LogError
from junky_core.logs.standard_streams import unbreakable_streams
from junky_core.paths import user_path
from junky_core.values.texts import visible

__all__ = ["main"]

_STATUS = """exit status:
  0  {ok}
  1  {bad}
  2  PATH cannot be read, or the command line is wrong"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    Args:
        argv: The arguments; those of the process by default.
    """
    if sys.stdout is None:  # closed by the caller, as in `junky ... >&-`
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - until the process ends
    arguments = _parser().parse_args(argv)
    # Following a sweep ends when nobody reads it any more; everything else runs to its end.
    follows = arguments.run is _watch and not arguments.once
    try:
        with contextlib.nullcontext() if follows else unbreakable_streams():
            status: int = arguments.run(arguments)
            sys.stdout.flush()
    except BrokenPipeError:  # the reader (head, less) has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (JunkyError, OSError) as error:
        print(f"junky: {visible(str(error))}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="junky", description="Look at sweeps: while they run, and what came out."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    board = _command(
        commands,
        "leaderboard",
        "print how the jobs rank",
        ok="at least one job finished",
        bad="no job has finished",
    )
    board.add_argument("-n", "--rows", type=_count, default=20, help="jobs to show (default: 20)")
    board.add_argument("--csv", metavar="FILE", help="also write all jobs and parameters to FILE")
    board.set_defaults(run=_leaderboard)

    report = _command(
        commands,
        "report",
        "write one HTML page with charts and a table",
        ok="the page is written",
        bad="the page is written, but no job has finished",
    )
    report.add_argument(
        "-o", "--output", metavar="FILE", help="the page (default: report.html in the sweep folder)"
    )
    report.set_defaults(run=_report)

    watch = _command(
        commands,
        "watch",
        "follow a running sweep from another terminal",
        ok="the sweep is over and all jobs finished (with --once: or it is running)",
        bad="the sweep is over and jobs failed or were not run, or its process is gone",
        path="a sweep folder, or its journal.jsonl",
    )
    watch.add_argument("--once", action="store_true", help="print the progress once, and exit")
    watch.add_argument(
        "--interval",
        type=_seconds,
        default=1.0,
        metavar="S",
        help="seconds between updates (default: 1)",
    )
    watch.set_defaults(run=_watch)
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    what: str,
    ok: str,
    bad: str,
    path: str = "a sweep folder, its journal.jsonl, or a log",
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=what,
        description=what[0].upper() + what[1:] + ".",
        epilog=_STATUS.format(ok=ok, bad=bad),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("path", metavar="PATH", help=path)
    return command


def _leaderboard(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from junky_core.views.history import load_history
    from junky_core.views.leaderboard import render_leaderboard, write_leaderboard_csv

    csv = user_path("--csv", arguments.csv) if arguments.csv else None
    history = load_history(arguments.path)
    results = history.results()
    # A pipe or a file has no width to keep to.
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(
        render_leaderboard(results, history.direction, max_rows=arguments.rows, width=console.width)
    )
    if csv is not None:
        write_leaderboard_csv(csv, results, history.direction)
    return 0 if any(result.status == "finished" for result in results) else 1


def _report(arguments: argparse.Namespace) -> int:
    from junky_core.jobs import JobStatus
    from junky_core.views.history import load_history
    from junky_core.views.report import report_path, write_report

    output = user_path("--output", arguments.output) if arguments.output else None
    history = load_history(arguments.path)
    path = write_report(history, output or report_path(arguments.path))
    print(visible(str(path)))  # noqa: T201
    return 0 if history.count(JobStatus.FINISHED) else 1


def _watch(arguments: argparse.Namespace) -> int:
    from junky_core.views.watch import watch

    return watch(
        user_path("PATH", arguments.path, LogError),
        once=arguments.once,
        interval_s=arguments.interval,
    )


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("it must be 1 or more")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0.1 <= number <= 3600:
        raise argparse.ArgumentTypeError("it must be 0.1 to 3600 seconds")
    return number


if __name__ == "__main__":
    sys.exit(main())
