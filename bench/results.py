"""What was measured, as data: a file for each run, `<device>/<date>.json`, one line per case.

GB/s and ratios are not stored, since they follow from the times.
"""

import datetime
import json
import math
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bench.names import OURS

Result = dict[str, Any]  # of one variant: times in seconds; or why there are none
Measured = dict[str, Any]  # of one case
Report = dict[str, Any]  # of one run

STORED = pathlib.Path(__file__).parent / "results"
COPIES = ("copy", "copy, inverting the bits")  # in one thread of a CPU, and in all
SUMMARY = ("operation", "dtype", "elements", "time", "GB/s", "of copy", "best other", "ratio", "clock", "which other")
FAILURES = {"wrong": "WRONG", "error": "failed", "left_out": "left out"}  # keys of a result, and what they are called
TITLE = "Ratio: the time of the best other divided by ours. Larger is faster; above 1, ours is faster than all others."


def seconds(case: Measured, name: str, kind: str = "median_s") -> float | None:
    """The median wall time of a variant, or its time of another kind; None if it was not measured."""
    return case["results"].get(name, {}).get(kind)


def best_seconds(case: Measured, name: str) -> float | None:
    """The time on the device if it is known, or else the wall time."""
    return seconds(case, name, "device_s") or seconds(case, name)


def gb_per_s(case: Measured, name: str) -> float | None:
    """The least bytes of the case divided by the time, in 10**9 bytes per second."""
    return case["least_bytes"] / t / 1e9 if (t := best_seconds(case, name)) else None


def times(case: Measured, name: str, other: str) -> tuple[float, float, str] | None:
    """The seconds of two variants and the clock that measured both: the device's, that of a queue, or the wall's.

    The time in a queue includes what is between two calls, and a profiler's time does not. So the device's times are
    compared only if both were found in the same way.
    """
    ways = {case["results"].get(variant, {}).get("device_by") for variant in (name, other)}
    device = [("device", "device_s")] if len(ways) == 1 else []
    for clock, kind in (*device, ("queue", "queue_s"), ("wall", "median_s")):
        ours, theirs = seconds(case, name, kind), seconds(case, other, kind)
        if ours and theirs:
            return ours, theirs, clock
    return None


def ratio(case: Measured, name: str, baseline: str | None = None) -> float | None:
    """How many times the speed of a baseline, that of the case if none is named; both by one clock."""
    return found[1] / found[0] if (found := times(case, name, baseline or case["baseline"])) else None


def of_copy(case: Measured, name: str) -> float | None:
    """The speed as a share of that of the quicker copy of as many bytes."""
    shares = (ratio(case, name, copy) for copy in COPIES if copy != name)
    return min((share for share in shares if share), default=None)


def best_other(case: Measured) -> str | None:
    """The quickest of the baselines whose result is right; None if none was measured."""
    found = case["results"]
    # If ours has no time there is no ratio, and the baselines are compared with the first of them.
    against = OURS if seconds(case, OURS) else case["baseline"]
    others = (n for n in found if not n.startswith(OURS) and n not in COPIES and "wrong" not in found[n])
    return max(((speed, n) for n in others if (speed := ratio(case, n, against))), default=(0.0, None))[1]


def elements(case: Measured) -> int:
    return math.prod(case["shape"])


def title(case: Measured) -> str:
    return f"{case['operation']}, {case['dtype']} [{', '.join(map(str, case['shape']))}]"


def size_text(case: Measured) -> str:
    """The shape, with one axis as a power of 2."""
    return "x".join(map(str, case["shape"])) if len(case["shape"]) > 1 else f"2^{elements(case).bit_length() - 1}"


def time_text(value: float | None) -> str:
    """A time with three digits."""
    if value is None:
        return ""
    units = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
    unit = next((unit for unit, factor in units.items() if value >= factor), "ns")
    return f"{value / units[unit]:.3g} {unit}"


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, with a line break at its end."""
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, *rows)]
    return "\n".join([lines[0], f"|{'---|' * len(heads)}", *lines[1:], ""])


def listing(case: Measured) -> str:
    """A case as lines of text: the time of each variant, and what went wrong."""
    lines = [title(case)]
    for name, found in case["results"].items():
        reasons = "; ".join(f"{word}: {found[key]}" for key, word in FAILURES.items() if key in found)
        lines.append(f"  {name:<42}  {time_text(best_seconds(case, name)):>8}  {reasons}".rstrip())
    return "\n".join(lines)


def row(case: Measured) -> tuple[str, ...]:
    """The cells of `SUMMARY`: ours beside the best other."""
    found, other = case["results"][OURS], best_other(case)
    compared = times(case, OURS, other) if other else None
    ours, theirs, clock = compared or (best_seconds(case, OURS), best_seconds(case, other or ""), "")
    time = time_text(ours) or next((word for key, word in FAILURES.items() if key in found), "-")
    speed = f"{case['least_bytes'] / ours / 1e9:.1f}" if ours else "-"
    of_a_copy = f"{share:.0%}" if (share := of_copy(case, OURS)) else "-"
    gain = "WRONG" if "wrong" in found else f"{theirs / ours:.2f}" if ours and theirs else "-"
    best = time_text(theirs) or "-"
    return case["operation"], case["dtype"], size_text(case), time, speed, of_a_copy, best, gain, clock, other or ""


def table(cases: Iterable[Measured]) -> str:
    """One line per case, ours beside the best other, under a line that says how to read it."""
    return f"{TITLE}\n\n{markdown(SUMMARY, map(row, cases))}"


def as_text(document: dict[str, Any]) -> str:
    """JSON with a line for each key, and for each item of a list."""
    many = {key: ",\n  ".join(map(json.dumps, value)) for key, value in document.items() if isinstance(value, list)}
    parts = (f"[\n  {many[key]}\n]" if many.get(key) else json.dumps(value) for key, value in document.items())
    return "{" + ",\n".join(f"{json.dumps(key)}: {part}" for key, part in zip(document, parts, strict=True)) + "}\n"


def new_path(folder: pathlib.Path, device: str) -> pathlib.Path:
    """Where a run of today goes: a file that is not there yet."""
    today, name = datetime.date.today().isoformat(), re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    paths = (folder / name / f"{today}{more}.json" for more in ("", *(f"-{n}" for n in range(2, 100))))
    return next(path for path in paths if not path.exists())


def write(path: pathlib.Path, document: dict[str, Any] | str) -> None:
    """Writes a document or a text, all of it or nothing."""
    new = path.with_name(path.name + ".new")
    new.write_text(document if isinstance(document, str) else as_text(document))
    new.replace(path)


def load(folder: pathlib.Path = STORED) -> Iterator[tuple[pathlib.Path, Report]]:
    """Every stored run, the older first."""
    for path in sorted(folder.glob("*/????-??-??*.json"), key=lambda path: (path.stem, path.parent.name)):
        yield path, json.loads(path.read_text())
