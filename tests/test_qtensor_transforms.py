"""Every transform of JAX takes a QTensor, and what leaves the process comes back: its values are those of NumPy."""

import copy
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax import export, lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from meshes import KINDS, collectives, mesh
from oracle import assert_same_bits
from original import numerics
from qtensors import dequantized, made

from intnumerics import IntNumerics, PhiloxUniform, QTensor

BFLOAT16 = ml_dtypes.bfloat16
FORMS = [((8, 64), (8, 1)), ((8, 64), (1, 64)), ((8, 64), (8, 4))]
every_form = pytest.mark.parametrize(("shape", "scale"), FORMS, ids=["rows", "columns", "blocks"])


def with_leaves(q: QTensor, of_qvalue: Any, of_scale: Any) -> QTensor:
    return jax.tree.unflatten(jax.tree.structure(q), [of_qvalue, of_scale])


def assert_same(q: QTensor, other: QTensor) -> None:
    assert jax.tree.structure(q) == jax.tree.structure(other)
    jax.tree.map(assert_same_bits, q, other)


# --- trees ------------------------------------------------------------------------------------------------------------


def test_its_leaves_have_the_names_of_its_fields() -> None:
    q, _ = made((4, 6), (4, 1))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path({"w": q})[0]]
    assert paths == ["['w'].qvalue", "['w'].scale"]
    assert [leaf is field for leaf, field in zip(jax.tree.leaves(q), (q.qvalue, q.scale), strict=True)] == [True] * 2


def test_what_is_static_tells_trees_apart() -> None:
    q, _ = made((4, 6), (4, 1))
    same = QTensor(q.qvalue * 0, q.scale, numerics(8), jnp.float32)
    others = QTensor(q.qvalue, q.scale, numerics(7), jnp.float32), QTensor(q.qvalue, q.scale, numerics(8), BFLOAT16)
    assert jax.tree.structure(q) == jax.tree.structure(same)
    assert all(jax.tree.structure(q) != jax.tree.structure(other) for other in others)
    run = jax.jit(lambda q: q.dequantize())
    results = [run(one).dtype.name for one in (q, same, *others)]
    assert results == ["float32", "float32", "float32", "bfloat16"]
    assert run._cache_size() == 3


def test_any_leaves_are_taken_in_the_place_of_arrays() -> None:
    q, _ = made((4, 6), (4, 1))
    for leaf in (None, True, "label", object(), P("rows"), jax.ShapeDtypeStruct((), jnp.float32)):
        other = jax.tree.map(lambda _, leaf=leaf: leaf, q)
        assert other.qvalue is other.scale is leaf
        assert repr(other).startswith("QTensor(")
    assert_same(jax.tree.map(lambda a, keep: a if keep else a * 0, q, jax.tree.map(lambda _: True, q)), q)


def test_eval_shape_and_device_get_keep_what_is_static() -> None:
    q, values = made((4, 6), (4, 1), dtype=BFLOAT16)
    shape = jax.eval_shape(lambda q: q.reshape(2, 2, 6).T, q)
    assert (shape.shape, shape.scale.shape, shape.dtype) == ((6, 2, 2), (1, 2, 2), BFLOAT16)
    assert jax.eval_shape(lambda q: q.dequantize(), q).dtype == BFLOAT16
    on_host = jax.device_get(q)
    assert isinstance(on_host.qvalue, np.ndarray)
    assert_same_bits(on_host[1:].dequantize(), values[1:])


# --- transforms -------------------------------------------------------------------------------------------------------


@every_form
def test_jit_takes_and_returns_it(shape: Any, scale: Any) -> None:
    q, values = made(shape, scale)
    doubled = jax.jit(lambda q: QTensor(q.qvalue, q.scale * 2, q.numerics, q.dtype))(q)
    assert jax.tree.structure(doubled) == jax.tree.structure(q)
    assert_same_bits(doubled.dequantize(), values * 2)


def test_it_is_donated() -> None:
    q, values = made((8, 64), (8, 4))
    doubled = jax.jit(lambda q: QTensor(-q.qvalue, q.scale * 2, q.numerics, q.dtype), donate_argnums=0)(q)
    assert (q.qvalue.is_deleted(), q.scale.is_deleted()) == (True, True)
    assert repr(q) == repr(doubled)
    assert_same_bits(doubled.dequantize(), values * -2 + np.float32(0))  # integers have no -0.0


@every_form
def test_scan_carries_it_and_stacks_it(shape: Any, scale: Any) -> None:
    q, values = made(shape, scale)

    def step(q: QTensor, _: None) -> tuple[QTensor, QTensor]:
        return QTensor(q.qvalue, q.scale * 2, q.numerics, q.dtype), q

    last, every = jax.jit(lambda q: lax.scan(step, q, length=3))(q)
    assert_same_bits(last.dequantize(), values * 8)
    assert every.scale.shape == (3, *scale)
    assert_same_bits(every.dequantize(), np.stack([values, values * 2, values * 4]))
    assert_same_bits(lax.map(lambda q: q.dequantize(), every), np.stack([values, values * 2, values * 4]))
    assert_same_bits(lax.while_loop(lambda q: q.scale[0, 0] < 64, lambda q: step(q, None)[0], q).qvalue, q.qvalue)


def test_cond_returns_it() -> None:
    q, values = made((8, 64), (8, 4))
    run = jax.jit(lambda flag, q: lax.cond(flag, lambda q: q, lambda q: jax.tree.map(lambda a: -a, q), q))
    assert_same_bits(run(True, q).dequantize(), values)
    assert_same_bits(run(False, q).scale, -np.asarray(q.scale))


def test_vmap_maps_an_axis_of_both_leaves() -> None:
    q, values = made((3, 8, 64), (3, 8, 4))
    assert_same_bits(jax.vmap(lambda q: q.dequantize())(q), values)
    of_rows = jax.vmap(lambda q: q.T.dequantize().T, in_axes=1)(q.reshape(3, 8, 4, 16))
    assert_same_bits(of_rows, values.reshape(3, 8, 4, 16).swapaxes(0, 1))
    halves = jax.vmap(lambda q: q[:4])(q)
    assert halves.scale.shape == (3, 4, 4)
    assert_same_bits(halves.dequantize(), values[:, :4])


def test_vmap_takes_an_axis_for_each_leaf() -> None:
    q, _ = made((8, 64), (8, 1))
    scales = np.asarray([1, 2, 3], np.float32)[:, None, None] * np.asarray(q.scale)
    many = with_leaves(q, q.qvalue, jnp.asarray(scales))
    run = jax.vmap(lambda q: q.dequantize(), in_axes=(with_leaves(q, None, 0),))
    assert_same_bits(run(many), np.stack([dequantized(q.qvalue, s, q.numerics, np.float32) for s in scales]))
    axes = with_leaves(q, None, 0)
    again = jax.vmap(lambda s: QTensor(q.qvalue, s, q.numerics, q.dtype), out_axes=axes)(many.scale)
    assert_same(again, many)


def test_gradients_go_past_its_integers_and_through_its_scales() -> None:
    q, values = made((8, 64), (8, 4), numerics(8, preserve_zero=False))
    x = np.arange(8 * 64, dtype=np.float32).reshape(8, 64)
    assert_same_bits(jax.grad(lambda x, q: jnp.sum(q.dequantize() * x))(x, q), values)
    assert_same_bits(jax.grad(lambda x: jnp.sum(q.dequantize() * x))(x), values)
    by_scale = jax.grad(lambda s: jnp.sum(QTensor(q.qvalue, s, q.numerics, q.dtype).dequantize()))(q.scale)
    centres = np.asarray(q.qvalue, np.float32) + np.float32(0.5)
    assert_same_bits(by_scale, centres.reshape(8, 4, 16).sum(-1))
    both = jax.grad(lambda q: jnp.sum(q.dequantize()), allow_int=True)(q)
    assert both.qvalue.dtype == jax.dtypes.float0
    assert_same_bits(both.scale, by_scale)


def test_it_is_a_residual_of_a_custom_vjp_and_is_kept_by_checkpoint() -> None:
    q, values = made((8, 64), (8, 1))

    @jax.custom_vjp
    def scaled(x: jax.Array, q: QTensor) -> jax.Array:
        return x * q.dequantize()

    scaled.defvjp(
        lambda x, q: (scaled(x, q), q),
        lambda q, g: (
            g * q.dequantize(),
            with_leaves(q, np.zeros(q.shape, jax.dtypes.float0), jnp.zeros_like(q.scale)),
        ),
    )
    x = np.ones((8, 64), np.float32)
    assert_same_bits(jax.jit(jax.grad(lambda x, q: jnp.sum(scaled(x, q))))(x, q), values)
    assert_same_bits(jax.grad(jax.checkpoint(lambda x, q: jnp.sum(x * q.dequantize())))(x, q), values)


# --- devices ----------------------------------------------------------------------------------------------------------


@pytest.mark.mesh
@pytest.mark.parametrize("kind", KINDS)
@every_form
def test_it_lies_on_devices_as_it_is_asked_to_and_its_values_need_no_collective(
    kind: AxisType, shape: Any, scale: Any
) -> None:
    q, values = made(shape, scale, dtype=BFLOAT16)
    on = mesh(kind)
    of_qvalue = NamedSharding(on, P("rows", "lanes"))
    of_scale = NamedSharding(
        on, P(*(name if n > 1 else None for name, n in zip(("rows", "lanes"), scale, strict=True)))
    )
    placed = jax.device_put(q, with_leaves(q, of_qvalue, of_scale))
    assert placed.qvalue.sharding == of_qvalue
    assert placed.scale.sharding == of_scale
    run = jax.jit(lambda q: q.dequantize())
    assert not collectives(run.lower(placed).compile())
    assert run(placed).sharding.is_equivalent_to(of_qvalue, 2)
    assert_same_bits(run(placed), values)
    assert_same_bits(placed.dequantize(), values)
    whole = jax.device_put(q, NamedSharding(on, P()))
    assert whole.scale.sharding.is_fully_replicated
    assert_same_bits(whole.dequantize(), values)


@pytest.mark.mesh
def test_shard_map_and_out_shardings_take_a_tree_of_places() -> None:
    q, values = made((8, 64), (8, 1))
    on, specs = mesh(AxisType.Auto), with_leaves(q, P("rows", "lanes"), P("rows"))
    run = jax.shard_map(lambda q: q.dequantize(), mesh=on, in_specs=(specs,), out_specs=P("rows", "lanes"))
    assert_same_bits(jax.jit(run)(q), values)
    places = jax.tree.map(lambda spec: NamedSharding(on, spec), specs, is_leaf=lambda leaf: isinstance(leaf, P))
    result = jax.jit(lambda q: q, out_shardings=places)(q)
    assert result.qvalue.sharding == places.qvalue
    assert_same(result, q)


# --- other processes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [jnp.int2, jnp.int4, jnp.int8, jnp.int32])
def test_it_is_pickled_and_copied(stored: Any) -> None:
    q, values = made((4, 64), (4, 4), numerics(2, noise_fn=PhiloxUniform()), BFLOAT16, stored)
    for again in (pickle.loads(pickle.dumps(q)), copy.copy(q), copy.deepcopy(q)):
        assert_same(again, q)
        assert_same_bits(again.dequantize(), values)


def stored(function: Any, *arguments: Any) -> Any:
    """What comes back from the bytes that a function is exported to."""
    pytest.importorskip("flatbuffers", reason="jax.export needs flatbuffers: pip install flatbuffers")
    return export.deserialize(export.export(jax.jit(function))(*arguments).serialize())


@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16])
def test_a_stored_program_takes_and_returns_it(dtype: Any) -> None:
    n = numerics(np.int64(4), noise_fn=PhiloxUniform((0,)), noise_dtype=jnp.float32)  # type: ignore[arg-type]
    q, values = made((8, 64), (8, 4), n, dtype)
    program = stored(lambda q: (q.dequantize(), q[2:4]), q)
    y, rows = program.call(q)
    assert_same_bits(y, values)
    assert_same(rows, QTensor(q.qvalue[2:4], q.scale[2:4], n, dtype))
    with pytest.raises(ValueError, match="structure"):
        program.call(QTensor(q.qvalue, q.scale, n, np.float16))


def test_a_stored_program_takes_any_number_of_rows() -> None:
    [rows] = export.symbolic_shape("rows")
    shapes = jax.ShapeDtypeStruct((rows, 64), jnp.int8), jax.ShapeDtypeStruct((rows, 4), jnp.float32)
    q, values = made((6, 64), (6, 4))
    run = lambda q: (q.dequantize(), q.reshape(-1, 4, 16), q[:, 16:], q[None])  # noqa: E731
    y, split, later, first = stored(run, with_leaves(q, *shapes)).call(q)
    assert_same_bits(y, values)
    assert_same_bits(split.dequantize(), values.reshape(6, 4, 16))
    assert_same_bits(later.dequantize(), values[:, 16:])
    assert_same_bits(first.dequantize(), values[None])


def test_numerics_that_cannot_be_written_are_not_stored_with_a_program() -> None:
    class Plain(IntNumerics):
        pass

    q, _ = made((4, 6), (4, 1))
    for n, words in (
        (Plain.symmetric(8), "subclass of IntNumerics.* qvalue and scale"),
        (numerics(8, noise_fn=lambda shape, key: 0.25), "noise_fn=.* close over the numerics"),
    ):
        with pytest.raises(ValueError, match=words):
            stored(lambda q: q.dequantize(), QTensor(q.qvalue, q.scale, n, q.dtype))
