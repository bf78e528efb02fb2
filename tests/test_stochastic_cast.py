"""Rounding floats to smaller floats stochastically, in every implementation, against a table of all their numbers."""

from typing import Any

import float_oracle as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from float_oracle import BFLOAT16, FLOAT8_E4M3FN, FLOAT8_E5M2, FLOAT16, FLOAT32, PAIRS, unsigned
from implementations import Where, every_implementation
from jax import lax
from oracle import assert_same_bits
from streams import noise_of

from intnumerics import kernels
from intnumerics.kernels import FloatRounding, QuantSpec

# Every dtype, and both ways to overflow with infinities and without; kernels are compiled for each.
CASES = [
    (FLOAT32, BFLOAT16, "saturate"),
    (FLOAT32, FLOAT16, "ieee"),
    (FLOAT32, FLOAT8_E4M3FN, "saturate"),
    (BFLOAT16, FLOAT8_E4M3FN, "ieee"),
    (FLOAT16, FLOAT8_E5M2, "saturate"),
]
IN_ALL = [(source, to, overflow) for source, to in PAIRS for overflow in ("saturate", "ieee")]


def named(cases: Any) -> list[Any]:
    return [pytest.param(*case, id=" ".join(getattr(part, "name", part) for part in case)) for case in cases]


def spec(dtype: np.dtype, overflow: str, by_draws: bool = True) -> QuantSpec:
    how = FloatRounding(dtype, overflow == "saturate", by_draws)
    return QuantSpec(np.inf, clip=False, rounding=None, to_float=how)


def run(where: Where, x: np.ndarray, noise: np.ndarray, of: QuantSpec) -> np.ndarray:
    """What an implementation returns for x and an array of noise, as numbers."""
    return np.asarray(where.run(lambda x, noise: where.operations().quantize(x, noise, of), x, noise))


def with_draws(x: np.ndarray, to: np.dtype, few: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Each number with the draws that tell most: the first and the last, and the two between which the result changes.

    Of the numbers each `few`-th is taken.
    """
    x = x[::few]
    _, fraction = oracle.neighbours(x, to)
    change = 65536 - np.floor(fraction * 65536).astype(np.int64)
    draws = np.clip([change * 0, change * 0 + 65535, change, change - 1], 0, 65535)
    x, draws = (np.broadcast_to(a, draws.shape).reshape(-1) for a in (x, draws))
    return x[: x.size // 8 * 8], draws[: x.size // 8 * 8]


@pytest.mark.parametrize("room", ["reference", "xla"])
@pytest.mark.parametrize(("source", "to"), named(PAIRS))
def test_of_all_draws_as_many_round_up_as_the_fraction_says(room: str, source: np.dtype, to: np.dtype) -> None:
    [row, *_] = kernels.rows_of(room)  # type: ignore[arg-type]
    quantize: Any = row.operation("quantize")
    noise = noise_of(np.arange(65536))

    @jax.jit
    def counts(x: jax.Array, below: jax.Array) -> tuple[jax.Array, jax.Array]:
        """How many of all draws give the bits `below`, and how many the next ones."""

        def of_one(pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            value, bits = pair
            rounded = quantize(jnp.broadcast_to(value, noise.shape), jnp.asarray(noise), spec(to, "saturate"))
            found = lax.bitcast_convert_type(rounded, unsigned(to))
            return (found == bits).sum(), (found == bits + bits.dtype.type(1)).sum()

        return lax.map(of_one, (x, below))

    x = oracle.numbers(source)
    x = x[np.isfinite(oracle.wide(x))][:: 3 if room == "reference" else 1]
    below, fraction = oracle.neighbours(x, to)
    expected = np.floor(fraction * 65536).astype(int)
    inside = np.isfinite(oracle.cast(x, np.full(x.shape, True), to, "ieee").astype(np.float64))
    x, below, expected = x[inside], below[inside], expected[inside]
    sign = np.signbit(x).astype(below.dtype) << (8 * to.itemsize - 1)
    down, up = counts(x, (below | sign).astype(unsigned(to)))
    assert_same_bits(np.asarray(up), expected.astype(np.int32))
    assert_same_bits(np.asarray(down), 65536 - expected.astype(np.int32))


@every_implementation
@pytest.mark.parametrize(("source", "to", "overflow"), named(CASES))
def test_the_draw_decides_between_the_two_neighbours(
    where: Where, source: np.dtype, to: np.dtype, overflow: str
) -> None:
    x, h = with_draws(oracle.numbers(source), to, few=5 if where.device == "h100" else 1)
    found = run(where, x, noise_of(h), spec(to, overflow))
    assert_same_bits(found, oracle.by_draws(x, h, to, overflow))


@pytest.mark.parametrize(("source", "to", "overflow"), named(IN_ALL))
def test_every_number_of_16_bits_and_every_number_that_the_dtype_holds(
    source: np.dtype, to: np.dtype, overflow: str
) -> None:
    """The signs of NaN and of zero too, which `assert_same_bits` and comparisons do not tell."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    every = bits.view(source if source.itemsize == 2 else BFLOAT16 if to == BFLOAT16 else FLOAT16)
    with np.errstate(invalid="ignore"):  # a signaling NaN becomes a quiet one
        every = every.astype(source)
    x, h = with_draws(every, to)
    found = run(Where("xla", "cpu", "cpu"), x, noise_of(h), spec(to, overflow))
    assert_same_bits(found, oracle.by_draws(x, h, to, overflow))
    assert_same_bits(np.signbit(found), np.signbit(x))
    with np.errstate(invalid="ignore", over="ignore"):
        nearest = x.astype(to)
    is_held = oracle.wide(x) == oracle.wide(nearest)
    assert_same_bits(found[is_held & np.isfinite(oracle.wide(x))], nearest[is_held & np.isfinite(oracle.wide(x))])
    nan = found[np.isnan(oracle.wide(x))].view(unsigned(to)) & unsigned(to).type((1 << (8 * to.itemsize - 1)) - 1)
    assert set(nan.tolist()) <= {int(np.asarray(np.nan, to).view(unsigned(to))) & 0x7FFF}


# Noise that is not of 16 bits: beyond [-1/2, 1/2) at both ends, between two 16-bit draws, NaN, and of few bits.
NOISE = np.asarray([-np.inf, -2, -0.5, -0.25, -(2.0**-30), 0, 2.0**-18, 0.1, 0.25, 0.4999999, 0.5, 3, np.inf, np.nan])


@every_implementation
@pytest.mark.parametrize(
    ("source", "to", "overflow"),
    named([(FLOAT32, BFLOAT16, "ieee"), (FLOAT32, FLOAT8_E5M2, "saturate")]),
)
def test_other_noise_rounds_up_where_its_sum_with_the_fraction_is_a_half(
    where: Where, source: np.dtype, to: np.dtype, overflow: str
) -> None:
    x = oracle.numbers(source)[:: 35 if where.device == "h100" else 5]
    x, noise = (a.reshape(-1) for a in np.broadcast_arrays(x[: x.size // 8 * 8, None], NOISE.astype(np.float32)))
    _, fraction = oracle.neighbours(x, to)
    with np.errstate(invalid="ignore", under="ignore", over="ignore"):
        up = fraction.astype(np.float32) + noise >= 0.5
    found = run(where, x, noise, spec(to, overflow, by_draws=False))
    assert_same_bits(found, oracle.cast(x, up, to, overflow))
