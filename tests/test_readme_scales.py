"""What the README and docs/implementations.md say of scales in numbers and tables is so."""

import functools

import prose
import pytest
from test_readme import IMPLEMENTATIONS, README

from bench.aot.chips import CHIPS, count, counts
from bench.aot.report import INT8
from tools import readme_tables

SECTION = "Scales and integers from one read"
CUDA = ("pallas_triton", "pallas_mosaic_gpu")
ROWS = [f"rows of {n}" for n in (1024, 4096, 8192, 1000)]


def stored(who: str, rows: str, chip: str, noise: str = "") -> dict[str, object]:
    return counts()[f"{who}: {INT8} by absmax{noise}, {rows}", chip]


@pytest.mark.pallas_triton
def test_the_table_of_operations_is_printed() -> None:
    assert readme_tables.operations() in IMPLEMENTATIONS


@pytest.mark.parametrize("chip", ["h100", "v5e", "v5p", "v6e"])
def test_a_kernel_moves_3_bytes_per_element_and_xla_5(chip: str) -> None:
    for who in CUDA if chip == "h100" else ("pallas",):
        assert round(stored(who, "rows of 4096", chip)["bytes_per_element"], 1) == 3
    assert round(stored("xla", "rows of 4096", chip)["bytes_per_element"], 1) == 5
    assert prose.says(IMPLEMENTATIONS, SECTION, 3, 5)
    assert 'moves 3 bytes per element, and `"xla"` 5' in README


def test_a_kernel_on_an_h100_is_within_its_instructions() -> None:
    counted = functools.partial(stored, chip="h100")
    assert max(count(counted(who, rows)) for who in CUDA for rows in ROWS) <= 14
    assert max(count(counted(who, rows, noise=" with Philox")) for who in CUDA for rows in ROWS) <= 25
    assert prose.says(IMPLEMENTATIONS, SECTION, 14, 25, 30)


@pytest.mark.parametrize("chip", ["v5e", "v5p", "v6e"])
def test_memory_bounds_the_kernel_without_noise(chip: str) -> None:
    row, of = stored("pallas", "rows of 4096", chip), CHIPS[chip]
    assert of.arithmetic(row) <= 1.04 * of.memory(row["bytes_per_element"])


def test_on_a_v4_xla_takes_fewer_bundles_and_both_more_than_memory_allows() -> None:
    kernel, xla = (stored(who, "rows of 4096", "v4") for who in ("pallas", "xla"))
    assert prose.says(IMPLEMENTATIONS, SECTION, count(kernel), count(xla))
    assert count(kernel) > count(xla)
    assert all(CHIPS["v4"].arithmetic(row) > CHIPS["v4"].memory(row["bytes_per_element"]) for row in (kernel, xla))
