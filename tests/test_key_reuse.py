"""JAX's checker of keys (`jax.debug_key_reuse`): one draw of noise is one use of a key, and nothing else is."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.errors import KeyReuseError
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from meshes import KINDS, mesh, placed
from oracle import assert_same_bits
from original import numerics

from intnumerics import (
    Context,
    HardwareUniform,
    HashUniform,
    IntNumerics,
    JaxUniform,
    PhiloxUniform,
    RandomCenteredUniform,
    quantize,
    quantize_to_int,
)

X = np.linspace(-140, 140, 24, dtype=np.float32).reshape(4, 6)
PHILOX = numerics(8, noise_fn=PhiloxUniform())
every_noise = pytest.mark.parametrize(
    "noise_fn", [PhiloxUniform(), HashUniform(), JaxUniform(), RandomCenteredUniform()], ids=repr
)
every_impl = pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])


@pytest.fixture(autouse=True)
def _checked() -> Iterator[None]:
    with jax.debug_key_reuse(True):
        yield


def by_jax(key: jax.Array) -> jax.Array:
    return jax.random.normal(key, (3,))


def uses(n: IntNumerics) -> dict[str, Callable[[jax.Array], Any]]:
    """Whatever of ours takes a key: each draws once."""
    return {
        "quantize": lambda key: quantize(X, n, key=key),
        "quantize_to_int": lambda key: quantize_to_int(X, n, key=key),
        "part": lambda key: quantize(X, n, key=key, offset=(4, 0), global_shape=(8, 6)),
        "fwd": lambda key: n.fwd(X, Context(key)),
        "vjp_fwd": lambda key: n.vjp_fwd(X, Context(key)),
        "noise_fn": lambda key: n.noise_fn((3,), key),  # pyright: ignore[reportOptionalCall]
        "grad": lambda key: jax.grad(lambda x: quantize(x, n, key=key).sum())(X),
        "remat": jax.jit(  # without jit, JAX 0.10 finds two uses in a draw of its own as well
            lambda key: jax.grad(lambda x: jax.checkpoint(lambda x: quantize(x, n, key=key))(x).sum())(X)
        ),
        "vmap": lambda key: jax.vmap(lambda x: quantize(x, n, key=key))(jnp.asarray(X)),
    }


def assert_one_use(draw: Callable[[jax.Array], Any], impl: str | None = None) -> None:
    for first, second in ((draw, by_jax), (by_jax, draw), (draw, draw)):
        key = jax.random.key(0, impl=impl)
        first(key)
        with pytest.raises(KeyReuseError):
            second(key)


@pytest.mark.parametrize("use", uses(PHILOX))
def test_a_draw_is_one_use_of_a_key(use: str) -> None:
    assert_one_use(uses(PHILOX)[use])


@every_impl
@every_noise
def test_a_draw_of_every_noise_function_is_one_use(noise_fn: Any, impl: str) -> None:
    assert_one_use(lambda key: noise_fn((3,), key), impl)


@every_noise
@pytest.mark.parametrize("use", uses(PHILOX))
def test_a_second_use_is_found_before_a_program_is_compiled(use: str, noise_fn: Any) -> None:
    draw = uses(numerics(8, noise_fn=noise_fn))[use]
    jax.jit(draw).trace(jax.random.key(0))
    for second in (draw, by_jax):
        with pytest.raises(KeyReuseError):
            jax.jit(lambda key, second=second: (draw(key), second(key))).trace(jax.random.key(0))


def test_the_noise_of_a_tpu_is_one_use_too() -> None:
    def draw(key: jax.Array) -> jax.Array:
        return HardwareUniform()((3,), key)

    jax.jit(draw).trace(jax.random.key(0))
    with pytest.raises(KeyReuseError):
        jax.jit(lambda key: (draw(key), by_jax(key))).trace(jax.random.key(0))


def test_a_use_under_jit_counts_outside_too() -> None:
    key, run = jax.random.key(0), jax.jit(uses(PHILOX)["grad"])
    run(key)
    for second in (run, by_jax):
        with pytest.raises(KeyReuseError):
            second(key)


@every_impl
@every_noise
def test_keys_that_are_used_once_pass(noise_fn: Any, impl: str) -> None:
    n, x = numerics(8, noise_fn=noise_fn), jnp.asarray(X)

    def loss(x: jax.Array, key: jax.Array) -> jax.Array:
        return jnp.sum(quantize(x, n, key=key) ** 2)

    def step(x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return x - jax.grad(jax.checkpoint(loss))(x, key), quantize(x, n, key=jax.random.fold_in(key, 1))

    def carried(key: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        key, own = jax.random.split(key)
        return key, jax.grad(loss)(x, own)

    def run(key: jax.Array) -> list[Any]:
        a, b, c, d, e = jax.random.split(key, 5)
        return [
            step(x, a),
            jax.vmap(jax.grad(loss))(x, jax.random.split(b, 4)),
            lax.scan(carried, c, x),
            lax.scan(lambda _, xs: (None, jax.grad(loss)(*xs)), None, (x, jax.random.split(d, 4))),
            lax.fori_loop(0, 3, lambda i, x: quantize(x, n, key=jax.random.fold_in(e, i)), x),
        ]

    jax.jit(run).trace(jax.random.key(0, impl=impl))


def test_keys_that_are_used_once_pass_without_jit() -> None:
    first, second, third = jax.random.split(jax.random.key(0), 3)
    for key in (first, second, jax.random.fold_in(third, 0), jax.random.fold_in(third, 1)):
        jax.grad(lambda x, key=key: quantize(x, PHILOX, key=key).sum())(X)
    jax.vmap(lambda x, key: quantize(x, PHILOX, key=key))(X, jax.random.split(third, 4))


def test_a_loop_that_uses_one_key_each_time_is_found() -> None:
    with pytest.raises(KeyReuseError, match="repeatedly"):
        jax.jit(lambda key: lax.scan(lambda _, x: (None, quantize(x, PHILOX, key=key)), None, X))(jax.random.key(0))


def test_a_key_that_a_program_closes_over_is_used_once_too() -> None:
    key = jax.random.key(0)
    run = jax.jit(lambda: quantize(X, PHILOX, key=key))
    run()
    with pytest.raises(KeyReuseError):
        run()


def test_legacy_keys_are_not_looked_at_as_by_jax() -> None:
    key = jax.random.PRNGKey(0)
    for _ in range(2):
        by_jax(key)
        quantize(X, PHILOX, key=key)


@pytest.mark.mesh
@pytest.mark.parametrize("kind", KINDS)
def test_a_use_on_a_mesh_is_one_use(kind: AxisType) -> None:
    on, expected = mesh(kind), quantize(X, PHILOX, key=jax.random.key(0))
    x = placed(X, on, "rows", "lanes")

    def by_shards(key: jax.Array) -> jax.Array:
        offset = (lax.axis_index("rows"), lax.axis_index("lanes") * 3)
        return quantize(X[:1, :3], PHILOX, key=key, offset=offset, global_shape=X.shape)

    for use in (
        lambda key: assert_same_bits(jax.jit(lambda x, key: quantize(x, PHILOX, key=key))(x, key), expected),
        jax.jit(jax.shard_map(by_shards, mesh=on, in_specs=P(), out_specs=P("rows", "lanes"))),
    ):
        key = jax.random.key(0)
        use(key)
        with pytest.raises(KeyReuseError):
            by_jax(key)


@every_impl
def test_the_noise_is_the_same_and_the_program_has_nothing_more_where_keys_are_not_checked(impl: str) -> None:
    def run(key: jax.Array) -> jax.Array:
        return quantize(X, PHILOX, key=key)

    checked = run(jax.random.key(0, impl=impl))
    assert "random_bits" in str(jax.make_jaxpr(run)(jax.random.key(0, impl=impl)))
    with jax.debug_key_reuse(False):
        assert_same_bits(run(jax.random.key(0, impl=impl)), checked)
        assert ("random_bits" in str(jax.make_jaxpr(run)(jax.random.key(0, impl=impl)))) == (impl == "rbg")
