"""The table of block sizes and warps: what is looked up in it, and that every entry could only change the speed."""

import dataclasses
import importlib
import itertools
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import streams
from conftest import missing_device
from meshes import H100
from oracle import assert_same_bits
from test_kernels import assert_is_formula

from intnumerics.kernels import KERNEL_DTYPES, Draw, QuantSpec
from intnumerics.kernels.gpu import tuning
from intnumerics.kernels.gpu.pallas import Compiler
from intnumerics.kernels.gpu.tuning import Configuration, Row
from intnumerics.kernels.pallas_mosaic_gpu import interpreter
from intnumerics.kernels.pallas_mosaic_gpu import operations as pallas_mosaic_gpu
from tools import tune_search

ROOT = pathlib.Path(__file__).parent.parent
NEAREST = QuantSpec(127.0, clip=True, rounding="half_to_even")
MASKED = dataclasses.replace(NEAREST, with_mask=True)
INT8 = dataclasses.replace(NEAREST, integer_dtype=np.dtype(np.int8))
KERNELS: tuple[tuning.Kernels, ...] = ("pallas_triton", "pallas_mosaic_gpu", "jax_triton")
TUNED = KERNELS[:2]
TRITON = pytest.param("pallas_triton", marks=pytest.mark.pallas_triton)
every_name = pytest.mark.parametrize("name", [TRITON, "pallas_mosaic_gpu"])
KEY = (0x243F6A88, 0x85A308D3)
MEASURED = "2026-12-01, JAX 0.11.2, driver 570.124.06, 2**26 elements: 5.1% less device time"
ROW = Row("pallas_triton", "a GPU", "bfloat16", "quantize", Configuration(8192, 8), MEASURED)


def room_of(name: str) -> Any:
    """The functions of an implementation."""
    return importlib.import_module(f"intnumerics.kernels.{name}")


# --- what is looked up ------------------------------------------------------------------------------------------------


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts rows in the place of the table's."""
    return lambda *rows: monkeypatch.setattr(tuning, "TABLE", rows)


@pytest.mark.parametrize(
    ("operation", "n", "examples", "block"),
    [
        ("quantize", 1, 1, 1024),
        ("quantize", 512 * 4096 - 1, 1, 1024),
        ("quantize", 512 * 4096, 1, 4096),
        ("quantize", 1 << 30, 1, 4096),
        ("clip gradient from x", 1 << 30, 1, 4096),
        ("quantize, noise drawn", 512 * 4096, 1, 4096),
        ("quantize, noise drawn", 512 * 8192, 1, 8192),
        ("quantize to int8, noise drawn, with mask", 512 * 8192, 1, 8192),
        ("quantize, noise drawn", 8192, 512, 8192),
        ("quantize, noise drawn", 8191, 1 << 20, 4096),
        ("quantize, noise drawn", 100, 1 << 20, 1024),
    ],
)
def test_an_unknown_device_has_the_largest_default_that_keeps_it_busy(
    operation: str, n: int, examples: int, block: int, table: Callable[..., None]
) -> None:
    table()
    for device in (None, "a device that nobody measured"):
        for name in KERNELS:
            assert tuning.configuration(name, device, "float32", operation, n, examples) == Configuration(block, 4)


def test_a_row_is_for_its_implementation_device_dtype_and_operation_and_for_arrays_that_fill_enough_of_its_blocks(
    table: Callable[..., None],
) -> None:
    table(dataclasses.replace(ROW, device="another"), ROW)
    n = 512 * 8192
    assert tuning.configuration(*tuning.key_of(ROW), n) == ROW.configuration
    assert tuning.configuration(*tuning.key_of(ROW), n - 1) == Configuration(4096, 4)
    others: list[tuple[tuning.Kernels, str | None, str, str]] = [
        ("pallas_mosaic_gpu", "a GPU", "bfloat16", "quantize"),
        ("jax_triton", "a GPU", "bfloat16", "quantize"),
        ("pallas_triton", "the same", "bfloat16", "quantize"),
        ("pallas_triton", None, "bfloat16", "quantize"),
        ("pallas_triton", "a GPU", "float32", "quantize"),
        ("pallas_triton", "a GPU", "bfloat16", "quantize to int8"),
    ]
    for other in others:
        assert tuning.configuration(*other, n) == Configuration(4096, 4)


@pytest.mark.parametrize(
    ("spec", "with_noise", "name"),
    [
        (NEAREST, False, "quantize"),
        (INT8, False, "quantize to int8"),
        (MASKED, False, "quantize, with mask"),
        (NEAREST, True, "quantize, noise read"),
        (dataclasses.replace(INT8, with_mask=True, draw=Draw("philox", (8,))), True,
         "quantize to int8, noise drawn, with mask"),
    ],
)  # fmt: skip
def test_a_quantization_is_named_for_what_it_reads_and_writes(spec: QuantSpec, with_noise: bool, name: str) -> None:
    assert tuning.quantization(spec, with_noise) == name


@pytest.mark.parametrize(
    ("block", "warps", "reason"),
    [
        (1000, 1, "powers of 2"),
        (0, 1, "powers of 2"),
        (4096, 3, "powers of 2"),
        (1 << 20, 64, "32 at most"),
        (512, 4, "at least 1024"),
    ],
)
def test_a_configuration_that_no_kernel_can_have_is_refused(block: int, warps: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Configuration(block, warps)


@pytest.mark.parametrize("interpret", [False, True])
@pytest.mark.parametrize("warps", [1, 8])
def test_mosaic_takes_blocks_of_four_warps_only(warps: int, interpret: bool) -> None:
    x, how = np.zeros(16384, np.float32), {"interpret": interpret, "configuration": Configuration(8192, warps)}
    reason = rf"block=8192, warps={warps}\) is not for implementation='pallas_mosaic_gpu'.*give 4 warps"
    for run in (
        lambda: pallas_mosaic_gpu.quantize(x, None, NEAREST, **how),
        lambda: pallas_mosaic_gpu.clip_gradient_from_mask(x, np.zeros(2048, np.uint8), **how),
        lambda: pallas_mosaic_gpu.clip_gradient_from_x(x, x, NEAREST, **how),
    ):
        with pytest.raises(ValueError, match=reason):
            run()


def calls_of_kernels(jaxpr: Any) -> Iterator[dict[str, Any]]:
    """The parameters of each call of a kernel in a program."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("pallas_call", "mpmd_map"):
            yield equation.params
            continue
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from calls_of_kernels(inner)


def how_it_runs(function: Callable[..., Any], *arrays: Any) -> tuple[int, int]:
    """Programs and warps of the kernel in a function; a program of Mosaic is a warpgroup."""
    interpreted = []

    def run(body: Any, grid: tuple[int], inputs: Any, results: Sequence[jax.ShapeDtypeStruct]) -> list[jax.Array]:
        interpreted.append(grid[0])
        return [jnp.zeros(result.shape, result.dtype) for result in results]

    with mock.patch.object(interpreter, "run", run):
        calls = [*calls_of_kernels(jax.make_jaxpr(function)(*arrays))]
    if interpreted:
        return interpreted[0], 4
    [call] = calls
    if "meshes" in call:
        [mesh] = call["meshes"]
        return mesh.grid[0], 4
    return call["grid_mapping"].grid[0], getattr(call["compiler_params"], "num_warps", 4)


@every_name
def test_a_kernel_runs_as_the_row_of_the_device_of_the_mesh_says_and_interpreted_as_the_default(
    name: Compiler, table: Callable[..., None]
) -> None:
    room, warps, fewer = room_of(name), *((8, 2) if name == "pallas_triton" else (4, 4))
    device = H100.abstract_device
    n, spec = 512 * 16384, dataclasses.replace(NEAREST, draw=Draw("philox", (512 * 16384,)))
    x, seed, mask = (jax.ShapeDtypeStruct(*a) for a in (((n,), "bfloat16"), ((4,), "uint32"), ((n // 8,), "uint8")))
    calls = {
        "quantize": (lambda x, **how: room.quantize(x, None, NEAREST, **how), x),
        "quantize, noise drawn": (lambda x, seed, **how: room.quantize(x, seed, spec, **how), x, seed),
        "clip gradient from mask": (room.clip_gradient_from_mask, x, mask),
        "clip gradient from x": (lambda g, x, **how: room.clip_gradient_from_x(g, x, NEAREST, **how), x, x),
    }
    row = Row(name, device.device_kind, "bfloat16", "quantize", Configuration(16384, warps), MEASURED)
    table(*(dataclasses.replace(row, operation=operation) for operation in calls))
    with jax.sharding.use_abstract_mesh(H100):
        for operation, (function, *arrays) in calls.items():
            assert how_it_runs(function, *arrays) == (512, warps), operation
            default = n // tuning.defaults(operation)[0].block
            assert how_it_runs(lambda *a, f=function: f(*a, interpret=True), *arrays) == (default, 4), operation
            forced = lambda *a, f=function: f(*a, configuration=Configuration(2048, fewer))  # noqa: E731
            assert how_it_runs(forced, *arrays) == (n // 2048, fewer), operation


def test_without_a_mesh_the_device_is_the_gpu_of_this_process_or_unknown() -> None:
    expected = None if missing_device("gpu") else jax.devices("gpu")[0].device_kind
    assert tuning.device_kind() == expected


# --- what is in it ----------------------------------------------------------------------------------------------------

SAYS_WHERE = re.compile(
    r"20\d\d-\d\d-\d\d, JAX \d+(\.\d+)+, driver \d\S*, 2\*\*\d+ elements: \d+\.\d% "
    r"less (device time|wall time|time in a queue)"
)
OPERATIONS = {case.operation for case in tune_search.cases(1024, ["float32"])}


def is_measured(row: Row) -> bool:
    known = row.dtype in KERNEL_DTYPES and row.operation in OPERATIONS and bool(row.device)
    if row.implementation not in TUNED or row.configuration not in tune_search.candidates(row.implementation):
        return False
    return known and bool(SAYS_WHERE.fullmatch(row.measured))


@pytest.mark.parametrize(
    "wrong",
    [
        {"measured": ""},
        {"measured": MEASURED.replace("2026-12-01, ", "")},
        {"measured": MEASURED.replace("driver 570.124.06", "driver unknown")},
        {"operation": "quantise"},
        {"dtype": "float64"},
        {"device": ""},
        {"implementation": "jax_triton"},
        {"implementation": "pallas_mosaic_gpu"},  # has no blocks of eight warps
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_row_of_the_table_says_where_it_was_measured(wrong: dict[str, str]) -> None:
    assert is_measured(ROW)
    assert not is_measured(dataclasses.replace(ROW, **wrong))
    assert [row for row in tuning.TABLE if not is_measured(row)] == []


# --- it changes the speed alone ---------------------------------------------------------------------------------------


def check_all(name: str, x: np.ndarray, g: np.ndarray, shape: tuple[int, ...], configuration: Configuration) -> None:
    """Compares every operation, interpreted, with the formula; the noise is drawn for examples of `shape`."""
    to_int8 = dataclasses.replace(INT8, with_mask=True, draw=Draw("philox", shape))
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, x.shape).astype(np.float32)
    room, how = room_of(name), {"interpret": True, "configuration": configuration}

    def run(x: jax.Array, g: jax.Array, noise: jax.Array, seed: jax.Array) -> dict[str, Any]:
        masked = room.quantize(x, None, MASKED, **how)
        return {
            "masked": masked,
            "read": room.quantize(x, noise, NEAREST, **how),
            "drawn": room.quantize(x, seed, to_int8, **how),
            "from mask": room.clip_gradient_from_mask(g, masked[1], **how),
            "from x": room.clip_gradient_from_x(g, x, NEAREST, **how),
        }

    seed = streams.seed(KEY).reshape((1,) * (x.ndim - len(shape)) + (4,))  # one, which a batch shares
    found = jax.tree.map(np.asarray, jax.jit(run)(x, g, noise, seed))
    drawn = np.broadcast_to(streams.uniform(shape, KEY), x.shape)
    gradient = np.where(oracle.mask(x, NEAREST), g, np.zeros_like(g))
    assert_is_formula(found["masked"], x, None, MASKED)
    assert_is_formula(found["read"], x, noise, NEAREST)
    assert_is_formula(found["drawn"], x, drawn, dataclasses.replace(to_int8, draw=None))
    assert_same_bits(found["from mask"], gradient)
    assert_same_bits(found["from x"], gradient)


def numbers(shape: tuple[int, ...], dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    x, g = ((random.normal(size=shape) * scale).astype(dtype) for scale in (100, 1))
    x.reshape(-1)[:5] = np.asarray([np.nan, -0.0, np.inf, -np.inf, 126.5], dtype)
    return x, g


# There are no warps where interpreted, and every block is tried with four too.
BLOCKS = sorted({configuration.block for name in TUNED for configuration in tune_search.candidates(name)})


@pytest.mark.tools
@every_name
@pytest.mark.parametrize(("block", "dtype"), list(zip(BLOCKS, itertools.cycle(oracle.DTYPES), strict=False)), ids=str)
def test_every_block_that_is_tried_gives_the_formula_in_whole_blocks_and_in_a_tail(
    block: int, dtype: np.dtype, name: str
) -> None:
    shape = (block + (13 if name == "pallas_triton" else 16),)  # Mosaic's kernel takes masks of whole bytes only
    check_all(name, *numbers(shape, dtype), shape, Configuration(block, 4))


SMALLEST, LARGEST = BLOCKS[0], BLOCKS[-1]


@pytest.mark.tools
@pytest.mark.pallas_triton
@pytest.mark.parametrize(
    ("shape", "block"),
    [((5,), SMALLEST), ((16384,), LARGEST), ((3, 1032), SMALLEST), ((2, 3, 130), LARGEST), ((2, 3, 130), SMALLEST)],
    ids=str,
)
def test_so_it_does_for_less_than_a_block_for_no_tail_for_rows_and_for_a_batch_with_one_seed(
    shape: tuple[int, ...], block: int
) -> None:
    check_all("pallas_triton", *numbers(shape, oracle.DTYPES[0]), shape[-1:], Configuration(block, 4))


# --- with the real compiler -------------------------------------------------------------------------------------------

COMPILE = """
import re
from bench.aot import cases, cuda
from intnumerics.kernels.gpu import tuning
names = {
    "pallas_triton: quantize bfloat16 -> int8": "quantize to int8",
    "pallas_triton: quantize bfloat16 -> int8 with Philox": "quantize to int8, noise drawn",
    "pallas_triton: clip gradient from mask, bfloat16": "clip gradient from mask",
}
for case in cases.cases("cuda"):
    if case.name in names:
        configuration = tuning.Configuration(16384, 8)
        key = ("pallas_triton", "NVIDIA H100 80GB HBM3", "bfloat16", names[case.name])
        tuning.TABLE = (tuning.Row(*key, configuration, ""),)
        text = case.compiled(cuda.h100()).as_text()
        print(*re.findall(r"grid_x = ([0-9]+)", text), *re.findall(r"num_warps = ([0-9]+)", text))
"""


@pytest.mark.aot
def test_a_row_for_an_h100_is_what_is_compiled_for_one_that_is_not_there() -> None:
    """In a process of its own, in which JAX looks for no other device."""
    command, environment = [sys.executable, "-c", COMPILE], {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split("\n") == [f"{(1 << 24) // 16384} 8"] * 3 + [""]
