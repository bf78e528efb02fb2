"""Scales of sharded arrays: those of one device; nothing is sent, or one all-reduce of maxima."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scaled_oracle
import streams
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from meshes import KINDS, collective_lines, every_split, mesh, placed
from oracle import assert_same_bits

from intnumerics import AbsMax, IntNumerics, PhiloxUniform, quantize, quantize_tensor
from intnumerics.kernels import Scaling

pytestmark = pytest.mark.mesh

KEY = jax.random.key(42, impl="threefry2x32")  # whose words are 0 and 42
INT8 = IntNumerics.symmetric(8, noise_fn=PhiloxUniform())
SHAPE = (8, 4, 128)
X = (np.random.default_rng(0).standard_normal(SHAPE) * 3).astype(np.float32)
BOTH = ("rows", "lanes")
SCALING = Scaling(127.5, fits=False)
every_kind = pytest.mark.parametrize("kind", KINDS)
SLICES: list[dict[str, Any]] = [{"axis": -1}, {"axis": 0}, {"axis": None}, {"axis": (1, 2)}, {"block": 32}]


def expected(slices: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The integers, and the scales."""
    if "block" in slices:
        largest = scaled_oracle.largest_finite(X, slices["block"])
    else:
        largest = np.abs(X).max(axis=slices["axis"], keepdims=True)
    scale = scaled_oracle.scale_of(largest, SCALING)
    spec = dataclasses.replace(INT8.spec(), integer_dtype=np.dtype(np.int8))
    return scaled_oracle.quantize_by_scale(X, scale, streams.uniform(SHAPE, (0, 42)), spec), scale


def is_split(slices: dict[str, Any], split: Any) -> bool:
    """Whether several devices have parts of one slice."""
    if "block" in slices:  # of 128 elements, 8 devices have half a block each
        return split[2:] == (("rows", "lanes"),)
    reduced = range(3) if slices.get("axis", -1) is None else np.atleast_1d(slices.get("axis", -1)) % 3
    return any(i in reduced and names for i, names in enumerate(split))


@every_kind
@pytest.mark.parametrize("split", every_split(3, ("rows", "lanes"), few=True), ids=str)
@pytest.mark.parametrize("slices", SLICES, ids=str)
def test_scales_are_those_of_one_device_for_one_all_reduce_at_most(slices: Any, split: Any, kind: AxisType) -> None:
    on = mesh(kind)
    x = placed(X, on, *split)
    with jax.set_mesh(on):
        program = jax.jit(lambda x: quantize_tensor(x, INT8, key=KEY, **slices)).lower(x).compile()
    q = program(x)
    qvalue, scale = expected(slices)
    assert_same_bits(q.qvalue, qvalue)
    assert_same_bits(q.scale, scale)
    assert q.qvalue.sharding.is_equivalent_to(x.sharding, 3)
    lines = collective_lines(program)
    if "block" in slices and is_split(slices, split) and kind == AxisType.Auto:
        # XLA then splits the scales, which are not as many as the devices, unevenly.
        assert all(re.search(r"= f32\[8,4,[14]\]", line) for line in lines)
        return
    assert len(lines) == is_split(slices, split)
    assert all("all-reduce" in line for line in lines)


@every_kind
@pytest.mark.parametrize("residual", ["mask", "x"])
@pytest.mark.parametrize("blocks", [1, 4, 8])
@pytest.mark.parametrize(
    "split", [("rows", None, "lanes"), (None, "lanes", "rows"), (None, None, ("rows", "lanes"))], ids=str
)
def test_a_scale_that_is_given_sends_nothing_and_clips_the_gradient(
    split: Any, blocks: int, residual: Any, kind: AxisType
) -> None:
    numerics = IntNumerics.symmetric(8, clip_gradient=True)
    scale = np.linspace(0.01, 0.03, 8 * blocks, dtype=np.float32).reshape(8, 1, blocks)
    on = mesh(kind)
    x = placed(X, on, *split)

    def both(x: jax.Array, scale: jax.Array) -> Any:
        y, vjp = jax.vjp(lambda x: quantize(x, numerics, scale=scale, residual=residual), x)
        return y, vjp(jnp.full_like(y, 3))[0]

    with jax.set_mesh(on):
        program = jax.jit(both).lower(x, scale).compile()
        y, g = program(x, scale)
    inside = scaled_oracle.mask(X, scale, numerics.spec())
    assert_same_bits(y, scaled_oracle.quantize_by_scale(X, scale, None, numerics.spec()))
    assert_same_bits(g, np.where(inside, np.float32(3), np.float32(0)))
    assert y.sharding.is_equivalent_to(x.sharding, 3)
    assert g.sharding.is_equivalent_to(x.sharding, 3)
    assert not [line for line in collective_lines(program) if "all-reduce" not in line] or blocks > 1


@every_kind
def test_the_gradient_of_a_sharded_x_goes_straight_through_its_own_maximum(kind: AxisType) -> None:
    on = mesh(kind)
    x = placed(X, on, "rows", None, "lanes")
    with jax.set_mesh(on):
        f = jax.jit(jax.grad(lambda x: (3 * quantize(x, INT8, scale=AbsMax(axis=-1), key=KEY)).sum()))
        program = f.lower(x).compile()
    assert_same_bits(program(x), np.full_like(X, 3))


def test_inside_shard_map_rows_are_whole_and_noise_is_placed() -> None:
    on = mesh(AxisType.Auto)

    def of_shard(x: jax.Array) -> Any:
        at = (lax.axis_index("rows") * x.shape[0], lax.axis_index("lanes") * x.shape[1], 0)
        return quantize_tensor(x, INT8, key=KEY, offset=at, global_shape=SHAPE)

    spec = P("rows", "lanes", None)
    q = jax.jit(jax.shard_map(of_shard, mesh=on, in_specs=spec, out_specs=spec))(X)
    qvalue, scale = expected({"axis": -1})
    assert_same_bits(q.qvalue, qvalue)
    assert_same_bits(q.scale, scale)


def test_blocks_that_begin_on_one_device_and_end_on_another() -> None:
    """Of 48 elements, in blocks of 16, devices have 24, 12 or 6."""
    x = X.reshape(-1, 64)[:, :48].copy()

    def f(x: jax.Array) -> Any:
        return quantize_tensor(lax.with_sharding_constraint(x * 2, split), INT8.replace(noise_fn=None), block=16)

    for size in (2, 4, 8):
        split = jax.NamedSharding(mesh(AxisType.Auto, sizes=(size,)), P(None, "rows"))
        q = jax.jit(f)(x)
        scale = scaled_oracle.scale_of(scaled_oracle.largest_finite(2 * x, 16), SCALING)
        assert_same_bits(q.scale, scale)
        spec = dataclasses.replace(INT8.spec(), integer_dtype=np.dtype(np.int8))
        assert_same_bits(q.qvalue, scaled_oracle.quantize_by_scale(2 * x, scale, None, spec))


def test_rows_that_do_not_divide_over_devices_have_their_own_maxima() -> None:
    """XLA pads the shards of such an intermediate result: here with 64, which is larger than all elements."""
    x = np.rint(np.abs(X[:7, :3, :101])) + 1

    def f(x: jax.Array) -> Any:
        y = 64 - lax.with_sharding_constraint(x, jax.NamedSharding(on, P("rows", None, "lanes")))
        return quantize_tensor(y, INT8.replace(noise_fn=None)), quantize_tensor(y, INT8.replace(noise_fn=None), axis=0)

    on = mesh(AxisType.Auto)
    by_row, by_column = jax.jit(f)(x)
    for q, axis in ((by_row, -1), (by_column, 0)):
        scale = scaled_oracle.scale_of(np.abs(64 - x).max(axis=axis, keepdims=True), SCALING)
        assert_same_bits(q.scale, scale)
        spec = dataclasses.replace(INT8.spec(), integer_dtype=np.dtype(np.int8))
        assert_same_bits(q.qvalue, scaled_oracle.quantize_by_scale(64 - x, scale, None, spec))
