"""A run in one line per case: our time beside that of the quickest other."""

from bench import results
from bench.operations import OURS
from bench.results import COPIES, Measured, Report, time_text

COLUMNS = ("operation", "dtype", "size", "ours", "best other", "ratio", "clock", "which other")
TITLE = "Ratio: the time of the best other divided by ours. Larger is faster; above 1, ours is faster than all others."
LEFT = (0, 1, 6, 7)  # columns of words; the others are of numbers


def shape_text(case: Measured) -> str:
    """A shape, a power of 2 as one."""
    if len(case["shape"]) == 1:
        return f"2^{case['shape'][0].bit_length() - 1}"
    return "x".join(map(str, case["shape"]))


def best_other(case: Measured) -> str | None:
    """The quickest of the baselines whose result is right, with jit or without; None if none was measured."""
    found = case["results"]
    others = [n for n in found if not n.startswith(OURS) and n not in COPIES]
    # Without a time of ours there is no ratio, and the baselines are compared with the first of them.
    against = OURS if results.seconds(case, OURS) else case["baseline"]
    speeds = {n: s for n in others if "wrong" not in found[n] and (s := results.ratio(case, n, against))}
    return max(speeds, key=lambda name: speeds[name], default=None)


def row(case: Measured) -> tuple[str, ...]:
    """The cells of a case."""
    found, other = case["results"][OURS], best_other(case)
    times = results.times(case, OURS, other) if other else None
    ours, theirs, clock = times or (results.best_seconds(case, OURS), results.best_seconds(case, other or ""), "")
    reason = next((text for key, text in (("error", "failed"), ("left_out", "left out")) if key in found), "")
    return (
        case["operation"],
        case["dtype"],
        shape_text(case),
        reason or time_text(ours),
        time_text(theirs) or "-",
        "WRONG" if "wrong" in found else f"{theirs / ours:.2f}" if ours and theirs else "-",
        clock,
        other or "",
    )


def lines(report: Report) -> str:
    """The cases of a run in columns, under a line that says how to read them."""
    rows = [COLUMNS, *map(row, report["cases"])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = (
        [c.ljust(w) if i in LEFT else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True))] for r in rows
    )
    return "\n".join([TITLE, *("  ".join(cells).rstrip() for cells in padded)])
