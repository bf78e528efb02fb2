"""Says of each target whether it was met, from the files of a folder alone."""

import dataclasses
import pathlib
from typing import Any

from bench import results
from bench.gpu import store
from bench.gpu.targets import (
    ANY_NOISE,
    BEST_OF_OURS,
    COPY,
    GENERATORS,
    SAME_NOISE,
    TARGETS,
    Right,
    Speed,
    Target,
)
from bench.names import OURS

MET, SO_FAR, NOT_MET, NOT_MEASURED = "met", "met so far", "NOT MET", "not measured"
STEP_OF = {"kernels": "smoke", "tests": "tests", "cases": "headline", "tuner": "tuner"}


NOUNS = {"kernels": "kernels", "tests": "tests", "cases": "cases", "tuner": "kernels tried"}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What was measured of a target.

    Attributes:
        target: Which.
        status: `MET`; `SO_FAR` where some of its cases were not measured; `NOT_MET`; or `NOT_MEASURED`.
        measured: What was measured, or why nothing was.
    """

    target: Target
    status: str
    measured: str


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The files of a folder, read."""

    run: dict[str, Any]
    smoke: dict[str, Any]
    bench: dict[str, Any]
    tests: list[dict[str, Any]]
    tuner: dict[str, Any]

    @classmethod
    def of(cls, folder: pathlib.Path) -> "Evidence":
        """Reads a folder."""
        documents = (store.read(folder / name) for name in (store.RUN, store.SMOKE, store.BENCH))
        return cls(*documents, store.lines(folder / store.TESTS), store.read(folder / store.TUNER))

    def why_not(self, step: str) -> str:
        """Why there is nothing of a step."""
        found = self.run.get("steps", {}).get(step)
        if found is None:
            return f"step {step} was not run"
        if found["status"] == "ran":
            return f"step {step} ran, and found nothing of it"
        reason = f": {found['why']}" if found.get("why") else ""
        return f"step {step} {found['status']}{reason}"


def verdicts(folder: pathlib.Path) -> list[Verdict]:
    """What was measured of every target."""
    evidence = Evidence.of(folder)
    return [_speed(target, evidence) if isinstance(target, Speed) else _right(target, evidence) for target in TARGETS]


def _status(right: bool, count: int, planned: int) -> str:
    if not right:
        return NOT_MET
    return MET if count >= planned else SO_FAR


# --- results ----------------------------------------------------------------------------------------------------------


def _right(target: Right, evidence: Evidence) -> Verdict:
    count, planned, wrong, more = {"kernels": _kernels, "tests": _tests, "cases": _cases, "tuner": _tuner}[target.of](
        evidence
    )
    if not count:
        return Verdict(target, NOT_MEASURED, evidence.why_not(STEP_OF[target.of]))
    first = f"; {len(wrong)} wrong, the first: {wrong[0]}" if wrong else ""
    return Verdict(target, _status(not wrong, count, planned), f"{count} of {planned} {NOUNS[target.of]}{more}{first}")


Counted = tuple[int, int, list[str], str]  # how many there are, of how many, what is wrong, what else there is to say


def _kernels(evidence: Evidence) -> Counted:
    rows = evidence.smoke.get("kernels", [])
    wrong = [f"{r['implementation']}, {r['operation']}, {r['dtype']}: {r['wrong']}" for r in rows if r["wrong"]]
    return len(rows), evidence.smoke.get("planned", 0), wrong, ""


def _tests(evidence: Evidence) -> Counted:
    last = {line["test"]: line for line in evidence.tests if "test" in line}
    planned = max((line["collected"] for line in evidence.tests if "collected" in line), default=0)
    by = {name: [line for line in last.values() if line["outcome"] == name] for name in ("passed", "failed", "skipped")}
    wrong = [f"{line['test']}: {line.get('why', '')}" for line in by["failed"]]
    reasons = ", ".join(sorted({line.get("why", "") for line in by["skipped"]}))
    skipped = f", {len(by['skipped'])} skipped ({reasons})" if by["skipped"] else ""
    count = len(by["passed"]) + len(by["failed"])
    return count, planned - len(by["skipped"]), wrong, skipped


def _cases(evidence: Evidence) -> Counted:
    cases = [*evidence.bench.get("cases", []), *evidence.bench.get("again", [])]
    wrong = [
        f"{results.title(case)}, {name}: {found['wrong']}"
        for case in cases
        for name, found in case["results"].items()
        if "wrong" in found
    ]
    measured = [case for case in cases if case["results"]]
    failed = len(cases) - len(measured)
    more = f", {failed} of them failed" if failed else ""
    return len(measured), max(len(cases), len(evidence.bench.get("planned", []))), wrong, more


def _tuner(evidence: Evidence) -> Counted:
    found = evidence.tuner.get("cases", [])
    wrong = [f"{one['name']}: {why}" for one in found for why in one["wrong"]]
    rows = sum(one["row"] is not None for one in found)
    return len(found), evidence.tuner.get("planned", 0), wrong, f", {rows} of them with a better row"


# --- speeds -----------------------------------------------------------------------------------------------------------


def _speed(target: Speed, evidence: Evidence) -> Verdict:
    planned = [p for p in evidence.bench.get("planned", []) if _is_of(target, p)]
    keys = [(p["operation"], p["dtype"], p["shape"]) for p in planned]
    cases = [c for c in evidence.bench.get("cases", []) if (c["operation"], c["dtype"], c["shape"]) in keys]
    found = [(ratio, case) for case in cases if (ratio := ratio_of(target, case)) is not None]
    if not found:
        return Verdict(target, NOT_MEASURED, _why_no_speed(target, cases, evidence))
    ratios = sorted(found, key=lambda pair: pair[0])
    (worst, case), best = ratios[0], ratios[-1][0]
    status = _status(worst >= target.least, len(found), len(planned))
    where = f"{worst:.2f}x at worst ({results.title(case)}), {best:.2f}x at best; {len(found)} of {len(planned)} cases"
    return Verdict(target, status, where)


def _is_of(target: Speed, case: dict[str, Any]) -> bool:
    return case["operation"] in target.operations and case["dtype"] in target.dtypes


def _why_no_speed(target: Speed, cases: list[results.Measured], evidence: Evidence) -> str:
    """That none of its cases was measured; or the first reason that one of its variants has no time."""
    for case in cases:
        if "error" in case:
            return f"{results.title(case)}: {case['error']}"
        for name in (target.ours, target.other):
            for found in (r for n, r in case["results"].items() if n.startswith(name)):
                if why := found.get("error") or found.get("left_out"):
                    return f"{name}: {why}"
    absent = [line for line in evidence.bench.get("skipped", []) if line.startswith("PyTorch")]
    if cases and absent and target.other.startswith("PyTorch"):
        return absent[0]
    if cases:
        return f"nothing to compare: no {target.ours} or no {target.other} here"
    return evidence.why_not("headline")


def ratio_of(target: Speed, case: results.Measured) -> float | None:
    """How many times the speed of the other, or None where either was not measured."""
    ours = _named(target.ours, case)
    if not ours:
        return None
    if target.other == COPY:
        return results.of_copy(case, ours[0])
    others = {SAME_NOISE: [case["baseline"]], ANY_NOISE: list(GENERATORS)}.get(target.other) or _named(
        target.other, case
    )
    best = [
        max(r for name in ours if (r := results.ratio(case, name, other)))
        for other in others
        if _both(case, ours, other)
    ]
    return min(best, default=None)


def _both(case: results.Measured, ours: list[str], other: str) -> bool:
    return any(results.ratio(case, name, other) for name in ours)


def _named(name: str, case: results.Measured) -> list[str]:
    """The variants of a case that a target means."""
    measured = [found for found in case["results"] if results.seconds(case, found)]
    if name == BEST_OF_OURS:
        return [found for found in measured if found.startswith(f"{OURS},")]
    if name == OURS:
        return [found for found in measured if found == OURS]
    return [found for found in measured if found.startswith(name)]
