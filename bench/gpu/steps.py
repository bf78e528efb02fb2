"""The steps, and what the process of one is told and keeps."""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

from bench.gpu import store, table
from bench.gpu.store import Json

DEVICE_LOST = 75  # the exit status of a process after which another can go on
MARGIN = 2.0  # seconds before the limit after which nothing is begun
MOST_SECONDS = 60  # that one row may take: a compiler can wait forever
KEY = ("implementation", "operation", "dtype", "shape")  # what a row is known by, as far as it has these


@dataclasses.dataclass(frozen=True)
class Step:
    """A process of its own.

    Attributes:
        module: What is run, in `bench.gpu`.
        share: Seconds of a call of five minutes; longer and shorter calls are divided alike.
        what: What it does, for a person.
    """

    module: str
    share: float
    what: str


STEPS = {  # in the order of their worth
    "smoke": Step("smoke", 30, "one kernel of each operation and dtype, bits against the reference"),
    "headline": Step("measure", 105, "the headline cases, the most valuable first"),
    "tests": Step("marked_tests", 70, "the tests marked gpu, one of each distinct kernel first"),
    "tuner": Step("tuner", 40, "block sizes and warps, those of the most valuable cases first"),
    "rest": Step("measure", 40, "the rest of the benchmark"),
}


@dataclasses.dataclass(frozen=True)
class Task:
    """A step, as its process sees it.

    Attributes:
        name: Which step it is.
        out: The folder of the results.
        until: When the process is killed, as `time.time()`.
        rehearsal: Whether this is a CPU that plays a GPU.
        start: How many processes of this step have ended by themselves before this one, which goes on after them.
    """

    name: str
    out: str
    until: float
    rehearsal: bool = False
    start: int = 0

    @property
    def folder(self) -> pathlib.Path:
        """The folder of the results."""
        return pathlib.Path(self.out)

    @property
    def left(self) -> float:
        """Seconds in which something may be begun."""
        return self.until - MARGIN - time.time()

    def command(self) -> list[str]:
        """What runs it."""
        words = json.dumps(dataclasses.asdict(self))
        return [sys.executable, "-m", f"bench.gpu.{STEPS[self.name].module}", words]

    @classmethod
    def given(cls) -> "Task":
        """The task that this process was started with."""
        return cls(**json.loads(sys.argv[1]))


def key(row: Json) -> list[Any]:
    """What a row is known by."""
    return [row.get(name) for name in KEY]


class Rows:
    """A list of a document, with a row for each job of a step; it is written whenever one is done.

    Args:
        task: The step.
        file: The name of the document.
        name: The name of the list.
    """

    def __init__(self, task: Task, file: str, name: str) -> None:
        self.task, self.path = task, task.folder / file
        self.document = store.read(self.path)
        self.list: list[Json] = self.document.setdefault(name, [])
        self.running: Json = self.document.setdefault("running", {})
        was = self.running.pop(task.name, None)
        if was and task.start > 1:  # the first time that a process ends, what it was at is tried again
            self.list.append(was | {"error": "the process ended while it ran this"})

    def write(self) -> None:
        """Writes the document, and the table of all that is known so far."""
        store.write(self.path, self.document)
        store.write(self.task.folder / store.TABLE, table.text(self.task.folder))

    def run(self, jobs: Iterable[tuple[Json, Callable[[], Json]]]) -> None:
        """Does the jobs that are not done, as long as there is time for one that takes as long as the last ones did.

        Args:
            jobs: The key of each row, and what returns the rest of it.
        """
        jobs = list(jobs)
        self.document.setdefault("planned", {})[self.task.name] = [known for known, _ in jobs]
        if not self.task.start:  # what failed in an earlier call is tried anew
            asked = [key(known) for known, _ in jobs]
            self.list[:] = [row for row in self.list if "error" not in row or key(row) not in asked]
        done, spent = [key(row) for row in self.list], []
        self.write()
        for known, job in (one for one in jobs if key(one[0]) not in done):
            if self.task.left < (statistics.median(spent[-3:]) if spent else 0.0):
                print("no time is left", flush=True)
                break
            begin = time.monotonic()
            self.running[self.task.name] = known
            self.write()
            try:
                with within(MOST_SECONDS):
                    row = known | job()
            except Exception as error:
                row = known | {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
            spent.append(time.monotonic() - begin)
            del self.running[self.task.name]
            self.list.append(row)
            self.write()
            print(table.title(row), "; ".join(table.wrong_in(row)) or "right", flush=True)
            if "error" in row and not is_well():
                end(DEVICE_LOST)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raises `TimeoutError` in what takes more than so many seconds, as soon as Python runs."""

    def ring(*_: Any) -> None:
        raise TimeoutError(f"it took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


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
