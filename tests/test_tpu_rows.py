"""`quantize_by_absmax` of the TPU kernels: every shape and slice has the bits of the reference, from one pass."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.experimental import pallas as pl
from oracle import DTYPES, assert_same_bits

from intnumerics.kernels import Draw, QuantSpec, Scaling, pallas_tpu, reference
from intnumerics.kernels.pallas_tpu.rows import Rows

NEAREST = QuantSpec(127.0, clip=True, rounding="half_to_even")
TO_INT8 = dataclasses.replace(NEAREST, integer_dtype=np.dtype(np.int8))
HALVES = QuantSpec(127.5, clip=True, rounding="floor_plus_half")
SCALING = Scaling(127.0, fits=True)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
SHAPES = (
    (7, 5, 130),  # slabs that are padded, and lanes
    (2, 37, 300),
    (3, 4, 8, 256),
    (2, 3, 5, 7, 64),
    (3, 100),
    (4100, 130),  # several blocks of rows, of which the last is not whole
)


def hard_rows(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Normal numbers; if there are enough rows, some are zeros, tiny, huge, infinite or NaN."""
    x = np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)
    rows = x.reshape(-1, shape[-1])
    rows[0, 0] = -0.0
    if len(rows) > 5:
        rows[1], rows[5] = 0, np.nan
        rows[2] *= 1e-37
        rows[3, ::3] = 3e38
        rows[4, :3] = np.inf, -np.inf, np.nan
    with np.errstate(over="ignore"):
        return x.astype(dtype)


def noise_of(kind: str, shape: tuple[int, ...]) -> Any:
    """An array of noise that broadcasts to a shape."""
    sizes = {
        "none": None,
        "array": (shape, np.float32),
        "shared by rows": ((*(1 for _ in shape[:-1]), shape[-1]), ml_dtypes.bfloat16),
        "one per row": ((*shape[:-1], 1), np.float16),
    }[kind]
    return sizes and np.random.default_rng(9).uniform(-0.5, 0.5, sizes[0]).astype(sizes[1])


def kernels_in(function: Any, *arrays: Any) -> int:
    return str(jax.make_jaxpr(function)(*arrays)).count("pallas_call[")


def assert_is_reference(
    x: np.ndarray, noise: Any, spec: QuantSpec, block: int | None = None, kernels: int = 1, how: Scaling = SCALING
) -> None:
    def kernel(x: jax.Array, noise: Any) -> Any:
        return pallas_tpu.quantize_by_absmax(x, noise, spec, how, block, interpret=True)

    assert kernels_in(kernel, x, noise) == kernels
    expected = jax.jit(lambda x, noise: reference.quantize_by_absmax(x, noise, spec, how, block))(x, noise)
    for ours, theirs in zip(jax.jit(kernel)(x, noise), expected, strict=True):
        assert_same_bits(ours, theirs)


def drawing(spec: QuantSpec, shape: tuple[int, ...], **fields: Any) -> QuantSpec:
    return dataclasses.replace(spec, draw=Draw(fields.pop("generator", "philox"), shape, **fields))


def seeds(*batch: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 1 << 32, (*batch, 4), np.uint32)


@pytest.mark.parametrize("noise", ["none", "array"])
@pytest.mark.parametrize("spec", [NEAREST, HALVES], ids=["half_to_even", "floor_plus_half"])
@pytest.mark.parametrize("to", [None, np.dtype(np.int8)], ids=["floats", "int8"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bits_are_those_of_the_reference(dtype: np.dtype, to: np.dtype | None, spec: QuantSpec, noise: str) -> None:
    x = hard_rows((40, 200), dtype)
    assert_is_reference(x, noise_of(noise, x.shape), dataclasses.replace(spec, integer_dtype=to))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_noise_that_the_kernel_draws_is_the_stream(dtype: np.dtype) -> None:
    x = hard_rows((40, 200), dtype)
    assert_is_reference(x, seeds(), drawing(HALVES, x.shape))


@pytest.mark.parametrize(
    ("shape", "noise"),
    [
        *((shape, noise) for shape in SHAPES for noise in ("array", "philox")),
        *((shape, "hash") for shape in SHAPES[::2]),
        *((shape, noise) for shape in SHAPES[:3] for noise in ("none", "shared by rows", "one per row")),
    ],
    ids=str,
)
def test_leading_axes_and_ragged_edges_are_one_pass(shape: tuple[int, ...], noise: str) -> None:
    x = hard_rows(shape, BFLOAT16)
    if noise in ("philox", "hash"):
        assert_is_reference(x, seeds(), drawing(TO_INT8, shape, generator=noise))
    else:
        assert_is_reference(x, noise_of(noise, shape), TO_INT8)


@pytest.mark.parametrize(
    ("shape", "block"),
    [
        *(((3, 5, 768), block) for block in (8, 16, 32, 64, 128, 256, 384)),
        *(((40, 5376), block) for block in (16, 128, 768)),  # in pieces
    ],
    ids=str,
)
def test_a_slice_may_divide_a_tile_or_be_whole_tiles(shape: tuple[int, ...], block: int) -> None:
    x = hard_rows(shape, BFLOAT16)
    assert_is_reference(x, noise_of("array", shape), NEAREST, block)


@pytest.mark.parametrize("block", [16, 64])
def test_the_last_tile_may_have_fewer_slices(block: int) -> None:
    x = hard_rows((40, 192), np.dtype(np.float32))
    assert_is_reference(x, seeds(), drawing(TO_INT8, x.shape), block)


def test_many_bits_no_clip_and_no_rounding() -> None:
    x = hard_rows((40, 256), np.dtype(np.float32))
    for bits, to in ((16, np.int16), (22, np.int32)):
        spec = QuantSpec(2.0 ** (bits - 1) - 1, clip=True, rounding="half_to_even", integer_dtype=np.dtype(to))
        assert_is_reference(x, noise_of("array", x.shape), spec, how=Scaling(spec.bound, fits=True))
    for spec in (QuantSpec(127.0, clip=False, rounding="half_to_even"), QuantSpec(127.5, clip=True, rounding=None)):
        for noise in ("none", "array"):
            assert_is_reference(x, noise_of(noise, x.shape), spec)


def test_noise_beyond_half_a_bucket_is_clipped_after_the_sum() -> None:
    x = hard_rows((40, 256), np.dtype(np.float32))
    assert_is_reference(x, 8 * noise_of("array", x.shape), TO_INT8)


@pytest.mark.parametrize(("shape", "examples"), [((3, 40, 256), 1), ((3, 2, 8, 256), 2)], ids=str)
def test_each_example_of_a_batch_has_the_noise_of_its_seed(shape: tuple[int, ...], examples: int) -> None:
    x = hard_rows(shape, BFLOAT16)
    spec = drawing(TO_INT8, shape[examples:])
    assert_is_reference(x, seeds(*shape[:examples]), spec)
    assert_is_reference(x, seeds(*(1 for _ in range(examples))), spec)


def test_a_part_of_a_larger_array_has_the_noise_of_its_place() -> None:
    x = hard_rows((24, 256), BFLOAT16)
    assert_is_reference(x, seeds(), drawing(TO_INT8, x.shape, whole=(48, 1024)))


@pytest.mark.parametrize("examples", [(), (3,)], ids=["a seed", "three seeds"])
def test_the_hash_may_begin_at_any_element(examples: tuple[int, ...]) -> None:
    x = hard_rows((*examples, 24, 201), BFLOAT16)
    spec = drawing(TO_INT8, x.shape[-2:], generator="hash", whole=(2**30, 201), aligned=False)
    assert_is_reference(x, seeds(*examples), spec)


@pytest.mark.parametrize(
    "draw",
    [
        Draw("threefry_23_bits", (24, 256)),
        Draw("philox", (24, 256), aligned=False),
        Draw("philox", (1, 256)),
        Draw("philox", (256,)),  # with a seed for each row
    ],
    ids=["another generator", "not aligned", "shared", "rows that are examples"],
)
def test_noise_that_the_kernel_does_not_draw_is_drawn_before(draw: Draw) -> None:
    x = hard_rows((24, 256), BFLOAT16)
    seed = seeds(24) if len(draw.shape) == 1 else seeds()
    assert_is_reference(x, seed, dataclasses.replace(TO_INT8, draw=draw))


def test_the_chips_generator_draws_in_the_pass() -> None:
    """Its interpreter draws zeros."""
    x = hard_rows((40, 256), BFLOAT16)
    spec = drawing(TO_INT8, x.shape, generator="hardware")

    def kernel(x: jax.Array, seed: jax.Array) -> Any:
        return pallas_tpu.quantize_by_absmax(x, seed, spec, SCALING, None, interpret=True)

    assert kernels_in(kernel, x, seeds()) == 1
    expected = jax.jit(lambda x: reference.quantize_by_absmax(x, None, TO_INT8, SCALING, None))(x)
    for ours, theirs in zip(jax.jit(kernel)(x, seeds()), expected, strict=True):
        assert_same_bits(ours, theirs)


@pytest.mark.parametrize(
    ("shape", "block"),
    [
        ((24, 144), 48),
        ((24, 128), 4),
        ((24, 384), 192),
        ((1, 600), None),
        ((600,), None),
        ((64, 1), None),
        ((2, 1, 1), None),
        ((0, 128), None),
        ((1, 1, 256), 64),
    ],
    ids=str,
)
def test_xla_does_what_the_kernel_would_not_do_well(shape: tuple[int, ...], block: int | None) -> None:
    x = np.ones(shape, BFLOAT16)
    assert_is_reference(x, None, TO_INT8, block, kernels=0)
    assert_is_reference(x, seeds(), drawing(TO_INT8, shape), block, kernels=0)


@pytest.mark.parametrize(
    ("dtype", "to", "longest"), [("bfloat16", TO_INT8, 45824), ("float32", NEAREST, 22912)], ids=["int8", "float32"]
)
def test_longer_rows_are_left_to_xla(dtype: str, to: QuantSpec, longest: int) -> None:
    def kernel(x: jax.Array, block: int | None) -> Any:
        return pallas_tpu.quantize_by_absmax(x, None, to, SCALING, block)

    for length, block, kernels in ((longest, None, 1), (longest + 1, None, 0), (1 << 18, 256, 1)):
        x = jax.ShapeDtypeStruct((64, length), jnp.dtype(dtype))
        assert kernels_in(lambda x, block=block: kernel(x, block), x) == kernels


def test_a_dtype_that_the_kernels_do_not_take_is_named() -> None:
    with pytest.raises(NotImplementedError, match="x is int32, which the TPU kernels do not take"):
        pallas_tpu.quantize_by_absmax(jnp.ones((8, 128), jnp.int32), None, TO_INT8, SCALING, None)


def test_columns_beyond_the_array_are_not_counted() -> None:
    """On a chip they hold what was there before; here, numbers that are larger than those of the rows."""
    x = np.random.default_rng(0).standard_normal((8, 256)).astype(np.float32)
    x[:, 200:] = 100
    rows = Rows(TO_INT8, SCALING, None, 200, x.dtype)
    results = [jax.ShapeDtypeStruct(x.shape, jnp.int8), jax.ShapeDtypeStruct((1, 128), jnp.float32)]

    def body(x_ref: jax.Ref, y_ref: jax.Ref, scale_ref: jax.Ref) -> None:
        rows.quantize(x_ref, None, y_ref, scale_ref)

    y, scale = pl.pallas_call(body, out_shape=results, interpret=True)(x)
    expected = reference.quantize_by_absmax(jnp.asarray(x[:, :200]), None, TO_INT8, SCALING, None)
    assert_same_bits(y[:, :200], expected[0])
    assert_same_bits(scale[0, :8, None], expected[1])
