"""The step bench: cases of the benchmark, in the order of their worth."""

import itertools
import os
import pathlib
import sys
from collections.abc import Callable, Iterable
from typing import get_args

import jax

from bench import arrays, cases, libraries, machine, results
from bench.cases import Case
from bench.gpu import steps, table
from bench.gpu.targets import (
    AFTER_NORM,
    BACKWARD,
    CHAINS,
    DTYPES,
    HASHED,
    INTO_INT8,
    MASKED,
    NOISES,
    NOISY,
    ROW_SHAPES,
    ROWS,
    WITH_PHILOX,
)
from bench.operations import operations
from bench.runner import Runner
from bench.timing import Patience
from intnumerics.kernels.gpu import pallas, tuning

BOTH = get_args(pallas.Compiler)
PATIENCE, REHEARSAL_PATIENCE = Patience(least=5, most=15, seconds=0.4), Patience(least=2, most=2, seconds=0.0)
# What the most is known from comes first: what the choice between two compilers is made by is among it.
FIRST = (HASHED, NOISY, *INTO_INT8, "quantize to int8", WITH_PHILOX[1], MASKED[1], BACKWARD[0], *CHAINS[:2])
FIRST += ("quantize", BACKWARD[1])
OTHER_NOISE = (f"quantize{to} with {noise}" for noise in NOISES[1:] for to in (" to int8", ""))
THEN = (MASKED[0], *CHAINS[2:], *(name for name in OTHER_NOISE if name != HASHED))
REHEARSED = ((4, 1024),)  # rows


def of_targets(rehearsal: bool = False) -> list[Case]:
    """The cases that the targets name; in a rehearsal one for each target."""
    if rehearsal:
        return [
            *of_size(FIRST, DTYPES[0], 12),
            *of_size((NOISY, "quantize to int8"), DTYPES[1], 12),
            *of_rows(DTYPES[0], REHEARSED),
        ]
    first = [[*of_size(FIRST, dtype, 28), *of_rows(dtype, ROW_SHAPES)] for dtype in DTYPES]
    then = [of_size(names, dtype, n) for names, n in ((THEN, 28), (FIRST, 26), (THEN, 26)) for dtype in DTYPES]
    return list(itertools.chain.from_iterable(first + then))


def of_size(names: Iterable[str], dtype: str, exponent: int) -> list[Case]:
    """The cases of some operations that have a power of 2 elements."""
    found = [operation for name in names for operation in operations() if operation.name == name]
    return [Case(operation, dtype, arrays.shape_of(operation.rank, 1 << exponent)) for operation in found]


def of_rows(dtype: str, shapes: Iterable[tuple[int, ...]]) -> list[Case]:
    """The cases of operations on [tokens, features]."""
    found = [operation for name in (*ROWS, *AFTER_NORM) for operation in operations() if operation.name == name]
    return [Case(operation, dtype, shape) for operation in found for shape in shapes]


def rest(rehearsal: bool) -> Iterable[Case]:
    """What the benchmark has beside those of targets, the most telling sizes first."""
    if rehearsal:
        return itertools.islice(cases.select("cpu", (10,), DTYPES[:1], ("0.5",)), 1)
    return itertools.chain.from_iterable(cases.select("cuda", (n,)) for n in (24, 30, 27, 21, 18, 15, 12))


def measure(path: pathlib.Path, todo: Iterable[Case], run: Callable[[Case], steps.Json], about: steps.Json) -> bool:
    """Measures what has no result yet, then what failed or ended the process; whether no case failed.

    Each result is written as soon as it is known.
    """
    document = steps.read(path) | about
    rows = {results.title(row): row for row in document.get("cases", [])}
    reasons = document.setdefault("device_time", [])
    last = {name for name, row in rows.items() if table.wrong_in(row)} | {document.pop("running", None)}
    by_name = {results.title(case.key): case for case in todo}
    new = [name for name in by_name if name not in rows and name not in last]
    for name in (*new, *(name for name in by_name if name in last)):
        print(name, flush=True)
        results.write(path, document | {"running": name, "cases": list(rows.values())})
        try:
            row = run(by_name[name])
        except Exception as error:
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            row = by_name[name].key | {"results": {}, "error": why}
        reasons += [why for why in row.pop("device_time", []) if why not in reasons]
        rows[name] = row
        results.write(path, document | {"cases": list(rows.values())})
        print(f"  {'; '.join(table.wrong_in(row).values()) or 'right'}", flush=True)
    return not any("error" in row for row in rows.values())


def main(path: pathlib.Path, rehearsal: bool) -> bool:
    """Runs the step."""
    libraries.torch_on += ["cpu"] * rehearsal
    platform, planned = machine.platform_name(), of_targets(rehearsal)
    names, patience = cases.here(platform, rehearsal), REHEARSAL_PATIENCE if rehearsal else PATIENCE
    absent = [f"implementation={n!r}" for n in cases.implementations(platform) if n not in (*names, "reference")]
    about = machine.description() | {"skipped": [*libraries.missing(), *absent]}
    about |= {
        "settings": vars(patience) | {"quick": rehearsal},
        "planned": [results.title(case.key) for case in planned],
        "pallas": pallas.compiler(),
        "pallas_is_a_choice": pallas.has_triton() and jax.__version_info__ >= pallas.FIRST_WITH_A_CHOICE,
        "rows": {name: sum(tuning.key_of(row)[:2] == (name, about["device"]) for row in tuning.TABLE) for name in BOTH},
    }
    runner = Runner(names, patience, longest=1.0, compilers=min(8, machine.cores()), queue_on_cpu=rehearsal)
    return measure(path, [*planned, *rest(rehearsal)], runner.run, about)


if __name__ == "__main__":
    if not main(pathlib.Path(sys.argv[1]), "--rehearsal" in sys.argv):
        sys.exit("a case failed: bench.json says which")
    os._exit(0)  # without taking down the libraries, some of which crash then
