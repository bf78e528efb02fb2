"""The scale of an array on several devices is that of the whole array, and nothing but maxima is sent for it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from meshes import KINDS, collective_lines, mesh, placed
from oracle import assert_same_bits

from intnumerics import IntNumerics, absmax_scale

pytestmark = pytest.mark.mesh

INT8 = IntNumerics.symmetric(8, preserve_max_val=True)
X = (np.random.default_rng(0).standard_normal((8, 5, 32)) * 3).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", [("rows",), ("rows", None, "lanes"), (("rows", "lanes"),)], ids=str)
@pytest.mark.parametrize("axis", [None, 0, (0, 1), 1, 2], ids=str)
def test_a_sharded_x_takes_one_all_reduce_of_maxima_if_a_reduced_axis_is_split(
    kind: AxisType, split: tuple[Any, ...], axis: Any
) -> None:
    on = mesh(kind)
    x = placed(X, on, *split)
    reduced = range(3) if axis is None else np.atleast_1d(axis)
    reduces = any(names is not None and i in reduced for i, names in enumerate(split))
    with jax.set_mesh(on):
        program = jax.jit(lambda x: absmax_scale(x, INT8, axis=axis)).lower(x).compile()
    lines = collective_lines(program)
    assert len(lines) == reduces
    assert all("all-reduce" in line for line in lines)
    assert_same_bits(np.asarray(program(x)), np.asarray(absmax_scale(X, INT8, axis=axis)))


def test_inside_shard_map_a_maximum_over_devices_gives_one_scale() -> None:
    x = X / 1000
    x[:2] = 0  # on a shard whose own scale is 1, which would be the largest
    x[2:4] = np.nan

    def scale(x: jax.Array) -> jax.Array:  # as docs/sharding.md shows
        magnitude = jnp.where(jnp.isfinite(x), jnp.abs(x), 0)
        return absmax_scale(lax.pmax(lax.stop_gradient(magnitude.max()), ("rows", "lanes")), INT8)

    sharded = jax.shard_map(scale, mesh=mesh(AxisType.Auto), in_specs=P("rows", None, "lanes"), out_specs=P())
    assert_same_bits(np.asarray(jax.jit(sharded)(x)), np.asarray(absmax_scale(x, INT8))[0, 0, 0])
    assert not jax.jit(jax.grad(sharded))(x).any()
