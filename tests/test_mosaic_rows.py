"""How Mosaic GPU's kernels quantize by the largest magnitudes: pieces of rows, races, and what is left to XLA."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import streams
from jax.experimental.pallas import mosaic_gpu as plgpu
from oracle import assert_same_bits
from ptx_approximations import approximate_quotients as approximate_quotients
from test_mosaic_gpu import grids, in_its_interpreter

from intnumerics.kernels import Draw, Generator, QuantSpec, Scaling, reference
from intnumerics.kernels.pallas_mosaic_gpu import pieces, rows, tiles
from intnumerics.kernels.pallas_mosaic_gpu.rows import quantize_by_absmax

BFLOAT16, FLOAT32 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32)
NEAREST = QuantSpec(127.0, clip=True, rounding="half_to_even")
TO_INT8 = dataclasses.replace(NEAREST, integer_dtype=np.dtype(np.int8))
HALVES = QuantSpec(127.5, clip=True, rounding="floor_plus_half")
TO_127 = Scaling(127.0, fits=True)
SEED = streams.seed((3, 5))


def numbers(shape: tuple[int, ...], dtype: np.dtype = BFLOAT16) -> np.ndarray:
    """Rows of different magnitudes: with NaN and infinities, of zeros, very small and very large."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape) * np.exp2(rng.integers(-6, 6, (*shape[:-1], 1)))
    flat = x.reshape(-1, shape[-1])
    flat[0, [1, -1]], flat[0, 8] = np.inf, np.nan
    for row, by in zip(flat[1:4], (0.0, 1e-37, 1e38), strict=False):
        row *= by
    with np.errstate(over="ignore"):
        return x.astype(dtype)


def drawing(
    shape: tuple[int, ...], spec: QuantSpec = TO_INT8, generator: Generator = "philox", **how: Any
) -> QuantSpec:
    return dataclasses.replace(spec, draw=Draw(generator, shape, **how))


def assert_is_reference(found: Any, x: np.ndarray, noise: Any, spec: QuantSpec, block: int | None = None) -> None:
    y, scale = found
    if spec.draw is not None and spec.draw.generator == "hash":
        noise = streams.uniform_hash(x.shape, (3, 5), int(noise[2]) | int(noise[3]) << 32)
        spec = dataclasses.replace(spec, draw=None)
    with jax.default_device(jax.devices("cpu")[0]):
        expected, scales = reference.quantize_by_absmax(jnp.asarray(x), noise, spec, TO_127, block)
    assert_same_bits(scale, scales)
    assert_same_bits(y, expected)


# --- pieces -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [16, 24, 32, 96, 128, 256, 1000, 1024, 1032, 4096, 16384, 16392, 65536, 70000])
@pytest.mark.parametrize("count", [128, 129, 1 << 16])
def test_pieces_cover_each_row_and_programs_all_rows(count: int, size: int) -> None:
    found = pieces.rows_of(count, size)
    assert found is not None
    covered = np.zeros(size // 8, bool)
    for start in found.starts:
        assert 0 <= start <= size // 8 - found.lanes
        covered[start : start + found.lanes] = True
    assert covered.all()
    assert found.together * (found.programs - 1) < count <= found.together * found.programs
    assert found.together * found.lanes == tiles.THREADS
    in_registers = len(found.starts) - found.turns * pieces.AT_ONCE
    assert 0 < in_registers <= 16
    assert found.turns == 0 or size > 16384


def test_short_rows_share_a_program_unless_there_are_few() -> None:
    lanes = {size: pieces.rows_of(1 << 20, size).lanes for size in (16, 24, 32, 64, 128, 256, 512, 1024, 1000, 2048)}
    assert lanes == {16: 2, 24: 2, 32: 4, 64: 4, 128: 4, 256: 8, 512: 16, 1024: 32, 1000: 32, 2048: 64}
    assert [pieces.rows_of(count, 1024).lanes for count in (1, 512, 1024, 2048)] == [128, 128, 64, 32]


def last_piece(count: int, size: int, examples: int = 1) -> Any:
    """The last program's first piece, from the body of the operation."""
    found = pieces.rows_of(count, size, examples)
    return rows._pieces(jnp.int32(found.programs - 1), found, True)[1](0)


@pytest.mark.parametrize(("count", "size"), [(1 << 20, 4096), ((1 << 20) + 3, 4096), (1 << 29, 64), (5, 1 << 30)])
def test_numbers_of_elements_are_right_beyond_32_bits(count: int, size: int) -> None:
    piece = last_piece(count, size)
    row = count - piece.rows.together
    assert int(piece.row) == row
    with jax.enable_x64(True):
        eights = np.asarray(piece.eights(jnp.zeros((), jnp.uint64)))
    expected = row * size // 8 + np.arange(piece.rows.lanes)
    if piece.rows.together > 1:
        expected = expected + np.arange(piece.rows.together)[:, None] * (size // 8)
    np.testing.assert_array_equal(eights, expected.astype(np.uint64))


# --- what is left to XLA ----------------------------------------------------------------------------------------------

SEEDS = jax.ShapeDtypeStruct((8, 4), jnp.uint32)
LEFT: dict[str, tuple[Any, ...]] = {  # the shape of x, that of noise or seeds, the description, and the block
    "rows that are not whole eights": ((512, 1004), None, TO_INT8, None),
    "blocks of eight elements": ((512, 1024), None, TO_INT8, 8),
    "few short rows": ((2, 256), None, TO_INT8, None),
    "no rows": ((0, 1024), None, TO_INT8, None),
    "noise that rows share": ((8, 1024), jax.ShapeDtypeStruct((1, 1024), jnp.float32), TO_INT8, None),
    "noise of threefry": (
        (8, 1024),
        jax.ShapeDtypeStruct((4,), jnp.uint32),
        dataclasses.replace(TO_INT8, draw=Draw("threefry_23_bits", (8, 1024))),
        None,
    ),
    "seeds that change within a warpgroup": ((8, 3, 128), SEEDS, drawing((3, 128)), None),
}


@pytest.mark.parametrize(("shape", "noise", "spec", "block"), LEFT.values(), ids=LEFT)
def test_what_a_warpgroup_cannot_do_is_left_to_xla(
    shape: tuple[int, ...], noise: Any, spec: QuantSpec, block: int | None
) -> None:
    x = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
    run = functools.partial(quantize_by_absmax, spec=spec, how=TO_127, block=block)
    assert grids(run, x, noise) == []
    results = jax.eval_shape(run, x, noise)
    assert [result.shape for result in results] == [shape, (*shape[:-1], shape[-1] // (block or shape[-1]))]


@pytest.mark.parametrize(
    ("shape", "block", "programs"),
    [((1, 1024), None, 1), ((4096, 1000), None, 1024), ((8, 4096), 32, 32), ((3, 70000), None, 3)],
)
def test_a_kernel_has_a_program_for_each_warpgroup_of_rows(
    shape: tuple[int, ...], block: int | None, programs: int
) -> None:
    x = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
    assert grids(lambda x: quantize_by_absmax(x, None, TO_INT8, TO_127, block), x) == [(programs,)]


# --- bits -------------------------------------------------------------------------------------------------------------

SHAPES = [  # of x, and the block: every layout of a piece, pieces and rows that overlap, and rows that are read twice
    *[((33, size * 4), size) for size in (16, 24, 48, 256)],
    ((2, 3, 1000), None),
    ((5, 520), None),
    ((1, 1024), None),
    ((3, 5000), None),
    ((2, 17416), None),
]


@pytest.mark.parametrize(
    ("shape", "block", "noise"),
    [(*shape, noise) for i, shape in enumerate(SHAPES) for noise in ("drawn", ("none", "array", "hash")[i % 3])],
)
def test_every_way_to_divide_rows_has_the_bits_of_the_reference(
    shape: tuple[int, ...], block: int | None, noise: str
) -> None:
    x = numbers(shape, FLOAT32 if noise == "array" else BFLOAT16)
    spec, given = {
        "none": (TO_INT8, None),
        "array": (HALVES, np.random.default_rng(1).uniform(-0.5, 0.5, shape).astype(np.float32)),
        "drawn": (drawing(shape), SEED),
        "hash": (drawing(shape, generator="hash", whole=(100, *shape[1:]), aligned=False), streams.seed((3, 5), 11)),
    }[noise]
    run = jax.jit(functools.partial(quantize_by_absmax, spec=spec, how=TO_127, block=block, interpret=True))
    assert_is_reference(run(x, given), x, given, spec, block)


COMPILED: dict[str, tuple[Any, ...]] = {  # the shape of x, its dtype, noise or seeds, the description, and the block
    "one row": ((1, 1024), BFLOAT16, None, TO_INT8, None),
    "a program for each of few rows": ((33, 1024), FLOAT32, SEED, drawing((33, 1024)), None),
    "two rows in a program": ((1, 3, 1000), BFLOAT16, SEED, drawing((1, 3, 1000), HALVES), None),
    "scales within 256 bytes, to which XLA does not align them": ((2, 4, 256), FLOAT32, None, NEAREST, None),
    "blocks of 16": ((3, 1024), np.dtype(np.float16), SEED, drawing((3, 1024)), 16),
    "blocks of 24": ((5, 960), BFLOAT16, np.full((5, 960), 0.25, np.float32), HALVES, 24),
    "blocks of 128": ((8, 1024), BFLOAT16, SEED, drawing((8, 1024), NEAREST), 128),
    "a row that is read twice": ((1, 17416), BFLOAT16, SEED, drawing((1, 17416)), None),
    "a seed for each row": (
        (2, 1024),
        BFLOAT16,
        np.stack([SEED, streams.seed((7, 9))]),
        drawing((1024,)),
        None,
    ),
    "a part of a larger array": ((4, 1024), FLOAT32, SEED, drawing((4, 1024), whole=(64, 4096)), 256),
    "the hash": ((4, 1024), BFLOAT16, SEED, drawing((4, 1024), generator="hash"), 256),
    "the hash, from an odd element on": (
        (3, 1000),
        BFLOAT16,
        streams.seed((3, 5), 2**33 - 1501),
        drawing((3, 1000), generator="hash", whole=(2**24, 1000), aligned=False),
        None,
    ),
    "beyond 32 bits": ((2, 1024), BFLOAT16, streams.seed((3, 5), (1 << 35) - 1024), drawing((2, 1024)), None),
}


@pytest.mark.ptx
@pytest.mark.usefixtures("approximate_quotients")
@pytest.mark.parametrize(("shape", "dtype", "noise", "spec", "block"), COMPILED.values(), ids=COMPILED)
def test_compiled_code_has_the_bits_of_the_reference_and_races_nowhere(
    shape: tuple[int, ...], dtype: np.dtype, noise: Any, spec: QuantSpec, block: int | None
) -> None:
    from tools import ptx

    x = numbers(shape, dtype)
    arrays = [x] if noise is None else [x, noise]
    program = ptx.compile(lambda x, noise=None: quantize_by_absmax(x, noise, spec, TO_127, block), *arrays)
    kernels = [kernel.name.partition("_mosaic")[0] for kernel in program.kernels]
    if spec.draw is not None and spec.draw.generator == "hash":  # for whose subkeys XLA has a small kernel
        kernels = [name for name in kernels if "fusion" not in name]
    assert kernels == ["intnumerics_quantize_by_absmax" + "_with_noise" * (spec.draw is not None)]
    assert_is_reference(program(*arrays), x, noise, spec, block)


@in_its_interpreter
@pytest.mark.parametrize("name", ["one row", "blocks of 128", "a seed for each row", "a row that is read twice"])
def test_mosaic_gpu_finds_no_race_between_rows(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    shape, dtype, noise, spec, block = COMPILED[name]
    if name == "a row that is read twice":  # and no piece of which overlaps another, which would be the same bytes
        shape = (1, 3 * 8192)
        spec = drawing(shape)
    x, interpret = numbers(shape, dtype), plgpu.InterpretGPUParams(detect_races=True)
    found = quantize_by_absmax(jnp.asarray(x), noise, spec, TO_127, block, interpret=interpret)
    assert_is_reference(found, x, noise, spec, block)
    assert "RACE DETECTED" not in "".join(capfd.readouterr())
