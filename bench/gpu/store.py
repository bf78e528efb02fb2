"""The files that a call leaves: one folder for a card and its versions, and in it at most eight files."""

import json
import os
import pathlib
import re
from typing import Any

RUN, SMOKE, BENCH, TESTS = "run.json", "smoke.json", "bench.json", "tests.jsonl"
TUNER, ROWS, LOG, SUMMARY = "tuner.json", "tuning.py", "log.txt", "summary.txt"
FILES = (RUN, SMOKE, BENCH, TESTS, TUNER, ROWS, LOG, SUMMARY)
MOST_FILES, MOST_FOLDERS = 8, 2
NAMED = ("jax", "torch")  # packages whose versions are in the name of the folder

Json = dict[str, Any]


def plain(text: str) -> str:
    """A text in lower-case letters, digits, `.`, `_` and `-`."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-.")


def folder_name(about: Json) -> str:
    """What the folder of a card is called: the card and the versions.

    Args:
        about: `machine.description()`.
    """
    versions = (f"{name}-{about['versions'][name]}" for name in NAMED if name in about["versions"])
    return "_".join(plain(part) for part in (about["device"], *versions))


def folder_in(out: pathlib.Path, about: Json, goes_on: bool) -> pathlib.Path:
    """The folder of a card, which need not be there yet.

    Raises:
        ValueError: `out` holds another folder, or what an earlier call left, and this one does not go on from it.
    """
    folder = out / folder_name(about)
    if others := sorted(path.name for path in out.glob("*") if path.is_dir() and path != folder):
        raise ValueError(
            f"--out {out} holds {', '.join(others)}, and {folder.name} needs a folder of its own: give one"
        )
    if folder.exists() and not goes_on:
        raise ValueError(
            f"--out {out} has the results of an earlier call: go on with --from STEP, or give another folder"
        )
    return folder


def read(path: pathlib.Path) -> Json:
    """A document, or an empty one where there is none."""
    return json.loads(path.read_text()) if path.exists() else {}


def lines(path: pathlib.Path) -> list[Json]:
    """The lines of a file of documents; the last may have been cut off."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def write(path: pathlib.Path, document: Json | str) -> None:
    """Writes a document or a text, all of it or nothing."""
    new = path.with_name(path.name + ".new")
    new.write_text(document if isinstance(document, str) else json.dumps(document, indent=1) + "\n")
    os.replace(new, path)


def tidy(folder: pathlib.Path) -> None:
    """Removes what a killed process was about to write."""
    for path in folder.glob("*.new"):
        path.unlink()


def complaints(out: pathlib.Path) -> list[str]:
    """Where the files under a folder are more, deeper or otherwise named than they may be."""
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    found = [f"{len(files)} files, and {MOST_FILES} are allowed"] if len(files) > MOST_FILES else []
    for path in files:
        if len(path.parts) - 1 > MOST_FOLDERS:
            found.append(f"{path} is more than {MOST_FOLDERS} folders deep")
        if not all(re.fullmatch(r"[A-Za-z0-9._-]+", part) for part in path.parts):
            found.append(f"{path} has other signs in its name than letters, digits, '.', '_' and '-'")
    return found
