"""How right the mean of a stochastic rounding is: over all 65,536 draws of 16-bit noise, counted and not sampled."""

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from original import given, numerics

from intnumerics import quantize

DRAWS = 65536
NOISE = ((np.arange(DRAWS) + 0.5) / DRAWS - 0.5).astype(np.float32)[None]  # exact: odd multiples of 2**-17
KEY = jax.random.key(0)


def values(dtype: Any, largest: int) -> np.ndarray:
    """Numbers of every magnitude below 2**largest that the dtype holds: random ones, near halves, whole ones."""
    rng = np.random.default_rng(0)
    scale = 2.0 ** np.arange(-3, largest)[:, None]
    whole = np.rint(rng.uniform(1, 2, (largest + 3, 3)) * scale)
    near = whole + 0.5 - 2.0**-17 + 2.0**-26  # a draw brings it to half a bucket, or as near as makes no difference
    x = np.concatenate([rng.uniform(1, 2, (largest + 3, 3)) * scale, whole, whole + 0.25, near], axis=1)
    return np.unique(np.clip(x * rng.choice([-1, 1], x.shape), -(2.0**largest) + 1, 2.0**largest - 1).astype(dtype))


def results(x: np.ndarray, **fields: Any) -> np.ndarray:
    """The results of all draws for each x, in float64."""
    noise_fn = given(jnp.asarray(NOISE))
    n = numerics(22, noise_fn=noise_fn, **fields)
    return np.asarray(quantize(np.repeat(x[:, None], DRAWS, 1), n, key=KEY)).astype(np.float64)


def ulp(x: np.ndarray, kind: Any) -> np.ndarray:
    """The distance of neighbouring numbers of a dtype at |x| + 1/2."""
    _, exponent = np.frexp(np.abs(x.astype(np.float64)) + 0.5)
    return 2.0 ** (exponent - 1 - ml_dtypes.finfo(kind).nmant)


@pytest.mark.parametrize("preserve_zero", [True, False], ids=["nearest", "halves"])
@pytest.mark.parametrize(
    ("dtype", "noise_dtype", "largest"),
    [
        (np.float32, None, 20),
        (ml_dtypes.bfloat16, None, 7),
        (np.float16, None, 10),
        (ml_dtypes.bfloat16, jnp.float32, 7),  # whose results are whole numbers that bfloat16 holds
        (np.float16, jnp.float32, 10),
    ],
    ids=["float32", "bfloat16", "float16", "bfloat16-in-float32", "float16-in-float32"],
)
def test_the_mean_is_right_to_a_unit_of_the_noise_and_half_an_ulp_of_the_sum(
    dtype: Any, noise_dtype: Any, largest: int, preserve_zero: bool
) -> None:
    x = values(dtype, largest)
    mean = results(x, noise_dtype=noise_dtype, preserve_zero=preserve_zero).sum(1) / DRAWS  # sums of halves: exact
    error, of_sum = np.abs(mean - x.astype(np.float64)), ulp(x, np.float32)
    if noise_dtype is None and dtype is not np.float32:  # the sum is rounded to float32, and then to the dtype of x
        of_sum = of_sum + ulp(x, dtype)
    assert (error <= 2.0**-17 + of_sum / 2).all()


def test_far_out_the_mean_is_half_an_ulp_off_and_whole_numbers_leave_their_bucket() -> None:
    x = np.asarray([1_000_001.25, 20_001.0], np.float32)
    y = results(x)
    assert y[0].mean() - 1_000_001.25 == 2.0**-5
    assert (y[1] != 20_001).mean() == 2.0**-9
    assert y[1].mean() == 20_001


def test_the_mean_with_23_bits_is_right_to_a_unit_of_them_and_half_an_ulp() -> None:
    x = np.asarray([0.3, 1.7, 100.2, -5000.6, 1_000_001.25], np.float32)
    noise = (np.arange(1 << 23) * 2.0**-23 - 0.5).astype(np.float32)  # every value of JaxUniform
    n = numerics(22, noise_fn=given(jnp.asarray(noise)))
    for value in x:
        mean = np.asarray(quantize(np.full(noise.shape, value), n, key=KEY)).astype(np.float64).mean()
        assert abs(mean - np.float64(value)) <= 2.0**-23 + ulp(value, np.float32) / 2
