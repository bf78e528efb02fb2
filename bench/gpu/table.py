"""The table: each target, what was measured, and whether that meets it; from the files of a folder alone."""

import dataclasses
import pathlib
from collections import Counter

from bench import results
from bench.gpu import store
from bench.gpu.store import Json
from bench.gpu.targets import (
    ANY_NOISE,
    BEST_OF_OURS,
    COPY,
    GENERATORS,
    SAME_NOISE,
    TARGETS,
    Right,
    Speed,
)
from bench.names import OURS

MET, SO_FAR, NOT_MET, NOT_MEASURED = "met", "met so far", "NOT MET", "not measured"
NOUNS = {"kernels": "kernels", "tests": "tests", "cases": "cases", "tuner": "kernels tried"}
WIDTH = 400  # of what was measured


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What was measured of a target.

    Attributes:
        target: Which.
        status: `MET`; `SO_FAR` if some of its cases were not measured; `NOT_MET`; or `NOT_MEASURED`.
        measured: What was measured, or why nothing was.
    """

    target: Right | Speed
    status: str
    measured: str


def verdicts(folder: pathlib.Path) -> list[Verdict]:
    """What was measured of every target."""
    run, bench = (store.read(folder / name) for name in (store.RUN, store.BENCH))
    return [
        _speed(target, run, bench) if isinstance(target, Speed) else _right(target, run, bench, folder)
        for target in TARGETS
    ]


def title(row: Json) -> str:
    """What a row is called."""
    words = ", ".join(row[name] for name in ("implementation", "operation", "dtype") if name in row)
    return words + (f" [{', '.join(map(str, row['shape']))}]" if "shape" in row else "")


def wrong_in(row: Json) -> list[str]:
    """What is wrong in a row: that it failed, a wrong result of anyone, or that a kernel of ours failed."""
    wrong = [f"failed: {row['error']}"] if "error" in row else []
    wrong += [row["wrong"]] if row.get("wrong") else []
    return wrong + [why for name in row.get("results", {}) if (why := _failure(row, name, of_others=False))]


def _failure(case: Json, name: str, of_others: bool = True) -> str:
    """Why a variant has no result that is right, or nothing."""
    found = case["results"][name]
    if "wrong" in found:
        return f"{name}: wrong: {found['wrong']}"
    is_asked = of_others or name == OURS or name.startswith(f"{OURS},")
    return f"{name}: failed: {found['error']}" if "error" in found and is_asked else ""


def _verdict(target: Right | Speed, wrong: list[str], count: int, planned: int, measured: str) -> Verdict:
    status = NOT_MET if wrong else MET if count >= planned else SO_FAR
    return Verdict(target, status, measured + (f"; {len(wrong)} wrong, the first: {wrong[0]}" if wrong else ""))


def _why_not(run: Json, step: str) -> str:
    """Why there is nothing of a step."""
    found = run["steps"].get(step, {"status": "not run"})
    return f"step {step} {found['status']}" + (f": {found['why']}" if found.get("why") else "")


def _right(target: Right, run: Json, bench: Json, folder: pathlib.Path) -> Verdict:
    more = ""
    if target.list == "tests":
        count, planned, wrong, more = _tests(store.lines(folder / store.TESTS))
    else:
        document = bench if target.list == "cases" else run
        rows, asked = document.get(target.list, []), document.get("planned", {}).get(target.step, [])
        wrong = [f"{title(row)}: {why}" for row in rows for why in wrong_in(row)]
        done = {title(row) for row in rows if "error" not in row and (target.list != "cases" or _is_timed(row))}
        count, planned = len(done), len(done | {title(row) for row in asked})
    if not count and not wrong:
        return Verdict(target, NOT_MEASURED, _why_not(run, target.step) + more)
    return _verdict(target, wrong, count, planned, f"{count} of {planned} {NOUNS[target.list]}{more}")


def _is_timed(case: Json) -> bool:
    return any(results.seconds(case, name) for name in case["results"] if name.split(",")[0] == OURS)


def _tests(lines: list[Json]) -> tuple[int, int, list[str], str]:
    """How many tests were run, of how many, what failed, and what was skipped; the last outcome of a test counts."""
    last = {line["test"]: line for line in lines if "test" in line}
    skipped = [line for line in last.values() if line["outcome"] == "skipped"]
    wrong = [f"{line['test']}: {line.get('why', '')}" for line in last.values() if line["outcome"] == "failed"]
    planned = max(len(last), *(line.get("collected", 0) for line in lines)) if lines else 0
    more = f", {len(skipped)} skipped ({', '.join(sorted({line['why'] for line in skipped}))})" if skipped else ""
    return len(last) - len(skipped), planned - len(skipped), wrong, more


def _named(name: str, case: Json) -> list[str]:
    """The variants of a case that a target means."""
    several = {COPY: results.COPIES, SAME_NOISE: (case.get("baseline"),), ANY_NOISE: GENERATORS, OURS: (OURS,)}
    if name in several:
        return [found for found in case["results"] if found in several[name]]
    return [found for found in case["results"] if found.startswith(f"{OURS}," if name == BEST_OF_OURS else name)]


def _speed(target: Speed, run: Json, bench: Json) -> Verdict:
    asked = [row for row in bench.get("planned", {}).get("headline", []) if row["operation"] in target.operations]
    planned = {title(row) for row in asked if row["dtype"] in target.dtypes}
    found, wrong, reasons, clocks = [], [], [], Counter[str]()
    for case in (case for case in bench.get("cases", []) if title(case) in planned):
        ours, others = _named(target.ours, case), _named(target.other, case)
        right = [[name for name in side if not _failure(case, name)] for side in (ours, others)]
        failed = wrong_in(case) if "error" in case else [why for name in ours if (why := _failure(case, name))]
        if failed and not right[0]:  # another of ours may be right, if the best of them is meant
            wrong.append(f"{title(case)}: {failed[0]}")
        ratios = [[t for name in right[0] if (t := results.times(case, name, other))] for other in right[1]]
        best = [max((theirs / mine, clock) for mine, theirs, clock in times) for times in ratios if times]
        if best:
            ratio, clock = min(best)
            found.append((ratio, title(case)))
            clocks[clock] += 1
        missing = ((name, case["results"][name]) for name in (*ours, *others))
        reasons += [f"{n}: {why}" for n, r in missing if (why := r.get("left_out") or r.get("error") or r.get("wrong"))]
        reasons += [f"nothing to compare: no {target.other} here"] if not others else []
    if not found and not wrong:
        return Verdict(target, NOT_MEASURED, reasons[0] if reasons else _why_not(run, "headline"))
    measured = f"{len(found)} of {len(planned)} cases"
    if found:
        measured = f"{min(found)[0]:.2f}x at worst ({min(found)[1]}), {max(found)[0]:.2f}x at best; {measured}"
    measured += "".join(f"; {n} by {clock} time" for clock, n in clocks.items() if clock != "device")
    measured += f"; not compared: {reasons[0]}" if reasons and len(found) < len(planned) else ""
    verdict = _verdict(target, wrong, len(found), len(planned), measured)
    is_slow = bool(found) and min(found)[0] < target.least
    return dataclasses.replace(verdict, status=NOT_MET) if is_slow else verdict


# --- as text ----------------------------------------------------------------------------------------------------------


def text(folder: pathlib.Path) -> str:
    """The table of what is in a folder, with what a reader needs to know of it."""
    run, bench = (store.read(folder / name) for name in (store.RUN, store.BENCH))
    about, card = run["about"], run["about"]["device"]
    lines = [
        f"{card}; {', '.join(f'{name} {version}' for name, version in about['versions'].items())}",
        f"{about['system']}; commit {about['commit']}; {about['clocks']}",
        *(["A REHEARSAL on a CPU, with the kernels interpreted: its speeds say nothing."] if run["rehearsal"] else []),
        *(f"{card} | {_why_not(run, name)}, {step.get('seconds', 0):.0f} s" for name, step in run["steps"].items()),
        *_copy(bench, card),
        *(f"device times: {line}" for line in bench.get("device_time", [])),
        *(f"not measured: {line}" for line in bench.get("skipped", [])),
        "",
        "target | card | verdict | what | measured",
    ]
    for i, verdict in enumerate(verdicts(folder), 1):
        is_speed = isinstance(verdict.target, Speed)
        least = f" (at least {verdict.target.least:.2f}x)" if isinstance(verdict.target, Speed) else ""
        status = "rehearsed" if run["rehearsal"] and is_speed and verdict.status != NOT_MEASURED else verdict.status
        measured = " ".join(verdict.measured.split())[:WIDTH]
        lines.append(f"{i:6} | {card} | {status} | {verdict.target.name}{least} | {measured}")
    return "\n".join(lines) + "\n"


def _copy(bench: Json, card: str) -> list[str]:
    """The speed of the quickest copy, which is what the device's memory gives."""
    speeds = [results.gb_per_s(case, name) or 0.0 for case in bench.get("cases", []) for name in results.COPIES]
    return [f"{card} | copy, bytes read and written | {max(speeds):.0f} GB/s at best"] if any(speeds) else []
