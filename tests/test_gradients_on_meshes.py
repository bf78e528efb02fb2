"""Gradients where x and its noise lie differently on a mesh, as where each device has noise of its own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from meshes import KINDS, mesh, placed
from oracle import assert_same_bits
from original import dither, numerics, spec_of
from refusals import refused

from intnumerics import JaxUniform, PhiloxUniform, quantize

pytestmark = pytest.mark.mesh

N = numerics(4)
W = np.asarray([-9, -7, -7.25, 7.5, 0.5, 3, np.nan, np.inf, 7, 100, -0.0, 1, 2, 3, 4, -5], np.float32)
X = np.random.default_rng(0).integers(-8, 9, (8, 16)).astype(np.float32)  # whole, so that sums are exact
KEY = jax.random.key(0)
INSIDE = oracle.mask(W, spec_of(N))


def with_key_of_the_device(w: jax.Array, n: Any, **how: Any) -> jax.Array:
    return quantize(w, n, key=jax.random.fold_in(KEY, jax.lax.axis_index("d")), **how)


def with_offset(w: jax.Array, n: Any, **how: Any) -> jax.Array:
    return quantize(w, n, key=KEY, offset=(jax.lax.axis_index("d") * 16,), global_shape=(128,), **how)


def with_three_keys(w: jax.Array, n: Any, **how: Any) -> jax.Array:
    keys = jax.random.split(jax.random.fold_in(KEY, jax.lax.axis_index("d")), 3)
    return jax.vmap(lambda key: quantize(w, n, key=key, **how))(keys).sum(axis=0)


@pytest.mark.parametrize(
    ("residual", "noise_fn"),
    [("mask", PhiloxUniform()), ("x", PhiloxUniform()), (None, PhiloxUniform()), ("mask", JaxUniform()), ("x", dither)],
    ids=["mask, philox", "x, philox", "nothing, philox", "mask, jax", "x, function"],
)
@pytest.mark.parametrize("quantizer", [with_key_of_the_device, with_offset, with_three_keys])
@pytest.mark.parametrize("kind", KINDS)
def test_an_x_that_all_devices_have_gets_the_sum_of_their_gradients(
    kind: AxisType, quantizer: Any, noise_fn: Any, residual: Any
) -> None:
    on = mesh(kind, sizes=(8,), names=("d",))
    n = N.replace(noise_fn=noise_fn, clip_gradient=residual is not None)
    how = {"residual": residual} if residual else {}

    def loss(w: jax.Array, x: jax.Array) -> jax.Array:
        return jax.lax.psum(jnp.sum(quantizer(w, n, **how) * x[0]), "d")

    sharded = jax.shard_map(loss, mesh=on, in_specs=(P(), P("d")), out_specs=P())
    gradient = jax.jit(jax.grad(sharded))(placed(W, on), placed(X, on, "d"))
    times = 3 if quantizer is with_three_keys else 1
    expected = np.float32(times) * X.sum(axis=0)
    assert_same_bits(np.asarray(gradient), np.where(INSIDE, expected, np.float32(0)) if residual else expected)


@pytest.mark.parametrize("residual", ["mask", "x"])
def test_an_x_that_is_whole_beside_noise_that_is_split_has_a_gradient_that_is_whole(residual: Any) -> None:
    on = mesh(AxisType.Explicit, sizes=(8,), names=("d",))
    noise = np.linspace(-0.5, 0.5, 48, dtype=np.float32).reshape(16, 3)

    def loss(w: jax.Array, noise: jax.Array, g: jax.Array) -> jax.Array:
        n = N.replace(noise_fn=lambda shape, key: noise)
        return jnp.sum(quantize(w, n, key=KEY, residual=residual) * g)

    w, g = (np.repeat(a[:, None], 3, axis=1) for a in (W, X[0]))
    with jax.set_mesh(on):
        for axes in (("d",), (None, None)):
            split = placed(noise, on, *axes), placed(g, on, "d")
            value, gradient = jax.jit(jax.value_and_grad(loss))(placed(np.nan_to_num(w), on), *split)
            inside = oracle.mask(np.nan_to_num(w), spec_of(N))
            assert_same_bits(np.asarray(gradient), np.where(inside, g, np.float32(0)))
            assert jax.typeof(gradient).sharding.spec == P(None, None)
            quantized = oracle.quantize(np.nan_to_num(w), noise, spec_of(N))
            assert value == (quantized * g).sum()


@pytest.mark.parametrize("residual", ["mask", "x"])
@pytest.mark.parametrize("noisy", [False, True], ids=["nearest", "noise"])
@pytest.mark.parametrize("kind", KINDS)
def test_second_derivatives_go_straight_through_inside_shard_map(kind: AxisType, noisy: bool, residual: Any) -> None:
    on = mesh(kind, sizes=(8,), names=("d",))
    n = N.replace(noise_fn=PhiloxUniform() if noisy else None)
    x = np.where(np.isfinite(W), W, 0)[None] + np.arange(8, dtype=np.float32)[:, None] / 4

    def second(x: jax.Array) -> jax.Array:
        cube = lambda x: jnp.sum(with_key_of_the_device(x, n, residual=residual) ** 3)  # noqa: E731
        return jax.grad(lambda x: jax.grad(cube)(x).sum())(x)

    sharded = jax.shard_map(second, mesh=on, in_specs=P("d"), out_specs=P("d"), check_vma=True)
    found = np.asarray(jax.jit(sharded)(placed(x, on, "d")))
    inside = oracle.mask(x, spec_of(n))
    if not noisy:
        assert_same_bits(found, np.where(inside, 6 * oracle.quantize(x, None, spec_of(n)), 0).astype(np.float32))
    assert ((found == 0) | inside).all()
    assert (np.abs(found) == 42).any()


def test_an_array_whose_cotangent_is_a_sum_still_to_be_taken_is_refused() -> None:
    on = mesh(AxisType.Explicit)
    w = jax.device_put(W.reshape(2, 8), NamedSharding(on, P(None, None, reduced={"rows"})))
    with jax.set_mesh(on):
        with refused(ValueError, "reduced={'rows'}", "jax.sharding.reshard"):
            jax.jit(lambda w: quantize(w, N))(w)
        slope = jax.jit(jax.grad(lambda w: quantize(jax.sharding.reshard(w, P(None, None)), N).sum()))(w)
    whole = jax.sharding.reshard(slope, NamedSharding(on, P(None, None)))
    assert_same_bits(np.asarray(whole).ravel(), np.where(INSIDE, np.float32(1), np.float32(0)))
