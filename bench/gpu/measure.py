"""Steps headline and rest: cases of the benchmark, in the order of their worth."""

import functools
import itertools
from collections.abc import Iterator

from bench import arrays, cases, device_time, libraries, machine
from bench.cases import Case
from bench.gpu import steps, store, targets
from bench.gpu.steps import Rows, Task
from bench.gpu.store import Json
from bench.operations import operations
from bench.runner import Runner
from bench.timing import Patience

PATIENCE, REHEARSAL_PATIENCE = Patience(least=5, most=15, seconds=0.4), Patience(least=2, most=2, seconds=0.0)
LONGEST = 1.0  # seconds of a call
COMPILERS = 8
LARGE, SMALL, REHEARSAL_EXPONENT = 28, 26, 12
REST = (24, 30, 27, 21, 18, 15, 12)  # the most telling sizes first
# What the most is known from comes first.
FIRST = (
    targets.NOISY,
    "quantize to int8",
    targets.BACKWARD[0],
    *targets.CHAINS[:2],
    targets.MASKED[1],
    "quantize",
    targets.BACKWARD[1],
)
THEN = (
    "quantize with PhiloxUniform",
    targets.MASKED[0],
    *targets.CHAINS[2:],
    *(f"quantize{to} with {noise}" for noise in targets.NOISES[1:] for to in (" to int8", "")),
)


def headline(rehearsal: bool = False) -> Iterator[Case]:
    """The headline cases, without calls outside `jit`, which take long and tell little."""
    bfloat16, float32 = targets.DTYPES
    groups = [
        (FIRST, bfloat16, LARGE),
        (FIRST, float32, LARGE),
        (THEN, bfloat16, LARGE),
        (FIRST, bfloat16, SMALL),
        (FIRST, float32, SMALL),
        (THEN, float32, LARGE),
        (THEN, bfloat16, SMALL),
        (THEN, float32, SMALL),
    ]
    if rehearsal:  # a case for each target
        groups = [(FIRST, bfloat16, REHEARSAL_EXPONENT), (FIRST[1:3], float32, REHEARSAL_EXPONENT)]
    by_name = {operation.name: operation for operation in operations()}
    for name, dtype, size in ((name, dtype, size) for names, dtype, size in groups for name in names):
        operation = by_name[name]
        yield Case(operation, dtype, arrays.shape_of(operation.rank, 1 << size))


def rest(rehearsal: bool = False) -> Iterator[Case]:
    """What the benchmark has beside the headline."""
    if rehearsal:
        return itertools.islice(cases.select("cpu", (10,), targets.DTYPES[:1], ("0.5",)), 1)
    return itertools.chain.from_iterable(cases.select("cuda", (size,)) for size in REST)


def measured(runner: Runner, reasons: list[str], case: Case) -> Json:
    """What came of a case; why a time is not from the profiler is told once for all cases."""
    try:
        found = runner.run(case)
    except TimeoutError:  # what may wait forever is a compiler of PyTorch's
        libraries.leave_out("PyTorch", f"left out, for a case with it took more than {steps.MOST_SECONDS:g} s")
        raise
    reasons += [why for why in found.pop("device_time", []) if why not in reasons]
    return found


def missing() -> list[str]:
    """What is not measured here, and why."""
    present, platform = cases.here(machine.platform_name()), machine.platform_name()
    absent = [name for name in cases.implementations(platform) if name not in (*present, "reference")]
    return [*libraries.missing(), *(f"implementation={name!r}: jax-triton is not installed" for name in absent)]


def main() -> None:
    """Runs the step."""
    task = Task.given()
    if task.rehearsal:
        libraries.torch_on.append("cpu")
    if task.start > 0:
        libraries.leave_out("PyTorch", "left out, for a process with it ended by itself")
    if task.start > 1:
        device_time.leave_out("a process with the profiler ended by itself")
    chosen = headline(task.rehearsal) if task.name == "headline" else rest(task.rehearsal)
    rows = Rows(task, store.BENCH, "cases")
    rows.document |= machine.description() | {"skipped": missing()}
    rows.document["settings"] = vars(PATIENCE) | {"quick": task.rehearsal}
    names = cases.here(machine.platform_name(), task.rehearsal)
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
