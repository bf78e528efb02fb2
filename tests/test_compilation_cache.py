"""JAX's compilation cache, told to leave out what a partitioner calls back: programs are still told from each other."""

import json
import os
import pathlib
import subprocess
import sys

TESTS = pathlib.Path(__file__).resolve().parent


def hits_and_misses(folder: pathlib.Path) -> tuple[int, int]:
    """Runs `cached.py`, which fails if any result is wrong."""
    done = subprocess.run(
        [sys.executable, "cached.py", str(folder)],
        cwd=TESTS,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(TESTS.parent)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    hits, misses = json.loads(done.stdout.splitlines()[-1])
    return hits, misses


def test_a_second_process_compiles_nothing_and_is_right(tmp_path: pathlib.Path) -> None:
    _, compiled = hits_and_misses(tmp_path)
    assert compiled >= 32  # eight numerics, four programs each
    hits, misses = hits_and_misses(tmp_path)
    assert (misses, hits >= compiled) == (0, True)
