"""Where the GPU kernels look: right beyond 32 bits too, tested on offsets, for no such array fits here."""

import jax
import numpy as np
import pytest

from intnumerics.kernels import QuantSpec
from intnumerics.kernels.gpu import shapes
from intnumerics.kernels.spec import strides_of

pallas_triton = pytest.importorskip("intnumerics.kernels.pallas_triton.operations", exc_type=ImportError)
from intnumerics.kernels.pallas_triton import blocks, noise  # noqa: E402


@pytest.mark.parametrize("n", [1 << 20, (1 << 31) - 1, 1 << 31, (1 << 33) + 7])
@pytest.mark.parametrize("size", [1024, 4096])
def test_a_block_starts_where_its_number_times_its_size_is(n: int, size: int) -> None:
    last = (n - 1) // size
    start = blocks.block_start(np.int32(last), size, n)
    assert int(start) == last * size
    assert start.dtype == (np.int32 if n < 1 << 31 else np.int64)


def test_a_mask_byte_of_a_block_beyond_32_bits_is_an_eighth_of_the_way() -> None:
    n, size = (1 << 34) + 5, 4096
    i = np.int32((n - 1) // size)
    tail = blocks.Block(i, blocks.block_start(i, size, n), size, n, whole=False)
    assert int(tail.packed().start) == int(i) * size // 8
    assert tail.packed().n == (n + 7) // 8
    np.testing.assert_array_equal(tail.index(), int(i) * size + np.arange(size, dtype=np.int64))
    np.testing.assert_array_equal(tail.within(), np.arange(size) < n - int(i) * size)


@pytest.mark.parametrize("examples", [2, (1 << 20) + 1])
@pytest.mark.parametrize("width", [4, 8])
def test_the_columns_of_an_example_are_rows_of_eight_after_the_examples_before_it(examples: int, width: int) -> None:
    n, size = 5000, 1024
    i, example = np.int32(4), jax.numpy.int32(examples - 1)
    start = blocks.block_start(i, size, n * examples)
    block = blocks.Block(i, start, size, n, example, whole=False)
    for k, place in enumerate(blocks.columns(block, width)):
        local = np.arange(size, dtype=np.int64).reshape(-1, 8)[:, k * width : (k + 1) * width] + 4 * size
        np.testing.assert_array_equal(place.within(), local < n)
        np.testing.assert_array_equal(place.address(), local + (examples - 1) * n)
    assert int(block.packed().origin()) == (examples - 1) * (n // 8) + 4 * size // 8


@pytest.mark.parametrize("n", [2, 4, 8])
def test_columns_that_are_joined_come_apart_again_in_order(n: int) -> None:
    x = np.arange(16 * n).reshape(16, n)
    np.testing.assert_array_equal(noise.join([jax.numpy.asarray(column) for column in x.T]), x)
    np.testing.assert_array_equal(noise.split(jax.numpy.asarray(x)), x.T)


SHAPES = [
    ((3, 4, 5), (3, 4, 5)),
    ((3, 4, 5), (1, 4, 1)),
    ((3, 4, 5), (3, 1, 5)),
    ((3, 1, 5), (3, 1, 1)),
    ((2, 1, 3, 5), (2, 1, 1, 5)),
    ((1 << 20, 1 << 13), (1, 1 << 13)),
    ((1 << 20, 1 << 13), (1 << 20, 1)),
    ((1 << 11, 3, 1 << 20), (1 << 11, 1, 1 << 20)),
]


@pytest.mark.parametrize(("shape", "noise_shape"), SHAPES, ids=str)
def test_the_noise_of_an_element_is_found_along_its_unshared_axes(
    shape: tuple[int, ...], noise_shape: tuple[int, ...]
) -> None:
    n = int(np.prod(shape, dtype=np.int64))
    flat = np.unique(np.random.default_rng(0).integers(0, n, 200)) if n > 200 else np.arange(n)
    flat = np.concatenate([flat, [0, n - 1]])
    along = [np.where(size == 1, 0, at) for size, at in zip(noise_shape, np.unravel_index(flat, shape), strict=True)]
    dtype = shapes.index_dtype(n)
    with jax.enable_x64(dtype == np.int64):
        found = shapes.Sharing.of(shape, strides_of(noise_shape)).index(jax.numpy.asarray(flat, dtype))
    np.testing.assert_array_equal(found, np.ravel_multi_index(along, noise_shape))


def test_8_bit_results_that_pallas_cannot_address_are_refused() -> None:
    spec = QuantSpec(127.0, clip=True, rounding="half_to_even", integer_dtype=np.dtype(np.int8))
    x = jax.ShapeDtypeStruct(((1 << 31) + 8,), np.float32)
    with pytest.raises(NotImplementedError, match=r"2147483656 elements of int8.*implementation='xla'"):
        jax.eval_shape(lambda x: pallas_triton.quantize(x, None, spec), x)
