"""The files that a call leaves in its folder, at most eight."""

import json
import os
import pathlib
from typing import Any

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


def as_text(document: Json) -> str:
    """JSON with a line for each item of a list."""
    many = {key: ",\n  ".join(map(json.dumps, value)) for key, value in document.items() if isinstance(value, list)}
    parts = (f"[\n  {many[key]}\n]" if many.get(key) else json.dumps(value) for key, value in document.items())
    return "{" + ",\n".join(f"{json.dumps(key)}: {part}" for key, part in zip(document, parts, strict=True)) + "}\n"


def write(path: pathlib.Path, document: Json | str) -> None:
    """Writes a document or a text, all of it or nothing."""
    new = path.with_name(path.name + ".new")
    new.write_text(document if isinstance(document, str) else as_text(document))
    os.replace(new, path)
