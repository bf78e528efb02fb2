"""The form for a CPU has NumPy's bits: what XLA gives to YNNPACK, whose maxima lose NaN, and sums in float16."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import scaled_oracle
from implementations import FORMS, Where
from oracle import assert_same_bits
from test_scaled_kernels import FLOOR_TO_INT8, TO_INT8, every_dtype

from intnumerics.kernels import QuantSpec, Scaling, scaling

RANDOM = np.random.default_rng(0)
[FORM] = (form.values[0] for form in FORMS if form.id == "xla-cpu")


@every_dtype
@pytest.mark.parametrize("shape", [(1025, 16), (1025, 1000), (257, 1), (3, 40, 4096)], ids=str)
@pytest.mark.parametrize("largest", [scaling.largest_finite, scaling.largest_finite_on_a_cpu])
def test_no_maximum_is_lost_beside_nan_in_arrays_that_xla_gives_to_a_library(
    largest: Any, shape: tuple[int, ...], dtype: np.dtype
) -> None:
    """YNNPACK's maximum on a CPU loses NaN, and with it the elements before."""
    x = RANDOM.standard_normal(shape).astype(dtype)
    places = RANDOM.integers(0, shape[-1], (*shape[:-1], 1))
    np.put_along_axis(x, np.maximum(places - 1, 0), np.asarray(100, dtype), axis=-1)
    np.put_along_axis(x, places, np.asarray(np.nan, dtype), axis=-1)
    assert not np.isfinite(x.astype(np.float32)).all()
    assert_same_bits(jax.jit(largest, static_argnames="axes")(x, axes=(-1,)), scaled_oracle.largest_finite(x, None))


def normalized(x: jax.Array) -> jax.Array:
    """Rows times a number near 1, which is 1 for the rows here: a reduction, for which XLA takes YNNPACK."""
    return x.astype(jnp.float32) * (1 + jnp.mean(x[:, -8:].astype(jnp.float32), axis=-1, keepdims=True))


@every_dtype
@pytest.mark.parametrize("spec", [TO_INT8, FLOOR_TO_INT8], ids=["nearest", "floor"])
@pytest.mark.parametrize("rows", [1, 1025], ids=["few rows", "many rows"])
def test_integers_after_a_reduction_are_clipped_and_0_for_nan(rows: int, spec: QuantSpec, dtype: np.dtype) -> None:
    assert isinstance(FORM, Where)
    values = oracle.flushed(oracle.values(spec, dtype))  # a subnormal number, whose floor is 0 or -1, is not compared
    x = np.tile(np.concatenate([values, np.zeros(8, dtype)]), (rows, 1))
    quantize = FORM.operations().quantize
    wide = x.astype(np.float32)
    for before in (normalized, lambda x: x.astype(jnp.float32)):
        expected = oracle.quantize(wide, None, spec)
        assert_same_bits(FORM.run(lambda x, f=before: quantize(f(x), None, spec), x), expected)


def test_noise_of_the_user_that_is_nan_of_any_bits_makes_float16_nan() -> None:
    assert isinstance(FORM, Where)
    quantize = FORM.operations().quantize
    noise = np.asarray([0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], np.uint32).view(np.float32)
    x, nearest = np.asarray([1, -2, 3, 0], np.float16), dataclasses.replace(TO_INT8, integer_dtype=None)
    y, q = (FORM.run(lambda x, n, s=s: quantize(x, n, s), x, noise) for s in (nearest, TO_INT8))
    assert np.isnan(y).all()
    assert (q == 0).all()


def test_a_layer_norm_and_its_integers_are_one_fusion() -> None:
    """As those of `round` and a cast are; with an array of floats in between it would take three times as long."""

    def integers(x: jax.Array) -> jax.Array:
        centred = x - x.mean(-1, keepdims=True)
        y = centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * 30
        return FORM.operations().quantize(y, None, TO_INT8)

    compiled = jax.jit(integers).lower(jax.ShapeDtypeStruct((4096, 1024), np.float32)).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 4096 * 1024


def test_between_a_layer_norm_and_its_integers_and_scales_one_array_is_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scaling, "_has_one_cpu", lambda: True)  # as there is where tests of sharding are not run

    def both(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        centred = x - x.mean(-1, keepdims=True)
        y = centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * 30
        return FORM.operations().quantize_by_absmax(y, None, TO_INT8, Scaling(127.0, fits=True), None)

    compiled = jax.jit(both).lower(jax.ShapeDtypeStruct((4096, 1024), np.float32)).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 1.5 * 4 * 4096 * 1024
