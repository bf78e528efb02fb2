"""A part of a larger array has the noise of the whole, whatever its shape and wherever it begins."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import streams
from implementations import PARAMETERS, Where, assert_is_formula
from test_stream_kernels import FORMS, KEY, NEAREST, check_each, numbers

from intnumerics.kernels import Draw, Generator, generators

every_implementation = pytest.mark.parametrize("where", [*FORMS, *PARAMETERS])

# The whole, the part, and where it begins in the whole. Those of the second group no kernel draws itself.
PARTS = [
    ((4096,), (1024,), (2048,)),
    ((8, 24), (2, 24), (4, 0)),
    ((6, 7), (1, 7), (0, 0)),
    ((4, 48), (4, 16), (0, 32)),
    ((4, 48), (2, 24), (2, 24)),
    ((6, 40, 256), (3, 40, 128), (3, 0, 128)),
    ((6, 40, 256), (6, 8, 256), (0, 16, 0)),
    ((6, 40, 256), (2, 8, 64), (4, 16, 192)),
    ((3, 4, 5, 16), (2, 1, 2, 8), (1, 3, 3, 8)),
    ((2, 16, 2048), (2, 8, 1280), (0, 8, 512)),
    ((2, 1, 2, 1, 64), (1, 1, 2, 1, 32), (1, 0, 0, 0, 32)),
]
OFF_THE_BLOCKS = [
    ((4096,), (1000,), (3001,)),
    ((6, 7), (2, 7), (3, 0)),
    ((6, 7), (6, 3), (0, 2)),
    ((4, 48), (4, 12), (0, 12)),
    ((4, 44), (4, 8), (0, 8)),
    ((5, 3, 9), (2, 3, 4), (1, 0, 5)),
]


def begin(whole: tuple[int, ...], offset: tuple[int, ...]) -> int:
    return int(np.ravel_multi_index(offset, whole))


def window(array: np.ndarray, part: tuple[int, ...], offset: tuple[int, ...]) -> np.ndarray:
    return array[tuple(slice(at, at + size) for at, size in zip(offset, part, strict=True))]


STREAMS: dict[Generator, Callable[..., np.ndarray]] = {"philox": streams.uniform, "hash": streams.uniform_hash}


@every_implementation
@pytest.mark.parametrize(
    ("generator", "parts"),
    [("philox", PARTS), ("philox", OFF_THE_BLOCKS), ("hash", [*PARTS[3:8:2], *OFF_THE_BLOCKS[:3]])],
    ids=["on the blocks", "off the blocks", "hash"],
)
def test_noise_of_a_part_is_that_of_the_whole(
    where: Where, generator: Generator, parts: list[tuple[tuple[int, ...], ...]]
) -> None:
    calls = []
    for whole, part, offset in parts:
        x, first = numbers(part, oracle.DTYPES[len(part) % 2]), begin(whole, offset)
        spec = dataclasses.replace(NEAREST, draw=Draw(generator, part, whole, aligned=first % 8 == 0), with_mask=True)
        calls.append((x, streams.seed(KEY, first), spec, window(STREAMS[generator](whole, KEY), part, offset)))
    check_each(where, calls)


@every_implementation
def test_parts_of_a_batch_begin_each_at_its_own_element(where: Where) -> None:
    whole, part = (4, 64), (2, 32)
    offsets = [(0, 32), (2, 0), (1, 16)]
    seeds = np.stack([streams.seed((i, 9), begin(whole, offset)) for i, offset in enumerate(offsets)])
    drawn = np.stack([window(streams.uniform(whole, (i, 9)), part, offset) for i, offset in enumerate(offsets)])
    x = numbers((3, *part), np.dtype(np.float32))
    spec = dataclasses.replace(NEAREST, draw=Draw("philox", part, whole))
    result = where.run(lambda x, seed: where.operations().quantize(x, seed, spec), x, seeds)
    assert_is_formula(result, x, drawn, spec)


@every_implementation
def test_a_part_may_lie_beyond_what_32_bits_count(where: Where) -> None:
    """Rows 96 numbers apart: the low word of the number, or of the Philox block's, carries between two of them."""
    x = numbers((3, 16), np.dtype(np.float32))
    spec = dataclasses.replace(NEAREST, draw=Draw("philox", (3, 16), (2**40, 96)))
    run = jax.jit(lambda x, seed: where.operations().quantize(x, seed, spec))
    for first in (2**32 - 96, 2**35 - 64, 2**60 + 8):
        rows = [streams.uniform((16,), KEY, (first + 96 * row) // 8) for row in range(3)]
        assert_is_formula(where.run(run, x, streams.seed(KEY, first)), x, np.stack(rows), spec)


@every_implementation
def test_rows_of_a_part_may_be_further_apart_than_32_bits_count(where: Where) -> None:
    x = numbers((3, 8), np.dtype(np.float32))
    spec = dataclasses.replace(NEAREST, draw=Draw("philox", (3, 8), (8, 3 * 2**34)))
    rows = [streams.uniform((8,), KEY, 3 * 2**31 * row + 5) for row in range(3)]
    result = where.run(lambda x, seed: where.operations().quantize(x, seed, spec), x, streams.seed(KEY, 40))
    assert_is_formula(result, x, np.stack(rows), spec)


@pytest.mark.parametrize(("whole", "part", "offset"), [*PARTS[2:6], *OFF_THE_BLOCKS[:2]], ids=str)
def test_threefry_noise_of_a_part_is_that_of_jax_random(
    whole: tuple[int, ...], part: tuple[int, ...], offset: tuple[int, ...]
) -> None:
    key, first = jax.random.key(7, impl="threefry2x32"), begin(whole, offset)
    seed = jnp.asarray(streams.seed(tuple(jax.random.key_data(key).tolist()), first))
    draws = [Draw(name, part, whole, first % 8 == 0) for name in ("threefry_23_bits", "threefry_16_bits")]
    found = jax.jit(lambda seed: [generators.drawn(draw, seed) for draw in draws])(seed)
    uniform = jax.random.uniform(key, whole) - 0.5
    centered = jax.random.bits(key, whole, jnp.uint16) * 2.0**-16 + 2.0**-17 - 0.5
    for ours, theirs in zip(found, (uniform, centered), strict=True):
        np.testing.assert_array_equal(ours, window(np.asarray(theirs), part, offset))


def test_the_numbers_of_a_part_are_described_as_they_are() -> None:
    for whole, part, offset in [*PARTS, *OFF_THE_BLOCKS]:
        index = window(np.arange(math.prod(whole)).reshape(whole), part, offset).reshape(-1)
        draw = Draw("philox", part, whole, aligned=bool(index[0] % 8 == 0))
        steps = np.diff(index)
        assert draw.is_contiguous == bool((steps == 1).all())
        assert draw.span == index[-1] - index[0] + 1
        in_eights = index[: index.size // 8 * 8].reshape(-1, 8)
        blocks = bool((in_eights % 8 == np.arange(8)).all() and (np.diff(in_eights) == 1).all())
        assert draw.is_in_blocks_of_8 == (blocks and bool(index[0] % 8 == 0))
