"""`quantize` and `quantize_to_int` with a scale: the bits of the formula in NumPy, masks, gradients and shapes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import oracle
import pytest
import scaled_oracle
import streams
from oracle import assert_same_bits

from intnumerics import AbsMax, Fixed, IntNumerics, PhiloxUniform, absmax_scale, from_int, quantize, quantize_to_int
from intnumerics.kernels import Scaling

KEY = jax.random.key(42, impl="threefry2x32")  # whose words are 0 and 42
INT8 = IntNumerics.symmetric(8)
CLIPPED = IntNumerics.symmetric(8, preserve_max_val=True, clip_gradient=True)
PHILOX = INT8.replace(noise_fn=PhiloxUniform())
X = (np.random.default_rng(0).standard_normal((6, 96)) * 3).astype(np.float32)
X[1] = 0
X[2, :3] = np.nan, np.inf, -np.inf
X[3] *= np.float32(1e-30)
every_dtype = pytest.mark.parametrize("dtype", oracle.DTYPES, ids=str)


def scaling_of(n: IntNumerics, **fields: Any) -> Scaling:
    return Scaling(n.abs_val_mapped_to(), n.preserve_max_val or not n.round, **fields)


SCALES = {
    "a number": np.float32(0.07),
    "per row": np.linspace(0.01, 0.2, 6, dtype=np.float32)[:, None],
    "per column": np.linspace(0.01, 0.2, 96, dtype=np.float32),
    "per block of 32": np.linspace(0.01, 0.2, 18, dtype=np.float32).reshape(6, 3),
    "per column of blocks": np.linspace(0.01, 0.2, 6, dtype=np.float32).reshape(1, 6),
    "per element": np.linspace(0.01, 0.2, 6 * 96, dtype=np.float32).reshape(6, 96),
}
every_scale = pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)


def in_rank_2(scale: Any) -> np.ndarray:
    scale = np.asarray(scale, np.float32)
    return scale.reshape((1,) * (2 - scale.ndim) + scale.shape)


@every_scale
@every_dtype
@pytest.mark.parametrize("numerics", [INT8, PHILOX, IntNumerics.symmetric(4, preserve_zero=False)], ids=str)
def test_x_is_divided_by_its_scale_and_the_result_is_in_the_units_of_x(
    numerics: IntNumerics, dtype: np.dtype, scale: Any
) -> None:
    x, noise = X.astype(dtype), streams.uniform(X.shape, (0, 42)) if numerics.noise_fn else None
    for run in (lambda f: f, jax.jit):
        y = run(lambda x: quantize(x, numerics, scale=scale, key=KEY))(x)
        q = run(lambda x: quantize_to_int(x, numerics, scale=scale, key=KEY))(x)
        expected = scaled_oracle.quantize_by_scale(x, in_rank_2(scale), noise, numerics.spec())
        assert_same_bits(y, expected)
        spec = dataclasses.replace(numerics.spec(), integer_dtype=np.dtype(np.int8))
        assert_same_bits(q, scaled_oracle.quantize_by_scale(x, in_rank_2(scale), noise, spec))


@every_dtype
@pytest.mark.parametrize("preserve_max_val", [False, True])
@pytest.mark.parametrize("fields", [{}, {"fraction": 0.5}, {"power_of_two": True}], ids=str)
@pytest.mark.parametrize("axis", [None, -1, 0, (0, 1), 1], ids=str)
def test_absmax_is_the_scale_of_each_slice(axis: Any, fields: Any, preserve_max_val: bool, dtype: np.dtype) -> None:
    x, numerics = X.astype(dtype), INT8.replace(preserve_max_val=preserve_max_val)
    magnitude = np.abs(x.astype(np.float32))
    largest = np.where(np.isfinite(magnitude), magnitude, 0).max(axis=axis, keepdims=True)
    scale = scaled_oracle.scale_of(largest, scaling_of(numerics, **fields))
    expected = scaled_oracle.quantize_by_scale(x, scale, None, numerics.spec())
    assert_same_bits(quantize(x, numerics, scale=AbsMax(axis=axis, **fields)), expected)
    assert_same_bits(jax.jit(lambda x: quantize(x, numerics, scale=AbsMax(axis=axis, **fields)))(x), expected)
    if not fields:
        assert_same_bits(quantize(x, numerics, scale=absmax_scale(x, numerics, axis=axis)), expected)


@pytest.mark.parametrize("block", [16, 32])
def test_absmax_of_blocks_is_that_of_rows_of_blocks(block: int) -> None:
    expected = scaled_oracle.quantize_by_absmax(X, None, INT8.spec(), scaling_of(INT8), block)[0]
    assert_same_bits(quantize(X, INT8, scale=AbsMax(block=block)), expected)
    in_rows = quantize(X.reshape(-1, block), INT8, scale=AbsMax(axis=-1))
    assert_same_bits(np.asarray(in_rows).reshape(X.shape), expected)


def test_fixed_maps_its_bound_to_the_last_bucket() -> None:
    scale = scaled_oracle.scale_of(np.full((1, 1), 2.5, np.float32), scaling_of(CLIPPED))
    expected = scaled_oracle.quantize_by_scale(X, scale, None, CLIPPED.spec())
    assert_same_bits(quantize(X, CLIPPED, scale=Fixed(2.5)), expected)
    assert_same_bits(quantize(X, CLIPPED, scale=Fixed(jnp.asarray(2.5))), expected)
    per_row = jnp.full((6, 1), 2.5)
    assert_same_bits(jax.jit(lambda x, b: quantize(x, CLIPPED, scale=Fixed(b)))(X, per_row), expected)


def test_in_float64_all_is_float64() -> None:
    with jax.enable_x64(True):
        x = X.astype(np.float64) / 3
        magnitude = np.where(np.isfinite(x), np.abs(x), 0)
        scale = scaled_oracle.scale_of(magnitude.max(axis=1, keepdims=True), scaling_of(INT8))
        expected = scaled_oracle.quantize_by_scale(x, scale, None, INT8.spec())
        y = quantize(x, INT8, scale=AbsMax(axis=-1))
        assert y.dtype == np.float64
        assert_same_bits(y, expected)


def test_noise_of_a_user_is_added_in_float32_whatever_the_dtype_of_x() -> None:
    """0.3 of a bucket is not rounded to bfloat16, as it is without a scale."""
    x = X.astype(ml_dtypes.bfloat16)
    numerics = INT8.replace(noise_fn=lambda shape, key: 0.3)
    expected = scaled_oracle.quantize_by_scale(x, in_rank_2(0.07), np.full((1, 1), 0.3, np.float32), INT8.spec())
    assert_same_bits(quantize(x, numerics, scale=0.07, key=KEY), expected)


def test_a_scale_in_bfloat16_is_widened() -> None:
    scale = np.asarray(0.07, ml_dtypes.bfloat16)
    expected = quantize(X, INT8, scale=scale.astype(np.float32))
    assert_same_bits(quantize(X, INT8, scale=jnp.asarray(scale)), expected)


@pytest.mark.parametrize("shape", [(), (0,), (5,), (0, 3), (3, 0), (2, 3, 32)], ids=str)
def test_every_shape_is_quantized_by_a_scale(shape: tuple[int, ...]) -> None:
    x = np.linspace(-3, 3, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    for scale in (0.5, AbsMax()) if not shape else (0.5, AbsMax(), AbsMax(axis=-1), AbsMax(axis=0)):
        y = quantize(x, INT8, scale=scale)
        assert y.shape == shape
        assert np.all(np.abs(np.asarray(y) - x) <= 0.25)


# --- gradients --------------------------------------------------------------------------------------------------------


def gradient(numerics: IntNumerics, x: Any, scale: Any, **how: Any) -> np.ndarray:
    y, vjp = jax.vjp(lambda x: quantize(x, numerics, scale=scale, key=KEY, **how), x)
    return np.asarray(vjp(jnp.full_like(y, 3))[0])


@pytest.mark.parametrize("residual", ["mask", "x"])
@pytest.mark.parametrize("noise_fn", [None, PhiloxUniform()], ids=str)
@every_scale
def test_the_gradient_is_masked_where_x_in_buckets_is_beyond_the_bound(
    scale: Any, noise_fn: Any, residual: Any
) -> None:
    numerics = CLIPPED.replace(noise_fn=noise_fn)
    inside = scaled_oracle.mask(X, in_rank_2(scale), CLIPPED.spec())
    assert inside.any()
    assert not inside.all()
    g = gradient(numerics, X, scale, residual=residual)
    assert_same_bits(g, np.where(inside, np.float32(3), np.float32(0)))
    assert_same_bits(gradient(numerics.replace(clip_gradient=False), X, scale), np.full_like(X, 3))


@pytest.mark.parametrize("axis", [None, -1, 0], ids=str)
def test_a_scale_of_the_whole_maximum_masks_nothing(axis: Any) -> None:
    """Not even where the maximum is mapped to the edge of the last bucket, beyond the bound."""
    numerics = INT8.replace(clip_gradient=True)
    assert_same_bits(gradient(numerics, X, AbsMax(axis=axis)), np.full_like(X, 3))


@pytest.mark.parametrize("residual", ["mask", "x"])
@pytest.mark.parametrize("slices", [{"axis": -1}, {"axis": 0}, {"block": 32}], ids=str)
def test_a_fraction_of_the_maximum_masks_what_is_beyond_it(slices: Any, residual: Any) -> None:
    numerics = CLIPPED.replace(preserve_max_val=True)
    x = X if "block" not in slices else X.reshape(-1, 32)
    largest = np.where(np.isfinite(x), np.abs(x), 0).max(axis=slices.get("axis", -1), keepdims=True)
    scale = scaled_oracle.scale_of(largest, scaling_of(CLIPPED, fraction=0.25))
    inside = scaled_oracle.mask(x, scale, CLIPPED.spec()).reshape(X.shape)
    g = gradient(numerics, X, AbsMax(0.25, **slices), residual=residual)
    assert_same_bits(g, np.where(inside, np.float32(3), np.float32(0)))


def test_no_gradient_goes_through_a_scale() -> None:
    of_scale = jax.grad(lambda s: quantize(X[:1], CLIPPED, scale=s).sum())(jnp.asarray(0.1))
    assert of_scale == 0
    assert jax.grad(lambda b: quantize(X[:1], CLIPPED, scale=Fixed(b)).sum())(jnp.asarray(2.0)) == 0


def test_the_cotangent_is_neither_multiplied_nor_divided_by_the_scale() -> None:
    """As it is in `quantize(x / scale) * scale`, where it underflows."""
    x = X[4:5] * np.float32(1e-37)
    g = jax.grad(lambda x: (quantize(x, INT8, scale=AbsMax(axis=-1)) * np.float32(1e-30)).sum())(x)
    assert_same_bits(g, np.full_like(x, 1e-30))


def test_second_derivatives_go_straight_through() -> None:
    x = jnp.array([0.1, 0.3, -0.7])
    square = jax.hessian(lambda x: (quantize(x, INT8, scale=AbsMax(axis=-1)) ** 2).sum())(x)
    assert_same_bits(square, 2 * np.eye(3, dtype=np.float32))
    by_given = jax.hessian(lambda x: (quantize(x, CLIPPED, scale=0.004) ** 2).sum())(x)
    assert_same_bits(by_given, np.diag(np.array([2, 2, 0], np.float32)))


def test_forward_mode_is_refused_with_a_scale_too() -> None:
    with pytest.raises(TypeError, match="reverse mode"):
        jax.jvp(lambda x: quantize(x, INT8, scale=0.1), (X,), (X,))


def test_integers_times_their_scale_are_the_values() -> None:
    q = quantize_to_int(X, INT8, scale=0.07)
    values = from_int(q, INT8, jnp.float32) * np.float32(0.07)
    y = np.asarray(quantize(X, INT8, scale=0.07))
    assert_same_bits(values, np.where(np.isnan(y), 0, np.abs(y) * np.sign(y)).astype(np.float32) + np.float32(0))


def test_without_a_scale_nothing_changes() -> None:
    assert_same_bits(quantize(X, INT8, scale=None), quantize(X, INT8))
