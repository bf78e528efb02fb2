"""Scales under the transforms that their other tests do not cover: export, loops, shard_map along some axes, modes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scaled_oracle
import streams
from jax import export, lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from meshes import mesh
from oracle import assert_same_bits

from intnumerics import AbsMax, IntNumerics, PhiloxUniform, absmax_scale, quantize, quantize_tensor, quantize_to_int
from intnumerics.kernels import Scaling

WORDS = np.asarray([0, 42], np.uint32)
INT8 = IntNumerics.symmetric(8)
CLIPPED = IntNumerics.symmetric(8, clip_gradient=True)
NOISY = INT8.replace(noise_fn=PhiloxUniform())
SCALING = Scaling(127.5, fits=False)
X = (np.random.default_rng(0).standard_normal((4, 6, 64)) * 3).astype(np.float32)


def key_of(words: Any) -> jax.Array:
    return jax.random.wrap_key_data(words, impl="threefry2x32")


def values(x: np.ndarray, noise: np.ndarray | None = None, block: int | None = None) -> np.ndarray:
    return scaled_oracle.quantize_by_absmax(x, noise, INT8.spec(), SCALING, block)[0]


@pytest.mark.parametrize("slices", [{"axis": -1}, {"axis": 0}, {"axis": None}, {"block": 32}], ids=str)
def test_one_program_serves_every_size_of_a_batch_on_every_platform(slices: Any) -> None:
    pytest.importorskip("flatbuffers", reason="jax.export needs flatbuffers: pip install flatbuffers")

    def f(x: jax.Array, words: jax.Array) -> Any:
        y, vjp = jax.vjp(lambda x: quantize(x, NOISY, scale=AbsMax(**slices), key=key_of(words)), x)
        return y, vjp(y)[0], quantize_tensor(x, NOISY, key=key_of(words), **slices).qvalue

    x = jax.ShapeDtypeStruct(export.symbolic_shape("b, 6, 64"), np.float32)
    program = export.export(jax.jit(f), platforms=("cpu", "cuda", "tpu"))(x, WORDS)
    program = export.deserialize(program.serialize())
    for b in (1, 4):
        y, g, q = program.call(X[:b], WORDS)
        expected = quantize(X[:b], NOISY, scale=AbsMax(**slices), key=key_of(WORDS))
        assert_same_bits(y, expected)
        assert_same_bits(g, expected)
        assert_same_bits(q, quantize_tensor(X[:b], NOISY, key=key_of(WORDS), **slices).qvalue)


def test_the_last_axis_may_be_a_symbol_too() -> None:
    pytest.importorskip("flatbuffers", reason="jax.export needs flatbuffers: pip install flatbuffers")
    x = jax.ShapeDtypeStruct(export.symbolic_shape("b, n"), np.float32)

    def f(x: jax.Array) -> Any:
        return quantize(x, CLIPPED, scale=AbsMax(axis=-1)), jax.grad(lambda x: quantize(x, CLIPPED, scale=0.01).sum())(
            x
        )

    program = export.export(jax.jit(f))(x)
    for x in (X[0], X[1, :, :7]):
        y, g = program.call(x)
        assert_same_bits(y, values(x))
        inside = scaled_oracle.mask(x, np.full((1, 1), 0.01, np.float32), CLIPPED.spec())
        assert_same_bits(g, inside.astype(np.float32))


def test_an_exported_gradient_of_a_scale_that_is_given_has_its_mask() -> None:
    pytest.importorskip("flatbuffers", reason="jax.export needs flatbuffers: pip install flatbuffers")
    program = export.export(jax.jit(lambda x, s: quantize(x, CLIPPED, scale=s)))(X, np.float32(0.01))
    program = export.deserialize(program.serialize(vjp_order=1))
    y, vjp = jax.vjp(program.call, X, np.float32(0.01))
    inside = scaled_oracle.mask(X, np.full((1, 1, 1), 0.01, np.float32), CLIPPED.spec())
    assert_same_bits(vjp(jnp.ones_like(y))[0], inside.astype(np.float32))


def test_scan_and_map_quantize_each_step_by_its_own_scales() -> None:
    expected = values(X)
    _, scanned = lax.scan(lambda c, x: (c, quantize(x, INT8, scale=AbsMax(axis=-1))), 0, X)
    assert_same_bits(scanned, expected)
    assert_same_bits(lax.map(lambda x: quantize(x, INT8, scale=AbsMax(axis=-1)), X), expected)
    assert_same_bits(lax.map(lambda x: quantize(x, INT8, scale=AbsMax(axis=-1)), X, batch_size=2), expected)


def test_vmap_over_scales_gives_each_example_its_own() -> None:
    scale = np.linspace(0.01, 0.1, 4, dtype=np.float32)
    y = jax.vmap(lambda x, s: quantize(x, INT8, scale=s))(X, scale)
    assert_same_bits(y, scaled_oracle.quantize_by_scale(X, scale.reshape(4, 1, 1), None, INT8.spec()))
    shared = jax.vmap(lambda x: quantize(x, INT8, scale=scale[0]))(X)
    assert_same_bits(shared, scaled_oracle.quantize_by_scale(X, scale[:1].reshape(1, 1, 1), None, INT8.spec()))
    over_scales = jax.vmap(lambda s: quantize_to_int(X[0], INT8, scale=s))(scale)
    assert over_scales.shape == (4, 6, 64)
    blocks = jax.vmap(lambda x, s: quantize(x, INT8, scale=s))(
        X, scale.reshape(4, 1, 1) * np.ones((1, 6, 2), np.float32)
    )
    assert_same_bits(blocks, y)


def test_keys_of_examples_draw_noise_for_each() -> None:
    words = np.asarray([[0, 42], [0, 43], [5, 6], [7, 8]], np.uint32)
    y = jax.vmap(lambda x, w: quantize(x, NOISY, scale=AbsMax(axis=-1), key=key_of(w)))(X, words)
    noise = np.stack([streams.uniform(X.shape[1:], tuple(w.tolist())) for w in words])
    assert_same_bits(y, values(X, noise))


@pytest.mark.mesh
def test_inside_shard_map_along_some_axes_xla_splits_the_rest() -> None:
    on = mesh(AxisType.Auto)
    by_row = lambda x: quantize(x, INT8, scale=AbsMax(axis=-1))  # noqa: E731
    f = jax.shard_map(by_row, mesh=on, in_specs=P("rows"), out_specs=P("rows"), axis_names={"rows"})
    x = jax.device_put(X, jax.NamedSharding(on, P("rows", None, "lanes")))
    assert_same_bits(jax.jit(f)(x), values(X))


@pytest.mark.mesh
def test_a_scale_of_each_device_makes_the_result_vary_and_the_gradient_is_summed() -> None:
    on = mesh(AxisType.Auto, sizes=(4,))

    def f(x: jax.Array) -> jax.Array:  # on an x that all devices have
        scale = 0.01 * (1 + lax.axis_index("rows").astype(jnp.float32))
        return quantize(x, INT8, scale=scale)[None]

    each = jax.jit(jax.shard_map(f, mesh=on, in_specs=P(), out_specs=P("rows")))
    for i, y in enumerate(np.asarray(each(X[0]))):
        scale = np.full((1, 1), np.float32(0.01) * np.float32(1 + i), np.float32)
        assert_same_bits(y, scaled_oracle.quantize_by_scale(X[0], scale, None, INT8.spec()))
    assert_same_bits(jax.grad(lambda x: each(x).sum())(X[0]), np.full_like(X[0], 4))


def test_strict_promotion_debug_nans_and_no_jit_change_nothing() -> None:
    x, expected = X.astype(jnp.bfloat16), values(X.astype(jnp.bfloat16))
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        assert_same_bits(quantize(x, INT8, scale=AbsMax(axis=-1)), expected)
        quantize_tensor(x, NOISY, axis=0, key=key_of(WORDS)).dequantize()
        jax.grad(lambda x: quantize(x, CLIPPED, scale=jnp.full((64,), 0.01)).astype(jnp.float32).sum())(x)
    with jax.debug_nans(True):
        assert_same_bits(quantize(x, INT8, scale=AbsMax(axis=-1)), expected)
    with jax.disable_jit():
        assert_same_bits(quantize(x, INT8, scale=AbsMax(axis=-1)), expected)
        assert_same_bits(quantize_tensor(x, INT8, axis=0).scale, absmax_scale(x, INT8, axis=0))


def test_a_program_names_the_operations_with_scales() -> None:
    text = jax.jit(lambda x: (quantize_tensor(x, INT8), quantize(x, INT8, scale=0.1))).lower(X).as_text(debug_info=True)
    assert "intnumerics_quantize_by_absmax" in text
    assert "intnumerics_quantize_by_scale" in text
