"""The kernels of jax-triton: versions that work together, blocks and numbers of every kind, programs around them."""

import dataclasses
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import meshes
import ml_dtypes
import numpy as np
import oracle
import pytest
import streams
import triton_interpreter
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from oracle import assert_same_bits
from test_kernels import assert_is_formula

from intnumerics import IntNumerics, quantize, quantize_to_int
from intnumerics.kernels import Draw, Generator, QuantSpec
from intnumerics.kernels.gpu import shapes, tuning
from intnumerics.kernels.jax_triton import operations as jax_triton
from intnumerics.stochastic_rounding import PhiloxUniform

NUMERICS = IntNumerics(8, True, True, True, True, True, None)
STOCHASTIC = NUMERICS.replace(noise_fn=PhiloxUniform())
NEAREST = QuantSpec(127.0, clip=True, rounding="half_to_even")
KEY = (0x243F6A88, 0x85A308D3)


@pytest.mark.parametrize("before", [None, "", "/somewhere"])
def test_the_import_of_jax_triton_leaves_the_folder_of_tritons_cache_as_it_was(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """jax-triton sets it to nothing, and then `torch.compile` fails in the same process."""

    def as_jax_triton_does(name: str) -> str:
        os.environ[jax_triton.CACHE] = ""
        return name

    monkeypatch.setenv(jax_triton.CACHE, before or "")  # so that the end of the test restores it
    if before is None:
        monkeypatch.delenv(jax_triton.CACHE)
    with mock.patch.object(jax_triton.importlib, "import_module", as_jax_triton_does):
        assert jax_triton.import_jax_triton() == "jax_triton"
    assert os.environ.get(jax_triton.CACHE) == before


# --- blocks and numbers, interpreted ----------------------------------------------------------------------------------

interpreted = pytest.mark.interpreted


def numbers(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return (np.random.default_rng(7).normal(size=shape) * 100).astype(dtype)


def run(x: np.ndarray, noise: np.ndarray | None, spec: QuantSpec) -> Any:
    return jax.tree.map(np.asarray, triton_interpreter.operations().quantize(x, noise, spec))


@pytest.fixture(params=["32 bits", "64 bits"])
def small_numbers_are_large(request: pytest.FixtureRequest) -> Any:
    """Small arrays in the large blocks of large ones, and with the 64-bit indices of those beyond 2**31."""
    end = shapes.INT32_END if request.param == "32 bits" else 64
    with mock.patch.object(tuning, "BUSY", 2), mock.patch.object(shapes, "INT32_END", end):
        yield


@interpreted
@pytest.mark.usefixtures("small_numbers_are_large")
@pytest.mark.parametrize("dtype", oracle.DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(20_003,), (3, 6_664), (16_384,)], ids=str)
def test_large_blocks_and_their_tail(shape: tuple[int, ...], dtype: np.dtype) -> None:
    x, plain, masked = numbers(shape, dtype), NEAREST, dataclasses.replace(NEAREST, with_mask=True)
    assert_is_formula(run(x, None, plain), x, None, plain)
    y, packed = run(x, None, masked)
    assert_is_formula((y, packed), x, None, masked)
    g, operations = numbers(shape, dtype)[..., ::-1].copy(), triton_interpreter.operations()
    expected = np.where(oracle.mask(x, NEAREST), g, np.zeros_like(g))
    assert_same_bits(operations.clip_gradient_from_mask(g, packed), expected)
    assert_same_bits(operations.clip_gradient_from_x(g, x, NEAREST), expected)


@interpreted
@pytest.mark.usefixtures("small_numbers_are_large")
@pytest.mark.parametrize(
    ("dtype", "integer", "generator", "first"),
    [
        (np.float32, "int8", "philox", 2**35 - 8),
        (ml_dtypes.bfloat16, None, "philox", 2**35 - 8),
        (ml_dtypes.bfloat16, "int32", "philox", 2**35 - 8),
        (ml_dtypes.bfloat16, "int8", "hash", 2**33 - 9001),
    ],
    ids=["float32 to int8", "bfloat16", "bfloat16 to int32", "hash"],
)
def test_noise_of_several_large_blocks_and_examples(
    dtype: Any, integer: str | None, generator: Generator, first: int
) -> None:
    x = numbers((2, 2 * 8192 + 24), dtype)
    keys = [(1, 2), KEY]
    seeds = np.stack([streams.seed(key, first) for key in keys])
    uniform = streams.uniform if generator == "philox" else streams.uniform_hash
    noise = np.stack([uniform(x.shape[1:], key, first // (8 if generator == "philox" else 1)) for key in keys])
    integer_dtype = None if integer is None else np.dtype(integer)
    draw = Draw(generator, x.shape[1:], (1 << 36,), aligned=first % 8 == 0)
    spec = dataclasses.replace(NEAREST, with_mask=True, integer_dtype=integer_dtype, draw=draw)
    assert_is_formula(run(x, seeds, spec), x, noise, spec)


@interpreted
@pytest.mark.usefixtures("small_numbers_are_large")
def test_noise_that_broadcasts_in_large_blocks() -> None:
    x = numbers((5, 3, 4096), np.float32)
    noise = np.random.default_rng(8).uniform(-0.5, 0.5, (5, 1, 4096)).astype(np.float32)
    for spec in (NEAREST, dataclasses.replace(NEAREST, with_mask=True)):
        assert_is_formula(run(x, noise, spec), x, np.broadcast_to(noise, x.shape), spec)


@interpreted
@pytest.mark.parametrize("whole", [(8, 64), (16, 1 << 33), (1 << 30, 1 << 30)], ids=str)
def test_a_part_of_a_larger_array_has_the_noise_of_its_rows(whole: tuple[int, int]) -> None:
    x = numbers((8, 32), np.float32)
    spec = dataclasses.replace(NEAREST, with_mask=True, draw=Draw("philox", x.shape, whole))
    first = 3 * whole[1] + 16
    rows = [streams.uniform((32,), KEY, (first + row * whole[1]) // 8) for row in range(8)]
    assert_is_formula(run(x, streams.seed(KEY, first), spec), x, np.stack(rows), spec)


@pytest.mark.gpu
@pytest.mark.jax_triton
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16], ids=["float32", "bfloat16"])
def test_the_floor_of_a_negative_subnormal_number_is_minus_1(dtype: Any) -> None:
    x = np.asarray([-1e-40, 1e-40, -0.0, -(2.0**-126)], dtype)
    spec = QuantSpec(127.5, clip=True, rounding="floor_plus_half")
    assert_same_bits(
        jax.jit(lambda x: jax_triton.quantize(x, None, spec))(x), np.asarray([-0.5, 0.5, 0.5, -0.5], dtype)
    )


def test_indices_have_64_bits_where_32_do_not_reach() -> None:
    assert not jax_triton.Plan(n=2**31 - 1, size=4096, warps=4).is_wide
    assert jax_triton.Plan(n=2**31, size=4096, warps=4).is_wide
    assert jax_triton.Plan(n=2**20, size=4096, warps=4, examples=2**11).is_wide
    assert not shapes.Sharing.of((8, 4), (2**20, 1)).is_wide
    assert shapes.Sharing.of((9, 4), (2**28, 1)).is_wide


# --- programs, compiled for an H100 -----------------------------------------------------------------------------------


def lower(function: Callable[..., Any], *avals: jax.ShapeDtypeStruct) -> str:
    return jax.jit(function).trace(*avals).lower(lowering_platforms=("cuda",)).as_text()


def by_name(x: jax.Array) -> jax.Array:
    return quantize(x, NUMERICS, implementation="jax_triton")


def with_philox(x: jax.Array) -> jax.Array:
    return quantize(x, STOCHASTIC, key=jax.random.key(0), implementation="jax_triton")


def gradient(x: jax.Array) -> jax.Array:
    return jax.grad(lambda x: with_philox(x).astype(jnp.float32).sum())(x)


def to_int(x: jax.Array) -> jax.Array:
    return quantize_to_int(x, STOCHASTIC, key=jax.random.key(0), implementation="jax_triton")


def in_shard_map(x: jax.Array) -> jax.Array:
    split = P("rows", "lanes")
    return jax.shard_map(gradient, mesh=meshes.mesh(AxisType.Auto), in_specs=split, out_specs=split)(x)


@pytest.mark.aot
@pytest.mark.jax_triton
@pytest.mark.parametrize(
    ("program", "kernels"),
    [
        (by_name, 1),
        (with_philox, 1),
        (to_int, 1),
        (gradient, 2),
        (jax.vmap(gradient), 2),
        (jax.checkpoint(gradient), 2),
        (in_shard_map, 2),
    ],
    ids=["forward", "with noise", "to int", "gradient", "vmap", "checkpoint", "shard_map"],
)
def test_a_program_calls_the_kernels(program: Callable[..., Any], kernels: int) -> None:
    text = lower(program, jax.ShapeDtypeStruct((64, 1024), jnp.bfloat16))
    calls = [name for name in re.findall(r"custom_call @([\w.$]+)\(", text) if "triton" in name]
    assert len(calls) == kernels
    assert not [name for name in calls if name.startswith("__gpu$xla")], "Pallas' kernels"


# What JAX 0.11 and later deprecate: the module that Pallas' kernels import, and the code behind it.
PALLAS_TRITON = ("jax.experimental.pallas.triton", "jax._src.pallas.triton")

# Compiles every operation for an H100, and prints the programs, machine code of the kernels included.
COMPILES = """
import sys

sys.modules |= dict.fromkeys(sys.argv[1].split(), None)  # so that an import of these modules fails

import jax
import jax.numpy as jnp

from bench.aot.cuda import h100
from intnumerics import IntNumerics, quantize, quantize_to_int
from intnumerics.stochastic_rounding import PhiloxUniform

NUMERICS = IntNumerics(8, True, True, True, True, True, None).replace(noise_fn=PhiloxUniform())


def quantized(x, residual):
    y = quantize(x, NUMERICS, key=jax.random.key(0), implementation="jax_triton", residual=residual)
    return y.astype(jnp.float32).sum()


programs = (
    lambda x: quantize_to_int(x, NUMERICS, key=jax.random.key(0), implementation="jax_triton"),
    jax.grad(lambda x: quantized(x, "mask")),
    jax.grad(lambda x: quantized(x, "x")),
)
x = jax.ShapeDtypeStruct((64, 1024), jnp.bfloat16, sharding=jax.NamedSharding(h100(), jax.P()))
for program in programs:
    with jax.set_mesh(h100()):
        print(jax.jit(program).lower(x).compile().as_text())
"""


@pytest.mark.aot
@pytest.mark.jax_triton
def test_the_kernels_compile_to_the_same_programs_without_pallas_lowering_to_triton() -> None:
    root = pathlib.Path(__file__).parent.parent
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)}

    def compiled_without(*modules: str) -> str:
        command = [sys.executable, "-c", COMPILES, " ".join(modules)]
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    found = compiled_without(*PALLAS_TRITON)
    # To integers; forward with the mask, and backward from it; backward from x, for which the forward is not needed.
    assert found.count('custom_call_target="triton_kernel_call"') == 1 + 2 + 1
    assert found == compiled_without()
