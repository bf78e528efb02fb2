"""Quantization by a scale that is given, its gradient, and the reciprocal of a scale, against NumPy."""

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
from implementations import Where, having
from oracle import assert_same_bits
from ptx_approximations import approximate_quotients as approximate_quotients
from test_scaled_kernels import FLOAT32, HALVES, KEY, NEAREST, SUM, TO_INT8, differs, every_dtype, numbers, rows

from intnumerics.kernels import Draw, QuantSpec, scaling

every_implementation = having("quantize_by_scale")
pytestmark = pytest.mark.usefixtures("approximate_quotients")
RANDOM = np.random.default_rng(0)
TINY = float(np.finfo(np.float32).tiny)


def check(where: Where, x: np.ndarray, scale: np.ndarray, noise: np.ndarray | None, *specs: QuantSpec) -> None:
    """Runs an implementation for each spec, with a mask too, in one program, and the gradient of that mask.

    Where the formula depends on whether a subnormal number counts as 0, only a GPU is compared with it.
    """
    run, keeps = where.operations(), where.keeps_subnormal
    g = np.random.default_rng(1).standard_normal(x.shape).astype(x.dtype)
    given = noise if specs[0].draw is None else streams.seed(KEY)

    def each(x: jax.Array, scale: jax.Array, g: jax.Array, noise: jax.Array | None) -> list[Any]:
        masked = [dataclasses.replace(spec, with_mask=True) for spec in specs]
        return [
            (*run.quantize_by_scale(x, scale, noise, spec), run.clip_gradient_by_scale(g, x, scale, spec))
            for spec in masked
        ]

    for spec, (y, packed, gradient) in zip(specs, where.run(each, x, scale, g, given), strict=True):
        expected, flushed = (scaled_oracle.quantize_by_scale(x, scale, noise, spec, flush) for flush in (False, True))
        mask, flushed_mask = (scaled_oracle.mask(x, scale, spec, flush) for flush in (False, True))
        same = keeps | ~(differs(expected, flushed) | (mask != flushed_mask))
        assert_same_bits(y[same], expected[same])
        bits = np.unpackbits(packed, axis=-1, bitorder="little", count=x.shape[-1]).astype(bool)
        assert_same_bits(bits[same], mask[same])
        assert_same_bits(gradient[same], np.where(mask, g, np.zeros_like(g))[same])


SHARED = [(18, 1), (1, 128), (1, 1), (18, 128), (18, 8), (1, 2), (18, 64)]  # sizes of scales: shared, or by blocks


@every_implementation
@every_dtype
def test_a_scale_is_shared_by_the_elements_or_blocks_along_its_axes(where: Where, dtype: np.dtype) -> None:
    x = rows(128, dtype)[:18]
    for i, shape in enumerate(SHARED if where.device != "h100" else SHARED[::3]):
        scale = np.exp2(RANDOM.uniform(-8, 8, shape)).astype(oracle.DTYPES[i % 3])
        check(where, x, scale, None, (NEAREST, HALVES, TO_INT8)[i % 3], SUM)


EDGES = [0.0, -0.0, np.inf, -np.inf, np.nan, TINY / 2, -TINY / 8, 2.0**-149, TINY, 2.0**126, 3e38, -3.0, -1e-30, 1e30]


@every_implementation
@every_dtype
def test_a_scale_may_be_any_number(where: Where, dtype: np.dtype) -> None:
    """0 and subnormal numbers divide as the smallest normal number, and infinity as its reciprocal."""
    special = numbers((1, 32), dtype)
    x = np.concatenate([special, (special.astype(np.float64) * 1e-30).astype(dtype), np.zeros_like(special)], axis=1)
    check(where, np.repeat(x, len(EDGES), axis=0), np.asarray(EDGES, np.float32)[:, None], None, NEAREST, TO_INT8)


@every_implementation
def test_every_width_and_switch_with_noise_that_is_given_or_drawn(where: Where) -> None:
    x = numbers((4, 96), FLOAT32)
    scale = np.exp2(RANDOM.uniform(-8, 8, (4, 1))).astype(np.float32)
    noise = RANDOM.uniform(-3, 3, (4, 96)).astype(np.float32)
    specs = [spec for bits in (1, 9, 22) for spec in oracle.specs(bits)][:: 3 if where.device == "h100" else 1]
    check(where, x, scale, noise, *specs)
    drawing = [dataclasses.replace(spec, draw=Draw("philox", x.shape)) for spec in (SUM, TO_INT8)]
    check(where, x, scale, streams.uniform(x.shape, KEY), *drawing)


@every_implementation
def test_the_dtype_of_the_noise_changes_nothing_since_all_is_float32(where: Where) -> None:
    x = numbers((3, 72), np.dtype(ml_dtypes.bfloat16))
    specs = [dataclasses.replace(spec, noise_dtype=np.dtype(np.float32)) for spec in (SUM, NEAREST)]
    check(where, x, np.full((1, 1), 0.37, np.float32), RANDOM.uniform(-0.5, 0.5, (1, 72)).astype(np.float32), *specs)


@every_implementation
def test_float64_is_scaled_in_float64(where: Where) -> None:
    x = RANDOM.standard_normal((4, 96)) * 50
    scale, noise = RANDOM.uniform(0.1, 2, (4, 1)), RANDOM.uniform(-0.5, 0.5, x.shape)
    with jax.enable_x64(True):
        check(where, x, scale, None, NEAREST, TO_INT8)
        check(where, x, scale, noise, SUM, HALVES)


# --- the reciprocal of a scale ----------------------------------------------------------------------------------------

MANTISSAS = (np.arange(1 << 23, dtype=np.int32) + (127 << 23)).view(np.float32)


@pytest.mark.parametrize("off", [-2, -1, 0, 1, 2])
def test_a_reciprocal_is_rounded_correctly_from_one_that_is_up_to_two_units_off(off: int) -> None:
    """For every mantissa; a power of 2 changes none of the bits that the correction reads."""
    exact = scaled_oracle.inverse_of(MANTISSAS)
    assert_same_bits(jax.jit(scaling.corrected)(scaled_oracle.ulps(exact, off), MANTISSAS), exact)


def test_the_reciprocal_is_right_for_every_exponent_sign_and_what_has_none() -> None:
    bits = RANDOM.integers(0, 1 << 32, 1 << 16, dtype=np.uint32)
    scale = np.concatenate([bits.view(np.float32), np.asarray(EDGES, np.float32)])
    assert_same_bits(jax.jit(scaling.inverse_of)(scale), scaled_oracle.inverse_of(scale))
    assert_same_bits(scaling.inverse_of(jnp.float32(-0.5)), np.float32(-2))
    with jax.enable_x64(True):
        wide = np.exp2(RANDOM.uniform(-900, 900, 4096))
        assert_same_bits(jax.jit(scaling.inverse_of)(wide), 1 / wide)
