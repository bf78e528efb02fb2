"""The TPU kernels that quantize by the largest magnitudes, through the real compiler: one pass, within a budget."""

from typing import Any

import pytest
from compilers import Compilers

from bench.aot.chips import CHIPS, count, reports

ABSMAX = "by absmax"
INT8, FLOAT32, BFLOAT16 = (f"quantize {kind} {ABSMAX}" for kind in ("bfloat16 -> int8", "float32 -> int8", "bfloat16"))
ROWS = [f"rows of {features}" for features in (1024, 4096, 8192, 1000)]
# Bundles per 1,024 elements.
CEILINGS = {
    **{f"{INT8}, {rows}": 3.8 for rows in ROWS},
    **{f"{FLOAT32}, {rows}": 3.5 for rows in ROWS},
    **{f"{BFLOAT16}, {rows}": 5.5 for rows in ROWS},
    f"{INT8}, blocks of 128": 4.9,
    f"{INT8}, blocks of 32": 5.2,
    f"{INT8} with hardware noise, rows of 4096": 5.5,
    f"{INT8} with hash, rows of 4096": 8.4,
    **{f"{kind} with Philox, rows of 4096": 16.5 for kind in (INT8, FLOAT32, BFLOAT16)},
}
NEWER = ("v5e", "v5p", "v6e")  # a v4 takes several times the bundles

Rows = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(
    scope="module",
    params=[pytest.param("tpu", marks=pytest.mark.aot), pytest.param("stored tpu", marks=pytest.mark.tools)],
)
def report(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """What the compiler makes of this code, and what is stored."""
    if request.param.startswith("stored"):
        return reports()["tpu"]["cases"]
    compiled: Compilers = request.getfixturevalue("compiled")
    return compiled.report(request.param)["cases"]


@pytest.fixture(scope="module")
def rows(report: list[dict[str, Any]]) -> Rows:
    """What was counted of the kernels, by what they do and the chip."""
    cases = [(*row["case"].split(": ", 1), row) for row in report]
    found = {(what, row["chip"]): row for who, what, row in cases if who == "pallas" and ABSMAX in what}
    assert {(f"{INT8}, {rows}", chip) for rows in ROWS for chip in ("v5e", "v6e")} <= set(found)
    return found


def test_every_kernel_is_within_its_ceiling(rows: Rows) -> None:
    over = {
        key: (count(row), CEILINGS[key[0]])
        for key, row in rows.items()
        if key[0] in CEILINGS and key[1] in NEWER and count(row) > CEILINGS[key[0]]
    }
    assert over == {}


def test_x_is_read_once_and_scales_are_not_copied(rows: Rows) -> None:
    """Except if there are 128 in a row, whose layout in memory then is that of the rows."""
    for (case, chip), row in rows.items():
        if "rows of 1000" in case:  # XLA lays out the array otherwise, and so copies it for the kernel
            continue
        assert row["temporary_bytes"] <= 1 << (22 if "blocks of 32" in case else 16), (case, chip)
        copied = 2 * 4 / 32 if "blocks of 32" in case else 0
        assert row["bytes_per_element"] <= row["least_bytes_per_element"] + copied + 0.01, (case, chip)


def test_memory_bounds_the_kernels_without_noise(rows: Rows) -> None:
    """Those of blocks on a v5e only; whole rows within a thirtieth, for on a v6e both take about the same time."""
    for (case, chip), row in rows.items():
        if chip not in NEWER or "with" in case or "rows of 1000" in case or ("blocks" in case and chip != "v5e"):
            continue
        memory = CHIPS[chip].memory(row["least_bytes_per_element"])
        assert CHIPS[chip].arithmetic(row) <= memory * 31 / 30, (case, chip)


def test_xla_moves_more_bytes(report: list[dict[str, Any]], rows: Rows) -> None:
    """Why this is a kernel: when XLA reads x once, the choice should change."""
    xla = {row["chip"]: row for row in report if row["case"] == f"xla: {INT8}, rows of 4096"}
    assert {"v5e", "v6e"} <= set(xla)
    for chip, row in xla.items():
        assert row["bytes_per_element"] > 1.5 * rows[f"{INT8}, rows of 4096", chip]["bytes_per_element"]
