"""What was measured, as data: a file for each run, `<device>/<date>.json`, with what a reader needs to know of it.

A file is one JSON document, a line a case. What can be computed from it (GB/s, ratios) is not in it.
"""

import datetime
import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any

Result = dict[str, Any]  # of one variant: times in seconds; or why there are none
Measured = dict[str, Any]  # of one case
Report = dict[str, Any]  # of one run

STORED = pathlib.Path(__file__).parent / "results"
COPIES = ("copy", "copy, inverting the bits")  # in one thread of a CPU, and in all
COLUMNS = ("implementation", "median", "quartiles", "device", "GB/s", "% of copy", "ratio")


# --- what follows from the times --------------------------------------------------------------------------------------


def seconds(case: Measured, name: str) -> float | None:
    """The median wall time of a variant; None if it was not measured."""
    return case["results"].get(name, {}).get("median_s")


def device_seconds(case: Measured, name: str) -> float | None:
    """The median time on the device, where a profiler told it."""
    return case["results"].get(name, {}).get("device_s")


def best_seconds(case: Measured, name: str) -> float | None:
    """The time on the device where it is known, or else the wall's."""
    return device_seconds(case, name) or seconds(case, name)


def gb_per_s(case: Measured, name: str) -> float | None:
    """The least bytes of the case by the time, in 10**9 bytes a second."""
    return case["least_bytes"] / t / 1e9 if (t := best_seconds(case, name)) else None


def queue_seconds(case: Measured, name: str) -> float | None:
    """The time of a call in a long queue of them."""
    return case["results"].get(name, {}).get("queue_s")


def times(case: Measured, name: str, other: str) -> tuple[float, float, str] | None:
    """Seconds of two variants and whose clock told them: the device's if it timed both in one way.

    Or else that of a queue, or the wall's. The time of a queue includes what is between two calls, and a profiler's
    does not: a ratio of the two would be one of ways to measure.
    """
    ways = {case["results"].get(variant, {}).get("device_by") for variant in (name, other)}
    device = [("device", device_seconds)] if len(ways) == 1 else []
    for clock, kind in (*device, ("queue", queue_seconds), ("wall", seconds)):
        ours, theirs = kind(case, name), kind(case, other)
        if ours and theirs:
            return ours, theirs, clock
    return None


def ratio(case: Measured, name: str, baseline: str | None = None) -> float | None:
    """How many times the speed of a baseline, that of the case if none is named; by one clock, as `times` has it."""
    found = times(case, name, baseline or case["baseline"])
    return found[1] / found[0] if found else None


def of_copy(case: Measured, name: str) -> float | None:
    """The speed as a share of that of the quicker copy of as many bytes."""
    shares = (ratio(case, name, copy) for copy in COPIES if copy != name)
    return min((share for share in shares if share), default=None)


def elements(case: Measured) -> int:
    """Elements of x."""
    return math.prod(case["shape"])


def title(case: Measured) -> str:
    """What a case is called."""
    return f"{case['operation']}, {case['dtype']} [{', '.join(map(str, case['shape']))}]"


# --- as text ----------------------------------------------------------------------------------------------------------


def time_text(value: float | None) -> str:
    """A time with three digits."""
    if value is None:
        return ""
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def row(case: Measured, name: str) -> tuple[str, ...]:
    """A variant's line of the table."""
    found = case["results"][name]
    if why := found.get("left_out") or found.get("error"):
        return name, ("left out: " if "left_out" in found else "failed: ") + why, "", "", "", "", ""
    quartiles = " - ".join(time_text(value) for value in found["quartiles_s"])
    speed, share, compared = gb_per_s(case, name), of_copy(case, name), times(case, name, case["baseline"])
    other_clock = f" ({compared[2]})" if compared and compared[2] != "device" and "device_s" in found else ""
    label = f"{name}: WRONG, {found['wrong']}" if "wrong" in found else name
    return (
        label,
        time_text(found["median_s"]),
        quartiles,
        time_text(found.get("device_s")),
        f"{speed:.2f}" if speed else "",
        f"{share:.0%}" if share else "",
        f"{compared[1] / compared[0]:.2f}x{other_clock}" if compared and name not in COPIES else "",
    )


def table(case: Measured) -> str:
    """A case as lines of text, in columns."""
    rows = [COLUMNS, *(row(case, name) for name in case["results"])]
    measured = [r for r in rows if not r[1].startswith(("left out", "failed"))]
    widths = [max(len(r[0]) for r in rows), *(max(len(r[i]) for r in measured) for i in range(1, len(COLUMNS)))]
    lines = [
        "  ".join([r[0].ljust(widths[0]), *(r[i].rjust(widths[i]) for i in range(1, len(r)))]).rstrip() for r in rows
    ]
    return "\n".join([title(case), *(f"  {line}" for line in lines)])


# --- as files ---------------------------------------------------------------------------------------------------------


def as_text(report: Report) -> str:
    """A run as JSON, a line a case."""
    head = {key: value for key, value in report.items() if key != "cases"}
    cases = ",\n".join(f"  {json.dumps(case)}" for case in report["cases"])
    return f'{json.dumps(head)[:-1]}, "cases": [\n{cases}\n]}}\n'


def new_path(folder: pathlib.Path, device: str) -> pathlib.Path:
    """Where a run of today goes: a file that is not there yet."""
    today = datetime.date.today().isoformat()
    names = [today, *(f"{today}-{n}" for n in range(2, 100))]
    paths = (folder / device / f"{name}.json" for name in names)
    return next(path for path in paths if not path.exists())


def write(path: pathlib.Path, report: Report) -> None:
    """Writes a run as it is so far, all of it or nothing."""
    new = path.with_suffix(".new")
    new.write_text(as_text(report))
    new.replace(path)


def load(folder: pathlib.Path = STORED) -> Iterator[tuple[pathlib.Path, Report]]:
    """Every stored run, the older first."""
    for path in sorted(folder.glob("*/????-??-??*.json"), key=lambda path: (path.stem, path.parent.name)):
        yield path, json.loads(path.read_text())
