"""Every implementation returns the bits of the formula, for every switch, width, dtype and number that matters."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import oracle
import pytest
from implementations import PARAMETERS, Where, assert_is_formula, every_implementation
from oracle import assert_same_bits

from intnumerics.kernels import QuantSpec

every_dtype = pytest.mark.parametrize("dtype", oracle.DTYPES, ids=str)
# The dtype in which noise is added: that of x, or float32.
every_noise_dtype = pytest.mark.parametrize(
    ("dtype", "noise_dtype"),
    [(dtype, None) for dtype in oracle.DTYPES]
    + [(dtype, np.dtype(np.float32)) for dtype in oracle.DTYPES if dtype != np.float32],
    ids=str,
)


def all_values(dtype: np.dtype, *specs: QuantSpec) -> np.ndarray:
    """The numbers at which any of several could go wrong."""
    return np.unique(np.concatenate([oracle.values(spec, dtype).view(f"u{dtype.itemsize}") for spec in specs])).view(
        dtype
    )


def check(where: Where, x: np.ndarray, noise: np.ndarray | None, *specs: QuantSpec) -> None:
    """Runs an implementation for each spec, in one program, and compares each result with the formula."""
    quantize = where.operations().quantize
    results = where.run(lambda x, noise: [quantize(x, noise, spec) for spec in specs], x, noise)
    for spec, result in zip(specs, results, strict=True):
        assert_is_formula(result, x, noise, spec, where.keeps_subnormal)


def every_spec() -> list[QuantSpec]:
    """Every switch at 9 bits, whose bound bfloat16 does not hold, and both roundings at each other width."""
    others = [spec for bits in oracle.BITS if bits != 9 for spec in oracle.specs(bits) if spec.clip and spec.rounding]
    return [*oracle.specs(9), *others]


@every_implementation
@every_dtype
def test_every_switch_and_every_width_give_the_formula_and_its_mask(where: Where, dtype: np.dtype) -> None:
    """For all numbers of 16 bits, and for float32 at all edges of buckets."""
    specs = [dataclasses.replace(spec, with_mask=True) for spec in every_spec()]
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype) if dtype.itemsize == 2 else all_values(dtype, *specs)
    check(where, x, None, *specs)


@every_implementation
@every_noise_dtype
def test_noise_is_added_and_rounded_as_the_formula_does(where: Where, dtype: np.dtype, noise_dtype: Any) -> None:
    one_bit = [spec for spec in oracle.specs(1) if spec.clip and spec.rounding]
    specs = [dataclasses.replace(spec, noise_dtype=noise_dtype) for spec in (*oracle.specs(9), *one_bit)]
    x = oracle.values(specs[0], dtype)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, x.shape).astype(np.float32)
    check(where, x, noise, *specs)


@every_implementation
@every_dtype
def test_noise_of_another_dtype_is_promoted_as_the_formula_does(where: Where, dtype: np.dtype) -> None:
    spec = QuantSpec(127.0, clip=True, rounding="half_to_even")
    x = oracle.values(spec, dtype)
    noises = [np.random.default_rng(1).uniform(-0.5, 0.5, x.shape).astype(d) for d in oracle.DTYPES]
    quantize = where.operations().quantize
    for noise, y in zip(noises, where.run(lambda x, *ns: [quantize(x, n, spec) for n in ns], x, *noises), strict=True):
        assert_is_formula(y, x, noise, spec)


INTEGERS = [(1, np.int8), (1, np.int16), (8, np.int8), (8, np.int32), (9, np.int16), (9, np.int32), (16, np.int32)]


@every_implementation
@every_dtype
def test_integers_are_the_rounded_values_or_bucket_numbers_and_nan_is_0(where: Where, dtype: np.dtype) -> None:
    specs = [
        dataclasses.replace(spec, integer_dtype=np.dtype(integer))
        for bits, integer in INTEGERS
        for spec in oracle.specs(bits)
        if spec.clip and spec.rounding
    ]
    check(where, all_values(dtype, *specs), None, *specs)


@every_implementation
@every_dtype
def test_integers_and_their_mask_come_of_one_pass(where: Where, dtype: np.dtype) -> None:
    """As `intnumerics.aqt` asks for them."""
    spec = QuantSpec(127.0, clip=True, rounding="half_to_even", with_mask=True, integer_dtype=np.dtype(np.int8))
    x = oracle.values(spec, dtype)
    check(where, x[: x.size // 9 * 9].reshape(-1, 9), None, spec)


SHAPES = [(1,), (7,), (8,), (4099,), (3, 5), (2, 3, 130), (5, 1024), (2, 4099), (0,), (3, 0), (0, 8), (1, 1, 1, 1)]


@every_implementation
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape(where: Where, shape: tuple[int, ...]) -> None:
    x = (np.random.default_rng(2).normal(size=shape) * 100).astype(ml_dtypes.bfloat16)
    spec = QuantSpec(127.0, clip=True, rounding="half_to_even", with_mask=True)
    g = np.random.default_rng(3).normal(size=shape).astype(ml_dtypes.bfloat16)
    run = where.operations()

    def everything(x: jax.Array, g: jax.Array, packed: jax.Array) -> Any:
        from_mask, from_x = run.clip_gradient_from_mask(g, packed), run.clip_gradient_from_x(g, x, spec)
        return run.quantize(x, None, spec), from_mask, from_x

    expected_mask = oracle.packed_mask(x, spec)
    (y, packed), *gradients = where.run(everything, x, g, expected_mask)
    assert_same_bits(y, oracle.quantize(x, None, spec))
    assert_same_bits(packed, expected_mask)
    for gradient in gradients:
        assert_same_bits(gradient, np.where(oracle.mask(x, spec), g, np.zeros_like(g)))


SHARED = [
    ((4, 6, 8), (4, 6, 8)),
    ((4, 6, 8), (1, 1, 1)),
    ((4, 6, 8), (1, 1, 8)),
    ((4, 6, 8), (4, 1, 8)),
    ((4, 6, 8), (4, 6, 1)),
    ((4, 6, 8), (1, 6, 1)),
    ((3, 1, 5), (3, 1, 1)),
    ((2, 3, 2, 5), (1, 3, 1, 5)),
    ((4099,), (1,)),
    ((3, 17), (1, 17)),
]


@every_implementation
@pytest.mark.parametrize(("shape", "noise_shape"), SHARED, ids=str)
def test_noise_broadcasts_along_its_axes_of_1(
    where: Where, shape: tuple[int, ...], noise_shape: tuple[int, ...]
) -> None:
    random = np.random.default_rng(4)
    x = (random.normal(size=shape) * 100).astype(np.float32)
    noise = random.uniform(-0.5, 0.5, noise_shape).astype(np.float32)
    spec = QuantSpec(127.5, clip=True, rounding="floor_plus_half")
    y, (masked, packed) = where.run(
        lambda x, noise: [
            where.operations().quantize(x, noise, s) for s in (spec, dataclasses.replace(spec, with_mask=True))
        ],
        x,
        noise,
    )
    expected = oracle.quantize(x, np.broadcast_to(noise, shape), spec)
    assert_same_bits(y, expected)
    assert_same_bits(masked, expected)
    assert_same_bits(packed, oracle.packed_mask(x, spec))


@every_implementation
@every_dtype
def test_the_gradient_of_infinity_outside_the_mask_is_0_and_nan_is_outside(where: Where, dtype: np.dtype) -> None:
    spec = QuantSpec(127.0, clip=True, rounding="half_to_even", with_mask=True)
    x = np.asarray([np.nan, np.inf, 128, 127, -127, 0, 3, -np.inf, 126.5], dtype)
    g = np.asarray([np.inf, np.nan, -np.inf, np.inf, -0.0, np.nan, 2, 5, -3], dtype)
    expected = np.asarray([0, 0, 0, np.inf, -0.0, np.nan, 2, 0, -3], dtype)
    run = where.operations()
    packed = np.packbits([0, 0, 0, 1, 1, 1, 1, 0, 1], bitorder="little")
    both = lambda g, x, m: (run.clip_gradient_from_mask(g, m), run.clip_gradient_from_x(g, x, spec))  # noqa: E731
    for gradient in where.run(both, g, x, packed):
        assert_same_bits(gradient, expected)


@every_implementation
def test_a_cotangent_may_have_another_dtype_than_x(where: Where) -> None:
    spec = QuantSpec(127.0, clip=True, rounding="half_to_even")
    x, g = np.asarray([200, 3, -4], np.float32), np.asarray([1, 2, 3], ml_dtypes.bfloat16)
    result = where.run(lambda g, x: where.operations().clip_gradient_from_x(g, x, spec), g, x)
    assert_same_bits(result, np.asarray([0, 2, 3], ml_dtypes.bfloat16))


ONE_LENGTH = 96  # of the arrays that hypothesis makes, so that each implementation is compiled once


@functools.cache
def quantizer(where: Where, spec: QuantSpec, dtype: np.dtype) -> Callable[..., Any]:
    quantize = where.operations().quantize
    x, noise = (jax.ShapeDtypeStruct((ONE_LENGTH,), d) for d in (dtype, np.float32))
    return where.compiled(lambda x, noise: quantize(x, noise, spec), x, noise)


@every_implementation
@every_dtype
@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(data=st.data())
def test_arrays_that_hypothesis_makes(where: Where, dtype: np.dtype, data: st.DataObject) -> None:
    bits = hypothesis.extra.numpy.arrays(np.dtype(f"u{dtype.itemsize}"), ONE_LENGTH)
    draws = hypothesis.extra.numpy.arrays(np.int16, ONE_LENGTH)
    x, noise = data.draw(bits).view(dtype), data.draw(draws).astype(np.float32) / 65536
    specs = [dataclasses.replace(s, with_mask=True) for s in oracle.specs(8) if s.clip and s.rounding]
    spec = data.draw(st.sampled_from(specs))
    assert_is_formula(quantizer(where, spec, dtype)(x, noise), x, noise, spec)


OF_FLOAT64 = [parameter for parameter in PARAMETERS if parameter.id in ("reference", "xla", "xla's compiled code")]


@pytest.mark.parametrize("where", OF_FLOAT64)
def test_float64_gives_the_formula(where: Where) -> None:
    specs = [dataclasses.replace(spec, with_mask=True) for spec in every_spec()]
    to_int = [
        dataclasses.replace(spec, integer_dtype=np.dtype(np.int32)) for spec in specs if spec.clip and spec.rounding
    ]
    x = all_values(np.dtype(np.float32), *specs).astype(np.float64)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, x.shape)
    with jax.enable_x64(True):
        check(where, x, None, *specs, *to_int)
        check(where, x, noise, *specs, *to_int)
        check(where, x, noise.astype(np.float32), *specs, *to_int)
        check(where, x.astype(np.float32), noise, *specs, *to_int)
        g = np.random.default_rng(1).normal(size=x.shape)
        clip = where.operations().clip_gradient_from_x
        expected = np.where(oracle.mask(x, specs[0]), g, np.zeros_like(g))
        assert_same_bits(where.run(lambda g, x: clip(g, x, specs[0]), g, x), expected)


def test_a_bound_is_rounded_to_the_dtype_of_x() -> None:
    spec = QuantSpec(255.5, clip=True, rounding=None)
    assert spec.bound_in(jnp.bfloat16) == 256.0
    assert spec.bound_in(jnp.float32) == 255.5
    assert dataclasses.replace(spec, noise_dtype=np.dtype(np.float32)).bound_in(jnp.bfloat16) == 255.5
    assert QuantSpec(2.0**20, clip=True, rounding=None).bound_in(jnp.float16) == float("inf")
