"""Step 4: the search of `tools.tune`, the kernels of the headline cases first; its rows go into a copy of the table."""

import json
import time
from typing import Any

from bench import machine
from bench.gpu import store, targets, task, worth
from bench.gpu.rows import load
from bench.gpu.task import Task
from intnumerics.kernels import KERNEL_DTYPES
from intnumerics.kernels.gpu import tuning
from tools import tune
from tools.tune_search import Case, cases, search

COMPILERS = 8
REHEARSED, REHEARSAL_SIZE = "clip gradient from mask, bfloat16", 1 << 11
FIRST_CASE = 10.0  # seconds that a case is thought to take before one is known


def in_order(size: int) -> list[Case]:
    """Every case: the shortest list first, which is that of the most valuable headline cases, in bfloat16."""
    first = list(dict.fromkeys(worth.ROWS[name] for name in worth.FIRST))
    dtypes = (*targets.DTYPES, *(d for d in KERNEL_DTYPES if d not in targets.DTYPES))
    found = list(cases(size, dtypes))

    def place(case: Case) -> tuple[int, bool, int]:
        is_first = case.operation in first
        return dtypes.index(case.dtype), not is_first, first.index(case.operation) if is_first else 0

    return sorted(found, key=place)


class Tuning:
    """What was found, and what is still to be tried.

    Args:
        todo: What the step is told.
    """

    def __init__(self, todo: Task) -> None:
        self.todo, self.path, self.rows_path = todo, todo.folder / store.TUNER, todo.folder / store.ROWS
        self.size = REHEARSAL_SIZE if todo.rehearsal else tune.size_that_fits(tune.SIZE, machine.free_memory())
        self.device = tuning.device_kind() or machine.device_name()
        self.where = "a rehearsal" if todo.rehearsal else tune.stamp(self.size)
        self.clock = tune.Clock()
        self.all = [c for c in in_order(self.size) if not todo.rehearsal or c.name == REHEARSED]
        self.rows = load(self.rows_path) if self.rows_path.exists() else tuning.TABLE
        self.report: dict[str, Any] = {"device": self.device, "cases": []} | store.read(self.path)
        self.report["planned"] = len(self.all)
        if not todo.start:  # what failed in an earlier call is tried anew
            self.report["cases"] = [one for one in self.report["cases"] if "failed" not in one]
        if (running := self.report.pop("running", None)) and todo.start:
            self.add(running, wrong=["the process ended by itself while it tried this kernel"])

    def add(self, case: dict[str, str], row: str | None = None, **more: Any) -> None:
        """Keeps what came of a case."""
        self.report["cases"].append(case | {"row": row} | more)

    def write(self) -> None:
        """Writes the document and the rows."""
        store.write(self.path, self.report)
        store.write(self.rows_path, tune.rewritten(tune.PATH.read_text(), self.rows))

    def run(self) -> None:
        """Tries what remains, as long as there is time for a case as long as the longest so far."""
        done = {one["name"] for one in self.report["cases"]}
        remaining, longest = [case for case in self.all if case.name not in done], 0.0
        self.write()
        for i, case in enumerate(remaining):
            if self.todo.left < (longest or (0.0 if self.todo.rehearsal else FIRST_CASE)):
                print("no time was left for:", *(case.name for case in remaining[i:]), sep="\n  ", flush=True)
                break
            begin = time.perf_counter()
            self.one(case)
            longest = max(longest, time.perf_counter() - begin)

    def one(self, case: Case) -> None:
        """Searches one case, and keeps its row if there is one."""
        about = {"name": case.name, "operation": case.operation, "dtype": case.dtype}
        store.write(self.path, self.report | {"running": about})
        comparisons, interpret = (1, True) if self.todo.rehearsal else (tune.COMPARISONS, False)
        try:
            found = search(case, self.size, self.clock, comparisons, interpret, min(COMPILERS, machine.cores()))
        except Exception as error:
            self.add(about, wrong=[], failed=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
            self.write()
            if not task.is_well():
                raise SystemExit(task.DEVICE_LOST) from None
            return
        lines = tune.lines_of(found, self.clock.kind)
        print("".join(f"{self.device}: {line}\n" for line in lines), end="", flush=True)
        row = tune.row_of(found, self.device, self.where, self.clock.kind)
        self.rows = tune.merged(self.rows, (self.device, case.dtype, case.operation), row)
        wrong = [f"block {c.block}, {c.warps} warps: {why}" for c, why in found.wrong.items()]
        self.add(about, tune.text_of(row).strip() if row else None, wrong=wrong, lines=lines)
        self.write()


def main() -> None:
    """Runs the step."""
    tuning_step = Tuning(task.from_command_line())
    print(
        f"{tuning_step.device}; {tuning_step.where}; {json.dumps([case.name for case in tuning_step.all])}", flush=True
    )
    tuning_step.run()
    task.end()


if __name__ == "__main__":
    main()
