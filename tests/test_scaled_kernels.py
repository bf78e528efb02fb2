"""Every implementation of `quantize_by_absmax` returns the integers, values and scales of the formula in NumPy."""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np
import oracle
import pytest
import scaled_oracle
import streams
from implementations import Where, having
from oracle import assert_same_bits
from ptx_approximations import approximate_quotients as approximate_quotients

from intnumerics.kernels import Draw, QuantSpec, Scaling

every_implementation = having("quantize_by_absmax")
# On a GPU the reciprocal of a scale begins as an approximation, whose bits the manual leaves open.
pytestmark = pytest.mark.usefixtures("approximate_quotients")
every_dtype = pytest.mark.parametrize("dtype", oracle.DTYPES, ids=str)

FLOAT32, BFLOAT16, INT8 = np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16), np.dtype(np.int8)
NEAREST = QuantSpec(127.0, clip=True, rounding="half_to_even")
HALVES = QuantSpec(127.5, clip=True, rounding="floor_plus_half")
SUM = QuantSpec(127.5, clip=True, rounding=None)
TO_INT8, FLOOR_TO_INT8 = (dataclasses.replace(spec, integer_dtype=INT8) for spec in (NEAREST, HALVES))
FITS, EDGE, FLOOR_FITS = Scaling(127.0, fits=True), Scaling(127.5, fits=False), Scaling(127.5, fits=True)
KEY = (0x243F6A88, 0x85A308D3)


class Call(NamedTuple):
    """One call of `quantize_by_absmax`, and the noise that the formula adds, which may be drawn from a seed."""

    x: np.ndarray
    spec: QuantSpec
    scaling: Scaling = FITS
    block: int | None = None
    noise: np.ndarray | None = None
    seed: np.ndarray | None = None


def check(where: Where, *calls: Call) -> None:
    """Runs an implementation for each call, in one program, and compares its result and scales with the formula.

    Platforms decide whether a subnormal number counts as 0. So where x, x in buckets or the result is subnormal and the
    formula depends on it, a result is compared only on a GPU. A scale never depends on it.
    """
    quantize = where.operations().quantize_by_absmax

    def run(arrays: list[tuple[jax.Array, jax.Array | None]]) -> list[Any]:
        known = zip(calls, arrays, strict=True)
        return [quantize(x, noise, call.spec, call.scaling, call.block) for call, (x, noise) in known]

    arrays = [(call.x, call.noise if call.seed is None else call.seed) for call in calls]
    for call, (y, scale) in zip(calls, where.run(run, arrays), strict=True):
        formula = functools.partial(scaled_oracle.quantize_by_absmax, call.x, call.noise, call.spec, call.scaling)
        expected, expected_scale = formula(call.block)
        assert_same_bits(scale, expected_scale)
        same = np.full(call.x.shape, True)
        if not where.keeps_subnormal:
            same = ~differs(expected, formula(call.block, True)[0])
        assert y.shape == expected.shape
        assert_same_bits(y[same], expected[same])


def differs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where the bits differ, but for those of NaN."""
    bits = f"u{a.dtype.itemsize}"
    with np.errstate(invalid="ignore"):
        return (a.view(bits) != b.view(bits)) & ((a == a) | (b == b))


def fewer(where: Where, calls: list[Call]) -> list[Call]:
    """The calls; of kernels, which are slow to compile, a third, another one for each dtype.

    Compiled code, which is slow to interpret, gets few rows of each.
    """
    if where.name in ("reference", "xla") and where.device != "h100":
        return calls
    third = calls[oracle.DTYPES.index(calls[0].x.dtype) :: 3]
    if where.device != "h100":
        return third
    return [call._replace(x=call.x[:6]) if call.noise is None else call for call in third]


def numbers(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Normal numbers whose size differs by rows, and what is not finite, not normal, or 0 with a sign."""
    random = np.random.default_rng(math.prod(shape))
    x = (random.standard_normal(shape) * np.exp2(random.integers(-6, 7, (*shape[:-1], 1)))).astype(dtype)
    kind = ml_dtypes.finfo(dtype)
    special = [0.5, np.nan, -0.0, np.inf, 0.0, -np.inf, kind.smallest_subnormal, kind.smallest_normal]
    special = np.asarray(special, dtype)
    x.reshape(-1)[: special.size] = special[: x.size]
    return x


def ties(n: int, scaling: Scaling, step: float, dtype: np.dtype) -> list[np.ndarray]:
    """Rows whose elements in buckets are rounded to ties, or to whole numbers, while the exact products are beside."""
    found = list[np.ndarray]()
    for largest in (3.3, 1.0, 0.7):
        maximum = np.asarray([largest], dtype).astype(np.float32)
        centres = np.arange(n) % (2 * int(scaling.in_buckets) - 1) - int(scaling.in_buckets) + step
        row = (centres * scaled_oracle.scale_of(maximum, scaling)).astype(dtype)
        found.append(np.concatenate([maximum.astype(dtype), row[1:]]))
    return found


def rows(n: int, dtype: np.dtype) -> np.ndarray:
    """Rows of n elements, of every kind that could go wrong."""
    random, kind = np.random.default_rng(n), ml_dtypes.finfo(dtype)
    unit, tiny, huge = random.uniform(-1, 1, n), float(kind.smallest_normal), float(kind.max)
    special = np.asarray([np.nan, np.inf, -np.inf, -0.0, 0.0, tiny, -float(kind.smallest_subnormal)])
    with np.errstate(all="ignore"):
        found = [
            unit * 100,
            np.concatenate([special, unit[special.size :]]),
            np.zeros(n),
            np.copysign(0.0, unit),
            np.full(n, np.nan),
            np.copysign(np.inf, unit),
            unit * tiny,
            unit * tiny * 250,
            np.concatenate([[huge], unit[1:]]),
            unit * 1e-37,
            unit * 3e38,
            np.copysign(huge, unit),
            np.concatenate([[254.0], np.rint(unit[1:] * 254)]),
            np.concatenate([[127 * tiny * 2], unit[1:] * tiny]),
        ]
        return np.stack([*(row.astype(dtype) for row in found), *ties(n, FITS, 0.5, dtype), *ties(n, EDGE, 0, dtype)])


def scalings(spec: QuantSpec, bits: int) -> list[Scaling]:
    """How a numerics of some bits maps the largest magnitude: to the edge of the last bucket, or to its centre."""
    edge = spec.bound + (0.5 if spec.rounding else 0.0)
    return [Scaling(edge, fits=False), *([Scaling(spec.bound, fits=True)] if bits > 1 or spec.bound else [])]


@every_implementation
@every_dtype
def test_every_width_and_rounding_gives_the_values_of_the_formula(where: Where, dtype: np.dtype) -> None:
    x = rows(128, dtype)
    specs = [(spec, bits) for bits in oracle.BITS for spec in oracle.specs(bits) if spec.clip and spec.rounding]
    specs += [(spec, 9) for spec in oracle.specs(9) if not (spec.clip and spec.rounding)]
    calls = [Call(x, spec, scalings(spec, bits)[i % 2 - 1]) for i, (spec, bits) in enumerate(specs)]
    check(where, *fewer(where, calls if dtype == FLOAT32 else calls[::2]))


INTEGERS = [(1, np.int8), (2, np.int8), (4, np.int16), (8, np.int8), (9, np.int16), (16, np.int32), (22, np.int32)]


@every_implementation
@every_dtype
def test_every_width_and_rounding_gives_the_integers_of_the_formula(where: Where, dtype: np.dtype) -> None:
    x = rows(128, dtype)
    calls = [
        Call(x, dataclasses.replace(spec, integer_dtype=np.dtype(integer)), scalings(spec, bits)[i % 2 - 1])
        for bits, integer in INTEGERS
        for i, spec in enumerate(spec for spec in oracle.specs(bits) if spec.clip and spec.rounding)
    ]
    check(where, *fewer(where, calls))


@every_implementation
def test_numbers_that_fit_need_no_clip_to_become_integers(where: Where) -> None:
    x = rows(128, FLOAT32)
    x = x[np.isfinite(x).all(axis=-1)]
    check(where, Call(x, dataclasses.replace(TO_INT8, clip=False)), Call(x.astype(BFLOAT16), FLOOR_TO_INT8, FLOOR_FITS))


@every_implementation
@pytest.mark.parametrize("bits", [4, 8])
def test_the_largest_magnitude_may_be_a_fraction_and_the_scale_a_power_of_2(where: Where, bits: int) -> None:
    spec = next(spec for spec in oracle.specs(bits) if spec.clip and spec.rounding == "half_to_even")
    to_int8 = dataclasses.replace(spec, integer_dtype=INT8)
    calls = [
        Call(rows(64, dtype), s, dataclasses.replace(scaling, fraction=fraction, power_of_two=power))
        for scaling in scalings(spec, bits)
        for dtype, s, fraction, power in (
            (FLOAT32, spec, 0.5, False),
            (BFLOAT16, to_int8, 1.0, True),
            (FLOAT32, to_int8, 0.3, True),
        )
    ]
    check(where, *fewer(where, calls))


@every_implementation
@every_dtype
def test_each_block_of_the_last_axis_has_a_scale(where: Where, dtype: np.dtype) -> None:
    x = rows(512, dtype)[:12].reshape(2, 6, 512)
    calls = [
        Call(x if spec is NEAREST else x[:1], spec, block=block)
        for block in (16, 32, 64, 128, 256)
        for spec in (NEAREST, TO_INT8)
    ]
    check(where, *fewer(where, [*calls, Call(x[:, :, :48], HALVES, FLOOR_FITS, 16)]))


SHAPES = [(1, 1024), (3, 1000), (2, 3, 72), (5, 7), (1, 1), (17,), (8, 4096), (2, 20000)]


@every_implementation
def test_every_shape_with_and_without_noise_of_a_seed(where: Where) -> None:
    calls = list[Call]()
    # The longest row is for the kernels that read one twice, which compiled code would take long to do.
    left_out = {"h100": 2, "cpu": int(where.name == "pallas")}.get(where.device, 0)
    for i, shape in enumerate(SHAPES[: len(SHAPES) - left_out]):
        x, drawing = numbers(shape, oracle.DTYPES[i % 3]), Draw("philox", shape)
        noise, seed = streams.uniform(shape, KEY), streams.seed(KEY)
        calls.append(Call(x, TO_INT8 if i % 2 else HALVES))
        calls.append(Call(x, dataclasses.replace(TO_INT8, draw=drawing), EDGE, None, noise, seed))
    check(where, *calls)


@every_implementation
def test_a_shape_without_elements_has_a_scale_of_1_for_each_slice(where: Where) -> None:
    check(where, *(Call(np.zeros(shape, FLOAT32), TO_INT8) for shape in ((0, 8), (3, 0))))


@every_implementation
@every_dtype
def test_noise_of_every_dtype_and_size_is_added_in_float32(where: Where, dtype: np.dtype) -> None:
    x, random = rows(128, dtype), np.random.default_rng(1)
    full, calls = (random.uniform(-3, 3, x.shape), random.uniform(-0.5, 0.5, x.shape)), list[Call]()
    for i, spec in enumerate((SUM, NEAREST, HALVES, TO_INT8, FLOOR_TO_INT8)):
        for noise_dtype in oracle.DTYPES[: 1 + (dtype == FLOAT32) * 2]:
            calls.append(Call(x, spec, (FITS, EDGE)[i % 2], None, full[i % 2].astype(noise_dtype)))
    one_bit = [spec for spec in oracle.specs(1) if spec.clip and spec.rounding]
    calls += [Call(x, spec, Scaling(0.5, fits=False), 32, full[0].astype(np.float32)) for spec in one_bit]
    calls += [Call(x, QuantSpec(511.0, clip=False, rounding=None), noise=full[0].astype(np.float32))]
    check(where, *fewer(where, calls))


@every_implementation
def test_noise_broadcasts_along_its_axes_of_1(where: Where) -> None:
    x = numbers((2, 4, 96), FLOAT32)
    shapes = [(1, 1, 1), (1, 1, 96), (2, 1, 96), (2, 4, 1), (1, 4, 1)]
    noises = [np.random.default_rng(2).uniform(-0.5, 0.5, shape).astype(np.float32) for shape in shapes]
    check(where, *(Call(x, (SUM, TO_INT8)[i % 2], EDGE, (None, 32)[i // 3], n) for i, n in enumerate(noises)))


@every_implementation
def test_the_noise_of_a_seed_is_drawn_for_every_result_and_generator(where: Where) -> None:
    x = numbers((3, 1032), BFLOAT16)
    calls = [
        Call(x, dataclasses.replace(spec, draw=Draw("philox", x.shape)), EDGE, block, streams.uniform(x.shape, KEY))
        for spec, block in ((SUM, None), (HALVES, None), (TO_INT8, None), (FLOOR_TO_INT8, None))
    ]
    threefry = np.asarray(jax.random.uniform(jax.random.wrap_key_data(np.asarray(KEY, np.uint32)), x.shape)) - 0.5
    whole = [(Draw("hash", x.shape), streams.uniform_hash(x.shape, KEY)), (Draw("threefry_23_bits", x.shape), threefry)]
    others = [*whole, (Draw("philox", (1, 1032)), streams.uniform((1, 1032), KEY))]
    calls += [Call(x, dataclasses.replace(TO_INT8, draw=draw), noise=noise) for draw, noise in others]
    check(where, *(call._replace(seed=streams.seed(KEY)) for call in calls))


@every_implementation
@pytest.mark.parametrize("inner", [(3, 7), (2, 256)], ids=str)
def test_each_example_of_a_batch_has_the_noise_of_its_own_seed(where: Where, inner: tuple[int, ...]) -> None:
    calls = list[Call]()
    for batch, seeds in (((2,), (2,)), ((3, 2), (3, 1)), ((2, 2), (1, 1))):
        keys = [(i, 7 * i + 1) for i in range(math.prod(seeds))]
        seed = np.stack([streams.seed(key, 8 * 5) for key in keys]).reshape(*seeds, 4)
        noise = np.stack([streams.uniform(inner, key, 5) for key in keys]).reshape(*seeds, *inner)
        x, block = numbers((*batch, *inner), FLOAT32), 64 if inner[-1] == 256 else None
        calls.append(Call(x, dataclasses.replace(TO_INT8, draw=Draw("philox", inner)), EDGE, block, noise, seed))
    check(where, *calls)


@every_implementation
def test_a_product_is_rounded_before_noise_is_added_to_it(where: Where) -> None:
    """One operation of both would give other bits. A scale that is a power of 2 shows all bits of the sum."""
    x = np.random.default_rng(3).standard_normal((4, 1024)).astype(np.float32)
    noise = np.random.default_rng(4).uniform(-0.5, 0.5, x.shape).astype(np.float32)
    sums = QuantSpec(511.0, clip=False, rounding=None)
    scale = scaled_oracle.scale_of(scaled_oracle.largest_finite(x, None), EDGE)
    inverse = scaled_oracle.inverse_of(scale)
    contracted = (x.astype(np.float64) * inverse + noise).astype(np.float32)
    assert np.mean(contracted != x * inverse + noise) > 0.01
    check(where, Call(x, sums, EDGE, None, noise), Call(x, TO_INT8, EDGE, None, ties_with(x * inverse, noise)))


def ties_with(y: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Noise near another with which y, rounded, is a tie."""
    return (np.rint(y + noise) + 0.5 - y).astype(np.float32)


@every_implementation
def test_a_value_is_rounded_before_what_comes_after_is_added_to_it(where: Where) -> None:
    x = np.random.default_rng(5).standard_normal((4, 1024)).astype(np.float32)
    bias = np.random.default_rng(6).standard_normal(x.shape).astype(np.float32)
    quantize = where.operations().quantize_by_absmax
    y, scale = scaled_oracle.quantize_by_absmax(x, None, NEAREST, FITS, None)
    contracted = (np.rint(y / scale).astype(np.float64) * scale + bias).astype(np.float32)
    assert np.mean(contracted != y + bias) > 0.01
    assert_same_bits(where.run(lambda x, b: quantize(x, None, NEAREST, FITS, None)[0] + b, x, bias), y + bias)
