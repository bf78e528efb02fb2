"""The steps, and what the process of one is told and keeps."""

import dataclasses
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, NoReturn

from bench import results
from bench.gpu import store, table
from bench.gpu.store import Json

DEVICE_LOST = 75  # the exit status of a process after which another can go on
MARGIN = 2.0  # seconds before the limit after which nothing is begun
KEY = ("operation", "dtype", "shape")  # what a row is known by, as far as it has these


class Step(NamedTuple):
    """A process of its own."""

    module: str  # what is run
    share: float  # seconds of a call of five minutes; longer and shorter calls are divided alike
    what: str  # what it does, for a person


STEPS = {  # in the order of their worth
    "smoke": Step(
        "bench.gpu.marked_tests", 40, "the tests marked gpu: one of each distinct kernel, bits against NumPy"
    ),
    "headline": Step("bench.gpu.measure", 105, "the headline cases, the most valuable first"),
    "tests": Step("bench.gpu.marked_tests", 60, "all other tests marked gpu"),
    "tuner": Step("tools.tune", 40, "block sizes and warps, those of the most valuable cases first"),
    "rest": Step("bench.gpu.measure", 40, "the rest of the benchmark"),
}


@dataclasses.dataclass(frozen=True)
class Task:
    """A step, as its process sees it."""

    name: str
    out: str  # the folder of the results
    until: float  # when the process is killed, as `time.time()`
    rehearsal: bool = False  # whether this is a CPU that plays a GPU
    start: int = 0  # how many processes of this step have ended by themselves before this one, which goes on

    @property
    def folder(self) -> pathlib.Path:
        """The folder of the results."""
        return pathlib.Path(self.out)

    def command(self) -> list[str]:
        """What runs it."""
        words = [json.dumps(dataclasses.asdict(self))]
        if self.name == "tuner":
            minutes = f"{(self.until - MARGIN - time.time()) / 60:.2f}"
            words = ["--minutes", minutes, "--store", str(self.folder / store.ROWS), *["--rehearsal"] * self.rehearsal]
        return [sys.executable, "-m", STEPS[self.name].module, *words]

    @classmethod
    def given(cls) -> "Task":
        """The task that this process was started with."""
        return cls(**json.loads(sys.argv[1]))


def key(row: Json) -> list[Any]:
    """What a row is known by."""
    return [row.get(name) for name in KEY]


class Rows:
    """The cases of the benchmark, a row for each; they are written whenever one is done."""

    def __init__(self, task: Task) -> None:
        self.task, self.path = task, task.folder / store.BENCH
        self.document = store.read(self.path)
        self.list: list[Json] = self.document.setdefault("cases", [])
        self.running: Json = self.document.setdefault("running", {})
        was = self.running.pop(task.name, None)
        if was and task.start:
            self.add(was | {"error": "the process ended while it ran this"})

    def add(self, row: Json) -> None:
        """Puts a row in the place of an earlier one."""
        self.list[:] = [*(other for other in self.list if key(other) != key(row)), row]

    def write(self) -> None:
        """Writes the document, and the table of all that is known so far."""
        store.write(self.path, self.document)
        store.write(self.task.folder / store.TABLE, table.text(self.task.folder))

    def run(self, jobs: Iterable[tuple[Json, Callable[[], Json]]]) -> None:
        """Does the jobs that are not done while there is time: each has the key of its row, and returns the rest."""
        jobs = list(jobs)
        self.document.setdefault("planned", {})[self.task.name] = [known for known, _ in jobs]
        # What failed in an earlier call is tried anew.
        done = [key(row) for row in self.list if self.task.start or "error" not in row]
        self.write()
        for known, job in (one for one in jobs if key(one[0]) not in done):
            if time.time() > self.task.until - MARGIN:
                print("no time is left", flush=True)
                break
            self.running[self.task.name] = known
            self.write()
            try:
                row = known | job()
            except Exception as error:
                row = known | {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
            del self.running[self.task.name]
            self.add(row)
            self.write()
            print(results.title(row), "; ".join(table.wrong_in(row)) or "right", flush=True)
            if "error" in row and not is_well():
                end(DEVICE_LOST)


def is_well() -> bool:
    """Whether the device still computes: after some errors a process can do nothing more with it."""
    import jax  # which the process that starts the steps does without

    try:
        return int(jax.numpy.arange(8).sum()) == 28
    except jax.errors.JaxRuntimeError:
        return False


def end(status: int = 0) -> NoReturn:
    """Ends the process at once: no thread is waited for, and no library is taken down, in which some crash."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
