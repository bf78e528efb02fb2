"""The files that a call leaves in its folder, at most eight."""

import json
import pathlib
from typing import Any

from bench.results import write as write

RUN, BENCH, TESTS, ROWS, LOG, TABLE = "run.json", "bench.json", "tests.jsonl", "tuning.py", "log.txt", "summary.txt"
FILES = (RUN, BENCH, TESTS, ROWS, LOG, TABLE)

Json = dict[str, Any]


def read(path: pathlib.Path) -> Json:
    """A document, or an empty one if there is none."""
    return json.loads(path.read_text()) if path.exists() else {}


def lines(path: pathlib.Path) -> list[Json]:
    """The lines of a file of documents, without the last if that was cut off."""
    found = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in found if line.endswith("}")]
