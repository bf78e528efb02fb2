"""Rows with a scale each in the kernel of Pallas' Triton lowering: how they are divided, held, swept and addressed."""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import scaled_oracle
import streams
from meshes import H100
from oracle import assert_same_bits
from ptx_approximations import approximate_quotients as approximate_quotients

from intnumerics.kernels import Draw, Generator, QuantSpec, Scaling
from intnumerics.kernels.gpu import shapes, tuning
from intnumerics.kernels.gpu.tuning import RowConfiguration

rows = pytest.importorskip("intnumerics.kernels.pallas_triton.rows", exc_type=ImportError)

INT8 = QuantSpec(127.0, clip=True, rounding="half_to_even", integer_dtype=np.dtype(np.int8))
HALVES = QuantSpec(7.5, clip=True, rounding="floor_plus_half")
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
KEY = (0x243F6A88, 0x85A308D3)
MOST = 24  # rows are swept that are longer, if tests sweep short rows


def numbers(n: int, features: int, dtype: Any) -> np.ndarray:
    """Rows of normal numbers; others are zero, not finite in some or all places, very small, or very large."""
    x = (np.random.default_rng(n + features).standard_normal((n, features)) * 3).astype(np.float32)
    x[1::8] = 0
    x[2::8, ::3], x[2::8, -1] = np.nan, np.inf
    x[3::8] = -np.inf
    x[4::8] = 1e-36 if dtype != np.float16 else 2.0**-14  # normal in each dtype, for a CPU counts others as 0
    x[5::8] *= 1e37 if dtype != np.float16 else 1e3
    x[6::8, -1] = -1000
    return x.astype(dtype)


def uniform(generator: Generator, shape: tuple[int, ...], key: tuple[int, int], first: int) -> np.ndarray:
    """The noise of consecutive elements, the first of them numbered `first`."""
    return streams.uniform_hash(shape, key, first) if generator == "hash" else streams.uniform(shape, key, first // 8)


def expected(x: np.ndarray, noise: np.ndarray | None, spec: QuantSpec, block: int | None = None) -> Any:
    return scaled_oracle.quantize_by_absmax(x, noise, spec, Scaling(spec.bound, fits=True), block)


def check(
    x: np.ndarray, noise: Any, spec: QuantSpec, block: int | None = None, seed: Any = None, **options: Any
) -> None:
    """Interprets the kernel on x, with noise or a seed of the noise, and compares what it returns."""
    given = noise if seed is None else seed
    call = lambda x, u: rows.quantize_by_absmax(  # noqa: E731
        x, u, spec, Scaling(spec.bound, fits=True), block, interpret=True, **options
    )
    for actual, want in zip(jax.jit(call)(x, given), expected(x, noise, spec, block), strict=True):
        assert_same_bits(actual, want)


# --- interpreted ------------------------------------------------------------------------------------------------------

DIVISIONS = [  # the shape of x, the threads of a row and the warps: rows and columns that end within a program
    ((1, 1), 1, 1),
    ((3, 3), 1, 1),
    ((64, 16), 2, 1),
    ((9, 33), 4, 1),
    ((11, 40), 2, 2),
    ((7, 1003), 32, 4),
    ((7, 1000), 32, 4),
    ((3, 5120), 128, 4),
]


@pytest.mark.parametrize(("shape", "threads", "warps"), DIVISIONS, ids=str)
@pytest.mark.parametrize(("dtype", "spec"), [(BFLOAT16, INT8), (np.float32, INT8), (np.float16, HALVES)], ids=str)
def test_rows_are_quantized_wherever_a_program_ends(
    shape: tuple[int, int], threads: int, warps: int, dtype: Any, spec: QuantSpec
) -> None:
    check(numbers(*shape, dtype), None, spec, configuration=RowConfiguration(threads, warps))


@pytest.fixture
def long_rows() -> Iterator[None]:
    """Rows of over `MOST` elements are too long for registers."""
    with mock.patch.object(rows, "ONCE", MOST):
        yield


@pytest.mark.usefixtures("long_rows")
@pytest.mark.parametrize("features", [16, 24, 64, 72, 203, 256], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16], ids=str)
def test_rows_that_registers_do_not_hold_are_swept_twice(features: int, dtype: Any) -> None:
    x = numbers(19, features, dtype)
    noise = np.random.default_rng(1).uniform(-2, 2, (1, features)).astype(BFLOAT16)
    check(x, np.broadcast_to(noise.astype(np.float32), x.shape), INT8, seed=noise, configuration=RowConfiguration(2, 1))


@pytest.mark.usefixtures("long_rows")
@pytest.mark.parametrize(
    ("generator", "features"), [("philox", 16), ("philox", 72), ("philox", 256), ("hash", 72)], ids=str
)
@pytest.mark.parametrize(("dtype", "spec"), [(BFLOAT16, INT8), (np.float32, HALVES)], ids=str)
def test_each_row_has_the_noise_of_its_elements(
    generator: Generator, features: int, dtype: Any, spec: QuantSpec
) -> None:
    """Drawn in the kernel, for two examples with a seed each; the numbers of blocks of the stream pass 2**32."""
    x = numbers(38, features, dtype).reshape(2, 19, features)
    keys, first = [(1, 2), KEY], 8 * (2**32 - 3) if generator == "philox" else 2**33 - 25
    seeds = np.stack([streams.seed(key, first) for key in keys])
    noise = np.stack([uniform(generator, x.shape[1:], key, first) for key in keys])
    draw = Draw(generator, x.shape[1:], (1 << 30, features), aligned=first % 8 == 0)
    drawing = dataclasses.replace(spec, draw=draw)
    check(x, noise, drawing, seed=seeds, configuration=RowConfiguration(2, 1))


@pytest.mark.parametrize("generator", ["philox", "hash"])
@pytest.mark.parametrize("whole", [(8, 64), (16, 1 << 33)], ids=str)
@pytest.mark.parametrize("block", [None, 16], ids=["rows", "blocks"])
def test_a_part_of_a_larger_array_has_the_noise_of_its_rows(
    generator: Generator, whole: tuple[int, int], block: int | None
) -> None:
    """From the hash, rows that are 2**33 elements apart have several subkeys, so their noise is drawn before."""
    x = numbers(8, 32, np.float32)
    first = 3 * whole[1] + 16
    noise = np.stack([uniform(generator, (32,), KEY, first + row * whole[1]) for row in range(8)])
    spec = dataclasses.replace(INT8, draw=Draw(generator, x.shape, whole))
    check(x, noise, spec, block, seed=streams.seed(KEY, first))


@pytest.mark.parametrize(("shape", "block"), [((3, 15), None), ((3, 24), 12)], ids=["rows", "blocks"])
def test_noise_that_does_not_begin_with_a_row_is_drawn_before(shape: tuple[int, int], block: int | None) -> None:
    spec = dataclasses.replace(INT8, draw=Draw("philox", shape))
    check(numbers(*shape, np.float32), streams.uniform(shape, KEY), spec, block, seed=streams.seed(KEY))


@pytest.mark.parametrize("block", [16, 128, 256])
def test_blocks_of_the_last_axis_are_rows_in_memory(block: int) -> None:
    x = numbers(6, 768, BFLOAT16).reshape(3, 2, 768)
    noise = np.random.default_rng(2).uniform(-0.5, 0.5, (3, 1, 768)).astype(np.float32)
    check(x, np.broadcast_to(noise, x.shape), INT8, block, seed=noise)


@pytest.mark.parametrize("shape", [(0, 8), (3, 0), (8,)], ids=str)
def test_arrays_without_rows_or_elements_have_the_scales_of_the_reference(shape: tuple[int, ...]) -> None:
    y, scale = rows.quantize_by_absmax(jnp.zeros(shape), None, INT8, Scaling(127.0, fits=True), None, interpret=True)
    assert_same_bits(y, np.zeros(shape, np.int8))
    assert_same_bits(scale, np.ones((*shape[:-1], 1), np.float32))


# --- how rows are divided ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [1, 8, 16, 100, 128, 1000, 1024, 4096, 5120, 11008, 16384, 70000])
def test_a_thread_holds_few_elements_and_few_threads_have_none(features: int) -> None:
    many, few = tuning.of_rows(features, 1 << 20), tuning.of_rows(features, 2)
    assert many.threads == few.threads
    size = 8 * many.threads
    assert features > rows.ONCE or -(-features // size) <= 5, "pieces"
    assert size < 2 * max(features, 8)
    assert many.warps >= 4
    assert few.all_threads <= max(32, 2 * few.threads)


def test_8_bit_results_that_pallas_cannot_address_are_refused() -> None:
    x = jax.ShapeDtypeStruct(((1 << 21) + 1, 1024), np.float32)
    with pytest.raises(NotImplementedError, match=r"2147484672 elements of int8.*implementation='xla'"):
        jax.eval_shape(lambda x: rows.quantize_by_absmax(x, None, INT8, Scaling(127.0, fits=True), None), x)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("shape", [(64, 1000), (64, 1003), (2, 70000), ((1 << 21) + 1, 1024)], ids=str)
@pytest.mark.parametrize("draws", [False, True], ids=["plain", "noise"])
def test_one_kernel_is_lowered(dtype: str, shape: tuple[int, int], draws: bool) -> None:
    spec = dataclasses.replace(HALVES, draw=Draw("philox", shape) if draws else None)
    x, seed = jax.ShapeDtypeStruct(shape, dtype), jax.ShapeDtypeStruct((4,), np.uint32) if draws else None
    call = lambda x, seed: rows.quantize_by_absmax(x, seed, spec, Scaling(7.5, fits=True), None)  # noqa: E731
    with jax.sharding.use_abstract_mesh(H100):
        text = jax.jit(call).trace(x, seed).lower(lowering_platforms=("cuda",)).as_text()
    assert len(re.findall(r'custom_call @"?__gpu\$xla\.gpu\.triton', text)) == 1


# --- compiled for an H100 ---------------------------------------------------------------------------------------------

FIRST: dict[str, int] = {"philox": 8 * (2**32 - 5), "hash": 2**33 - 25}  # of the elements, in an array larger than that
COMPILED = [  # the shape, the dtype, what is computed, the noise and the configuration
    ((7, 1024), BFLOAT16, INT8, "philox", RowConfiguration(32, 4)),
    ((7, 1000), np.float32, INT8, "philox", RowConfiguration(32, 4)),
    ((7, 1000), BFLOAT16, INT8, "hash", RowConfiguration(32, 4)),
    ((9, 1003), BFLOAT16, INT8, "array", RowConfiguration(32, 4)),
    ((3, 5120), BFLOAT16, INT8, None, RowConfiguration(128, 4)),
    ((3, 4096), np.float16, HALVES, "array", RowConfiguration(128, 4)),
    ((70, 16), np.float32, HALVES, "philox", RowConfiguration(2, 4)),
    ((2, 16384), BFLOAT16, INT8, "philox", None),
    ((2, 40_008), BFLOAT16, INT8, "philox", None),
    ((1, 20_003), np.float32, HALVES, None, None),
]
WIDE = [COMPILED[i] for i in (0, 3, 8)]  # with the indices of arrays beyond 2**31


@pytest.mark.ptx
@pytest.mark.pallas_triton
@pytest.mark.usefixtures("approximate_quotients")
@pytest.mark.parametrize(
    ("shape", "dtype", "spec", "kind", "chosen", "end"),
    [*((*case, shapes.INT32_END) for case in COMPILED), *((*case, 64) for case in WIDE)],
    ids=str,
)
def test_compiled_rows_have_the_formulas_bits(
    shape: tuple[int, int], dtype: Any, spec: QuantSpec, kind: str | None, chosen: RowConfiguration | None, end: int
) -> None:
    from test_compiled_blocks import CONTRACTIBLE  # which needs the compilers

    from tools import ptx

    x = numbers(*shape, dtype)
    noise, given = None, ()
    if kind in ("philox", "hash"):
        first = FIRST[kind]
        spec = dataclasses.replace(spec, draw=Draw(kind, shape, (1 << 30, shape[1]), aligned=first % 8 == 0))
        noise, given = uniform(kind, shape, KEY, first), (streams.seed(KEY, first),)
    elif kind == "array":
        noise = np.random.default_rng(3).uniform(-2, 2, shape).astype(np.float32)
        given = (noise,)

    def call(x: jax.Array, noise: jax.Array | None = None) -> Any:
        return rows.quantize_by_absmax(x, noise, spec, Scaling(spec.bound, fits=True), None, configuration=chosen)

    with mock.patch.object(shapes, "INT32_END", end):
        program = ptx.compile(call, x, *given)
    [kernel] = [kernel for kernel in program.kernels if "fusion" not in kernel.name]
    assert not CONTRACTIBLE.search(kernel.text), "the compiler may make one operation of a product and the noise"
    for actual, want in zip(program(x, *given), expected(x, noise, spec), strict=True):
        assert_same_bits(actual, want)
