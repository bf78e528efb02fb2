"""The kernels of Mosaic GPU: no races, no access beyond whole blocks, and what is left to XLA."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import oracle
import pytest
import streams
from implementations import COMPILED, ON_CPU, Where, assert_is_formula
from jax.experimental.pallas import mosaic_gpu as plgpu
from oracle import assert_same_bits
from test_stream_kernels import check_each

from intnumerics.kernels import Draw, QuantSpec, elementwise
from intnumerics.kernels.gpu import pallas
from intnumerics.kernels.gpu.tuning import Configuration
from intnumerics.kernels.pallas_mosaic_gpu import formula, tiles
from intnumerics.kernels.pallas_mosaic_gpu import operations as mosaic

NEAREST = QuantSpec(127.0, clip=True, rounding="half_to_even")
MASKED = dataclasses.replace(NEAREST, with_mask=True)
TO_INT8 = dataclasses.replace(NEAREST, integer_dtype=np.dtype(np.int8))
KEY = (3, 5)
MOSAIC = COMPILED["pallas_mosaic_gpu's compiled code"]


def numbers(shape: tuple[int, ...], dtype: Any = ml_dtypes.bfloat16) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(shape, np.float32) * 90).astype(dtype)


# --- Mosaic GPU's own interpreter, from JAX 0.11 on -------------------------------------------------------------------

in_its_interpreter = pytest.mark.skipif(
    jax.__version_info__ < pallas.FIRST_WITH_A_CHOICE, reason="Mosaic GPU's interpreter came with JAX 0.11"
)


def interpreted() -> dict[str, Any]:
    """Programs of two tiles each, whose races are written to standard output."""
    return {"interpret": plgpu.InterpretGPUParams(detect_races=True), "configuration": Configuration(2048, 4)}


@in_its_interpreter
@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_mosaic_gpu_finds_no_race_and_has_the_formulas_bits(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Two programs, and a rest of three elements; two examples, each with a seed of its own."""
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    x, examples = numbers((4099,), dtype), numbers((2, 4096), dtype)
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, x.shape).astype(np.float32)
    assert_is_formula(jax.device_get(mosaic.quantize(x, None, MASKED, **interpreted())), x, None, MASKED)
    assert_is_formula(np.asarray(mosaic.quantize(x, noise, TO_INT8, **interpreted())), x, noise, TO_INT8)
    seeds = np.stack([streams.seed(KEY), streams.seed((7, 9))])
    drawing = dataclasses.replace(TO_INT8, draw=Draw("philox", (4096,)))
    drawn = np.stack([streams.uniform((4096,), key) for key in (KEY, (7, 9))])
    assert_is_formula(np.asarray(mosaic.quantize(examples, seeds, drawing, **interpreted())), examples, drawn, TO_INT8)
    drawing = dataclasses.replace(TO_INT8, draw=Draw("hash", x.shape, (2**34,), aligned=False))
    y = mosaic.quantize(x, streams.seed(KEY, 2**33 - 3001), drawing, **interpreted())
    assert_is_formula(np.asarray(y), x, streams.uniform_hash(x.shape, KEY, 2**33 - 3001), TO_INT8)
    g, packed = x[::-1].copy(), oracle.packed_mask(x, NEAREST)
    expected = np.where(oracle.mask(x, NEAREST), g, np.zeros_like(g))
    assert_same_bits(mosaic.clip_gradient_from_mask(g, packed, **interpreted()), expected)
    assert_same_bits(mosaic.clip_gradient_from_x(g, x, NEAREST, **interpreted()), expected)
    assert "RACE DETECTED" not in "".join(capfd.readouterr())


@in_its_interpreter
def test_a_race_would_be_found(capfd: pytest.CaptureFixture[str]) -> None:
    def kernel(program: tiles.Program, x_ref: Any, y_ref: Any) -> None:
        values = program.tiles[0].load(x_ref)
        dataclasses.replace(program.tiles[0], origin=jnp.int32(0)).store(y_ref, values)  # two programs, one place

    x, error = jnp.arange(2048.0), ""
    interpret = plgpu.InterpretGPUParams(detect_races=True)
    try:
        tiles.for_each_block(kernel, x.size, [x], [jax.typeof(x)], "race", interpret, 1024)
    except jax.errors.JaxRuntimeError as raised:  # from JAX 0.12 on
        from jax._src.pallas.mosaic_gpu.interpret import gpu_callbacks  # plgpu lacks what params.py says to call

        gpu_callbacks.reset_gpu_interpret_mode_state()
        error = str(raised)
    assert "RACE DETECTED" in error + "".join(capfd.readouterr())


# --- what is left to XLA ----------------------------------------------------------------------------------------------

HOW = {"configuration": Configuration(1024, 4)}


def grids(function: Any, *arrays: Any) -> list[tuple[int, ...]]:
    """The grids of the kernels that a function calls."""
    found = []

    def kernel(body: Any, *, out_type: Any, grid: tuple[int, ...], **_: Any) -> Any:
        found.append(grid)
        return lambda *_: [jnp.zeros(result.shape, result.dtype) for result in out_type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles.plgpu, "kernel", kernel)
        jax.eval_shape(function, *arrays)
    return found


SEED = jax.ShapeDtypeStruct((4,), jnp.uint32)
LEFT = {  # what XLA does by itself: the shape of x, that of noise or a seed, and the description
    "less than a block": ((1023,), None, NEAREST),
    "noise that rows share": ((8, 1024), (1, 1024), NEAREST),
    "noise of threefry": ((8, 1024), "seed", dataclasses.replace(NEAREST, draw=Draw("threefry_23_bits", (8, 1024)))),
    "noise that begins within eight": (
        (8, 1024),
        "seed",
        dataclasses.replace(NEAREST, draw=Draw("philox", (8, 1024), aligned=False)),
    ),
    "noise of the hash of more than two pairs of subkeys": (
        (8, 1024),
        "seed",
        dataclasses.replace(NEAREST, draw=Draw("hash", (8, 1024), (8, 2**32))),
    ),
    "noise of the hash for parts of rows that are not whole eights": (
        (8, 1024),
        "seed",
        dataclasses.replace(NEAREST, draw=Draw("hash", (8, 1024), (8, 1028))),
    ),
    "a mask of rows that are not whole bytes": ((8, 1025), None, MASKED),
    "examples that begin within eight": (
        (2, 1025),
        "seeds",
        dataclasses.replace(NEAREST, draw=Draw("philox", (1025,))),
    ),
}


@pytest.mark.parametrize(("shape", "noise", "spec"), LEFT.values(), ids=LEFT)
def test_what_needs_another_array_for_a_kernel_is_left_to_xla(
    shape: tuple[int, ...], noise: Any, spec: QuantSpec
) -> None:
    given = {"seed": SEED, "seeds": jax.ShapeDtypeStruct((2, 4), jnp.uint32), None: None}
    second = given[noise] if noise in given else jax.ShapeDtypeStruct(noise, jnp.float32)
    x = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
    assert grids(lambda x, second: mosaic.quantize(x, second, spec, **HOW), x, second) == []


@pytest.mark.parametrize("n", [1024, 4096, 4099, 5119])
def test_a_kernel_has_a_program_for_each_whole_block(n: int) -> None:
    x = jax.ShapeDtypeStruct((n,), jnp.float32)
    packed = jax.ShapeDtypeStruct((-(-n // 8),), jnp.uint8)
    for function, *arrays in (
        (lambda x: mosaic.quantize(x, None, MASKED, **HOW), x),
        (lambda g, packed: mosaic.clip_gradient_from_mask(g, packed, **HOW), x, packed),
        (lambda g, x: mosaic.clip_gradient_from_x(g, x, NEAREST, **HOW), x, x),
    ):
        assert grids(function, *arrays) == [(n // 1024,)]
    drawing = dataclasses.replace(NEAREST, draw=Draw("philox", (n // 8 * 8,)))
    x = jax.ShapeDtypeStruct((3, n // 8 * 8), jnp.float32)
    seeds = jax.ShapeDtypeStruct((3, 4), jnp.uint32)
    assert grids(lambda x, seeds: mosaic.quantize(x, seeds, drawing, **HOW), x, seeds) == [(3 * (n // 1024),)]


@pytest.mark.parametrize("seeds", [0, 1])
def test_a_batch_of_no_examples_has_no_elements(seeds: int) -> None:
    drawing = dataclasses.replace(TO_INT8, draw=Draw("philox", (4096,)))
    x, seed = np.zeros((0, 4096), np.float32), np.zeros((seeds, 4), np.uint32)
    assert_same_bits(mosaic.quantize(x, seed, drawing, interpret=True), np.zeros((0, 4096), np.int8))


def test_xla_handles_little_of_an_array_that_large_blocks_would_not_fill() -> None:
    """By default a block for drawing has 8,192 elements, one for 2 * 8192 - 8."""
    n = 2 * 8192 - 8
    drawing = dataclasses.replace(TO_INT8, draw=Draw("philox", (n,)))
    x, seeds = jax.ShapeDtypeStruct((4096, n), jnp.bfloat16), jax.ShapeDtypeStruct((4096, 4), jnp.uint32)
    [[programs]] = grids(lambda x, s: mosaic.quantize(x, s, drawing), x, seeds)
    assert programs == 4096 * 15  # of 1,024 elements


# --- where the kernels look -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("examples", "n"), [(1, 1 << 20), (1, (1 << 33) + 7), (3, 1 << 13), ((1 << 20) + 1, 1 << 13)])
def test_a_tile_begins_where_its_example_and_block_do_beyond_32_bits_too(examples: int, n: int) -> None:
    size, found = 4096, []

    def kernel(program: tiles.Program, *refs: Any) -> None:
        found.extend((tile.index, tile.origin) for tile in program.tiles)

    x = jax.ShapeDtypeStruct((examples * n,), jnp.int8)
    blocks = n // size
    last = examples * blocks - 1
    with pytest.MonkeyPatch.context() as patch:  # runs the body of the kernel for the last program, and nothing else
        patch.setattr(tiles.plgpu, "kernel", lambda body, **_: lambda *refs: body(*refs))
        patch.setattr(tiles.lax, "axis_index", lambda name: jnp.int32(last))
        tiles.for_each_block(kernel, n, [x], [x], "n", False, size, examples)
    first = (blocks - 1) * size + np.arange(0, size, 1024, dtype=np.int64)
    np.testing.assert_array_equal([int(index) * 8 for index, _ in found], first)
    np.testing.assert_array_equal([int(origin) * 8 for _, origin in found], first + (examples - 1) * n)


# --- the hash's noise -------------------------------------------------------------------------------------------------

ROW = 2**27 + 8  # elements of a row, of which 63 and more pass 2**33
HASHED = [  # the draw of each example, and the numbers of their first elements; test_stream_kernels.py has others
    (Draw("hash", (2, 1031), (9, 1031), aligned=False), [3 * 1031]),
    (Draw("hash", (16, 128), (72, ROW)), [60 * ROW + 64]),
    (Draw("hash", (1024,), (4096,), aligned=False), [5, 2048]),
]


@pytest.mark.parametrize("where", [ON_CPU["pallas_mosaic_gpu"], pytest.param(MOSAIC, marks=pytest.mark.ptx)], ids=str)
def test_a_kernel_draws_the_hashs_noise_of_parts_of_rows_and_from_odd_elements_on(where: Where) -> None:
    calls = []
    for draw, firsts in HASHED:
        rows, part = (1, draw.shape) if draw.is_contiguous else (draw.shape[0], draw.shape[1:])
        drawn = [
            streams.uniform_hash(part, (3, i), first + row * ROW)
            for i, first in enumerate(firsts)
            for row in range(rows)
        ]
        seeds = np.stack([streams.seed((3, i), first) for i, first in enumerate(firsts)])
        x = numbers((len(firsts), *draw.shape))
        spec = dataclasses.replace(NEAREST, draw=draw, noise_dtype=np.dtype(np.float32))
        assert len(grids(lambda x, s, spec=spec: mosaic.quantize(x, s, spec, **HOW), x, seeds)) == 1
        calls.append((x, seeds, spec, np.stack(drawn).reshape(x.shape)))
    check_each(where, calls)


@pytest.mark.parametrize("dtype", oracle.DTYPES, ids=str)
@pytest.mark.parametrize("bound", [0.5, 1.0, 127.0, 127.5, 255.5, 32767.0, 65519.0, 65520.0, 1e9, np.inf])
def test_the_mask_in_the_dtype_of_x_is_that_of_the_bound(dtype: np.dtype, bound: float) -> None:
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype) if dtype.itemsize == 2 else numbers((1 << 16,), dtype) * 400
    largest = formula.largest_within(bound, dtype)
    with np.errstate(invalid="ignore"):
        expected = np.abs(x.astype(np.float64)) <= bound
        np.testing.assert_array_equal(np.abs(x) <= np.asarray(largest, dtype), expected)


@pytest.mark.parametrize(("dtype", "bound"), [(np.int8, 127), (np.int16, 32767)])
def test_a_rounded_number_is_the_low_bits_of_a_sum_and_every_nan_is_0(dtype: Any, bound: int) -> None:
    x = (np.arange(1 << 16, dtype=np.uint32) << 16 | 1).view(np.float32)  # of every sign and exponent
    ties = np.arange(-bound, bound, dtype=np.float32) + np.float32(0.5)
    with np.errstate(invalid="ignore"):
        y = np.concatenate([np.clip(x, -bound, bound), ties, np.float32(0.3) - ties])
        expected = np.where(np.isnan(y), 0, np.rint(y))
    assert_same_bits(jax.jit(elementwise.low_bits, static_argnums=1)(y, np.dtype(dtype)), expected.astype(dtype))


@pytest.mark.ptx
@pytest.mark.parametrize("rest", [0, 800])
@pytest.mark.parametrize("backward", [False, True])
def test_a_mask_of_256_bytes_to_which_xla_does_not_align_it_is_where_it_should_be(backward: bool, rest: int) -> None:
    """LLVM would put the number of a block into the address by `or`, for Mosaic GPU declares such an alignment."""
    from tools import ptx

    x = numbers((2 * tiles.TILE + rest,), np.float32)
    packed = oracle.packed_mask(x, MASKED)
    if backward:
        g = ptx.compile(mosaic.clip_gradient_from_mask, x, packed)(x, packed)
        assert_same_bits(g, np.where(oracle.mask(x, MASKED), x, np.float32(0)))
    else:
        assert_same_bits(ptx.compile(lambda x: mosaic.quantize(x, None, MASKED), x)(x)[1], packed)
