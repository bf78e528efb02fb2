"""What the README promises in code and numbers is so."""

import pathlib
import re

import numpy as np
import pytest

from bench import bias, noise_table
from bench.aot.table import table
from intnumerics import kernels

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text()


def quick_start() -> str:
    found = re.search(r"## Quick start\n\n```python\n(.*?)```", README, re.DOTALL)
    assert found
    return found.group(1)


def test_the_quick_start_runs_and_is_at_most_ten_lines() -> None:
    assert len([line for line in quick_start().splitlines() if line.strip()]) <= 10
    names: dict[str, np.ndarray] = {}
    exec(quick_start(), names)
    x, y, q, scale = (np.asarray(names[name]) for name in ("x", "y", "q", "scale"))
    assert q.dtype == np.int8
    assert np.abs(q.astype(int)).max() == 127
    np.testing.assert_array_equal(q, np.rint(np.clip(x * scale, -127, 127)))
    np.testing.assert_array_equal(y, q.astype(np.float32) / scale)


@pytest.mark.parametrize(
    "table", [table(), noise_table.table(), bias.table(bias.stored())], ids=["counts", "noise", "bias"]
)
def test_the_numbers_shown_are_those_stored(table: str) -> None:
    assert table in README


def test_the_example_of_stochastic_rounding_runs_after_the_quick_start_and_is_right_on_average() -> None:
    found = re.search(r"## Stochastic rounding\n.*?```python\n(.*?)```", README, re.DOTALL)
    assert found
    names: dict[str, np.ndarray] = {}
    exec(quick_start() + found.group(1), names)
    x, q, scale = (np.asarray(names[name]).astype(np.float64) for name in ("x", "q", "scale"))
    error = q - x * scale
    assert np.abs(error).max() < 1
    assert 0.4 < error.std() < 0.42  # of a uniform x between two buckets: sqrt(1 / 6)
    assert abs(error.mean()) < 5 * error.std() / np.sqrt(error.size)


def test_the_support_table_lists_every_implementation() -> None:
    rows = re.findall(r'^\| `"(\w+)"` \| (\w+) \| (\w+) \| (\w+) \|', README, re.MULTILINE)
    platforms = {None: "any", "cpu": "CPU", "cuda": "CUDA", "tpu": "TPU"}
    expected = [
        (row.name, platforms[row.platform], "yes", "yes" if "float64" in row.dtypes else "no") for row in kernels.TABLE
    ]
    assert rows == expected
    assert all(set(kernels.KERNEL_DTYPES) <= set(row.dtypes) for row in kernels.TABLE)


@pytest.mark.parametrize("target", ["demo", "test", "test-aot", "test-triton", "test-gpu", "bench"])
def test_the_make_targets_it_names_exist(target: str) -> None:
    makefile = (pathlib.Path(__file__).parent.parent / "Makefile").read_text()
    assert f"make {target}" in README
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
