"""Steps 2, again and 5: measures cases of the benchmark, in the order of their worth, until the time is over."""

import time
from typing import Any

from bench import cases, device_time, libraries, machine, results
from bench.cases import Case
from bench.gpu import store, task, worth
from bench.gpu.rows import load
from bench.gpu.task import Task
from bench.runner import Runner
from bench.timing import Patience
from intnumerics.kernels.gpu import tuning

PATIENCE, REHEARSAL_PATIENCE = Patience(least=5, most=15, seconds=0.4), Patience(least=2, most=2, seconds=0.0)
LONGEST = 1.0  # seconds of a call
FIRST_CASE = 8.0  # seconds that a case is thought to take before one is known
RECENT = 3  # cases that tell how long the next takes
MOST_SECONDS = 60.0  # of one case
COMPILERS = 8

Json = dict[str, Any]


def key(found: Json) -> tuple[Any, ...]:
    """What a case is known by."""
    return found["operation"], found["dtype"], tuple(found["shape"])


def key_of(case: Case) -> tuple[Any, ...]:
    """The same of one that is to be measured."""
    return case.operation.name, case.dtype, case.shape


def as_json(case: Case) -> Json:
    """A case that is to be measured, as data."""
    return {"operation": case.operation.name, "dtype": case.dtype, "shape": list(case.shape)}


class Measuring:
    """The document of the benchmark, and what is still to be put into it.

    Args:
        todo: What the step is told.
    """

    def __init__(self, todo: Task) -> None:
        self.todo, self.path = todo, todo.folder / store.BENCH
        self.list = "again" if todo.name == "again" else "cases"
        self.report: Json = {"cases": [], "again": []} | store.read(self.path)
        self.report |= machine.description()
        self.report["settings"] = vars(PATIENCE) | {"quick": todo.rehearsal}
        self.report["skipped"] = self.skipped()
        self.report["planned"] = [as_json(case) for case in worth.headline(todo.rehearsal)]
        self.running: dict[str, Json] = self.report.setdefault("running", {})  # what each step is at
        platform = machine.platform_name()
        names = cases.here(platform, todo.rehearsal)
        patience = REHEARSAL_PATIENCE if todo.rehearsal else PATIENCE
        self.runner = Runner(names, patience, LONGEST, min(COMPILERS, machine.cores()), queue_on_cpu=todo.rehearsal)

    @staticmethod
    def skipped() -> list[str]:
        """What is not measured here, and why."""
        present = cases.here(machine.platform_name())
        absent = [
            name for name in cases.implementations(machine.platform_name()) if name not in (*present, "reference")
        ]
        return [*libraries.missing(), *(f"implementation={name!r}: jax-triton is not installed" for name in absent)]

    def write(self) -> None:
        """Writes the document as it is."""
        store.write(self.path, results.as_text(self.report))

    def remaining(self, chosen: list[Case]) -> list[Case]:
        """What was not measured yet; what a process was at when it was killed comes last, if at all."""
        found = self.report[self.list]
        running = self.running.pop(self.todo.name, None)
        if running and self.todo.start:
            found.append(running | {"results": {}, "error": "the process ended by itself while it ran this case"})
        if not self.todo.start:  # what failed in an earlier call is tried anew
            own = {key_of(case) for case in chosen}
            found[:] = [case for case in found if "error" not in case or key(case) not in own]
        done = {key(case) for case in found}
        left = [case for case in chosen if key_of(case) not in done]
        return sorted(left, key=lambda case: running is not None and key_of(case) == key(running))

    def run(self, chosen: list[Case]) -> None:
        """Measures what remains, as long as there is time for a case as long as the longest so far."""
        remaining = self.remaining(chosen)
        self.write()
        spent: list[float] = []
        for i, case in enumerate(remaining):
            if self.todo.left < self.expected(spent):
                print(f"not measured, for lack of time: {len(remaining) - i} cases from {case.name} on", flush=True)
                break
            begin = time.perf_counter()
            self.one(case)
            spent.append(time.perf_counter() - begin)

    def expected(self, spent: list[float]) -> float:
        """Seconds that a case is thought to take: no more than the last ones, of which the first starts compilers."""
        if self.todo.rehearsal:
            return 0.0
        return max(spent[1:][-RECENT:]) if len(spent) > 1 else min([*spent, FIRST_CASE])

    def one(self, case: Case) -> None:
        """Measures a case, and keeps what came of it, or why nothing did."""
        self.running[self.todo.name] = as_json(case)
        self.write()
        try:
            with task.within(MOST_SECONDS):
                found = self.runner.run(case)
        except task.Late as error:  # what may wait for ever is a compiler of PyTorch's
            libraries.leave_out("PyTorch", f"left out, for a case with it took more than {MOST_SECONDS:g} s")
            found = as_json(case) | {"results": {}, "error": str(error)}
        except Exception as error:
            found = as_json(case) | {
                "results": {},
                "error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            }
        del self.running[self.todo.name]
        reasons = self.report.setdefault("device_time", [])
        reasons += [why for why in found.pop("device_time", []) if why not in reasons]
        self.report[self.list].append(found)
        self.write()
        card = self.report["device"]
        text = results.table(found) if found["results"] else f"{results.title(found)}\n  failed: {found['error']}"
        print("".join(f"{card}: {line}\n" for line in text.splitlines()), flush=True)
        if "error" in found and not task.is_well():
            raise SystemExit(task.DEVICE_LOST)


def chosen(todo: Task) -> list[Case]:
    """The cases of a step."""
    if todo.name == "again":
        found = store.read(todo.folder / store.TUNER).get("cases", [])
        changed = [(one["dtype"], one["operation"]) for one in found if one["row"] is not None or todo.rehearsal]
        return list(worth.again(changed, todo.rehearsal))
    if todo.name == "rest":
        return list(worth.rest(machine.platform_name(), todo.rehearsal))
    return list(worth.headline(todo.rehearsal))


def go_without(killed: int) -> None:
    """Leaves out what may have crashed in the processes before: PyTorch first, then the profiler."""
    if killed > 0:
        libraries.leave_out("PyTorch", "left out, for a process with it ended by itself")
    if killed > 1:
        device_time.leave_out("a process with the profiler ended by itself")


def main() -> None:
    """Runs the step."""
    todo = task.from_command_line()
    if todo.rehearsal:
        libraries.torch_on.append("cpu")
    if why := store.read(todo.folder / store.SMOKE).get("without_pytorch"):
        libraries.leave_out("PyTorch", why)
    go_without(todo.killed)
    if todo.name == "again" and (rows := todo.folder / store.ROWS).exists():
        tuning.TABLE = load(rows)
    cases_of_step = chosen(todo)
    print(f"{machine.device_name()}: {len(cases_of_step)} cases", flush=True)
    Measuring(todo).run(cases_of_step)
    task.end()


if __name__ == "__main__":
    main()
