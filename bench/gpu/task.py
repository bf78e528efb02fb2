"""What a step is told when it begins, and how it knows what time it has left."""

import argparse
import contextlib
import dataclasses
import os
import pathlib
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from bench.gpu import plan

ROOT = pathlib.Path(__file__).parent.parent.parent
DEVICE_LOST = 75  # the exit status of a process after which another can go on
MARGIN = 2.0  # seconds before the limit after which nothing is begun


@dataclasses.dataclass(frozen=True)
class Task:
    """A step, as its process sees it.

    Attributes:
        name: Which step it is.
        folder: Where its files go, and where those of the steps before are.
        until: When it is killed, as `time.time()`.
        rehearsal: Whether this is a CPU that plays a GPU.
        start: How many processes of this step have ended by themselves before this one, which goes on after them.
        killed: How many of these a signal has ended, as where a library crashes.
    """

    name: str
    folder: pathlib.Path
    until: float
    rehearsal: bool
    start: int = 0
    killed: int = 0

    @property
    def left(self) -> float:
        """Seconds in which something may be begun."""
        return self.until - MARGIN - time.time()

    def command(self) -> list[str]:
        """What runs it."""
        [module] = [step.module for step in plan.STEPS if step.name == self.name]
        flags = ["--rehearsal"] if self.rehearsal else []
        return [
            *(sys.executable, "-m", f"bench.gpu.{module}", self.name),
            *("--folder", str(self.folder.resolve()), "--until", str(self.until), "--start", str(self.start)),
            *("--killed", str(self.killed), *flags),
        ]


class Late(Exception):  # noqa: N818 - what is late is no error
    """Something took more time than it was given."""


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Ends what takes more than so many seconds by `Late`, where Python runs between."""

    def ring(*_: Any) -> None:
        raise Late(f"it took more than {seconds:g} s")

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


def environment(rehearsal: bool) -> Mapping[str, str]:
    """The variables of a step."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    platforms = os.environ.get("JAX_PLATFORMS", "")  # the reference runs on a CPU
    own = {"JAX_PLATFORMS": f"{platforms},cpu"} if platforms and "cpu" not in platforms.split(",") else {}
    own |= {
        "PYTHONPATH": path,
        "PYTHONUNBUFFERED": "1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # PyTorch, and the processes of pytest-xdist, need memory too
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # no pool of processes to start and to end
    }
    return {**os.environ, **own, **({"JAX_PLATFORMS": "cpu"} if rehearsal else {})}


def from_command_line(arguments: list[str] | None = None) -> Task:
    """The task that a process was started with."""
    parser = argparse.ArgumentParser(description="a step of python -m bench.gpu, which starts it")
    parser.add_argument("name", choices=plan.NAMES)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--until", type=float, required=True)
    parser.add_argument("--rehearsal", action="store_true")
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--killed", type=int, default=0)
    return Task(**vars(parser.parse_args(arguments)))
