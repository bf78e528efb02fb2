"""Step 3: the tests marked `gpu`, in parallel, one of each distinct kernel first; a rehearsal runs them interpreted."""

import importlib.util
import os
import sys

from bench.gpu import store, task
from bench.gpu.task import Task

WORKERS, REHEARSAL_WORKERS = 8, 2
QUICK = "every_shape or infinity or cotangent or shared or begins"  # to interpret
# Where such tests are, for to import the others takes time; a test holds that these are all.
FILES = tuple(f"tests/test_{name}.py" for name in ("kernels", "parts", "stream_kernels", "triton"))
INTERPRETED = (
    "tests/test_kernels.py",
    "tests/test_stream_kernels.py",
    "-k",
    f"pallas-gpu and ({QUICK})",
    "--of-each",
    "1",
)


def command(todo: Task) -> list[str]:
    """pytest, with what it needs."""
    chosen = INTERPRETED if todo.rehearsal else ("-m", "gpu", *FILES)
    results = todo.folder / store.TESTS
    known = ("--but", str(results)) if results.exists() else ()
    return [
        *(sys.executable, "-m", "pytest", *chosen, *parallel(todo), *known),
        *("-p", "bench.gpu.pytest_plugin", "--results-to", str(results)),
        *("-p", "no:cacheprovider", "--continue-on-collection-errors", "--tb", "short", "-q"),
        *("-W", "default"),  # a warning of a driver or a plugin costs no test
    ]


def parallel(todo: Task) -> tuple[str, ...]:
    """How many processes there are, each given a test when it has done one, so that the order is kept."""
    if importlib.util.find_spec("xdist") is None:
        print("pytest-xdist is not installed: one process runs the tests", flush=True)
        return ()
    workers = min(REHEARSAL_WORKERS if todo.rehearsal else WORKERS, os.cpu_count() or 1)
    return ("-n", str(workers), "--dist", "load", "--maxschedchunk", "1")


def main() -> None:
    """Runs the step, in this process; that tests fail is a result, and no failure of the step."""
    import pytest

    todo = task.from_command_line()
    status = pytest.main(command(todo)[3:])
    nothing_left = status == pytest.ExitCode.NO_TESTS_COLLECTED and (todo.folder / store.TESTS).exists()
    sys.exit(0 if nothing_left or status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) else int(status))


if __name__ == "__main__":
    main()
