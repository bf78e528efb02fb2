"""The table: each target, what was measured, and whether that meets it; from the files of a folder alone."""

import pathlib

from bench import results
from bench.gpu import compilers, steps
from bench.gpu.targets import ANY_NOISE, BEST_OF_OURS, COPY, GENERATORS, SAME_NOISE, TARGETS, Right, Speed
from bench.names import OURS
from bench.results import title

MET, SO_FAR, NOT_MET, NOT_MEASURED = "met", "met so far", "NOT MET", "not measured"


def verdicts(folder: pathlib.Path) -> list[tuple[Right | Speed, str, str]]:
    """Every target with one of the words above, and with what was measured or why nothing was."""
    run, bench = steps.read(folder / steps.RUN), steps.read(folder / steps.BENCH)
    right = {"tests": _tests(steps.lines(folder / steps.TESTS), run), "bench": _cases(bench, run)}
    judged = (_speed(target, bench, run) if isinstance(target, Speed) else right[target.step] for target in TARGETS)
    return [(target, *found) for target, found in zip(TARGETS, judged, strict=True)]


def _judged(wrong: list[str], done: int, is_complete: bool, *measured: str) -> tuple[str, str]:
    """The status, in which a wrong result counts however many others are right, and what was measured."""
    status = NOT_MET if wrong else NOT_MEASURED if not done else MET if is_complete else SO_FAR
    first = f"{len(wrong)} wrong, the first: {wrong[0]}" if wrong else ""
    return status, "; ".join(filter(None, (*measured, first)))


def ended(run: steps.Json, step: str) -> str:
    """How a step ended, and why."""
    return f"step {step} " + ": ".join(filter(None, (run["steps"][step]["status"], run["steps"][step].get("why"))))


def _tests(lines: list[steps.Json], run: steps.Json) -> tuple[str, str]:
    """How many tests passed of those that were run; the last outcome of a test counts."""
    last, status = {line["test"]: line for line in lines}.values(), run["steps"]["tests"]["status"]
    passed, failed, skipped = ([one for one in last if one["outcome"] == o] for o in ("passed", "failed", "skipped"))
    wrong = [f"{line['test']}: {line['why']}" for line in failed] or [ended(run, "tests")] * (status == "failed")
    why = f"{len(skipped)} skipped ({', '.join(sorted({line['why'] for line in skipped}))})" if skipped else ""
    counts = f"{len(passed)} of {len(passed) + len(failed)} tests"
    return _judged(wrong, len(passed), status == "ran", counts, why, "" if status == "ran" else ended(run, "tests"))


def wrong_in(case: steps.Json) -> dict[str, str]:
    """What is wrong in a case, by variant: a wrong result of anyone, a kernel of ours that failed, or all of it."""
    found = case["results"].items()
    wrong = {name: _why(case, name) for name, r in found if "wrong" in r or ("error" in r and name.startswith(OURS))}
    return wrong | ({"": f"failed: {case['error']}"} if "error" in case else {})


def _why(case: steps.Json, name: str) -> str:
    """Why a variant has no time that counts, or nothing."""
    found = case["results"][name]
    return next((f"{name}: {how}: {found[how]}" for how in ("wrong", "error", "left_out") if how in found), "")


def _cases(bench: steps.Json, run: steps.Json) -> tuple[str, str]:
    """How many cases have a time of ours, of those that are planned and others."""
    rows = bench.get("cases", [])
    wrong = [f"{title(row)}: {why}" for row in rows for why in wrong_in(row).values()]
    done = {title(row) for row in rows if any(results.seconds(row, n) for n in row["results"] if n.startswith(OURS))}
    planned = done.union(bench.get("planned", []))
    measured = f"{len(done)} of {len(planned)} cases" if done or wrong else ended(run, "bench")
    return _judged(wrong, len(done), done >= planned, measured)


def _named(name: str, case: steps.Json, pallas: str) -> list[str]:
    """The variants of a case that a target means; `pallas` is the row that `"pallas"` is."""
    several = {COPY: results.COPIES, SAME_NOISE: (case.get("baseline"),), ANY_NOISE: GENERATORS, OURS: (OURS,)}
    several |= compilers.variants(pallas)
    start = f"{OURS}," if name == BEST_OF_OURS else name
    return [one for one in case["results"] if (one in several[name] if name in several else one.startswith(start))]


def _speed(target: Speed, bench: steps.Json, run: steps.Json) -> tuple[str, str]:
    """The worst and the best ratio; of ours the quickest that is right counts, and of the others each."""
    names = {f"{operation}, {dtype}" for operation in target.operations for dtype in target.dtypes}
    planned = [name for name in bench.get("planned", []) if name.partition(" [")[0] in names]
    found, wrong, reasons = list[tuple[float, str, str]](), list[str](), list[str]()
    for case in (case for case in bench.get("cases", []) if title(case) in planned):
        ours, others = (_named(name, case, bench.get("pallas", "")) for name in (target.ours, target.other))
        right, baselines = ([name for name in names if not _why(case, name)] for names in (ours, others))
        failed = [why for name, why in wrong_in(case).items() if name in ("", *ours)]
        compared = [[t for name in right if (t := results.times(case, name, other))] for other in baselines]
        if failed and not right:  # another of ours may be right, if the best of them is meant
            wrong.append(f"{title(case)}: {failed[0]}")
        elif best := [max((theirs / mine, clock) for mine, theirs, clock in times) for times in compared if times]:
            found.append((*min(best), title(case)))
        else:
            reasons += [*filter(None, (_why(case, name) for name in ours + others)), f"no {target.other} here"]
    if not found and not wrong:
        return NOT_MEASURED, (reasons or [ended(run, "bench")])[0]
    said, worst = [f"{len(found)} of {len(planned)} cases", *(f"not compared: {why}" for why in reasons[:1])], 0.0
    if found:
        worst, _, where = min(found)
        said.insert(0, f"{worst:.2f}x at worst ({where}), {max(found)[0]:.2f}x at best")
        said[1] += f" by {' and '.join(sorted({clock for _, clock, _ in found}))} time"
    status, measured = _judged(wrong, len(found), len(found) >= len(planned), *said)
    return NOT_MET if worst < target.least else status, measured


def text(folder: pathlib.Path) -> str:
    """The table of what is in a folder, with what a reader needs to know of it."""
    run, bench = steps.read(folder / steps.RUN), steps.read(folder / steps.BENCH)
    card, is_rehearsal = run["known"]["device"], run["known"]["rehearsal"]
    lines = [
        *(f"{name}: {value}" for name, value in run["about"].items()),
        *(["A REHEARSAL on a CPU, with the kernels interpreted: its speeds say nothing."] if is_rehearsal else []),
        *(f"{card} | {ended(run, name)}, {step.get('seconds', 0):.0f} s" for name, step in run["steps"].items()),
        *(f"device times: {line}" for line in bench.get("device_time", [])),
        *(f"not measured: {line}" for line in bench.get("skipped", [])),
        "target | card | verdict | what | measured",
    ]
    found = verdicts(folder)
    for i, (target, status, measured) in enumerate(found, 1):
        least = f" (at least {target.least:.2f}x)" if isinstance(target, Speed) else ""
        shown = "rehearsed" if is_rehearsal and least and status != NOT_MEASURED else status
        lines.append(f"{i:6} | {card} | {shown} | {target.name}{least} | {' '.join(measured.split())[:400]}")
    lines += [f"Mosaic's time over Triton's | {card} | {line}" for line in compilers.lines(bench.get("cases", []))]
    is_right = all(status in (MET, SO_FAR) for target, status, _ in found if isinstance(target, Right))
    asked = {"which for rows": compilers.advice_on_rows, "which compiler": compilers.advice}
    for question, answer in asked.items():
        lines.append(f"{question} | {card} | {'rehearsed' if is_rehearsal else answer(bench, card, is_right)}")
    return "\n".join(lines) + "\n"
