"""What XLA for CUDA makes of the formula: which roundings it keeps, and which it leaves out."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import oracle
import pytest
import streams
from implementations import COMPILED, Where
from oracle import assert_same_bits
from original import dither, spec_of

from bench import baselines
from intnumerics import (
    HashUniform,
    IntNumerics,
    JaxUniform,
    PhiloxUniform,
    RandomCenteredUniform,
    quantize,
    quantize_to_int,
)
from intnumerics.kernels import QuantSpec
from tools import ptx

pytestmark = pytest.mark.ptx

NEAREST = QuantSpec(127.0, clip=True, rounding="half_to_even")
SUM = QuantSpec(127.0, clip=True, rounding=None)
N = 1 << 16


def numbers(dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return (random.standard_normal(N) * 60).astype(dtype), random.uniform(-0.5, 0.5, N).astype(np.float32)


@pytest.mark.parametrize(("dtype", "is_kept", "percent"), [(ml_dtypes.bfloat16, False, 12), (np.float16, True, 2)])
def test_xla_leaves_out_the_formulas_cast_to_bfloat16_after_the_noise_and_never_ours(
    dtype: Any, is_kept: bool, percent: int
) -> None:
    x, noise = numbers(dtype)
    kept = oracle.quantize(x, noise, NEAREST)
    left_out = oracle.quantize(x, noise, dataclasses.replace(NEAREST, noise_dtype=np.dtype(np.float32)))
    assert round(100 * np.mean(kept != left_out)) == percent  # docs/implementations.md has that of bfloat16
    assert_same_bits(ptx.compile(baselines.nearest, x, noise)(x, noise), kept if is_kept else left_out)
    for where in (Where("reference", None, "h100"), COMPILED["xla's compiled code"]):
        ours = where.operations().quantize
        assert_same_bits(where.run(lambda x, n, q=ours: q(x, n, NEAREST), x, noise), kept)


@pytest.mark.parametrize("where", COMPILED.values(), ids=COMPILED)
def test_a_scale_before_the_pass_is_a_product_of_its_own(where: Where) -> None:
    """A product and a sum that are contracted to one FMA would give other bits."""
    x, noise = numbers(np.float32)
    scale = np.float32(1.2345678)
    contracted = (x.astype(np.float64) * np.float64(scale) + noise).astype(np.float32)
    expected = oracle.quantize(x * scale, noise, SUM)
    assert np.mean(oracle.quantize(contracted, None, SUM) != expected) > 0.01
    ours = where.operations().quantize
    assert_same_bits(where.run(lambda x, s, n: ours(x * s, n, SUM), x, scale, noise), expected)


NOISES = {  # by the noise class: the noise as jax.random draws it on a CPU
    JaxUniform: lambda key: jax.random.uniform(key, (N,)) - 0.5,
    RandomCenteredUniform: lambda key: dither((N,), key),
    PhiloxUniform: lambda key: streams.uniform((N,), tuple(jax.random.key_data(key).tolist())),
    HashUniform: lambda key: streams.uniform_hash((N,), tuple(jax.random.key_data(key).tolist())),
}


@pytest.mark.parametrize("noise_class", NOISES, ids=lambda noise: noise.__name__)
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_the_noise_that_xla_draws_in_its_fusion_is_that_of_its_class(noise_class: Any, dtype: Any) -> None:
    x, key = numbers(dtype)[0], jax.random.key(7)
    stochastic = IntNumerics.symmetric(8, noise_fn=noise_class(), noise_dtype=jnp.float32)
    drawn = np.asarray(NOISES[noise_class](key), np.float32)

    def both(x: jax.Array, words: jax.Array) -> tuple[jax.Array, jax.Array]:
        key = jax.random.wrap_key_data(words)
        y = quantize(x, stochastic, key=key, implementation="xla")
        return y, quantize_to_int(x, stochastic, key=key, implementation="xla")

    program = ptx.compile(both, x, jax.random.key_data(key))
    y, integers = program(x, np.asarray(jax.random.key_data(key)))
    spec = spec_of(stochastic)
    assert_same_bits(y, oracle.quantize(x, drawn, spec))
    assert_same_bits(integers, oracle.quantize(x, drawn, dataclasses.replace(spec, integer_dtype=np.dtype(np.int8))))


def test_a_division_by_a_scale_is_an_approximation_whose_bits_are_the_devices() -> None:
    x = numbers(np.float32)[0]
    divide = ptx.compile(lambda x, s: x / s, x, np.float32(3))
    with pytest.raises(ptx.UnsupportedError, match=r"div\.full\.f32"):
        divide(x, np.float32(3))


@pytest.mark.parametrize("where", COMPILED.values(), ids=COMPILED)
@pytest.mark.parametrize("dtype", oracle.DTYPES, ids=str)
def test_nan_of_every_sign_and_payload_stays_nan(where: Where, dtype: np.dtype) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    x = (bits if dtype.itemsize == 2 else np.repeat(bits, 2).view(np.uint32)).view(dtype)
    with np.errstate(invalid="ignore"):
        x = x[np.isnan(x)][::3]
    specs = [*oracle.specs(8), dataclasses.replace(NEAREST, integer_dtype=np.dtype(np.int8))]
    ours = where.operations().quantize
    results = where.run(lambda x: [ours(x, None, spec) for spec in specs], x)
    for spec, y in zip(specs, results, strict=True):
        with np.errstate(invalid="ignore"):
            assert (np.isnan(y) if spec.integer_dtype is None else y == 0).all()
