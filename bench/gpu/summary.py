"""The one table at the end: each target, what was measured, and whether that meets it."""

import pathlib
import textwrap

from bench import results
from bench.gpu import judge, plan
from bench.gpu.judge import Evidence
from bench.gpu.targets import Speed
from bench.names import OURS

WIDTH = 100  # of what was measured
KERNEL = f"{OURS}, pallas"
REHEARSAL = "A REHEARSAL on a CPU, with the kernels interpreted: its speeds say nothing.\n"


def text(folder: pathlib.Path) -> str:
    """The table of what is in a folder, with what a reader needs to know of it."""
    evidence = Evidence.of(folder)
    about = evidence.run["about"]
    card = about["device"]
    lines = [
        f"{card}; {', '.join(f'{name} {version}' for name, version in about['versions'].items())}",
        f"{about['system']}; commit {about['commit']}; {_clocks(about)}",
        *([REHEARSAL] if evidence.run.get("rehearsal") else []),
        *_steps(evidence, card),
        "",
        *_copy(evidence, card),
        *_again(evidence, card),
        *(f"times of the device: {line}" for line in evidence.bench.get("device_time", [])),
        *(f"not measured: {line}" for line in evidence.bench.get("skipped", [])),
        "",
        f"{'target':3} | card | verdict | what | measured",
    ]
    for i, verdict in enumerate(judge.verdicts(folder), 1):
        least = f" (at least {verdict.target.least:.2f}x)" if isinstance(verdict.target, Speed) else ""
        is_speed = isinstance(verdict.target, Speed) and verdict.status != judge.NOT_MEASURED
        status = "rehearsed" if is_speed and evidence.run.get("rehearsal") else verdict.status
        head = f"{i:6} | {card} | {status} | {verdict.target.name}{least} | "
        measured = " ".join(verdict.measured.split())
        lines.append(head + textwrap.shorten(measured, 4 * WIDTH, placeholder=" ..."))
    return "\n".join(lines) + "\n"


def _clocks(about: dict[str, dict[str, str]]) -> str:
    return ", ".join(f"{name} {value}" for name, value in about["clocks"].items()) or "clocks unknown"


def _steps(evidence: Evidence, card: str) -> list[str]:
    """How it went with each step, a line each."""
    found = []
    for step in plan.STEPS:
        how = evidence.run["steps"].get(step.name, {"status": "not run", "why": "not asked for"})
        seconds = f" after {how['seconds']:.0f} s" if "seconds" in how else ""
        why = f": {how['why']}" if how.get("why") else ""
        found.append(f"{card} | step {step.number} {step.name} | {how['status']}{seconds}{why}")
    return found


def _again(evidence: Evidence, card: str) -> list[str]:
    """What the rows of the tuner changed: the quickest of ours before and after, a line for each case."""
    before = {(c["operation"], c["dtype"], tuple(c["shape"])): c for c in evidence.bench.get("cases", [])}
    found = []
    for case in evidence.bench.get("again", []):
        old = before.get((case["operation"], case["dtype"], tuple(case["shape"])))
        for name in (n for n in case["results"] if old and n.startswith(KERNEL)):
            times = [results.time_text(results.best_seconds(c, name)) for c in (old, case) if c]
            found.append(
                f"{card} | again, {results.title(case)} | {name} | {times[0]} before the tuner, {times[1]} after"
            )
    return found


def _copy(evidence: Evidence, card: str) -> list[str]:
    """The speed of the quickest copy, which is what the device's memory gives."""
    speeds = [
        speed
        for case in evidence.bench.get("cases", [])
        for name in results.COPIES
        if (speed := results.gb_per_s(case, name))
    ]
    return [f"{card} | copy, bytes read and written | {max(speeds):.0f} GB/s at best"] if speeds else []
