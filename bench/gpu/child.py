"""Runs a command with a time limit: when it is late, it is killed with all that it started."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

GRACE = 1.0  # seconds between asking a process to end and ending it


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        status: Its exit status; negative, the signal that ended it.
        is_late: Whether it was killed at its limit.
        seconds: How long it ran.
    """

    status: int
    is_late: bool
    seconds: float


def run(
    command: Sequence[str], seconds: float, log: pathlib.Path, cwd: pathlib.Path, environment: Mapping[str, str]
) -> Outcome:
    """Runs a command to its end or its limit; what it prints is added to a file.

    Whatever ends the wait, an exception too, ends the command first.
    """
    begin, is_late, child = time.monotonic(), False, None
    try:
        with log.open("ab") as output:
            # A process group of its own can be killed as one. Its terminal is the same, and so it ends with it.
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=dict(environment),
                process_group=0,
            )
        child.wait(max(0.0, seconds))
    except subprocess.TimeoutExpired:
        is_late = True
    finally:
        if child is not None:
            _end(child)
    return Outcome(child.returncode, is_late, time.monotonic() - begin)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ends a process and its group, whether or not the process itself has ended."""
    if child.poll() is None:
        _signal(child, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
    _signal(child, signal.SIGKILL)
    child.wait()


def _signal(child: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # nobody is left
        os.killpg(child.pid, number)
