"""The kernels that quantize by the largest magnitudes, through the real compilers: one read, and within a budget."""

from typing import Any

import pytest
from compilers import Compilers
from test_aot import ABSMAX, MOSAIC

from bench.aot.chips import CHIPS, count, reports
from intnumerics.kernels import rows_of

Rows = dict[str, dict[str, Any]]

INT8 = f"quantize bfloat16 -> int8 {ABSMAX}"
# Instructions per element. A thread has 32 elements, or more of them in rows of 8192 and 65536.
CEILINGS = {
    MOSAIC: {
        **{f"{INT8}, {shape}": 13.0 for shape in ("rows of 1024", "rows of 4096", "rows of 1000", "blocks of 128")},
        **{f"{INT8} with Philox, {shape}": 23.5 for shape in ("rows of 4096", "rows of 1000", "blocks of 128")},
        **{f"{INT8}, {shape}": 11.5 for shape in ("rows of 8192", "rows of 65536")},
        f"{INT8} with Philox, rows of 65536": 20.5,
    }
}


@pytest.fixture(
    scope="module",
    params=[pytest.param("cuda", marks=pytest.mark.aot), pytest.param("stored cuda", marks=pytest.mark.tools)],
)
def report(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """What the compilers make of this code, and what is stored."""
    if request.param.startswith("stored"):
        return reports()["cuda"]["cases"]
    compiled: Compilers = request.getfixturevalue("compiled")
    return compiled.report(request.param)["cases"]


@pytest.fixture(params=["pallas_triton", MOSAIC])
def rows(request: pytest.FixtureRequest, report: list[dict[str, Any]]) -> Rows:
    """What was counted of one implementation's kernels, by the cases."""
    if rows_of(request.param)[0].operation("quantize_by_absmax") is None:
        pytest.skip(f"{request.param} leaves this operation to XLA")
    cases = [(*row["case"].split(": ", 1), row) for row in report]
    found = {what: row for who, what, row in cases if who == request.param and ABSMAX in what}
    assert {f"{INT8}, rows of 1000", f"{INT8} with Philox, rows of 4096"} <= set(found)
    return found


def test_a_kernel_is_alone_but_for_the_words_of_a_seed_and_does_not_spill(rows: Rows) -> None:
    for case, row in rows.items():
        of_xla = 1 if "hash" in case else 0  # which makes the subkeys
        assert (row["kernels"], row["kernels_of_xla"], row["spill_bytes"]) == (1 + of_xla, of_xla, 0), case
        assert row["bytes_per_element"] == row["least_bytes_per_element"], case


def test_memory_bounds_every_kernel_with_noise_too(rows: Rows) -> None:
    chip = CHIPS["h100"]
    slow = {case for case, row in rows.items() if chip.arithmetic(row) > chip.memory(row["bytes_per_element"])}
    assert slow == set()


def test_noise_is_added_to_a_product_that_is_rounded(rows: Rows) -> None:
    """If the compiler made one operation of both, bits would depend on it."""
    assert {case: row["merged"] for case, row in rows.items() if row["merged"]} == {}


@pytest.mark.parametrize("rows", CEILINGS, indirect=True)
def test_every_kernel_is_within_its_ceiling(rows: Rows, request: pytest.FixtureRequest) -> None:
    limits = CEILINGS[request.node.callspec.params["rows"]]
    assert set(limits) <= set(rows)
    over = {case: (count(rows[case]), limit) for case, limit in limits.items()}
    assert {case: pair for case, pair in over.items() if pair[0] > pair[1]} == {}


@pytest.mark.parametrize("rows", [MOSAIC], indirect=True)
def test_mosaic_gpu_loads_each_element_once_but_for_long_rows(rows: Rows) -> None:
    """A thread moves eight elements at a time; what it stores it has loaded, and some of a long row twice."""
    for case, row in rows.items():
        memory = {name: number for name, number in row["memory"].items() if not name.startswith("LDS")}
        loads, store = (2 if "float32" in case else 1), ("ST.E.64" if "int8" in case else "ST.E.128")
        twice = 8 if case.endswith("65536") else 0
        assert memory.pop("LD.E.128") == loads * (memory.pop(store) + twice), case
        assert memory.pop("LDG.E.64", 0) == (2 if "Philox" in case or "hash" in case else 0), case  # the seed
        if "hash" in case:  # XLA makes words of the seed
            assert memory.pop("LDG.E.128.CONSTANT") == 1, case
            memory["STG.E"] -= 1
        assert [*memory.values()] == [1], case  # a scale
