"""What `jax.checkpoint` keeps of a quantization and what it runs again: the gradient is the same with every policy."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from meshes import mesh, placed
from oracle import assert_same_bits
from test_transforms import KEY, PHILOX, X, loss, masked, values

from intnumerics import from_int, quantize, quantize_to_int

policies = jax.checkpoint_policies
MASK, VALUES = "intnumerics_mask", "intnumerics_values"
X_ITSELF, OF_MASK, OF_VALUES = ("float32", (3, 21)), ("uint8", (8,)), ("float32", (3, 21))
# A policy; how often the quantization then stands in the program of the gradient; and what is kept for the backward.
POLICIES: dict[str, tuple[Any, int, list[Any]]] = {
    "none": (None, 2, [X_ITSELF]),
    "nothing": (policies.nothing_saveable, 2, [X_ITSELF]),
    "dots": (policies.dots_saveable, 2, [X_ITSELF]),
    "everything": (policies.everything_saveable, 1, [OF_VALUES, OF_MASK]),
    "mask": (policies.save_only_these_names(MASK), 2, [X_ITSELF, OF_MASK]),
    "values": (policies.save_only_these_names(VALUES), 2, [X_ITSELF, OF_VALUES]),
    "both": (policies.save_only_these_names(MASK, VALUES), 1, [OF_VALUES, OF_MASK]),
    "both, offloaded": (
        policies.save_and_offload_only_these_names(
            names_which_can_be_saved=[],
            names_which_can_be_offloaded=[MASK, VALUES],
            offload_src="device",
            offload_dst="pinned_host",
        ),
        1,
        [OF_VALUES, OF_MASK],
    ),
}


def kept(backward: Any) -> list[Any]:
    """Dtypes and shapes of what a backward holds, but for a key, which the forward has from outside."""
    arrays = [a for a in jax.tree.leaves(backward) if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key)]
    return sorted((a.dtype.name, a.shape) for a in arrays)


@pytest.mark.parametrize(("policy", "quantizations", "residuals"), POLICIES.values(), ids=POLICIES)
def test_checkpoint_keeps_what_its_policy_names_and_the_gradient(
    policy: Any, quantizations: int, residuals: list[Any]
) -> None:
    run = jax.checkpoint(loss, policy=policy)
    assert str(jax.make_jaxpr(jax.grad(run))(X)).count("intnumerics_quantize") == quantizations
    assert_same_bits(jax.grad(run)(X), masked(X, values(X)))
    assert_same_bits(jax.jit(jax.grad(run))(X), masked(X, values(X)))
    backward = jax.vjp(run, jnp.asarray(X))[1]
    assert kept(backward) == residuals
    if policy is POLICIES["both, offloaded"][0]:
        assert {a.sharding.memory_kind for a in jax.tree.leaves(backward)} == {"pinned_host"}


@pytest.mark.parametrize(("names", "quantizations", "residual"), [([], 2, "float32"), ([VALUES], 1, "int8")])
def test_checkpoint_keeps_integers_by_name(names: list[str], quantizations: int, residual: str) -> None:
    @functools.partial(jax.checkpoint, policy=policies.save_only_these_names(*names))
    def run(w: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.sum(w * from_int(quantize_to_int(x, PHILOX, key=KEY), PHILOX, jnp.float32))

    w = jnp.ones_like(X)
    assert str(jax.make_jaxpr(jax.grad(run))(w, X)).count("intnumerics_quantize") == quantizations
    assert_same_bits(jax.grad(run)(w, X), values(X) + np.float32(0))  # integers have no -0.0
    assert (residual, X.shape) in kept(jax.vjp(lambda w: run(w, jnp.asarray(X)), w)[1])


@pytest.mark.mesh
@pytest.mark.parametrize("check_vma", [True, False], ids=["checked", "unchecked"])
@pytest.mark.parametrize("names", [[], [MASK], [MASK, VALUES]], ids=str)
def test_checkpoint_of_a_shard_map_draws_the_noise_of_the_whole_again(names: list[str], check_vma: bool) -> None:
    def on_shard(x: jax.Array) -> jax.Array:
        offset = lax.axis_index("rows") * x.shape[0], lax.axis_index("lanes") * x.shape[1]
        return quantize(x, PHILOX, key=KEY, offset=offset, global_shape=(8, 32))

    split, on = P("rows", "lanes"), mesh(AxisType.Auto)
    mapped = jax.shard_map(on_shard, mesh=on, in_specs=split, out_specs=split, check_vma=check_vma)
    run = jax.checkpoint(lambda x: jnp.sum(mapped(x) ** 2) / 2, policy=policies.save_only_these_names(*names))
    x = np.random.default_rng(8).integers(-3200, 3200, (8, 32)).astype(np.float32) / 16
    assert_same_bits(jax.jit(jax.grad(run))(placed(x, on, *split)), masked(x, values(x)))
