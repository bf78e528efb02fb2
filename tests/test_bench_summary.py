"""What a reader takes from a run: which times are compared, and in which direction. The times are made up."""

from typing import Any

import pytest

from bench import results
from bench.names import EAGER, FORMULA, OURS

pytestmark = pytest.mark.tools

MS = 1e-3


def case(**found: Any) -> results.Measured:
    """A case with a result for each of ours, eager, formula, copy and other."""
    names = {"ours": OURS, "eager": FORMULA + EAGER, "formula": FORMULA, "copy": results.COPIES[0], "other": "theirs"}
    return {
        "operation": "quantize to int8",
        "dtype": "bfloat16",
        "shape": [1 << 20],
        "least_bytes": 3 << 20,
        "baseline": FORMULA,
        "results": {names[key]: value for key, value in found.items()},
    }


def wall(ms: float, **more: Any) -> results.Result:
    return {"median_s": ms * MS, "quartiles_s": [ms * MS, ms * MS], "rounds": 5} | more


def line(**found: Any) -> dict[str, str]:
    """The cells of the only case of a run, by their column."""
    return dict(zip(results.SUMMARY, results.row(case(**found)), strict=True))


def has(found: dict[str, str], **cells: str) -> bool:
    """Whether a line has these cells, by their columns with "_" for a space."""
    return all(found[column.replace("_", " ")] == cell for column, cell in cells.items())


def test_twice_the_time_of_ours_is_a_ratio_of_two_and_half_is_one_of_a_half() -> None:
    found = line(ours=wall(1), formula=wall(2))
    assert has(found, elements="2^20", time="1 ms", best_other="2 ms", ratio="2.00", clock="wall", which_other=FORMULA)
    assert has(line(ours=wall(4), formula=wall(2)), ratio="0.50")


def test_the_best_other_is_the_quickest_right_one_with_jit_or_without_and_is_not_a_copy() -> None:
    found = line(ours=wall(1), formula=wall(4), other=wall(3), copy=wall(0.5))
    assert has(found, ratio="3.00", which_other="theirs", of_copy="50%")
    assert has(line(ours=wall(1), formula=wall(4), eager=wall(2)), which_other=FORMULA + EAGER)
    assert has(line(ours=wall(1), formula=wall(4), other=wall(3, wrong="by 1")), ratio="4.00", which_other=FORMULA)


def test_both_times_are_of_one_clock() -> None:
    both = line(ours=wall(8, device_s=1 * MS), formula=wall(8, device_s=3 * MS))
    assert has(both, time="1 ms", best_other="3 ms", ratio="3.00", clock="device")
    one = line(ours=wall(8, device_s=1 * MS), formula=wall(16))
    assert has(one, time="8 ms", best_other="16 ms", ratio="2.00", clock="wall")


def test_what_went_wrong_is_in_the_line() -> None:
    failed = line(ours={"error": "no"}, formula=wall(2), other=wall(1))
    assert has(failed, time="failed", best_other="1 ms", ratio="-", which_other="theirs")
    assert has(line(ours=wall(1, wrong="by 1"), formula=wall(2)), ratio="WRONG")
    assert has(line(ours={"left_out": "too large"}, formula={"left_out": "too large"}), time="left out", ratio="-")
    assert has(line(ours=wall(1), formula={"error": "no"}), time="1 ms", best_other="-", ratio="-")


def test_ratios_are_of_one_kind_of_time() -> None:
    wall = {"median_s": 4.0}
    case = {
        "baseline": "b",
        "least_bytes": 8,
        "results": {"a": wall | {"device_s": 1.0}, "b": wall | {"device_s": 3.0}},
    }
    assert results.ratio(case, "a") == 3.0
    del case["results"]["b"]["device_s"]
    assert results.ratio(case, "a") == 1.0


def test_the_share_of_copy_speed_is_of_the_quicker_copy() -> None:
    seconds = dict(zip((*results.COPIES, "a"), (1.0, 2.0, 4.0), strict=True))
    case = {"baseline": "a", "results": {name: {"median_s": s} for name, s in seconds.items()}}
    assert results.of_copy(case, "a") == 0.25
    assert results.of_copy({"baseline": "a", "results": {"a": {"median_s": 4.0}}}, "a") is None
