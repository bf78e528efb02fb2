"""Stochastic rounding of bfloat16 is biased with the cast kept, by so much and no more, and in float32 is not."""

import ml_dtypes
import numpy as np
import oracle
import pytest

from tools import bias

NOISE = ((np.arange(65536) + 0.5) / 65536 - 0.5).astype(np.float32)


def mean_errors(x: np.ndarray, name: str) -> np.ndarray:
    """The mean error over every draw, by the formula in NumPy."""
    sums = [oracle.quantize(np.full(NOISE.shape, v), NOISE, bias.SPECS[name]).astype(np.float64).mean() for v in x]
    return np.asarray(sums) - x.astype(np.float64)


@pytest.mark.parametrize("name", bias.SPECS)
@pytest.mark.parametrize("exponent", [-10, -1, 2, 6])
def test_the_stored_errors_are_those_of_the_formula_over_every_draw(exponent: int, name: str) -> None:
    (row,) = (row for row in bias.stored()["binades"] if row["exponent"] == exponent)
    step = 2.0 ** (exponent - 7)
    x = (2.0**exponent + step * np.arange(128)).astype(ml_dtypes.bfloat16)
    x = x[x.astype(np.float64) <= 127]
    assert len(row[name]) == len(x)
    chosen = slice(0, None, 5)
    np.testing.assert_array_equal(row[name][chosen], mean_errors(x[chosen], name))


def test_the_package_gives_the_stored_errors_today() -> None:
    for row in bias.stored()["binades"]:
        if row["exponent"] in (-10, 6):
            for name, spec in bias.SPECS.items():
                np.testing.assert_array_equal(bias.mean_errors(bias.binade(row["exponent"]), spec), row[name])


def largest(name: str) -> list[float]:
    report = bias.stored()
    return [report["below"][name], *(max(map(abs, row[name])) for row in report["binades"])]


def test_with_the_cast_kept_the_mean_is_off_by_a_quarter_of_a_bucket_and_no_more() -> None:
    assert max(largest("cast_kept")) == 0.25


def test_in_float32_the_mean_is_off_by_less_than_a_draw_can_resolve() -> None:
    assert max(largest("float32")) < 2.0**-16


@pytest.mark.parametrize(("value", "error"), [(100.5, -0.25), (101.5, 0.25), (-100.5, 0.25), (100.0, 0.0)])
def test_the_error_alternates_in_sign_and_is_odd(value: float, error: float) -> None:
    x = np.asarray([value], ml_dtypes.bfloat16)
    assert bias.mean_errors(x, bias.SPECS["cast_kept"]) == [error]
    assert bias.mean_errors(x, bias.SPECS["float32"]) == [0.0]
