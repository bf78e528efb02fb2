"""Step tuner: the search of `tools.tune`; its rows go into a copy of kernels/gpu/tuning.py."""

import functools
from typing import Any

from bench import machine
from bench.gpu import steps, store, targets
from bench.gpu.steps import Rows, Task
from intnumerics.kernels import KERNEL_DTYPES
from intnumerics.kernels.gpu import tuning
from tools import tune
from tools.tune_search import Case, cases, search

COMPILERS = 8
FIRST = ("quantize to int8, noise drawn", "quantize to int8", "clip gradient from mask")  # the most valuable kernels
REHEARSED, REHEARSAL_SIZE = "clip gradient from mask, bfloat16", 1 << 11


def in_order(size: int) -> list[Case]:
    """Every case, the most valuable first, in bfloat16."""
    dtypes = (*targets.DTYPES, *(d for d in KERNEL_DTYPES if d not in targets.DTYPES))
    place = {name: i for i, name in enumerate(FIRST)}
    return sorted(cases(size, dtypes), key=lambda c: (dtypes.index(c.dtype), place.get(c.operation, len(place))))


def rows_found(document: store.Json) -> tuple[tuning.Row, ...]:
    """The table of this package with the rows that the tuner found."""
    rows = tuning.TABLE
    for found in (row for row in document.get("tuner", []) if "error" not in row):
        better = found["row"]
        if better:
            better = tuning.Row(**better | {"configuration": tuning.Configuration(**better["configuration"])})
        rows = tune.merged(rows, (found["device"], found["dtype"], found["operation"]), better)
    return rows


def tuned(case: Case, size: int, clock: tune.Clock, rehearsal: bool) -> dict[str, Any]:
    """What a search found for a case."""
    device = tuning.device_kind() or machine.device_name()
    comparisons = 1 if rehearsal else tune.COMPARISONS
    found = search(case, size, clock, comparisons, rehearsal, min(COMPILERS, machine.cores()))
    print(*tune.lines_of(found, clock.kind), sep="\n", flush=True)
    row = tune.row_of(found, device, "a rehearsal" if rehearsal else tune.stamp(size), clock.kind)
    wrong = "; ".join(f"block {c.block}, {c.warps} warps: {why}" for c, why in found.wrong.items())
    return {"device": device, "wrong": wrong, "row": row and vars(row) | {"configuration": vars(row.configuration)}}


class TunerRows(Rows):
    """The rows of the tuner, and with them the copy of the table."""

    def write(self) -> None:
        """Writes the document, and the table with the rows in it."""
        super().write()
        source = tune.rewritten(tune.PATH.read_text(), rows_found(self.document))
        store.write(self.task.folder / store.ROWS, source)


def main() -> None:
    """Runs the step."""
    task = Task.given()
    size = REHEARSAL_SIZE if task.rehearsal else tune.size_that_fits(tune.SIZE, machine.free_memory())
    chosen = [case for case in in_order(size) if not task.rehearsal or case.name == REHEARSED]
    clock = tune.Clock()
    TunerRows(task, store.RUN, "tuner").run(
        (
            {"operation": case.operation, "dtype": case.dtype},
            functools.partial(tuned, case, size, clock, task.rehearsal),
        )
        for case in chosen
    )
    steps.end()


if __name__ == "__main__":
    main()
