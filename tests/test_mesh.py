"""Sharded arrays: the plain-jnp form moves nothing between devices, and every form works inside shard_map."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from oracle import assert_same_bits

from intnumerics import IntNumerics, quantize
from intnumerics.stochastic_rounding import JaxUniform, NoiseFn, PhiloxUniform

NUMERICS = IntNumerics(8, True, True, True, True, True, None)
X = np.random.default_rng(0).normal(size=(16, 64)).astype(np.float32) * 90
MASK = np.abs(X) <= 127
EXPECTED = np.rint(np.clip(X, -127, 127))
COLLECTIVE = re.compile(r"all-gather|all-reduce|collective-permute|all-to-all")

pytestmark = pytest.mark.skipif(len(jax.devices("cpu")) < 8, reason="needs 8 CPU devices, as conftest.py asks JAX for")


def mesh(kind: AxisType) -> jax.sharding.Mesh:
    return jax.make_mesh((4, 2), ("rows", "lanes"), axis_types=(kind, kind), devices=jax.devices("cpu")[:8])


def gradient(x: jax.Array, **how: Any) -> jax.Array:
    return jax.grad(lambda x: jnp.sum(quantize(x, NUMERICS, **how)))(x)


@pytest.mark.parametrize("spec", [P("rows"), P("rows", "lanes"), P(None, "lanes"), P(None, ("rows", "lanes")), P()])
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def test_forward_and_backward_of_a_sharded_array_need_no_collective(kind: AxisType, spec: P) -> None:
    with jax.set_mesh(mesh(kind)):
        x = jax.device_put(X, NamedSharding(mesh(kind), spec))
        for function, expected in ((lambda x: quantize(x, NUMERICS), EXPECTED), (gradient, MASK.astype(np.float32))):
            compiled = jax.jit(function).lower(x).compile()
            assert not COLLECTIVE.search(compiled.as_text())
            result = compiled(x)
            assert result.sharding.is_equivalent_to(x.sharding, x.ndim)
            assert_same_bits(result, expected)


@pytest.mark.parametrize("spec", [P("rows"), P("rows", "lanes"), P(None, "lanes"), P(None, ("rows", "lanes")), P()])
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
@pytest.mark.parametrize("noise_fn", [PhiloxUniform(), JaxUniform()], ids=lambda f: type(f).__name__)
def test_noise_of_a_sharded_array_is_that_of_the_whole_and_needs_no_collective(
    noise_fn: NoiseFn, kind: AxisType, spec: P
) -> None:
    key, noisy = jax.random.key(42, impl="threefry2x32"), NUMERICS.replace(noise_fn=noise_fn)
    noise = np.asarray(noise_fn(X.shape, key))
    with jax.set_mesh(mesh(kind)):
        x = jax.device_put(X, NamedSharding(mesh(kind), spec))
        compiled = jax.jit(lambda x, key: jax.vjp(lambda x: quantize(x, noisy, key=key), x)[0]).lower(x, key).compile()
        assert not COLLECTIVE.search(compiled.as_text())
        result = compiled(x, key)
        assert result.sharding.is_equivalent_to(x.sharding, x.ndim)
        assert_same_bits(result, np.rint(np.clip(X + noise, -127, 127)))


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("how", [{}, {"implementation": "pallas", "interpret": "cuda"}], ids=["None", "pallas-gpu"])
def test_inside_shard_map(how: dict[str, str], check_vma: bool) -> None:
    spec = P("rows", "lanes")
    for function, expected in ((lambda x: quantize(x, NUMERICS, **how), EXPECTED), (gradient, MASK.astype(np.float32))):
        mapped = jax.shard_map(function, mesh=mesh(AxisType.Auto), in_specs=spec, out_specs=spec, check_vma=check_vma)
        assert_same_bits(jax.jit(mapped)(X), expected)


def test_noise_that_varies_along_fewer_mesh_axes_than_x() -> None:
    noisy = NUMERICS.replace(noise_fn=lambda shape, key: jax.random.uniform(key, shape) - 0.5)
    key = jax.random.key(0)
    mapped = jax.shard_map(
        lambda x, key: quantize(x, noisy, key=key),
        mesh=mesh(AxisType.Auto),
        in_specs=(P("rows"), P()),
        out_specs=P("rows"),
    )
    shards = [quantize(jnp.asarray(part), noisy, key=key) for part in np.split(X, 4)]
    assert_same_bits(jax.jit(mapped)(X, key), np.concatenate(shards))
