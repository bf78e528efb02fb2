"""`quantize_tensor`: integers and scales have the bits of the formula in NumPy, for every slice, width and noise."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import scaled_oracle
import streams
from oracle import assert_same_bits

from intnumerics import VALUES, AbsMax, Fixed, IntNumerics, PhiloxUniform, QTensor, quantize, quantize_tensor
from intnumerics.kernels import Scaling

KEY = jax.random.key(42, impl="threefry2x32")  # whose words are 0 and 42
INT8 = IntNumerics.symmetric(8)
X = (np.random.default_rng(0).standard_normal((3, 4, 64)) * 3).astype(np.float32)
X[0, 1] = 0
X[1, 2, :3] = np.nan, np.inf, -np.inf
X[2, 0] *= np.float32(1e-30)
X[2, 1] *= np.float32(3e37)


def expected(
    x: np.ndarray, n: IntNumerics, axis: Any, dtype: Any, noise: np.ndarray | None = None, **fields: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The integers, and the scales of slices along an axis."""
    magnitude = np.abs(x.astype(np.float32))
    largest = np.where(np.isfinite(magnitude), magnitude, 0).max(axis=axis, keepdims=True, initial=0)
    scaling = Scaling(n.abs_val_mapped_to(), n.preserve_max_val, **fields)
    scale = scaled_oracle.scale_of(largest, scaling)
    spec = dataclasses.replace(n.spec(), integer_dtype=np.dtype(np.int32))
    return scaled_oracle.quantize_by_scale(x, scale, noise, spec).astype(dtype), scale


def assert_is(q: QTensor, qvalue: np.ndarray, scale: np.ndarray) -> None:
    assert_same_bits(q.qvalue, qvalue)
    assert_same_bits(q.scale, scale)


@pytest.mark.parametrize("dtype", oracle.DTYPES, ids=str)
@pytest.mark.parametrize("axis", [-1, 2, 1, 0, None, (1, 2), (0, 2), (0,)], ids=str)
def test_one_scale_for_each_slice(axis: Any, dtype: np.dtype) -> None:
    with np.errstate(over="ignore"):  # to infinity in float16
        x = X.astype(dtype)
    q = quantize_tensor(x, INT8, axis=axis)
    assert_is(q, *expected(x, INT8, axis, np.int8))
    assert q.dtype == dtype
    assert q.numerics == INT8
    jitted = jax.jit(lambda x: quantize_tensor(x, INT8, axis=axis))(x)
    assert_is(jitted, np.asarray(q.qvalue), np.asarray(q.scale))


@pytest.mark.parametrize("block", [16, 32, 64, 128, 256])
def test_one_scale_for_each_block_of_the_last_axis(block: int) -> None:
    x = np.random.default_rng(1).standard_normal((3, 512)).astype(np.float32)
    q = quantize_tensor(x, INT8, block=block)
    qvalue, scale = expected(x.reshape(3, -1, block), INT8, -1, np.int8)
    assert_is(q, qvalue.reshape(x.shape), scale[..., 0])


WIDTHS = {1: "int2", 2: "int2", 3: "int4", 4: "int4", 5: "int8", 8: "int8", 9: "int16", 16: "int16", 22: "int32"}


@pytest.mark.parametrize("preserve_zero", [False, True])
@pytest.mark.parametrize("bits", WIDTHS)
def test_integers_take_as_many_bits_as_the_buckets(bits: int, preserve_zero: bool) -> None:
    n = IntNumerics.symmetric(bits, preserve_zero=preserve_zero)
    q = quantize_tensor(X, n)
    qvalue, scale = expected(X, n, -1, jnp.dtype(WIDTHS[bits]))
    assert_same_bits(np.asarray(q.qvalue).astype(np.int32), qvalue.astype(np.int32))
    assert q.qvalue.dtype == WIDTHS[bits]
    assert_same_bits(q.scale, scale)


@pytest.mark.parametrize("axis", [-1, None, 0], ids=str)
def test_noise_is_that_of_the_key_and_the_index(axis: Any) -> None:
    n = INT8.replace(noise_fn=PhiloxUniform())
    q = quantize_tensor(X, n, axis=axis, key=KEY)
    assert_is(q, *expected(X, INT8, axis, np.int8, streams.uniform(X.shape, (0, 42))))


def test_noise_does_not_change_the_structure_of_the_tree() -> None:
    q = quantize_tensor(X, INT8.replace(noise_fn=PhiloxUniform()), key=KEY)
    assert jax.tree.structure(q) == jax.tree.structure(quantize_tensor(X, INT8))


def test_a_part_has_the_noise_of_its_place_and_scales_of_its_own() -> None:
    n = INT8.replace(noise_fn=PhiloxUniform())
    q = quantize_tensor(X[1:], n, key=KEY, offset=(1, 0, 0), global_shape=X.shape)
    assert_is(q, *expected(X[1:], INT8, -1, np.int8, streams.uniform(X.shape, (0, 42))[1:]))


@pytest.mark.parametrize("fields", [{"fraction": 0.5}, {"power_of_two": True}], ids=str)
def test_the_calibration_changes_scales(fields: Any) -> None:
    assert_is(quantize_tensor(X, INT8, calibration=AbsMax(**fields)), *expected(X, INT8, -1, np.int8, **fields))


def test_scales_of_powers_of_two_change_no_mantissa() -> None:
    scale = np.asarray(quantize_tensor(X, INT8, calibration=AbsMax(power_of_two=True)).scale)
    assert (np.frexp(scale)[0] == 0.5).all()


def test_a_fixed_bound_gives_each_slice_its_scale() -> None:
    q = quantize_tensor(X, INT8, calibration=Fixed(2.0))
    assert q.scale.shape == (3, 4, 1)
    assert_same_bits(np.unique(q.scale), scaled_oracle.scale_of(np.full(1, 2, np.float32), Scaling(127.5, fits=False)))
    assert quantize_tensor(X, INT8, calibration=Fixed(2.0), axis=None).scale.shape == (1, 1, 1)
    assert quantize_tensor(X, INT8, calibration=Fixed(2.0), block=16).scale.shape == (3, 4, 4)


def test_scales_that_are_there_are_used_and_kept() -> None:
    first = quantize_tensor(X[:, :2], INT8, axis=(0, 1, 2))
    again = quantize_tensor(X, INT8, scale=first.scale)
    assert_same_bits(again.scale, first.scale)
    spec = dataclasses.replace(INT8.spec(), integer_dtype=np.dtype(np.int8))
    assert_same_bits(again.qvalue, scaled_oracle.quantize_by_scale(X, np.asarray(first.scale), None, spec))
    assert quantize_tensor(X, INT8, scale=0.5).scale.shape == (1, 1, 1)


@pytest.mark.parametrize("slices", [{"axis": -1}, {"axis": 0}, {"axis": None}, {"block": 16}], ids=str)
def test_dequantized_it_is_what_quantize_returns(slices: Any) -> None:
    y = np.asarray(quantize(X, INT8, scale=AbsMax(**slices)))
    q = quantize_tensor(X, INT8, **slices)
    assert_same_bits(q.dequantize(), np.where(np.isnan(y), np.float32(0), y + np.float32(0)))  # -0.0 is 0


def test_float64_has_scales_of_float64() -> None:
    with jax.enable_x64(True):
        q = quantize_tensor(X.astype(np.float64), INT8)
        assert (q.scale.dtype, q.dtype, q.dequantize().dtype) == (np.float64,) * 3


@pytest.mark.parametrize("shape", [(), (0,), (7,), (0, 16), (16, 0), (2, 1)], ids=str)
def test_every_shape_has_scales(shape: tuple[int, ...]) -> None:
    x = np.linspace(-3, 3, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    q = quantize_tensor(x, INT8)
    assert q.scale.shape == (*shape[:-1], 1)[: len(shape)]
    assert np.all(np.abs(np.asarray(q.dequantize()) - x) <= 3 / 127)
    if shape and shape[-1] == 0:
        assert_same_bits(q.scale, np.ones((*shape[:-1], 1), np.float32))


# --- transforms -------------------------------------------------------------------------------------------------------


def test_vmap_gives_each_example_its_own_scales() -> None:
    n = INT8.replace(noise_fn=PhiloxUniform())
    keys = jax.random.split(KEY, 3)
    q = jax.vmap(lambda x, key: quantize_tensor(x, n, key=key))(X, keys)
    for i, key in enumerate(keys):
        one = quantize_tensor(X[i], n, key=key)
        assert_same_bits(q.qvalue[i], one.qvalue)
        assert_same_bits(q.scale[i], one.scale)
    columns = jax.vmap(lambda x: quantize_tensor(x, INT8), in_axes=2, out_axes=2)(X)
    assert_same_bits(columns.qvalue, expected(X, INT8, 1, np.int8)[0])


def test_a_scan_carries_a_quantized_tensor() -> None:
    def step(q: QTensor, _: None) -> tuple[QTensor, jax.Array]:
        return quantize_tensor(q.dequantize(), INT8), q.scale

    last, scales = jax.lax.scan(step, quantize_tensor(X, INT8), length=2)
    assert isinstance(last, QTensor)
    assert scales.shape == (2, 3, 4, 1)


def test_a_cache_of_keys_and_values_is_updated_in_place() -> None:
    cache = quantize_tensor(jnp.zeros((8, 64), jnp.bfloat16), INT8)

    def write(cache: QTensor, x: jax.Array, at: jax.Array) -> QTensor:
        update = lambda whole, part: jax.lax.dynamic_update_slice_in_dim(whole, part, at, 0)  # noqa: E731
        return jax.tree.map(update, cache, quantize_tensor(x, INT8))

    before = cache.qvalue
    row = X[0, 0][None].astype(jnp.bfloat16)
    cache = jax.jit(write, donate_argnums=0)(cache, row, jnp.int32(5))
    assert before.is_deleted()
    assert_same_bits(cache[5:6].qvalue, expected(row, INT8, -1, np.int8)[0])


def test_gradients_stop_at_integers_and_scales() -> None:
    x = np.nan_to_num(X[:1], posinf=1, neginf=1)
    assert not jax.grad(lambda x: quantize_tensor(x, INT8).dequantize().sum())(x).any()
    assert not jax.grad(lambda s: quantize_tensor(x, INT8, scale=s).dequantize().sum())(jnp.float32(0.1)).any()


@pytest.mark.parametrize(("policy", "passes"), [(jax.checkpoint_policies.save_only_these_names(VALUES), 1), (None, 2)])
def test_remat_saves_integers_and_scales_by_name(policy: Any, passes: int) -> None:
    def f(w: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.sin(w * quantize_tensor(x, INT8).dequantize()).sum()

    text = str(jax.make_jaxpr(jax.grad(jax.checkpoint(f, policy=policy)))(jnp.float32(2), X))
    assert text.count("name=intnumerics_quantize_by_absmax") == passes
