"""Every implementation draws the streams of NumPy: for every dtype, shape, batch, block and result."""

import dataclasses

import jax
import ml_dtypes
import numpy as np
import oracle
import pytest
import streams
from implementations import FORMS, ON_CPU_HERE, PARAMETERS, Where, assert_is_formula
from oracle import assert_same_bits
from test_kernels import every_noise_dtype

from intnumerics.kernels import Draw, QuantSpec

every_implementation = pytest.mark.parametrize("where", [*FORMS, *PARAMETERS])
KEY = (0x243F6A88, 0x85A308D3)
NEAREST = QuantSpec(127.0, clip=True, rounding="half_to_even")
FLOAT32, BFLOAT16 = np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16)
HALVES = QuantSpec(127.5, clip=True, rounding="floor_plus_half")


def drawing(spec: QuantSpec, shape: tuple[int, ...], **fields: object) -> QuantSpec:
    return dataclasses.replace(spec, draw=Draw("philox", shape), **fields)


def numbers(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    x = (np.random.default_rng(5).normal(size=shape) * 100).astype(dtype)
    special = np.asarray([np.nan, -0.0, 0.0, np.inf, -np.inf, 126.5, -127.5, 100.5, -np.nan], dtype)[: x.size]
    x.reshape(-1)[: special.size] = special
    return x


def check_each(where: Where, calls: list[tuple[np.ndarray, np.ndarray, QuantSpec, np.ndarray]]) -> None:
    """Runs an implementation for each x, seed and spec, in one program, and expects the formula with the noise."""
    quantize, specs = where.operations().quantize, [spec for _, _, spec, _ in calls]

    def run(arrays: list[tuple[jax.Array, jax.Array]]) -> list[object]:
        return [quantize(x, seed, spec) for (x, seed), spec in zip(arrays, specs, strict=True)]

    results = where.run(run, [(x, seed) for x, seed, _, _ in calls])
    for (x, _, spec, noise), result in zip(calls, results, strict=True):
        assert_is_formula(result, x, np.broadcast_to(noise, x.shape), spec, where.keeps_subnormal)


@every_implementation
@every_noise_dtype
def test_the_noise_is_drawn_in_the_pass_for_every_switch_and_result(
    where: Where, dtype: np.dtype, noise_dtype: np.dtype | None
) -> None:
    x = numbers((3, 1032), dtype)
    specs = [s for s in oracle.specs(8) if s.clip and s.rounding] + [QuantSpec(127.5, clip=True, rounding=None)]
    specs.append(dataclasses.replace(NEAREST, integer_dtype=np.dtype(np.int8), with_mask=True))
    specs.append(dataclasses.replace(HALVES, integer_dtype=np.dtype(np.int8)))
    drawn = [drawing(spec, x.shape, noise_dtype=noise_dtype) for spec in specs]
    check_each(where, [(x, streams.seed(KEY), spec, streams.uniform(x.shape, KEY)) for spec in drawn])


SHAPES = [(1,), (8,), (9,), (4099,), (3, 5), (2, 3, 130), (5, 1024), (2, 40, 256), (0, 8)]


@every_implementation
def test_the_noise_of_an_element_hangs_on_its_index_alone_whatever_the_shape(where: Where) -> None:
    arrays = [numbers(shape, oracle.DTYPES[len(shape) % 2]) for shape in SHAPES]  # float32, or bfloat16 for odd ranks
    specs = [drawing(NEAREST, shape, with_mask=True) for shape in SHAPES]
    noises = [streams.uniform(shape, KEY) for shape in SHAPES]
    check_each(where, [(x, streams.seed(KEY), *rest) for x, *rest in zip(arrays, specs, noises, strict=True)])


def test_more_elements_than_a_large_block_of_every_kernel_has() -> None:
    """Large enough for several blocks of each kernel, and a tail; interpreted, so once for each and no more."""
    for name in [name for name in ON_CPU_HERE if "pallas" in name]:
        for shape in ((2_100_003,), (513, 4096)):
            x = numbers(shape, np.dtype(ml_dtypes.bfloat16))
            spec = drawing(NEAREST, shape, integer_dtype=np.dtype(np.int8))
            where = ON_CPU_HERE[name]
            result = where.run(
                lambda x, seed, w=where, s=spec: w.operations().quantize(x, seed, s), x, streams.seed(KEY)
            )
            assert_is_formula(result, x, streams.uniform(shape, KEY), spec)


@every_implementation
def test_a_part_of_a_larger_array_begins_at_its_own_block(where: Where) -> None:
    x = numbers((2, 4096), np.dtype(np.float32))
    spec = drawing(NEAREST, x.shape)
    quantize = where.operations().quantize
    run = where.compiled(lambda x, seed: quantize(x, seed, spec), x, streams.seed(KEY))
    for first in (1, 2**29 - 1, 2**32 - 3, 2**32, 2**60 - 2):
        result = run(x, streams.seed(KEY, 8 * first))
        assert_is_formula(result, x, streams.uniform(x.shape, KEY, first), spec)


HASHED = [  # the shape, the whole that it is a part of, and the number of its first element
    ((4099,), (4099,), 0),
    ((2, 1032), (2, 1032), 0),
    ((1001,), (1004,), 3),
    ((3, 40), (80, 40), 10),
    ((3000,), (2**35,), 2**33 - 1504),
    ((3000,), (2**35,), 2**33 - 1501),
    ((2, 500), (2**26, 500), 2**33 + 5),
]


@every_implementation
def test_noise_of_the_hash_begins_at_any_element_and_its_subkeys_change_after_2_to_the_33(where: Where) -> None:
    calls = []
    for i, (shape, whole, first) in enumerate(HASHED):
        to, draw = (None, np.dtype(np.int8))[i % 2], Draw("hash", shape, whole, aligned=first % 8 == 0)
        spec = dataclasses.replace(NEAREST, integer_dtype=to, draw=draw)
        calls.append(
            (numbers(shape, BFLOAT16), streams.seed(KEY, first), spec, streams.uniform_hash(shape, KEY, first))
        )
    begins = [((1, 2), 2**33 - 8), (KEY, 8), ((3, 4), 2**34 - 400)]  # of examples with a seed each
    spec = dataclasses.replace(NEAREST, with_mask=True, draw=Draw("hash", (1032,), (2**35,)))
    noise = np.stack([streams.uniform_hash((1032,), key, first) for key, first in begins])
    calls.append((numbers(noise.shape, FLOAT32), np.stack([streams.seed(*begin) for begin in begins]), spec, noise))
    spec = dataclasses.replace(NEAREST, draw=Draw("hash", (2, 24), (2**28, 48)))
    first = 2**33 - 16  # so the second row begins after the carry
    noise = np.stack([streams.uniform_hash((24,), KEY, first + start) for start in (0, 48)])
    calls.append((numbers(noise.shape, FLOAT32), streams.seed(KEY, first), spec, noise))
    check_each(where, calls)


BATCHES = [((2,), (2,)), ((2,), (1,)), ((3, 2), (3, 1)), ((2, 2), (1, 1))]  # of x, and of seeds


@every_implementation
@pytest.mark.parametrize("inner", [(3, 7), (2, 1024), (3, 1032)], ids=str)
def test_each_example_of_a_batch_has_the_noise_of_its_own_seed(where: Where, inner: tuple[int, ...]) -> None:
    calls = []
    for batch, seeds in BATCHES:
        keys = [(i, 7 * i + 1) for i in range(int(np.prod(seeds)))]
        seed = np.stack([streams.seed(key) for key in keys]).reshape(*seeds, 4)
        noise = np.stack([streams.uniform(inner, key) for key in keys]).reshape(*seeds, *inner)
        calls.append(
            (numbers((*batch, *inner), np.dtype(np.float32)), seed, drawing(NEAREST, inner, with_mask=True), noise)
        )
    check_each(where, calls)


@every_implementation
def test_a_draw_may_be_shared_along_an_axis(where: Where) -> None:
    x = numbers((2, 5, 24), np.dtype(np.float32))
    seed = np.stack([streams.seed(KEY), streams.seed((1, 2))])
    calls = []
    for shared in ((1, 24), (5, 1), (1, 1)):
        noise = np.stack([streams.uniform(shared, KEY), streams.uniform(shared, (1, 2))])
        calls.append((x, seed, drawing(NEAREST, shared, with_mask=True), noise))
    check_each(where, calls)


def test_the_seed_of_a_kernel_is_data_so_a_new_key_compiles_nothing() -> None:
    x = numbers((16,), np.dtype(np.float32))
    spec = drawing(NEAREST, x.shape)
    for where in ON_CPU_HERE.values():
        run = jax.jit(lambda x, seed, w=where: w.operations().quantize(x, seed, spec))
        first, second = run(x, streams.seed(KEY)), run(x, streams.seed((5, 6)))
        assert run._cache_size() == 1
        assert_is_formula(np.asarray(first), x, streams.uniform(x.shape, KEY), spec)
        assert_is_formula(np.asarray(second), x, streams.uniform(x.shape, (5, 6)), spec)
        with pytest.raises(AssertionError):
            assert_same_bits(first, second)
