"""Programs that are exported, stored and called elsewhere, where this package need not be."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import streams
from jax import export
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from meshes import collectives, mesh
from oracle import assert_same_bits

import intnumerics
from intnumerics import Context, IntNumerics, PhiloxUniform, quantize, quantize_to_int

pytest.importorskip("flatbuffers", reason="jax.export needs flatbuffers: pip install flatbuffers")

ROUNDING = IntNumerics(8, True, True, True, True, True, None)
NOISY = ROUNDING.replace(noise_fn=PhiloxUniform())
WORDS = np.asarray([0, 42], np.uint32)  # of jax.random.key(42)
X, G = np.random.default_rng(0).normal(size=(2, 16, 64)).astype(np.float32) * 90
QUIET = np.rint(np.clip(X, -127, 127))
WITH_NOISE = np.rint(np.clip(X + streams.uniform(X.shape, (0, 42)), -127, 127))
GRADIENT = np.where(np.abs(X) <= 127, G, np.float32(0))
PLATFORMS = "cpu", "cuda", "tpu"

every_split = pytest.mark.parametrize("spec", [P("rows"), P("rows", "lanes"), P(None, ("rows", "lanes"))], ids=str)

# What another process does: it loads a program, calls it, and knows of intnumerics no more than its bytes.
CALLER = """
import pathlib, sys
import numpy as np
from jax import export

exported = export.deserialize(pathlib.Path("program").read_bytes())
with np.load("arguments.npz") as arguments:
    results = exported.call(*arguments.values())
np.savez("results.npz", *results)
assert not [name for name in sys.modules if name.split(".")[0] == "intnumerics"]
"""


def with_noise(x: jax.Array, words: jax.Array) -> jax.Array:
    return quantize(x, NOISY, key=jax.random.wrap_key_data(words, impl="threefry2x32"))


def everything(x: jax.Array, g: jax.Array, words: jax.Array) -> tuple[jax.Array, ...]:
    key = jax.random.wrap_key_data(words, impl="threefry2x32")
    y, backward = jax.vjp(lambda x: with_noise(x, words), x)
    return y, backward(g)[0], quantize_to_int(x, NOISY, key=key)


def stored(function: Callable[..., Any], *arguments: Any, vjp_order: int = 0, **how: Any) -> export.Exported:
    """What comes back from the bytes that a function is exported to."""
    return export.deserialize(export.export(jax.jit(function), **how)(*arguments).serialize(vjp_order=vjp_order))


# --- one device -------------------------------------------------------------------------------------------------------


def test_one_program_for_several_platforms_runs_in_a_process_without_this_package(tmp_path: pathlib.Path) -> None:
    exported = export.export(jax.jit(everything), platforms=PLATFORMS)(X, G, WORDS)
    assert exported.platforms == PLATFORMS
    (tmp_path / "program").write_bytes(exported.serialize())
    np.savez(tmp_path / "arguments.npz", X, G, WORDS)
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", CALLER]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "results.npz") as results:
        y, gradient, integers = results.values()
    assert_same_bits(y, WITH_NOISE)
    assert_same_bits(gradient, GRADIENT)
    assert_same_bits(integers, WITH_NOISE.astype(np.int8))


def test_a_stored_program_has_its_gradient() -> None:
    program = stored(with_noise, X, WORDS, vjp_order=1, platforms=PLATFORMS)
    y, backward = jax.vjp(lambda x: program.call(x, WORDS), jnp.asarray(X))
    assert_same_bits(y, WITH_NOISE)
    assert_same_bits(backward(jnp.asarray(G))[0], GRADIENT)


# --- several devices --------------------------------------------------------------------------------------------------


def assert_split(results: Any, expected: tuple[np.ndarray, ...], sharding: NamedSharding) -> None:
    for result, values in zip(results, expected, strict=True):
        assert result.sharding.is_equivalent_to(sharding, values.ndim)
        assert_same_bits(result, values)


def assert_sends_nothing(program: export.Exported, sharding: NamedSharding) -> None:
    """A stored program on sharded arrays: right, split as they are, and without a collective."""
    x, g = jax.device_put((X, G), sharding)
    compiled = jax.jit(program.call).lower(x, g, WORDS).compile()
    assert not collectives(compiled)
    assert_split(compiled(x, g, WORDS), (WITH_NOISE, GRADIENT, WITH_NOISE.astype(np.int8)), sharding)


@pytest.mark.mesh
@every_split
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_a_program_for_one_device_takes_sharded_arrays_and_sends_nothing(kind: AxisType, spec: P) -> None:
    assert_sends_nothing(stored(everything, X, G, WORDS, platforms=PLATFORMS), NamedSharding(mesh(kind), spec))


@pytest.mark.mesh
@every_split
def test_a_program_for_a_mesh_of_explicit_axes(spec: P) -> None:
    with jax.set_mesh(mesh(AxisType.Explicit)):
        sharding = NamedSharding(mesh(AxisType.Explicit), spec)
        x, g = jax.device_put((X, G), sharding)
        program = stored(everything, x, g, WORDS)
        assert program.nr_devices == 8
        results = jax.jit(program.call)(x, g, WORDS)
    assert_split(results, (WITH_NOISE, GRADIENT, WITH_NOISE.astype(np.int8)), sharding)


def rounding(x: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    y, backward = jax.vjp(lambda x: quantize(x, ROUNDING), x)
    return y, backward(g)[0]


@pytest.mark.mesh
@every_split
def test_a_program_for_a_mesh_of_auto_axes_is_exported_from_shard_map(spec: P) -> None:
    sharding = NamedSharding(mesh(AxisType.Auto), spec)
    x, g = jax.device_put((X, G), sharding)
    mapped = jax.shard_map(rounding, mesh=sharding.mesh, in_specs=spec, out_specs=spec)
    program = stored(mapped, x, g, platforms=PLATFORMS)
    assert program.nr_devices == 8
    assert_split(jax.jit(program.call)(x, g), (QUIET, GRADIENT), sharding)


@pytest.mark.mesh
@pytest.mark.parametrize(
    "function", [rounding, lambda x, g: quantize(x, NOISY, key=jax.random.key(42))], ids=["mask", "noise"]
)
def test_outside_of_shard_map_programs_that_ask_a_partitioner_cannot_be_exported(function: Callable[..., Any]) -> None:
    # The partitioner asks a Python function how to split the call, and JAX cannot store that function.
    x, g = jax.device_put((X, G), NamedSharding(mesh(AxisType.Auto), P("rows")))
    with pytest.raises(NotImplementedError, match="serialization of host_callbacks is not yet implemented"):
        export.export(jax.jit(function))(x, g)


@pytest.mark.mesh
@every_split
def test_a_quantization_that_xla_splits_is_exported_for_a_mesh_of_auto_axes(spec: P) -> None:
    sharding = NamedSharding(mesh(AxisType.Auto), spec)
    x = jax.device_put(X, sharding)
    program = stored(lambda x: [quantize(x, ROUNDING)], x, platforms=PLATFORMS)
    assert program.nr_devices == 8
    assert_split(jax.jit(program.call)(x), (QUIET,), sharding)


# --- several devices, and shapes with symbols (the rest of those is in test_symbolic_shapes.py) -----------------------


def symbolic(shape: str) -> tuple[Any, ...]:
    """x and g for `everything`, of a shape with symbols, and the words of a key."""
    x = jax.ShapeDtypeStruct(export.symbolic_shape(shape), np.float32)
    return x, x, WORDS


@pytest.mark.mesh
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_a_program_for_any_shape_on_one_device_takes_sharded_arrays_and_sends_nothing(kind: AxisType) -> None:
    program = stored(everything, *symbolic("b, n"), platforms=PLATFORMS)
    assert_sends_nothing(program, NamedSharding(mesh(kind), P("rows", "lanes")))


@pytest.mark.mesh
@every_split
def test_a_program_for_any_shape_is_exported_for_a_mesh_of_auto_axes(spec: P) -> None:
    """No Python function splits it, as no kernel is in it: XLA splits plain jnp."""
    sharding = NamedSharding(mesh(AxisType.Auto), spec)
    split = jax.jit(everything, in_shardings=(sharding, sharding, None))
    program = export.deserialize(export.export(split, platforms=PLATFORMS)(*symbolic("8*b, 64")).serialize())
    assert program.nr_devices == 8
    x, g = jax.device_put((X, G), sharding)
    results = jax.jit(program.call)(x, g, WORDS)
    assert_split(results, (WITH_NOISE, GRADIENT, WITH_NOISE.astype(np.int8)), sharding)


# --- numerics and contexts among the arguments ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"noise_fn": PhiloxUniform(), "noise_dtype": jnp.float32, "dtype": jnp.int8},
        {
            "noise_fn": PhiloxUniform(noise_sharing_axes=(0,)),
            "dtype": "bfloat16",
            "bits": np.int64(4),
            "clip": np.True_,
        },
    ],
    ids=["none", "philox", "shared"],
)
def test_a_stored_program_takes_and_returns_numerics_and_a_context(fields: dict[str, Any]) -> None:
    n, context = ROUNDING.replace(**fields), Context(jax.random.key(42))

    def run(x: jax.Array, n: IntNumerics, context: Context) -> tuple[jax.Array, IntNumerics]:
        return n.fwd(x, context), n

    y, again = stored(run, X, n, context).call(X, n, context)
    assert_same_bits(y, n.fwd(X, context))
    assert again == n
    with pytest.raises(ValueError, match="structure"):
        stored(run, X, n, context).call(X, n.replace(bits=5), context)


@pytest.mark.parametrize("name", [name for name in intnumerics.__all__ if name.endswith("Uniform")])
def test_every_noise_class_of_the_package_is_stored(name: str) -> None:
    n = ROUNDING.replace(noise_fn=getattr(intnumerics, name)())
    assert stored(lambda n: n, n).call(n) == n


def test_another_noise_function_is_not_stored_with_a_program() -> None:
    n = ROUNDING.replace(noise_fn=lambda shape, key: 0.25)
    with pytest.raises(ValueError, match=r"noise_fn=.* close over the numerics"):
        stored(lambda x, n, key: quantize(x, n, key=key), X, n, jax.random.key(0))
    closed = stored(lambda x, key: quantize(x, n, key=key), X, jax.random.key(0))
    assert_same_bits(closed.call(X, jax.random.key(0)), np.rint(np.clip(X + np.float32(0.25), -127, 127)))
