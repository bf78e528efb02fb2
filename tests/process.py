"""One of several processes that share eight CPU devices: `python process.py CHECKS INDEX COUNT PORT`.

`test_processes.py` starts them. Every process looks at its own shards, and expects of them what NumPy makes of the
whole array.
"""

import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import streams
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from meshes import collectives
from oracle import assert_same_bits

from intnumerics import IntNumerics, quantize
from intnumerics.stochastic_rounding import PhiloxUniform

DEVICES = 8
SECONDS_TO_MEET = 30

ROUNDING = IntNumerics(8, True, True, True, True, True, None)
NOISY = ROUNDING.replace(noise_fn=PhiloxUniform())
KEY = (0, 42)  # the words of jax.random.key(42)


def mesh(kind: AxisType) -> jax.sharding.Mesh:
    """A row of devices for each process."""
    devices = np.asarray(jax.devices()).reshape(jax.process_count(), -1)
    assert all({d.process_index for d in row} == {i} for i, row in enumerate(devices))
    return jax.sharding.Mesh(devices, ("processes", "local"), axis_types=(kind, kind))


def spread(x: np.ndarray, sharding: NamedSharding) -> jax.Array:
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def assert_own_shards(result: jax.Array, expected: np.ndarray, sharding: NamedSharding) -> None:
    assert result.sharding.is_equivalent_to(sharding, result.ndim), f"{result.sharding} is not {sharding}"
    shards = result.addressable_shards
    assert len(shards) == DEVICES // jax.process_count()
    for shard in shards:
        assert_same_bits(shard.data, expected[shard.index])


def values(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    """An x, many of whose elements are clipped, and a cotangent."""
    rng = np.random.default_rng(0)
    return rng.normal(size=shape).astype(np.float32) * 90, rng.normal(size=shape).astype(np.float32)


def expect_whole(kind: AxisType, calls: list[tuple[P, IntNumerics]], shape: tuple[int, int], sends: bool) -> None:
    """Quantizes sharded arrays, forward and backward; `sends` says whether devices may talk to each other for it."""

    def both(x: jax.Array, g: jax.Array, numerics: IntNumerics, words: np.ndarray) -> tuple[jax.Array, jax.Array]:
        key = jax.random.wrap_key_data(words, impl="threefry2x32")
        y, backward = jax.vjp(lambda x: quantize(x, numerics, key=key), x)
        return y, backward(g)[0]

    def all_of_them(arrays: list[tuple[jax.Array, jax.Array]], words: np.ndarray) -> list[tuple[jax.Array, jax.Array]]:
        return [both(x, g, numerics, words) for (x, g), (_, numerics) in zip(arrays, calls, strict=True)]

    x, g = values(*shape)
    with jax.set_mesh(mesh(kind)):
        shardings = [NamedSharding(mesh(kind), spec) for spec, _ in calls]
        operands = [(spread(x, sharding), spread(g, sharding)) for sharding in shardings], np.asarray(KEY, np.uint32)
        compiled = jax.jit(all_of_them).lower(*operands).compile()
        found = collectives(compiled)
        assert sends or not found, f"{kind} has {found}"
        for (y, gradient), sharding, (_, numerics) in zip(compiled(*operands), shardings, calls, strict=True):
            noise = streams.uniform(shape, KEY) if numerics.noise_fn else np.float32(0)
            assert_own_shards(y, np.rint(np.clip(x + noise, -127, 127)), sharding)
            assert_own_shards(gradient, np.where(np.abs(x) <= 127, g, np.float32(0)), sharding)


def shards_of_the_whole() -> None:
    specs = P("processes"), P("processes", "local"), P("local", "processes")
    for kind in (AxisType.Auto, AxisType.Explicit):
        expect_whole(kind, [(spec, n) for spec in specs for n in (ROUNDING, NOISY)], (16, 64), sends=False)


def shards_that_are_no_whole_bytes() -> None:
    """Of the mask, five bits a device: the bytes of the mask, and blocks of the noise, lie on two processes."""
    for kind in (AxisType.Auto, AxisType.Explicit):
        expect_whole(kind, [(P(None, ("processes", "local")), NOISY)], (3, 5 * DEVICES), sends=True)


def a_key_for_each_shard() -> None:
    """Inside `shard_map` a shard is the array, with the noise of the key that it is given."""
    x, _ = values(DEVICES * 2, 24)
    words = np.asarray([(7, i) for i in range(DEVICES)], np.uint32)
    noise = np.concatenate([streams.uniform((2, 24), (7, i)) for i in range(DEVICES)])
    split = P(("processes", "local"))
    sharding = NamedSharding(mesh(AxisType.Auto), split)

    @jax.jit
    @jax.shard_map(mesh=sharding.mesh, in_specs=split, out_specs=split)
    def run(x: jax.Array, words: jax.Array) -> tuple[jax.Array, jax.Array]:
        key = jax.random.wrap_key_data(words[0], impl="threefry2x32")
        y, backward = jax.vjp(lambda x: quantize(x, NOISY, key=key), x)
        return y, backward(jnp.ones_like(y))[0]

    operands = spread(x, sharding), spread(words, sharding)
    assert not collectives(run.lower(*operands).compile())
    y, gradient = run(*operands)
    assert_own_shards(y, np.rint(np.clip(x + noise, -127, 127)), sharding)
    assert_own_shards(gradient, (np.abs(x) <= 127).astype(np.float32), sharding)


def shards_that_say_where_they_are() -> None:
    """Inside `shard_map` too a shard has the noise of the whole, if it says which rows it has."""
    x, _ = values(DEVICES * 2, 24)
    split = P(("local", "processes"))
    sharding = NamedSharding(mesh(AxisType.Auto), split)

    @jax.jit
    @jax.shard_map(mesh=sharding.mesh, in_specs=split, out_specs=split)
    def run(x: jax.Array) -> jax.Array:
        shard = jax.lax.axis_index(("local", "processes"))
        key = jax.random.key(KEY[1], impl="threefry2x32")
        return quantize(x, NOISY, key=key, offset=(shard * x.shape[0], 0), global_shape=(DEVICES * 2, 24))

    operand = spread(x, sharding)
    assert not collectives(run.lower(operand).compile())
    assert_own_shards(run(operand), np.rint(np.clip(x + streams.uniform(x.shape, KEY), -127, 127)), sharding)


CHECKS: tuple[Callable[[], None], ...] = (
    shards_of_the_whole,
    shards_that_are_no_whole_bytes,
    a_key_for_each_shard,
    shards_that_say_where_they_are,
)


def main(checks: str, index: int, count: int, port: int) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        f"127.0.0.1:{port}",
        count,
        index,
        initialization_timeout=SECONDS_TO_MEET,
        coordinator_bind_address=f"127.0.0.1:{port}",
    )
    assert (jax.process_count(), jax.device_count()) == (count, DEVICES)
    for check in checks.split(","):
        {function.__name__: function for function in CHECKS}[check]()
        print(f"{check} holds in process {index} of {count}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
