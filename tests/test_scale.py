"""The scale from the largest magnitude: how it is rounded, what it is of, and that nothing is lost by it."""

import itertools
import os
import pathlib
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import oracle
import pytest
from oracle import assert_same_bits
from refusals import refused

from intnumerics import IntNumerics, absmax_scale, quantize, quantize_to_int
from intnumerics.kernels import Scaling, scaling

ROOT = pathlib.Path(__file__).parent.parent
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
INT8 = IntNumerics.symmetric(8, preserve_max_val=True)  # mapped to 127.0
INT4 = IntNumerics.symmetric(4, preserve_max_val=True)  # to 7.0
BINARY = IntNumerics.symmetric(1, preserve_max_val=True)  # to 0.5
RANDOM = np.random.default_rng(0)
X = (RANDOM.standard_normal((6, 5, 16)) * 3).astype(np.float32)


def ulps(x: np.ndarray, by: int) -> np.ndarray:
    """x, which is positive, `by` units in the last place larger."""
    return (x.view(f"int{8 * x.itemsize}") + by).view(x.dtype)


def expected(maximum: np.ndarray, bound: float, preserve_max_val: bool = True) -> np.ndarray:
    """`maximum * (1 / bound)`, with `preserve_max_val` six units more unless it is a power of 2 that is exact."""
    scale = maximum * (np.ones((), maximum.dtype) / np.asarray(bound, maximum.dtype))
    is_exact = (np.frexp(scale)[0] == 0.5) & (scale * np.asarray(bound, scale.dtype) == maximum)
    return np.where(is_exact, scale, ulps(scale, 6)) if preserve_max_val else scale


# --- rounding ---------------------------------------------------------------------------------------------------------

MANTISSAS = (np.arange(1 << 23, dtype=np.int32) + (127 << 23)).view(np.float32)
scale_of = jax.jit(scaling.scale_of, static_argnums=1)


@pytest.mark.parametrize("bound", [0.5, 1.5, 7.0, 15.5, 127.0, 255.5, 32767.0])
def test_no_quotient_exceeds_the_bound_even_where_a_device_is_two_units_off(bound: float) -> None:
    scale = np.asarray(scale_of(MANTISSAS, Scaling(bound, fits=True)))
    assert_same_bits(scale, expected(MANTISSAS, bound))
    # As PTX's div.full.f32 and rcp.approx.f32 may be: beside NumPy's own, which are rounded to nearest.
    for off in (0, 2):
        is_exact = np.frexp(scale)[0] == 0.5  # every device divides by a power of 2 exactly
        assert (np.where(is_exact, MANTISSAS / scale, ulps(MANTISSAS / scale, off)) <= bound).all()
        reciprocal = np.float32(1) / scale
        assert (MANTISSAS * np.where(is_exact, reciprocal, ulps(reciprocal, off)) <= bound).all()
    assert (MANTISSAS / scale > bound * (1 - 2.0**-20)).all()


@pytest.mark.parametrize("numerics", [INT8, INT4, BINARY, IntNumerics.symmetric(8), IntNumerics.symmetric(22)])
def test_the_scale_is_right_for_every_exponent(numerics: IntNumerics) -> None:
    bound = numerics.abs_val_mapped_to()
    maximum = np.ldexp(RANDOM.uniform(1, 2, 4096), RANDOM.integers(-100, 124, 4096)).astype(np.float32)
    scale = absmax_scale(-maximum[:, None], numerics, axis=1)
    assert_same_bits(np.asarray(scale)[:, 0], expected(maximum, bound, numerics.preserve_max_val))


def test_float64_has_a_scale_of_its_own() -> None:
    with jax.enable_x64(True):
        maximum = np.ldexp(RANDOM.uniform(1, 2, 4096), RANDOM.integers(-900, 900, 4096))
        assert_same_bits(np.asarray(absmax_scale(maximum[:, None], INT8, axis=1))[:, 0], expected(maximum, 127.0))


TINY, HUGE = 2.0**-126, np.finfo(np.float32).max


@pytest.mark.parametrize(
    ("x", "scale"),
    [
        ([1.0, -127.0], 1.0),
        ([0.0, -0.0], 1.0),
        ([], 1.0),
        ([np.nan, np.inf, -np.inf], 1.0),
        ([np.nan, -254.0, np.inf, 3.0], 2.0),
        ([2.0**-149], 1.0),
        ([TINY], 1.0),
        ([np.nextafter(np.float32(127 * 2 * TINY), np.float32(0))], 1.0),
        ([127 * 2 * TINY], 2 * TINY),
        ([127 * 2.0**120], 2.0**120),
    ],
    ids=str,
)
def test_what_cannot_be_divided_by_has_scale_1_and_what_is_not_finite_has_no_say(x: list[float], scale: float) -> None:
    assert_same_bits(absmax_scale(np.asarray(x, np.float32), INT8), np.asarray([scale], np.float32))


@pytest.mark.parametrize("dtype", oracle.DTYPES, ids=str)
@pytest.mark.parametrize("axis", [None, 0, (1, 2)], ids=str)
@pytest.mark.parametrize("finite", [True, False], ids=["finite", "not finite"])
@pytest.mark.parametrize("largest", [scaling.largest_finite, scaling.largest_finite_on_a_cpu])
def test_both_ways_to_the_largest_magnitude_leave_out_what_is_not_finite(
    largest: Any, finite: bool, axis: Any, dtype: np.dtype
) -> None:
    x = X.astype(dtype)
    if not finite:
        x[0, 0, 3], x[1, :, 5], x[2] = np.nan, -np.inf, np.nan
    axes = tuple(range(3)) if axis is None else (axis,) if isinstance(axis, int) else axis
    wide = np.abs(x.astype(np.float32))
    expected = np.max(np.where(np.isfinite(wide), wide, 0), axis=axes, keepdims=True)
    assert_same_bits(jax.jit(largest, static_argnames="axes")(x, axes=axes), expected)
    assert_same_bits(jax.vmap(lambda x: largest(x, axes=()))(x), np.where(np.isfinite(wide), wide, 0))


ON_ONE_DEVICE = """
import jax, numpy as np
from intnumerics import IntNumerics, absmax_scale
assert len(jax.devices("cpu")) == 1
n = IntNumerics.symmetric(8)
for finite in (True, False):
    x = np.random.default_rng(0).standard_normal((6, 5, 16)).astype(np.float32)
    if not finite:
        x[0, 0, 3], x[1, :, 5], x[2] = np.nan, -np.inf, np.nan
    for axis in (None, 0, (1, 2)):
        largest = np.max(np.where(np.isfinite(x), np.abs(x), 0), axis=axis, keepdims=True)
        expected = np.where(largest == 0, np.float32(1), largest * (np.float32(1) / np.float32(127.5)))
        scale = lambda x: absmax_scale(x, n, axis=axis)
        for found in (scale(x), jax.jit(scale)(x), jax.vmap(scale)(x[None])[0]):
            np.testing.assert_array_equal(found, expected, strict=True)
        assert not jax.grad(lambda x: scale(x).sum())(x).any()
text = jax.jit(lambda x: absmax_scale(x, n)).lower(x).as_text()
assert "stablehlo.case" in text, text
"""


def test_a_process_with_one_cpu_takes_the_quick_way_to_the_same_scale() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", ON_ONE_DEVICE],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_scale_has_a_reciprocal_that_is_a_normal_number() -> None:
    assert_same_bits(absmax_scale(np.asarray([HUGE]), BINARY), np.asarray([2.0**126], np.float32))
    assert_same_bits(absmax_scale(np.asarray([2.0**125], np.float32), BINARY), np.asarray([2.0**126], np.float32))


# --- what it is of ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [None, 0, -1, 1, (0, 2), (-1, 1), (), [0, 1, 2], np.int64(1), np.asarray(1)], ids=str)
def test_axes_that_share_a_scale_are_kept_with_size_1(axis: Any) -> None:
    axes = tuple(axis) if isinstance(axis, list) else axis
    maximum = np.max(np.abs(X), axis=axes, keepdims=True)
    assert_same_bits(absmax_scale(X, INT8, axis=axis), expected(maximum, 127.0))


def test_a_number_has_a_scale_too() -> None:
    assert_same_bits(absmax_scale(jnp.float32(-254.0), INT8), np.float32(2))


@pytest.mark.parametrize("dtype", [BFLOAT16, np.dtype(np.float16)], ids=str)
def test_sixteen_bits_are_scaled_in_float32(dtype: np.dtype) -> None:
    x = X.astype(dtype)
    scale = absmax_scale(x, INT8, axis=-1)
    assert_same_bits(scale, expected(np.max(np.abs(x.astype(np.float32)), axis=-1, keepdims=True), 127.0))
    q = quantize_to_int(jnp.asarray(x) / scale, INT8)
    assert_same_bits(q, np.rint(x.astype(np.float32) / np.asarray(scale)).astype(np.int8))


def test_an_example_of_vmap_has_the_scale_of_its_own_call() -> None:
    alone = np.stack([np.asarray(absmax_scale(x, INT8, axis=0)) for x in X])
    assert_same_bits(jax.vmap(lambda x: absmax_scale(x, INT8, axis=0))(X), alone)


# --- what is not lost -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("numerics", [INT8, IntNumerics.symmetric(8)], ids=["fits", "edge"])
def test_no_gradient_goes_through_the_scale(numerics: IntNumerics) -> None:
    value, tangent = jax.jvp(lambda x: absmax_scale(x, numerics), (X,), (np.ones_like(X),))
    assert_same_bits(tangent, np.zeros_like(np.asarray(value)))
    assert_same_bits(jax.grad(lambda x: absmax_scale(x, numerics, axis=0).sum())(X), np.zeros_like(X))


@pytest.mark.parametrize("way", ["quotient", "product"])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize(
    "n",
    [INT8, INT8.replace(bits=3), IntNumerics.symmetric(16, round=False), IntNumerics.symmetric(3, round=False)],
    ids=["8 bits", "3 bits", "16 bits, not rounded", "3 bits, not rounded"],
)
def test_the_largest_element_keeps_its_gradient_in_each_of_many_tensors(
    n: IntNumerics, way: str, compiled: bool
) -> None:
    n = n.replace(clip_gradient=True)
    x = RANDOM.standard_normal((4096, 32)).astype(np.float32)

    def scaled(x: jax.Array) -> jax.Array:
        scale = absmax_scale(x, n, axis=-1)
        return x / scale if way == "quotient" else x * (1 / scale)

    def gradient(x: jax.Array) -> jax.Array:
        return jax.vjp(lambda y: quantize(y, n), scaled(x))[1](jnp.ones_like(x))[0]

    gradient = jax.jit(gradient) if compiled else gradient
    assert_same_bits(gradient(x), np.ones_like(x))


def test_each_slice_loses_its_largest_gradient_where_the_docstring_says_so() -> None:
    n = IntNumerics.symmetric(8, clip_gradient=True)
    x = RANDOM.standard_normal((512, 32)).astype(np.float32)
    scale = absmax_scale(x, n, axis=-1)
    kept = jax.vjp(lambda y: quantize(y, n), x / scale)[1](jnp.ones_like(x))[0]
    lost = np.abs(x) > 127.0 * np.asarray(scale)
    assert_same_bits(kept, (~lost).astype(np.float32))
    assert np.take_along_axis(lost, np.argmax(np.abs(x), axis=-1, keepdims=True), axis=-1).all()


@pytest.mark.parametrize(
    "n", [IntNumerics.symmetric(b, preserve_max_val=p) for b, p in itertools.product((1, 4, 8), (True, False))]
)
def test_zeros_stay_finite_with_a_gradient(n: IntNumerics) -> None:
    zeros = np.zeros((3, 4), np.float32)

    def loss(x: jax.Array) -> jax.Array:
        scale = absmax_scale(x, n, axis=-1)
        return (quantize(x / scale, n) * scale).sum()

    value, gradient = jax.value_and_grad(loss)(zeros)
    assert value == (6.0 if n.bits == 1 else 0.0)  # floor(0) + 0.5, of each
    assert_same_bits(gradient, np.ones_like(zeros))


# --- the usual numerics -----------------------------------------------------------------------------------------------


def test_symmetric_numerics_are_those_of_aqt() -> None:
    noise = lambda shape, key: jnp.zeros(shape)  # noqa: E731
    for bits in (1, 2, 4, 8):
        assert IntNumerics.symmetric(bits) == IntNumerics(bits, bits != 1, False, True, False, True, None)
    assert IntNumerics.symmetric(
        3, preserve_zero=False, preserve_max_val=True, clip=False, clip_gradient=True, round=False, noise_fn=noise,
        dtype=jnp.int8, noise_dtype=jnp.float32,
    ) == IntNumerics(3, False, True, False, True, False, noise, jnp.int8, noise_dtype=jnp.float32)  # fmt: skip


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axis", "kind", "words"),
    [
        (3, ValueError, ["axis=3", "3 axes", "from -3 to 2"]),
        ((0, -4), ValueError, ["axis=(0, -4)", "has axis -4", "from -3 to 2"]),
        ((0, -3), ValueError, ["axis=(0, -3)", "twice"]),
        (True, TypeError, ["axis=True", "neither an integer", "None for all"]),
        ((0, True), TypeError, ["axis=(0, True)", "neither an integer", "None for all"]),
        (1.0, TypeError, ["axis=1.0", "None for all"]),
        ("rows", TypeError, ["axis='rows'", "None for all"]),
        ((0, 1.0), TypeError, ["axis=(0, 1.0)", "None for all"]),
    ],
    ids=str,
)
def test_an_axis_that_x_does_not_have_is_refused(axis: Any, kind: type[Exception], words: list[str]) -> None:
    with refused(kind, *words):
        absmax_scale(X, INT8, axis=axis)
    with refused(ValueError, "axis=0", "0 axes", "use None"):
        absmax_scale(np.float32(1), INT8, axis=0)


def test_what_cannot_be_scaled_is_refused() -> None:
    with refused(TypeError, "x has dtype int32", "x.astype(jnp.float32)"):
        absmax_scale(np.arange(3, dtype=np.int32), INT8)
    with refused(TypeError, "numerics=8", "not an IntNumerics", "symmetric"):
        absmax_scale(X, 8)  # pyright: ignore[reportArgumentType]
    with refused(ValueError, "bits=1", "one bucket", "use preserve_zero=False or more bits"):
        absmax_scale(X, IntNumerics.symmetric(1, preserve_zero=True, preserve_max_val=True))
