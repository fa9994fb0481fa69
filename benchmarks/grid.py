"""What expanding a million combinations costs.

As a script (the measured process): ``python -m benchmarks.grid CASE SIZE TRACE``.
"""

import sys
import time
from collections import deque

from benchmarks.measure import Row, Section, child, interleaved, median, missing

# Combinations that the alternatives of "duplicates" share are dropped: three quarters are left.
CASES = ("plain", "range", "alternatives", "duplicates", "sklearn", "sklearn alternatives")


def build(case, size):
    """Return what makes the combinations of a case, about ``size`` of them."""
    side = round(size ** (1 / 3))
    values = [list(range(side)) for _ in "abc"]
    if case == "sklearn":
        from sklearn.model_selection import ParameterGrid

        return lambda: ParameterGrid(dict(zip("abc", values, strict=True)))
    if case == "sklearn alternatives":
        from sklearn.model_selection import ParameterGrid

        half = values[2][: side // 2]
        return lambda: ParameterGrid(
            [
                {"a": values[0], "b": values[1], "c": half},
                {"a": values[0], "b": values[1], "d": half},
            ]
        )
    from junky_core import expand_fit_params

    a, b, c = (list(pair) for pair in zip("abc", values, strict=True))
    middle = side // 2
    grids = {
        "plain": [a, b, c],
        "range": [("seed", range(size))],
        "alternatives": [a, b, [("c", values[2][:middle])], [("d", values[2][:middle])]],
        "duplicates": [
            a,
            b,
            [("c", values[2][:middle])],
            [("c", values[2][middle // 2 : middle + middle // 2])],
        ],
    }  # fmt: skip
    return lambda: expand_fit_params(grids[case])


def expand(case, size, trace):
    import tracemalloc

    from benchmarks import probes

    make = build(case, size)
    if trace:
        tracemalloc.start()
    start = time.perf_counter()
    combinations = iter(make())
    next(combinations)
    first_ms = (time.perf_counter() - start) * 1e3
    count = 1
    if trace:
        for _ in combinations:
            count += 1
    else:
        del combinations
        start = time.perf_counter()
        last = deque(enumerate(make(), 1), maxlen=1)
        count = last[0][0]
    seconds = time.perf_counter() - start
    probes.report(
        first_ms=first_ms,
        seconds=seconds,
        count=count,
        peak=tracemalloc.get_traced_memory()[1] if trace else None,
    )


def cost(options):
    """Row 3: a million combinations, the first one, and memory."""
    size = 1_000_000
    why_not = missing("sklearn")
    cases = [case for case in CASES if not (why_not and case.startswith("sklearn"))]

    def run(case, at, trace):
        return child(["-m", "benchmarks.grid", case, at, int(trace)]).figures

    section = Section("Expanding 1,000,000 combinations")
    timed = interleaved(
        {case: lambda c=case: run(c, size, trace=False) for case in cases}, max(3, options.rounds)
    )
    small = interleaved({case: lambda c=case: run(c, size // 8, trace=False) for case in cases}, 1)
    traced = interleaved(
        {
            f"{case} {at}": lambda c=case, a=at: run(c, a, trace=True)
            for case in cases
            for at in (10_000, size)
        },
        1,
    )
    base = timed.get("sklearn", "")
    sklearn_s = None if isinstance(base, str) else median(one["seconds"] for one in base)
    for case in CASES:
        got = timed.get(case, why_not)
        label = (
            f"scikit-learn ParameterGrid{case[7:].replace(' a', ', a')}"
            if case.startswith("sklearn")
            else f"expand_fit_params, {case}"
        )
        if isinstance(got, str):
            section.rows.append(Row(label, got))
            continue
        seconds = median(one["seconds"] for one in got)
        first_ms = median(one["first_ms"] for one in got)
        count = got[0]["count"]
        peaks = [traced[f"{case} {at}"][0]["peak"] / 1024 for at in (10_000, size)]
        per_small = small[case][0]["seconds"] / small[case][0]["count"]
        ratio = f"{seconds / sklearn_s:.2f}x ParameterGrid's time" if sklearn_s else ""
        ratio += f"; {seconds / count / per_small:.2f}x a combination of a grid 1/8 as large"
        target, met = "", None
        if case in ("plain", "range"):
            target = "as fast as ParameterGrid; first < 10 ms; memory does not grow"
            met = (
                (not sklearn_s or seconds <= sklearn_s * 1.05)
                and first_ms < 10
                and peaks[1] < peaks[0] * 2 + 64
            )
        elif case in ("alternatives", "duplicates"):
            target, met = "linear; first < 10 ms", seconds / count < per_small * 1.5
        section.rows.append(
            Row(
                label,
                f"{seconds:.3f} s for {count:,}; first {first_ms:.2f} ms; peak "
                f"{peaks[0]:,.0f} KB at 10,000, {peaks[1]:,.0f} KB at 1,000,000",
                ratio,
                target,
                met,
            )
        )
    return section


if __name__ == "__main__":
    expand(sys.argv[1], int(sys.argv[2]), bool(int(sys.argv[3])))
