"""Measure this project and its peers, and print tables of figures and ratios.

    pip install -c constraints.txt -c benchmarks/constraints.txt -e '.[bench]'
    python -m benchmarks                 # run all; an hour on 2 cores
    python -m benchmarks --quick         # smaller sizes, one round; minutes
    python -m benchmarks --only digits   # only the named benchmarks
    python -m benchmarks --write         # also write the tables into docs/benchmarks.md

Each measurement runs in a separate process. The contestants of a benchmark take turns, and their
medians are compared.
"""

import argparse
import os

from benchmarks import autotrain_noop, digits, executors, gpu, grid, hydra_noop, idle, report
from benchmarks.measure import Options, progress

BENCHMARKS = {
    "hydra-job": hydra_noop.cost,
    "autotrain-job": autotrain_noop.cost,
    "grid": grid.cost,
    "digits": digits.cost,
    "idle": idle.cost,
    "hydra-start": hydra_noop.start,
    "hydra-memory": hydra_noop.memory,
    "processes-tiny": executors.tiny,
    "processes-digits": executors.of_digits,
    "processes-worker": executors.worker,
    "processes-job": executors.job,
    "processes-save": executors.save,
    "processes-seeds": executors.seeds,
    "processes-example": executors.example,
    "gpu": gpu.cost,
}


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="smaller sizes, one round")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, metavar="NAME", default=None,
                        help=f"which: {', '.join(BENCHMARKS)}")  # fmt: skip
    parser.add_argument("--rounds", type=int, help="how often each is measured (3; quick: 1)")
    parser.add_argument("--write", action="store_true",
                        help="write docs/benchmarks.md; with --only, those of it")  # fmt: skip
    given = parser.parse_args()
    rounds = given.rounds or (1 if given.quick else 3)
    options = Options(quick=given.quick, rounds=rounds)
    load = os.getloadavg()[0]
    sections = []
    try:
        for name in given.only or BENCHMARKS:
            progress(f"== {name}")
            sections.append(BENCHMARKS[name](options))
    finally:  # what was measured before a Ctrl-C is worth its table
        facts = report.circumstances(load)
        facts.append(f"Rounds: {rounds}{', --quick' if given.quick else ''}")
        report.show(sections, facts)
        if given.write:
            report.write(sections, facts, whole=not given.only)


if __name__ == "__main__":
    main()
