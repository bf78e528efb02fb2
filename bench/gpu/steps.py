"""The steps: the command of each, its share of the time, and the files of all, at most eight."""

import importlib.util
import json
import os
import pathlib
import sys
from typing import Any

RUN, BENCH, TESTS, ROWS, LOG, TABLE = "run.json", "bench.json", "tests.jsonl", "tuning.py", "log.txt", "summary.txt"
SHARES = {"tests": 60, "bench": 180, "tuner": 60}  # seconds of a call of five minutes; others are divided alike
# Where the tests marked `gpu` are, because importing all others takes time. A test checks that no file is missing.
FILES = ("kernels", "parts", "stream_kernels", "triton", "scaled_kernels", "given_scales", "stochastic_cast")
MARKED = ("-m", "gpu", *(f"tests/test_{name}.py" for name in FILES))
WORDS = "(pallas_triton or pallas_mosaic_gpu) and (4099 or infinity or cotangent or shared or begins)"
QUICK = ("-m", "not gpu and not ptx", "-k", WORDS, *MARKED[2:])  # of kernels in interpret mode

Json = dict[str, Any]


def command(step: str, folder: pathlib.Path, rehearsal: bool, seconds: float) -> list[str]:
    """What runs a step, which is killed after so many seconds."""
    more = ["--rehearsal"] if rehearsal else []
    if step == "bench":
        words = ["bench.gpu.measure", str(folder / BENCH), *more]
    elif step == "tuner":
        minutes = f"{max(seconds - 15, 1) / 60:.2f}"  # so that it ends by itself, and says what was wrong
        words = ["tools.tune", "--minutes", minutes, "--store", str(folder / ROWS), *more]
    else:
        known = ["--results-to", str(folder / TESTS), "--known", str(len(lines(folder / TESTS)))]
        words = ["pytest", "-p", "bench.gpu.marked_tests", *known, *(QUICK if rehearsal else MARKED), "--tb", "short"]
        words += ["--continue-on-collection-errors", "-W", "default"]  # a warning of a driver fails no test
        words += ["-n", str(min(8, os.cpu_count() or 1))] if importlib.util.find_spec("xdist") else []
    return [sys.executable, "-m", *words]


def read(path: pathlib.Path) -> Json:
    """A document, or an empty one if there is none."""
    return json.loads(path.read_text()) if path.exists() else {}


def lines(path: pathlib.Path) -> list[Json]:
    """The lines of a file of documents, without the last if that was cut off."""
    found = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in found if line.endswith("}")]
