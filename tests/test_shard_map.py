"""Inside `jax.shard_map` a shard is the array, unless the user says where in the whole it lies."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import streams
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from meshes import KINDS, collectives, mesh, placed
from oracle import assert_same_bits
from test_mesh import KEY, NEAREST, NOISES, PHILOX, SHAPE, Noise, X, both, every_noise, expected

from intnumerics import quantize, quantize_to_int
from intnumerics._global_position import part_of
from intnumerics.stochastic_rounding import PhiloxUniform

pytestmark = pytest.mark.mesh

each_check = pytest.mark.parametrize("check_vma", [True, False], ids=["checked", "unchecked"])


def where(x: jax.Array, split: tuple[Any, ...]) -> dict[str, Any]:
    """Where a shard lies, as a user writes it."""
    offset = []
    for size, axes in zip(x.shape, split, strict=True):
        index = 0
        for name in () if axes is None else (axes,) if isinstance(axes, str) else axes:
            index = index * lax.axis_size(name) + lax.axis_index(name)
        offset.append(index * size)
    return {"offset": offset, "global_shape": SHAPE}


SPLITS = [("rows", None, "lanes"), (None, ("lanes", "rows"), None)]


@each_check
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_a_shard_has_the_noise_of_the_whole(split: tuple[Any, ...], kind: AxisType, check_vma: bool) -> None:
    """In one program for all noise functions."""
    on, spec = mesh(kind), P(*split)

    def on_shard(x: jax.Array) -> Any:
        place = where(x, split)
        several = [noise.numerics() for noise in NOISES.values()]
        return [(both(x, n, **place), quantize_to_int(x, n, key=KEY, **place)) for n in several]

    mapped = jax.shard_map(on_shard, mesh=on, in_specs=spec, out_specs=spec, check_vma=check_vma)
    x = placed(X, on, *split)
    with jax.set_mesh(on):
        compiled = jax.jit(mapped).lower(x).compile()
        assert not collectives(compiled)
        for noise, results in zip(NOISES.values(), compiled(x), strict=True):
            y, gradient = expected(X, noise.array(SHAPE))
            jax.tree.map(assert_same_bits, results, ((y, gradient), y.astype(np.int8)))


@pytest.mark.parametrize("axes", [(0,), (2,), (0, 1, 2)], ids=str)
@every_noise
def test_a_part_of_size_1_along_an_axis_has_the_noise_of_its_place(noise: Noise, axes: tuple[int, ...]) -> None:
    offset = tuple(size - 1 if axis in axes else 0 for axis, size in enumerate(SHAPE))
    part = tuple(slice(at, None) for at in offset)
    y = quantize(X[part], noise.numerics(), key=KEY, offset=offset, global_shape=SHAPE)
    assert_same_bits(y, expected(X, noise.array(SHAPE))[0][part])


@each_check
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_so_has_a_shard_in_a_kernel(platform: str, check_vma: bool) -> None:
    if platform == "tpu" and check_vma:
        pytest.skip("JAX's interpret mode for TPU kernels does not run in a checked shard_map")
    split, how = ("rows", None, "lanes"), {"implementation": "pallas", "interpret": platform}

    def on_shard(x: jax.Array) -> jax.Array:
        return quantize(x, PHILOX, key=KEY, **where(x, split), **how)

    mapped = jax.shard_map(
        on_shard, mesh=mesh(AxisType.Auto), in_specs=P(*split), out_specs=P(*split), check_vma=check_vma
    )
    assert_same_bits(jax.jit(mapped)(X), expected(X, NOISES["philox"].array(SHAPE))[0])


@each_check
@pytest.mark.parametrize(
    "how",
    [{}, *({"implementation": name, "interpret": "cuda"} for name in ("pallas", "pallas_mosaic_gpu"))],
    ids=["None", "pallas", "pallas_mosaic_gpu"],
)
def test_without_an_offset_a_shard_is_an_array_of_its_own(how: dict[str, str], check_vma: bool) -> None:
    spec = P("rows", None, "lanes")
    mapped = jax.shard_map(
        lambda x: both(x, PHILOX, **how),
        mesh=mesh(AxisType.Auto),
        in_specs=spec,
        out_specs=spec,
        check_vma=check_vma,
    )
    noise = np.tile(NOISES["philox"].array((4, 32, 32)), (4, 1, 2))
    jax.tree.map(assert_same_bits, jax.jit(mapped)(X), expected(X, noise))


def test_noise_that_varies_along_fewer_mesh_axes_than_x() -> None:
    spec = P("rows")
    mapped = jax.shard_map(
        lambda x, noise: quantize(x, NEAREST.replace(noise_fn=lambda *_: noise), key=KEY),
        mesh=mesh(AxisType.Auto),
        in_specs=(spec, P()),
        out_specs=spec,
    )
    noise = NOISES["philox"].array((4, 32, 64))
    assert_same_bits(jax.jit(mapped)(X, noise), expected(X, np.tile(noise, (4, 1, 1)))[0])


# --- the offset of any part -------------------------------------------------------------------------------------------


@every_noise
def test_any_window_of_an_array_can_be_quantized_alone(noise: Noise) -> None:
    n, drawn = noise.numerics(), np.broadcast_to(noise.array(SHAPE), SHAPE)
    traced = jax.jit(lambda x, *at: quantize(x, n, key=KEY, offset=at, global_shape=SHAPE))
    for offset in ((0, 0, 0), (3, 0, 0), (1, 8, 0), (0, 0, 8), (2, 5, 3), (12, 24, 56)):
        window = tuple(slice(at, at + size) for at, size in zip(offset, (4, 8, 8), strict=True))
        wanted = expected(X[window], drawn[window])[0]
        for at in (offset, jnp.asarray(offset), [np.int64(i) for i in offset]):
            assert_same_bits(quantize(X[window], n, key=KEY, offset=at, global_shape=SHAPE), wanted)
        assert_same_bits(traced(X[window], *offset), wanted)


def test_under_vmap_an_example_is_the_part_and_offsets_may_be_batched() -> None:
    whole, offsets = (16, 8), np.arange(4) * 4
    noise = NOISES["philox"].array(whole).reshape(4, 4, 8)
    x = X.reshape(-1)[:128].reshape(4, 4, 8)
    y = jax.vmap(lambda x, at: quantize(x, PHILOX, key=KEY, offset=(at, 0), global_shape=whole))(x, offsets)
    assert_same_bits(y, expected(x, noise)[0])


def test_an_offset_beyond_32_bits_is_counted_in_64() -> None:
    whole = (1 << 20, 1 << 20)  # 2**40 elements
    y = quantize(X[0, :2, :16], PHILOX, key=KEY, offset=(900_000, 16), global_shape=whole)
    first = [(900_000 + row) * (1 << 20) + 16 for row in range(2)]
    noise = np.stack([streams.uniform((16,), (0, 42), number // 8) for number in first])
    assert_same_bits(y, expected(X[0, :2, :16], noise)[0])


def test_a_scalar_and_an_empty_array_can_be_parts() -> None:
    assert quantize(jnp.float32(0.2), PHILOX, key=KEY, offset=(), global_shape=()).shape == ()
    assert quantize(jnp.zeros((0, 8)), PHILOX, key=KEY, offset=(4, 0), global_shape=(4, 8)).shape == (0, 8)


MISTAKES = [
    ({"offset": (0, 0)}, ValueError, "offset=.* is there and global_shape is not"),
    ({"global_shape": (4, 8)}, ValueError, "global_shape=.* is there and offset is not"),
    ({"offset": (0,), "global_shape": (4, 8)}, ValueError, r"offset=\(0,\) has 1 numbers, and x has 2 axes"),
    ({"offset": (0, 0), "global_shape": (32,)}, ValueError, r"global_shape=\(32,\) has 1 numbers, and x has 2 axes"),
    ({"offset": (3, 0), "global_shape": (4, 8)}, ValueError, "2 elements from 3 on along axis 0"),
    ({"offset": (-1, 0), "global_shape": (4, 8)}, ValueError, "2 elements from -1 on along axis 0"),
    ({"offset": (0, 0), "global_shape": (1, 8)}, ValueError, r"global_shape=\(1, 8\) has 1 there"),
    ({"offset": 0, "global_shape": (4, 8)}, TypeError, "offset=0 is not a sequence of integers"),
    ({"offset": (0.0, 0), "global_shape": (4, 8)}, TypeError, "which is not an integer"),
    ({"offset": (True, 0), "global_shape": (4, 8)}, TypeError, "which is not an integer"),
    ({"offset": (0, 0), "global_shape": 32}, TypeError, "global_shape=32 is not a sequence of integers"),
    ({"offset": (0, 0), "global_shape": (4.0, 8)}, TypeError, "is not a sequence of integers"),
]


@pytest.mark.parametrize(("how", "error", "message"), MISTAKES)
def test_a_place_that_cannot_be_is_refused(how: dict[str, Any], error: type[Exception], message: str) -> None:
    for function in (quantize, quantize_to_int):
        for n in (PHILOX, NEAREST):  # with noise or without, so that a mistake does not wait for it
            with pytest.raises(error, match=message):
                function(jnp.zeros((2, 8)), n, key=KEY, **how)


def test_a_traced_offset_of_floats_is_refused() -> None:
    with pytest.raises(TypeError, match="which is not an integer"):
        jax.jit(lambda x, at: quantize(x, PHILOX, key=KEY, offset=(at, 0), global_shape=(4, 8)))(jnp.zeros((2, 8)), 0.0)


@pytest.mark.parametrize(
    ("offset", "whole", "is_aligned"),
    [((3, 8), (8, 32), True), ((3, 4), (8, 32), False), ((3, 0), (8, 33), False), ((2, 6), (8, 33), True)],
    ids=str,
)
def test_what_is_known_of_a_place_decides_whether_kernels_draw_there(
    offset: tuple[int, ...], whole: tuple[int, ...], is_aligned: bool
) -> None:
    draw = PhiloxUniform().seeded(whole, KEY)
    part = part_of(offset, whole, (2, 16))
    assert part is not None
    assert part.seeded(draw, (2, 16)).draw.aligned == is_aligned


def test_a_traced_row_begins_at_a_block_where_rows_are_multiples_of_8() -> None:
    def aligned(row: Any, column: Any) -> bool:
        part = part_of((row, column), (8, 32), (2, 16))
        assert part is not None
        return part.seeded(PhiloxUniform().seeded((8, 32), KEY), (2, 16)).draw.aligned

    found = []
    jax.jit(lambda at: found.extend([aligned(at, 16), aligned(at, 4), aligned(0, at)]))(0)
    assert found == [True, False, False]
