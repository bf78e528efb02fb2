"""Noise and keys: whatever a noise function draws is added as jnp adds it."""

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import oracle
import pytest
from oracle import assert_same_bits
from original import dither, given, numerics, spec_of

from intnumerics import quantize, quantize_to_int
from intnumerics.kernels import QuantSpec, xla

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
NOISE = np.asarray([-0.5, -0.25, 0.0, 0.125, 0.4375, 0.5, 0.3125, -0.0625], np.float32)
# 100.5 + 0.125 is 100.5 again in bfloat16, a tie: it shows whether the sum is rounded before the rounding
X = np.asarray([-9.0, -0.5, 0.0, 100.5, 3.5, 2.25, np.nan, np.inf], np.float32)
every_dtype = pytest.mark.parametrize("dtype", oracle.DTYPES, ids=str)


@pytest.mark.parametrize("noise_dtype", [None, jnp.float32], ids=["as-x", "float32"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "noise",
    [
        NOISE.reshape(2, 4),
        NOISE[:4],
        NOISE[:4].reshape(1, 4),
        NOISE[:2].reshape(2, 1),
        NOISE[4],
        NOISE.astype(BFLOAT16).reshape(2, 4),
        NOISE.astype(np.float16).reshape(2, 4),
        np.arange(-3, 5).reshape(2, 4).astype(np.int8),
        np.asarray([1, 3], np.uint32).reshape(2, 1),
    ],
    ids=lambda noise: f"{noise.dtype}{list(noise.shape)}",
)
def test_noise_of_any_real_dtype_that_broadcasts_is_added_as_jnp_adds(noise: Any, dtype: str, noise_dtype: Any) -> None:
    n = numerics(8, noise_fn=given(jnp.asarray(noise)), noise_dtype=noise_dtype)
    x = X.reshape(2, 4).astype(dtype)
    as_float = noise if noise.dtype.kind not in "iu" else noise.astype(dtype)  # integers and floats sum in the float
    y, q = jax.jit(lambda x, key: (quantize(x, n, key=key), quantize_to_int(x, n, key=key)))(x, jax.random.key(0))
    assert_same_bits(y, oracle.quantize(x, as_float, spec_of(n)))
    assert_same_bits(q, oracle.quantize(x, as_float, spec_of(n, integer_dtype=np.dtype(np.int8))))


def test_a_python_number_as_noise_takes_the_dtype_of_x() -> None:
    x = np.asarray([100.25, 100.0], BFLOAT16)  # 100.25 rounds to 100 here; in float32 0.3 more would matter
    n = numerics(8, noise_fn=given(0.3), round=False)
    assert_same_bits(quantize(x, n, key=jax.random.key(0)), np.asarray([100.5, 100.5], BFLOAT16))
    assert_same_bits(quantize(x, n.replace(noise_fn=given(1)), key=jax.random.key(0)), np.asarray([101, 101], BFLOAT16))


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey], ids=["typed", "legacy"])
def test_keys_typed_and_legacy_reach_the_noise_function(make: Any, impl: str) -> None:
    with jax.default_prng_impl(impl):
        key, n = make(42, impl=impl), numerics(8, noise_fn=dither)
        x = np.linspace(-130, 130, 40).astype(np.float32)
        expected = oracle.quantize(x, np.asarray(dither(x.shape, key)), spec_of(n))
        assert_same_bits(quantize(x, n, key=key), expected)
        assert_same_bits(jax.jit(lambda x, key: quantize(x, n, key=key))(x, key), expected)


@pytest.mark.parametrize(("noise_dtype", "share"), [(None, 0.25), (jnp.float32, 0.5)], ids=["as-x", "float32"])
def test_stochastic_rounding_of_bfloat16_is_biased_unless_in_float32(noise_dtype: Any, share: float) -> None:
    n = numerics(8, noise_fn=lambda shape, key: jax.random.uniform(key, shape) - 0.5, noise_dtype=noise_dtype)
    draws = 100_000
    y = np.asarray(quantize(jnp.full(draws, 100.5, jnp.bfloat16), n, key=jax.random.key(1))).astype(np.float64)
    assert set(y) == {100.0, 101.0}
    deviation = np.sqrt(share * (1 - share) / draws)  # of the share of 101s, a binomial
    assert abs(y.mean() - 100 - share) < 5 * deviation


@pytest.mark.parametrize("noise_dtype", [None, np.dtype(np.float32)], ids=["as-x", "float32"])
@pytest.mark.parametrize("integer", [None, np.dtype(np.int8)], ids=str)
@pytest.mark.parametrize("platform", [None, "cpu", "cuda", "tpu"])
@every_dtype
def test_each_platforms_form_of_plain_jnp_rounds_the_sum_to_the_dtype_of_x(
    dtype: Any, platform: str | None, integer: Any, noise_dtype: Any
) -> None:
    """Under jit, where XLA may drop a cast to fewer bits that is followed by one back."""
    random = np.random.default_rng(0)
    x = random.uniform(-140, 140, 4096).astype(dtype)
    noise = random.uniform(-0.5, 0.5, x.shape).astype(np.float32)
    spec = QuantSpec(127.0, clip=True, rounding="half_to_even", integer_dtype=integer, noise_dtype=noise_dtype)
    y = jax.jit(lambda x, noise: xla.quantize(x, noise, spec, platform=platform))(x, noise)
    assert_same_bits(y, oracle.quantize(x, noise, spec))
