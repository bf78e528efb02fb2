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
CLOCKS = {"queue": "queues", "wall": "the wall's clock"}  # beside the device's
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


def _key(case: dict[str, Any]) -> tuple[Any, ...]:
    return case["operation"], case["dtype"], tuple(case["shape"])


def _is_ours(name: str) -> bool:
    return name == OURS or name.startswith(f"{OURS},")


# --- results ----------------------------------------------------------------------------------------------------------


def _right(target: Right, evidence: Evidence) -> Verdict:
    count, planned, wrong, more = {"kernels": _kernels, "tests": _tests, "cases": _cases, "tuner": _tuner}[target.of](
        evidence
    )
    if not count and not wrong:
        return Verdict(target, NOT_MEASURED, evidence.why_not(STEP_OF[target.of]) + more)
    first = f"; {len(wrong)} wrong, the first: {wrong[0]}" if wrong else ""
    return Verdict(target, _status(not wrong, count, planned), f"{count} of {planned} {NOUNS[target.of]}{more}{first}")


Counted = tuple[int, int, list[str], str]  # how many there are, of how many, what is wrong, what else there is to say


def _kernels(evidence: Evidence) -> Counted:
    rows = evidence.smoke.get("kernels", [])
    wrong = [f"{r['implementation']}, {r['operation']}, {r['dtype']}: {r['wrong']}" for r in rows if r["wrong"]]
    return len(rows), evidence.smoke.get("planned", 0), wrong, ""


def _tests(evidence: Evidence) -> Counted:
    lines = _of_now(evidence.tests)
    last = {line["test"]: line for line in lines if "test" in line}
    planned = max((line["collected"] for line in lines if "collected" in line), default=0)
    by = {name: [line for line in last.values() if line["outcome"] == name] for name in ("passed", "failed", "skipped")}
    wrong = [f"{line['test']}: {line.get('why', '')}" for line in by["failed"]]
    reasons = ", ".join(sorted({line.get("why", "") for line in by["skipped"]}))
    skipped = f", {len(by['skipped'])} skipped ({reasons})" if by["skipped"] else ""
    count = len(by["passed"]) + len(by["failed"])
    planned += sum(map(_not_collected, by["failed"])) - len(by["skipped"])
    return count, planned, wrong, skipped


def _of_now(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines without those of files that could not be collected once, and were collected later.

    A run writes what it could not collect just before how many tests it collected: the lines of the last run begin
    there. Where a run collected nothing at all, a test of the file that ran later tells that it was mended.
    """
    begin = max((i for i, line in enumerate(lines) if "collected" in line), default=0)
    while begin and _not_collected(lines[begin - 1]):
        begin -= 1
    mended = {line["test"].partition("::")[0]: i for i, line in enumerate(lines) if "::" in line.get("test", "")}
    return [
        line
        for i, line in enumerate(lines)
        if not _not_collected(line) or (i >= begin and i > mended.get(line["test"], -1))
    ]


def _not_collected(line: dict[str, Any]) -> bool:
    return line.get("outcome") == "failed" and line.get("why", "").startswith("not collected")


def _cases(evidence: Evidence) -> Counted:
    cases, again = evidence.bench.get("cases", []), evidence.bench.get("again", [])
    wrong = [line for case in (*cases, *again) for line in _wrong_in(case)]
    measured = {
        _key(case) for case in cases if any(_is_ours(name) and results.seconds(case, name) for name in case["results"])
    }
    planned = {_key(case) for case in (*evidence.bench.get("planned", []), *cases)}
    more = f", and {len(again)} again after the tuner" if again else ""
    return len(measured), len(planned), wrong, more


def _wrong_in(case: results.Measured) -> list[str]:
    """What is wrong in a case, a line each: a result of anyone, or that one of ours failed."""
    if "error" in case:
        return [_failure(case)]
    found = case["results"].items()
    return [_failure(case, name) for name, how in found if "wrong" in how or ("error" in how and _is_ours(name))]


def _failure(case: results.Measured, name: str | None = None) -> str:
    """Why a variant has no result that is right, or why the case has none at all; nothing where it is right."""
    found = case["results"][name] if name else case
    title = f"{results.title(case)}, {name}" if name else results.title(case)
    if "wrong" in found:
        return f"{title}: wrong: {found['wrong']}"
    return f"{title}: failed: {found['error']}" if "error" in found else ""


def _tuner(evidence: Evidence) -> Counted:
    found = evidence.tuner.get("cases", [])
    tried = [one for one in found if "failed" not in one]
    wrong = [f"{one['name']}: {why}" for one in found for why in one["wrong"]]
    wrong += [f"{one['name']}: failed: {one['failed']}" for one in found if "failed" in one]
    rows = sum(one["row"] is not None for one in tried)
    more = f", {rows} of them with a better row" if tried else ""
    return len(tried), evidence.tuner.get("planned", 0), wrong, more


# --- speeds -----------------------------------------------------------------------------------------------------------


def _speed(target: Speed, evidence: Evidence) -> Verdict:
    planned = {_key(p) for p in evidence.bench.get("planned", []) if _is_of(target, p)}
    cases = [case for case in evidence.bench.get("cases", []) if _key(case) in planned]
    found = [(*ratio, case) for case in cases if (ratio := _ratio(target, case))]
    failed = [line for case in cases if not _right_of(target.ours, case) for line in _failures(target.ours, case)[:1]]
    others = [line for case in cases for name in (target.ours, target.other) for line in _failures(name, case)]
    others = [line for line in others if line not in failed]
    if not found and not failed:
        return Verdict(target, NOT_MEASURED, _why_no_speed(target, cases, evidence))
    measured, is_fast = f"{len(found)} of {len(planned)} cases", True
    if found:
        ratios = sorted(found, key=lambda one: one[0])
        (worst, _, case), best = ratios[0], ratios[-1][0]
        measured = f"{worst:.2f}x at worst ({results.title(case)}), {best:.2f}x at best; {measured}"
        is_fast = worst >= target.least
    for clock, how in CLOCKS.items():
        count = sum(one == clock for _, one, _ in found)
        measured += f"; {count} by {how}" if count else ""
    measured += f"; {len(failed)} failed, the first: {failed[0]}" if failed else ""
    measured += f"; {len(others)} not compared, the first: {others[0]}" if others else ""
    return Verdict(target, _status(is_fast and not failed, len(found), len(planned)), measured)


def _is_of(target: Speed, case: dict[str, Any]) -> bool:
    return case["operation"] in target.operations and case["dtype"] in target.dtypes


def _why_no_speed(target: Speed, cases: list[results.Measured], evidence: Evidence) -> str:
    """That none of its cases was measured; or the first reason that one of its variants has no time that counts."""
    for case in cases:
        for name in (n for side in (target.ours, target.other) for n in _named(side, case)):
            found = case["results"][name]
            if why := found.get("error") or found.get("left_out") or found.get("wrong"):
                return f"{name}: {'wrong: ' if 'wrong' in found else ''}{why}"
    absent = [line for line in evidence.bench.get("skipped", []) if line.startswith("PyTorch")]
    if cases and absent and target.other.startswith("PyTorch"):
        return absent[0]
    if cases:
        return f"nothing to compare: no {target.ours} or no {target.other} here"
    return evidence.why_not("headline")


def _ratio(target: Speed, case: results.Measured) -> tuple[float, str] | None:
    """How many times the speed of the other, and whose clock told it; None where either has no time that counts."""
    ours, best = _right_of(target.ours, case), []
    for other in _right_of(target.other, case):
        found = [(t[1] / t[0], t[2]) for name in ours if (t := results.times(case, name, other))]
        best += [max(found)] if found else []
    return min(best, default=None)


def _named(name: str, case: results.Measured) -> list[str]:
    """The variants of a case that a target means."""
    several = {COPY: results.COPIES, SAME_NOISE: (case.get("baseline"),), ANY_NOISE: GENERATORS, OURS: (OURS,)}
    if name in several:
        return [found for found in case["results"] if found in several[name]]
    return [found for found in case["results"] if found.startswith(f"{OURS}," if name == BEST_OF_OURS else name)]


def _right_of(name: str, case: results.Measured) -> list[str]:
    """Those of them that were measured and are right: a wrong result has no speed."""
    named = _named(name, case)
    return [one for one in named if results.seconds(case, one) and "wrong" not in case["results"][one]]


def _failures(name: str, case: results.Measured) -> list[str]:
    """Those of them that failed or are wrong, a line each; where the case failed, that."""
    return list(filter(None, (_failure(case), *(_failure(case, one) for one in _named(name, case)))))
