"""The table: each target, what was measured, and whether that meets it; from the files of a folder alone."""

import pathlib
from collections import Counter
from typing import NamedTuple

from bench import results
from bench.gpu import store
from bench.gpu.store import Json
from bench.gpu.targets import ANY_NOISE, BEST_OF_OURS, COPY, GENERATORS, SAME_NOISE, TARGETS, Right, Speed
from bench.names import OURS
from bench.results import title

MET, SO_FAR, NOT_MET, NOT_MEASURED = "met", "met so far", "NOT MET", "not measured"
WIDTH = 400  # of what was measured


class Verdict(NamedTuple):
    """What was measured of a target, or why nothing was; `SO_FAR` if some of its cases were not."""

    target: Right | Speed
    status: str
    measured: str


def verdicts(folder: pathlib.Path) -> list[Verdict]:
    """What was measured of every target."""
    run, bench = (store.read(folder / name) for name in (store.RUN, store.BENCH))
    lines = store.lines(folder / store.TESTS)
    return [
        _speed(target, run, bench)
        if isinstance(target, Speed)
        else (_tests(target, run, lines) if target.step == "tests" else _cases(target, run, bench))
        for target in TARGETS
    ]


def wrong_in(case: Json) -> list[str]:
    """What is wrong in a case: that it failed, a wrong result of anyone, or that a kernel of ours failed."""
    wrong = [f"failed: {case['error']}"] if "error" in case else []
    found = case["results"]
    return wrong + [
        why for name in found if (why := _failure(case, name)) and (_is_ours(name) or "wrong" in found[name])
    ]


def _is_ours(name: str) -> bool:
    return name.split(",")[0] == OURS


def _failure(case: Json, name: str) -> str:
    """Why a variant has no result that is right, or nothing."""
    found = case["results"][name]
    return next(
        (f"{name}: {how}: {found[key]}" for key, how in (("wrong", "wrong"), ("error", "failed")) if key in found), ""
    )


def _verdict(target: Right | Speed, wrong: list[str], is_complete: bool, measured: str) -> Verdict:
    status = NOT_MET if wrong else MET if is_complete else SO_FAR
    return Verdict(target, status, measured + (f"; {len(wrong)} wrong, the first: {wrong[0]}" if wrong else ""))


def _why_not(run: Json, step: str) -> str:
    """Why there is nothing of a step."""
    found = run["steps"].get(step, {"status": "not run"})
    return f"step {step} {found['status']}" + (f": {found['why']}" if found.get("why") else "")


def _cases(target: Right, run: Json, bench: Json) -> Verdict:
    rows, asked = bench.get("cases", []), bench.get("planned", {}).get(target.step, [])
    wrong = [f"{title(row)}: {why}" for row in rows for why in wrong_in(row)]
    done = {title(row) for row in rows if any(results.seconds(row, n) for n in row["results"] if _is_ours(n))}
    planned = done | {title(row) for row in asked}
    if not done and not wrong:
        return Verdict(target, NOT_MEASURED, _why_not(run, target.step))
    return _verdict(target, wrong, done >= planned, f"{len(done)} of {len(planned)} cases")


def _tests(target: Right, run: Json, lines: list[Json]) -> Verdict:
    """How many tests passed of those that were run; the last outcome of a test counts."""
    last = {line["test"]: line for line in lines}
    of = {outcome: [line for line in last.values() if line["outcome"] == outcome] for outcome in ("passed", "skipped")}
    wrong = [f"{line['test']}: {line.get('why', '')}" for line in last.values() if line["outcome"] == "failed"]
    skipped = ", ".join(sorted({line["why"] for line in of["skipped"]}))
    more = f", {len(of['skipped'])} skipped ({skipped})" if skipped else ""
    if not of["passed"] and not wrong:
        return Verdict(target, NOT_MEASURED, _why_not(run, target.step) + more)
    measured = f"{len(of['passed'])} of {len(of['passed']) + len(wrong)} tests{more}"
    is_complete = run["steps"][target.step]["status"] == "ran"
    return _verdict(target, wrong, is_complete, measured + ("" if is_complete else f"; {_why_not(run, target.step)}"))


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
        sides = [_named(target.ours, case), _named(target.other, case)]
        ours, others = ([name for name in side if not _failure(case, name)] for side in sides)
        failed = wrong_in(case) if "error" in case else [why for name in sides[0] if (why := _failure(case, name))]
        if failed and not ours:  # another of ours may be right, if the best of them is meant
            wrong.append(f"{title(case)}: {failed[0]}")
        compared = [[t for name in ours if (t := results.times(case, name, other))] for other in others]
        best = [max((theirs / mine, clock) for mine, theirs, clock in times) for times in compared if times]
        if best:
            found.append((min(best)[0], title(case)))
            clocks[min(best)[1]] += 1
        left_out = ((n, case["results"][n].get("left_out")) for n in (*ours, *others))
        reasons += [*(f"{n}: {why}" for n, why in left_out if why), *(_failure(case, n) for n in sides[1])]
        reasons += [] if sides[1] else [f"nothing to compare: no {target.other} here"]
    reason = next(filter(None, reasons), "")
    if not found and not wrong:
        return Verdict(target, NOT_MEASURED, reason or _why_not(run, "headline"))
    measured = f"{len(found)} of {len(planned)} cases"
    if found:
        measured = f"{min(found)[0]:.2f}x at worst ({min(found)[1]}), {max(found)[0]:.2f}x at best; {measured}"
    measured += "".join(f"; {n} by {clock} time" for clock, n in clocks.items() if clock != "device")
    measured += f"; not compared: {reason}" if reason and len(found) < len(planned) else ""
    verdict = _verdict(target, wrong, len(found) >= len(planned), measured)
    is_slow = bool(found) and min(found)[0] < target.least
    return verdict._replace(status=NOT_MET) if is_slow else verdict


# --- as text ----------------------------------------------------------------------------------------------------------


def text(folder: pathlib.Path) -> str:
    """The table of what is in a folder, with what a reader needs to know of it."""
    run, bench = (store.read(folder / name) for name in (store.RUN, store.BENCH))
    about, card = run["about"], run["about"]["device"]
    copies = [results.gb_per_s(case, name) or 0.0 for case in bench.get("cases", []) for name in results.COPIES]
    lines = [
        f"{card}; {', '.join(f'{name} {version}' for name, version in about['versions'].items())}",
        f"{about['system']}; commit {about['commit']}; {about['clocks']}",
        *(["A REHEARSAL on a CPU, with the kernels interpreted: its speeds say nothing."] if run["rehearsal"] else []),
        *(f"{card} | {_why_not(run, name)}, {step.get('seconds', 0):.0f} s" for name, step in run["steps"].items()),
        *([f"{card} | copy, bytes read and written | {max(copies):.0f} GB/s at best"] if any(copies) else []),
        *(f"device times: {line}" for line in bench.get("device_time", [])),
        *(f"not measured: {line}" for line in bench.get("skipped", [])),
        "",
        "target | card | verdict | what | measured",
    ]
    for i, (target, status, measured) in enumerate(verdicts(folder), 1):
        least = f" (at least {target.least:.2f}x)" if isinstance(target, Speed) else ""
        shown = "rehearsed" if run["rehearsal"] and least and status != NOT_MEASURED else status
        lines.append(f"{i:6} | {card} | {shown} | {target.name}{least} | {' '.join(measured.split())[:WIDTH]}")
    return "\n".join(lines) + "\n"
