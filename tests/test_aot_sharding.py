"""Sharded programs through the real compilers: each device has its shard, and nothing moves between devices."""

from typing import Any

import pytest
from compilers import Compilers

pytestmark = pytest.mark.aot

Row = dict[str, Any]


@pytest.fixture(scope="module", params=["cuda sharded", "tpu sharded"])
def report(request: pytest.FixtureRequest, compiled: Compilers) -> list[Row]:
    """What was tried."""
    return compiled.report(request.param)["cases"]


@pytest.fixture
def platform(request: pytest.FixtureRequest) -> str:
    return request.node.callspec.params["report"].split()[0]


@pytest.fixture
def rows(report: list[Row]) -> list[Row]:
    """What compiled."""
    return [row for row in report if "error" not in row]


def kernels_in(row: Row) -> int:
    """How many of ours are to be in the program: libtpu has no `custom_partitioning`, so they need types that tell."""
    passes = 2 if row["what"] == "both" else 1
    if row["implementation"]:
        return passes
    if row["what"] == "scales":
        return int(not shares_rows(row) and (row["devices"] == "8 H100" or row["axes"] == "Explicit"))
    if row["devices"] == "8 H100":  # where None is a kernel for the pass that draws noise alone
        return int(row["noise"] and row["what"] != "backward")
    if row["axes"] != "Explicit":
        return 0
    return passes if row["noise"] or row["what"] == "both" else 0


def shares_rows(row: Row) -> bool:
    """Whether devices have parts of rows."""
    return "('rows', None, 'lanes')" in row["spec"]


def test_no_device_sends_anything_but_maxima_of_rows_that_it_shares(rows: list[Row]) -> None:
    assert rows
    for row in rows:
        assert row["collectives"] == (["all-reduce"] if row["what"] == "scales" and shares_rows(row) else []), row


def test_results_are_sharded_as_x_is(rows: list[Row]) -> None:
    assert not [row for row in rows if not row["as_given"]]


def test_a_program_of_kernels_has_one_a_pass(rows: list[Row]) -> None:
    for row in rows:
        assert row["kernels"] == kernels_in(row), row


def test_a_device_has_no_temporary_array_but_the_mask(rows: list[Row], platform: str) -> None:
    for row in rows:
        of_xla = 1 << 20  # XLA for TPU takes most of a megabyte for itself
        assert row["temporary_bytes"] <= max(row["output_bytes"], of_xla), row
        # Between two passes is the mask, a bit beside two results of 16 bits; a TPU pads rows of 16 bytes to 128.
        part = {"cuda": 32, "tpu": 4}[platform]
        mask = row["output_bytes"] / part if row["what"] == "both" else 0
        assert row["temporary_bytes"] <= mask + of_xla, row


def test_2_to_the_33_elements_are_compiled_for_all_devices(rows: list[Row], platform: str) -> None:
    large = [row for row in rows if row["shape"] == [4096, 2048, 1024]]
    assert len(large) == {"cuda": 6, "tpu": 4}[platform]
    assert {row["what"] for row in large} == {"forward to int8", "both"}
    devices, size = {"cuda": (8, 2**33), "tpu": (512, 2**33)}[platform]
    for row in large:
        element = 4 if row["what"] == "both" else 1
        assert element * size // devices <= row["output_bytes"] <= element * size // devices + 64, row


def test_a_kernel_that_xla_would_have_to_split_is_refused_on_tpu(report: list[Row], platform: str) -> None:
    refused = [row for row in report if "error" in row]
    assert len(refused) == (1 if platform == "tpu" else 0)
    assert all("shard_map" in row["error"] for row in refused)
