"""The last lines of a benchmark: one per case, on made-up times."""

import re
from typing import Any

import pytest

from bench import results, summary
from bench.operations import EAGER, FORMULA, OURS

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


def cells(one: results.Measured) -> list[str]:
    """The cells of the only case of a run, as they are printed."""
    _, _, line = summary.lines({"cases": [one]}).splitlines()
    return re.split(r"\s{2,}", line)


def test_twice_the_time_of_ours_is_a_ratio_of_two() -> None:
    shown = cells(case(ours=wall(1), formula=wall(2)))
    assert shown == ["quantize to int8", "bfloat16", "2^20", "1 ms", "2 ms", "2.00", "wall", FORMULA]


def test_half_the_time_of_ours_is_a_ratio_of_a_half() -> None:
    assert cells(case(ours=wall(4), formula=wall(2)))[5] == "0.50"


def test_the_best_other_is_the_quickest_right_one_with_jit_or_without_and_is_no_copy() -> None:
    assert cells(case(ours=wall(1), formula=wall(4), other=wall(3), copy=wall(0.5)))[4:] == [
        "3 ms", "3.00", "wall", "theirs"
    ]  # fmt: skip
    assert cells(case(ours=wall(1), formula=wall(4), eager=wall(2)))[4:] == ["2 ms", "2.00", "wall", FORMULA + EAGER]
    assert cells(case(ours=wall(1), formula=wall(4), other=wall(3, wrong="by 1")))[4:6] == ["4 ms", "4.00"]


def test_both_times_are_of_one_clock() -> None:
    both = case(ours=wall(8, device_s=1 * MS), formula=wall(8, device_s=3 * MS))
    assert cells(both)[3:7] == ["1 ms", "3 ms", "3.00", "device"]
    one = case(ours=wall(8, device_s=1 * MS), formula=wall(16))
    assert cells(one)[3:7] == ["8 ms", "16 ms", "2.00", "wall"]


def test_what_went_wrong_is_in_the_line() -> None:
    assert cells(case(ours={"error": "no"}, formula=wall(2), other=wall(1)))[3:] == ["failed", "1 ms", "-", "theirs"]
    assert cells(case(ours=wall(1, wrong="by 1"), formula=wall(2)))[5] == "WRONG"
    assert cells(case(ours={"left_out": "too large"}, formula={"left_out": "too large"}))[3:] == ["left out", "-", "-"]
    assert cells(case(ours=wall(1), formula={"error": "no"}))[3:] == ["1 ms", "-", "-"]


def test_the_columns_stand_under_each_other_and_the_direction_is_said_once() -> None:
    wide = case(ours=wall(1), formula=wall(2)) | {"operation": "a longer name than that", "shape": [8, 128, 1024]}
    title, *table = summary.lines({"cases": [case(ours=wall(1), formula=wall(2)), wide]}).splitlines()
    assert title.lower().count("larger is faster") == 1
    assert not any("faster" in line for line in table)
    assert [line.split()[-1] for line in table] == ["other", "formula", "formula"]
    assert len({line.index(word) for line, word in zip(table, ("which other", FORMULA, FORMULA), strict=True)}) == 1
    assert "8x128x1024" in table[-1]


def test_a_plot_against_the_size_takes_three_sizes() -> None:
    report = pytest.importorskip("bench.report", reason="needs matplotlib")
    cases = [{"shape": [1 << exponent]} for exponent in (12, 15, 18)]
    assert report.drawn({"cases": cases}) == ["size", "roofline", "scaling"]
    assert report.drawn({"cases": cases[:2]}) == ["roofline"]
