"""Arrays that are sharded over a mesh: nothing is sent, results lie as x does, and have the bits of one device."""

import contextlib
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import streams
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from meshes import KINDS, assert_sharded_like, collective_lines, collectives, every_split, mesh, placed
from oracle import assert_same_bits

from intnumerics import Context, IntNumerics, quantize, quantize_to_int
from intnumerics.stochastic_rounding import HashUniform, JaxUniform, PhiloxUniform, RandomCenteredUniform

pytestmark = pytest.mark.mesh

Auto, Explicit = AxisType.Auto, AxisType.Explicit
every_kind = pytest.mark.parametrize("kind", KINDS)

KEY = jax.random.key(42, impl="threefry2x32")  # whose words are 0 and 42
NEAREST = IntNumerics(8, True, True, True, True, True, None)
PHILOX = NEAREST.replace(noise_fn=PhiloxUniform())
SHAPE = (16, 32, 64)
X = (np.random.default_rng(0).normal(size=SHAPE) * 90).astype(np.float32)


def uniform_of_jax(shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(jax.random.uniform(KEY, shape)) - np.float32(0.5)


@dataclasses.dataclass(frozen=True)
class Noise:
    """A noise function, and what it gives, made without it."""

    noise_fn: Any
    array: Any

    def numerics(self) -> IntNumerics:
        return NEAREST.replace(noise_fn=self.noise_fn)


NOISES = {
    "none": Noise(None, lambda shape: np.zeros(shape, np.float32)),
    "philox": Noise(PhiloxUniform(), lambda shape: streams.uniform(shape, (0, 42))),
    "hash": Noise(HashUniform(), lambda shape: streams.uniform_hash(shape, (0, 42))),
    "philox, shared": Noise(PhiloxUniform((0,)), lambda shape: streams.uniform((1, *shape[1:]), (0, 42))),
    "JaxUniform": Noise(JaxUniform(), uniform_of_jax),
    "RandomCenteredUniform": Noise(
        RandomCenteredUniform(),
        lambda shape: np.asarray(jax.random.bits(KEY, shape, np.uint16)) * 2.0**-16 + 2.0**-17 - 0.5,
    ),
    "a user's": Noise(lambda shape, key: jax.random.uniform(key, shape) - 0.5, uniform_of_jax),
    "a user's, shared": Noise(
        lambda shape, key: jax.random.uniform(key, (shape[0], 1, shape[2])) - 0.5,
        lambda shape: uniform_of_jax((shape[0], 1, shape[2])),
    ),
}
every_noise = pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)


def forward(x: jax.Array, n: IntNumerics, **how: Any) -> jax.Array:
    return quantize(x, n, key=KEY, **how)


def backward(x: jax.Array, n: IntNumerics, **how: Any) -> jax.Array:
    return both(x, n, **how)[1]


def both(x: jax.Array, n: IntNumerics, **how: Any) -> tuple[jax.Array, jax.Array]:
    y, gradient = jax.vjp(lambda x: quantize(x, n, key=KEY, **how), x)
    return y, gradient(jnp.full_like(y, 3))[0]


def expected(x: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y = np.rint(np.clip((x + noise).astype(np.float32), -127, 127))
    return y, np.where(np.abs(x) <= 127, np.float32(3), np.float32(0))


def check(function: Any, arrays: Any, wanted: Any) -> None:
    """Compiles for one array, or several in one program; looks at what is sent, where results lie, and their bits."""
    arrays = arrays if isinstance(arrays, list) else [arrays]
    compiled = jax.jit(lambda *arrays: [function(x) for x in arrays]).lower(*arrays).compile()
    assert not collectives(compiled)
    for x, results in zip(arrays, compiled(*arrays), strict=True):
        assert_sharded_like(results, x)
        jax.tree.map(assert_same_bits, results, wanted)


@every_kind
@every_noise
def test_forward_backward_and_both_need_no_collective(noise: Noise, kind: AxisType) -> None:
    n, (y, gradient) = noise.numerics(), expected(X, noise.array(SHAPE))
    with jax.set_mesh(mesh(kind)):
        arrays = [placed(X, mesh(kind), *split) for split in (("rows", None, "lanes"), (None, ("lanes", "rows")))]
        check(lambda x: (forward(x, n), backward(x, n), both(x, n)), arrays, (y, gradient, (y, gradient)))


@every_kind
@pytest.mark.parametrize(
    ("shape", "sizes"),
    [((16, 32, 64), (4, 2)), ((32, 64), (2, 2, 2)), ((12, 18, 48), (3, 2)), ((30, 25, 40), (5,)), ((8000,), (8,))],
    ids=str,
)
def test_every_split_over_every_mesh_gives_the_bits_of_one_device(
    shape: tuple[int, ...], sizes: tuple[int, ...], kind: AxisType
) -> None:
    names = ("rows", "lanes", "third")[: len(sizes)]
    x = (np.random.default_rng(1).normal(size=shape) * 90).astype(np.float32)
    wanted = expected(x, streams.uniform(shape, (0, 42)))
    on = mesh(kind, sizes=sizes, names=names)
    with jax.set_mesh(on):
        splits = every_split(len(shape), names, few=sizes in [(2, 2, 2), (3, 2)])
        check(lambda x: both(x, PHILOX), [placed(x, on, *split) for split in splits], wanted)


@every_kind
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_a_kernel_is_given_its_shard_alone(platform: str, kind: AxisType) -> None:
    how, wanted = {"implementation": "pallas", "interpret": platform}, expected(X, streams.uniform(SHAPE, (0, 42)))
    with jax.set_mesh(mesh(kind)):
        arrays = [placed(X, mesh(kind), *split) for split in (("rows", "lanes"), (None, "lanes", "rows"))]
        check(lambda x: both(x, PHILOX, **how), arrays, wanted)


@every_kind
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_a_kernel_of_a_shard_that_begins_within_a_block_of_the_noise(platform: str, kind: AxisType) -> None:
    x = np.ascontiguousarray(X[:12, :3, :10])  # a step along the first axis is 30 elements, and a block serves 8
    how = {"implementation": "pallas", "interpret": platform}
    with jax.set_mesh(mesh(kind)):
        y, _ = expected(x, streams.uniform(x.shape, (0, 42)))
        check(lambda x: forward(x, PHILOX, **how), placed(x, mesh(kind), "rows", None, "lanes"), y)


@every_kind
def test_integers_of_a_sharded_array_are_sharded(kind: AxisType) -> None:
    y, _ = expected(X, streams.uniform(SHAPE, (0, 42)))
    with jax.set_mesh(mesh(kind)):
        x = placed(X, mesh(kind), "lanes", None, "rows")
        check(lambda x: quantize_to_int(x, PHILOX, key=KEY), x, y.astype(np.int8))


@every_kind
def test_noise_that_is_called_for_is_made_where_it_goes(kind: AxisType) -> None:
    with jax.set_mesh(mesh(kind)):
        like = placed(X, mesh(kind), "rows", None, "lanes")
        draw = jax.jit(lambda key: PhiloxUniform()(SHAPE, key), out_shardings=like.sharding)
        compiled = draw.lower(KEY).compile()
        assert not collectives(compiled)
        assert_sharded_like(compiled(KEY), like)
        assert_same_bits(compiled(KEY), streams.uniform(SHAPE, (0, 42)))


@every_kind
def test_an_array_of_noise_follows_x(kind: AxisType) -> None:
    noise = streams.uniform(SHAPE, (5, 6))
    with jax.set_mesh(mesh(kind)):
        x = placed(X, mesh(kind), "rows", None, "lanes")
        check(lambda x: both(x, NEAREST.replace(noise_fn=lambda *_: jnp.asarray(noise))), x, expected(X, noise))


# --- together with other transforms -----------------------------------------------------------------------------------


@every_kind
def test_under_vmap_the_batch_and_the_examples_may_be_sharded(kind: AxisType) -> None:
    splits = [("rows", "lanes"), (None, "rows", "lanes"), ("lanes", None, "rows")]
    wanted = expected(X, streams.uniform(SHAPE[1:], (0, 42))[None])
    with jax.set_mesh(mesh(kind)):
        check(jax.vmap(lambda x: both(x, PHILOX)), [placed(X, mesh(kind), *split) for split in splits], wanted)


@pytest.mark.parametrize(("kind", "is_set"), [(Auto, True), (Explicit, True), (Explicit, False)])
def test_a_batch_of_keys_may_be_sharded(kind: AxisType, is_set: bool) -> None:
    data = np.stack([np.zeros(16, np.uint32), np.arange(16, dtype=np.uint32)], axis=1)
    noise = np.stack([streams.uniform(SHAPE[1:], (0, i)) for i in range(16)])
    with jax.set_mesh(mesh(kind)) if is_set else contextlib.nullcontext():
        x, keys = placed(X, mesh(kind), "rows", None, "lanes"), placed(data, mesh(kind), "rows")
        of_key = lambda x, data: quantize(x, PHILOX, key=jax.random.wrap_key_data(data, impl="threefry2x32"))  # noqa: E731
        check(lambda x: jax.vmap(of_key)(x, keys), x, expected(X, noise)[0])


@every_kind
def test_the_derivative_of_fwd_is_sharded(kind: AxisType) -> None:
    smooth = PHILOX.replace(round=False)
    with jax.set_mesh(mesh(kind)):
        x = placed(X, mesh(kind), "rows", None, "lanes")
        tangent = np.where(np.abs(X + streams.uniform(SHAPE, (0, 42))) < 127.5, np.float32(1), np.float32(0))
        check(lambda x: jax.jvp(lambda x: smooth.fwd(x, Context(KEY)), (x,), (jnp.ones_like(x),))[1], x, tangent)


def test_a_mesh_may_have_axes_of_both_kinds() -> None:
    for kinds in ((Explicit, Auto), (Auto, Explicit)):
        with jax.set_mesh(mesh(*kinds)):
            x = placed(X, mesh(*kinds), "rows", "lanes")
            check(lambda x: both(x, PHILOX), x, expected(X, streams.uniform(SHAPE, (0, 42))))


@every_kind
def test_outside_jit_a_sharded_array_stays_where_it_is(kind: AxisType) -> None:
    wanted = expected(X, streams.uniform(SHAPE, (0, 42)))
    x = placed(X, mesh(kind), "rows", None, "lanes")
    for disabled in (False, True):
        with jax.disable_jit(disabled):
            results = both(x, PHILOX)
        assert_sharded_like(results, x)
        jax.tree.map(assert_same_bits, results, wanted)


@every_kind
def test_arrays_that_no_one_placed_are_quantized_under_a_mesh(kind: AxisType) -> None:
    """They are on every device of it, and no array says how the devices are arranged."""
    with jax.set_mesh(mesh(kind)):
        results = jax.jit(lambda x: both(x, PHILOX))(X)
    jax.tree.map(assert_same_bits, results, expected(X, streams.uniform(SHAPE, (0, 42))))


def test_a_constraint_inside_the_program_is_enough() -> None:
    sharding = NamedSharding(mesh(Auto), P("rows", None, "lanes"))
    compiled = jax.jit(lambda x: both(jax.lax.with_sharding_constraint(x, sharding), PHILOX)).lower(X).compile()
    assert not collectives(compiled)
    assert all(result.sharding.is_equivalent_to(sharding, 3) for result in compiled(X))


@pytest.mark.parametrize("split", [("rows", None, "lanes"), (None, ("lanes", "rows")), ()], ids=str)
def test_without_shardy_the_older_partitioner_does_the_same(split: tuple[Any, ...]) -> None:
    x = placed(X, mesh(Auto), *split)
    jax.config.update("jax_use_shardy_partitioner", False)
    try:
        check(lambda x: both(x, PHILOX), x, expected(X, streams.uniform(SHAPE, (0, 42))))
    finally:
        jax.config.update("jax_use_shardy_partitioner", True)


@pytest.mark.parametrize("check_vma", [True, False])
def test_inside_shard_map_along_some_axes_xla_splits_along_the_others(check_vma: bool) -> None:
    y, gradient = expected(X, np.zeros(SHAPE, np.float32))
    with jax.set_mesh(mesh(Auto)):
        x = placed(X, mesh(Auto), "rows", "lanes")
        mapped = jax.shard_map(
            lambda x: both(x, NEAREST),
            in_specs=P("rows"),
            out_specs=(P("rows"), P("rows")),
            axis_names={"rows"},
            check_vma=check_vma,
        )
        check(mapped, x, (y, gradient))


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda x: jnp.pad(x, ((0, 5), (0, 0), (0, 0))), (21, 32, 64)),
        (lambda x: x[:13], (13, 32, 64)),
        (lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, 3))), (16, 32, 67)),
    ],
    ids=["more rows", "fewer rows", "more lanes"],
)
def test_shards_of_an_axis_that_does_not_divide_are_padded(function: Any, shape: tuple[int, ...]) -> None:
    def run(x: jax.Array) -> Any:
        y, backward = jax.vjp(lambda x: quantize(x, PHILOX, key=KEY), function(x))
        return y, backward(function(x))[0]  # a cotangent in such shards too

    x, noise = np.asarray(function(X)), streams.uniform(shape, (0, 42))
    results = jax.jit(run)(placed(X, mesh(Auto), "rows", None, "lanes"))
    wanted = expected(x, noise)[0], np.where(np.abs(x) <= 127, x, np.float32(0))
    jax.tree.map(assert_same_bits, results, wanted)


# --- a mask whose bytes lie on two devices ----------------------------------------------------------------------------


CUT = [((16, 24), ("rows", "lanes")), ((16, 3, 4), ("rows", None, "lanes")), ((20, 7), ("rows",))]


@pytest.mark.parametrize(("shape", "split"), CUT, ids=str)
def test_a_type_that_says_so_keeps_a_byte_an_element_where_bytes_would_be_cut(
    shape: tuple[int, ...], split: tuple[Any, ...]
) -> None:
    x = (np.random.default_rng(1).normal(size=shape) * 90).astype(np.float32)
    wanted = expected(x, streams.uniform(shape, (0, 42)))
    with jax.set_mesh(mesh(Explicit)):
        check(lambda x: both(x, PHILOX), placed(x, mesh(Explicit), *split), wanted)


@pytest.mark.parametrize(("shape", "split"), CUT, ids=str)
def test_otherwise_the_mask_is_gathered_and_nothing_else(shape: tuple[int, ...], split: tuple[Any, ...]) -> None:
    x = (np.random.default_rng(1).normal(size=shape) * 90).astype(np.float32)
    sharded, wanted = placed(x, mesh(Auto), *split), expected(x, streams.uniform(shape, (0, 42)))
    compiled = jax.jit(lambda x: both(x, PHILOX)).lower(sharded).compile()
    lines = collective_lines(compiled)
    assert lines
    assert all(" u8[" in line or " pred[" in line for line in lines), lines
    jax.tree.map(assert_same_bits, compiled(sharded), wanted)
    check(lambda x: forward(x, PHILOX), sharded, wanted[0])
