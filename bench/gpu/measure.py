"""Steps headline and rest: cases of the benchmark, in the order of their worth."""

import functools
import itertools
from collections.abc import Iterator

from bench import arrays, cases, libraries, machine
from bench.cases import Case
from bench.gpu import steps
from bench.gpu.steps import Rows, Task
from bench.gpu.store import Json
from bench.gpu.targets import BACKWARD, CHAINS, DTYPES, MASKED, NOISES, NOISY
from bench.operations import operations
from bench.runner import Runner
from bench.timing import Patience

PATIENCE, REHEARSAL_PATIENCE = Patience(least=5, most=15, seconds=0.4), Patience(least=2, most=2, seconds=0.0)
LONGEST = 1.0  # seconds of a call
COMPILERS = 8
LARGE, SMALL, REHEARSAL_EXPONENT = 28, 26, 12
REST = (24, 30, 27, 21, 18, 15, 12)  # the most telling sizes first
# What the most is known from comes first.
FIRST = (NOISY, "quantize to int8", BACKWARD[0], *CHAINS[:2], MASKED[1], "quantize", BACKWARD[1])
OTHER_NOISE = tuple(f"quantize{to} with {noise}" for noise in NOISES[1:] for to in (" to int8", ""))
THEN = ("quantize with PhiloxUniform", MASKED[0], *CHAINS[2:], *OTHER_NOISE)


def headline(rehearsal: bool = False) -> Iterator[Case]:
    """The headline cases; in a rehearsal one for each target."""
    bfloat16, float32 = DTYPES
    groups = [(names, dtype, n) for n in (LARGE, SMALL) for names in (FIRST, THEN) for dtype in DTYPES]
    if rehearsal:
        groups = [(FIRST, bfloat16, REHEARSAL_EXPONENT), (FIRST[1:3], float32, REHEARSAL_EXPONENT)]
    by_name = {operation.name: operation for operation in operations()}
    for names, dtype, exponent in groups:
        for operation in (by_name[name] for name in names):
            yield Case(operation, dtype, arrays.shape_of(operation.rank, 1 << exponent))


def rest(rehearsal: bool = False) -> Iterator[Case]:
    """What the benchmark has beside the headline."""
    if rehearsal:
        return itertools.islice(cases.select("cpu", (10,), DTYPES[:1], ("0.5",)), 1)
    return itertools.chain.from_iterable(cases.select("cuda", (size,)) for size in REST)


def measured(runner: Runner, reasons: list[str], case: Case) -> Json:
    """What came of a case; why a time is not from the profiler is told once for all cases."""
    found = runner.run(case)
    reasons += [why for why in found.pop("device_time", []) if why not in reasons]
    return found


def main() -> None:
    """Runs the step."""
    task, platform = Task.given(), machine.platform_name()
    if task.rehearsal:
        libraries.torch_on.append("cpu")
    names = cases.here(platform, task.rehearsal)
    chosen = headline(task.rehearsal) if task.name == "headline" else rest(task.rehearsal)
    absent = [f"implementation={n!r}" for n in cases.implementations(platform) if n not in (*names, "reference")]
    rows = Rows(task)
    rows.document |= machine.description() | {"skipped": [*libraries.missing(), *absent]}
    rows.document["settings"] = vars(PATIENCE) | {"quick": task.rehearsal}
    patience = REHEARSAL_PATIENCE if task.rehearsal else PATIENCE
    runner = Runner(names, patience, LONGEST, min(COMPILERS, machine.cores()), queue_on_cpu=task.rehearsal)
    reasons = rows.document.setdefault("device_time", [])
    rows.run(
        (
            {"operation": case.operation.name, "dtype": case.dtype, "shape": list(case.shape), "results": {}},
            functools.partial(measured, runner, reasons, case),
        )
        for case in chosen
    )
    steps.end()


if __name__ == "__main__":
    main()
