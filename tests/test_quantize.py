"""The public functions: gradients, residuals, integers, every shape, and float64. Transforms: test_transforms.py."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import oracle
import pytest
from oracle import assert_same_bits
from original import dither, given, numerics, spec_of

from intnumerics import Context, IntNumerics, PhiloxUniform, _operations, from_int, quantize, quantize_to_int

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
NOISE = np.asarray([-0.5, -0.25, 0.0, 0.125, 0.4375, 0.5, 0.3125, -0.0625], np.float32)
# 100.5 + 0.125 is 100.5 again in bfloat16, a tie: it shows whether the sum is rounded before the rounding
X = np.asarray([-9.0, -0.5, 0.0, 100.5, 3.5, 2.25, np.nan, np.inf], np.float32)
every_dtype = pytest.mark.parametrize("dtype", oracle.DTYPES, ids=str)


def backward(x: Any, n: IntNumerics, **options: Any) -> Any:
    return jax.vjp(lambda x: quantize(x, n, **options), jnp.asarray(x))[1]


# --- gradients and residuals ------------------------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("preserve_zero", [False, True])
def test_gradient_is_zero_beyond_the_bound_and_g_up_to_it(dtype: np.dtype, clip: bool, preserve_zero: bool) -> None:
    n = numerics(4, clip=clip, preserve_zero=preserve_zero)
    b = np.asarray(7.0 if preserve_zero else 7.5, dtype)
    beyond = np.nextafter(b, np.asarray(np.inf, dtype))
    x = np.asarray([b, -b, beyond, -beyond, 0, -0.0, np.nan, np.inf, -np.inf, 1, beyond, 2], dtype)
    g = np.asarray([1, -2, 3, -4, 5, -6, 7, np.inf, -np.inf, np.inf, np.nan, np.nan], dtype)
    expected = np.asarray([1, -2, 0, 0, 5, -6, 0, 0, 0, np.inf, 0, np.nan], dtype)
    assert_same_bits(backward(x, n)(jnp.asarray(g))[0], expected)
    assert_same_bits(jax.jit(lambda x, g: backward(x, n)(g)[0])(x, g), expected)
    assert_same_bits(backward(x, n.replace(clip_gradient=False))(jnp.asarray(g))[0], g)


def test_gradient_masks_x_as_it_was_before_the_noise() -> None:
    n = numerics(4, noise_fn=given(np.asarray([3.0, -3.0], np.float32)))
    assert_same_bits(backward([5.0, 9.0], n, key=jax.random.key(0))(jnp.ones(2))[0], np.asarray([1, 0], np.float32))


def test_gradient_keeps_the_dtype_of_the_cotangent() -> None:
    n, x = numerics(4), jnp.asarray([1, 9], jnp.bfloat16)
    _, residual = n.vjp_fwd(x, None)
    for dtype in oracle.DTYPES:
        assert_same_bits(n.vjp_bwd(residual, jnp.full(2, 3, dtype))[0], np.asarray([3, 0], dtype))


def array_bytes(tree: Any) -> int:
    return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(tree) if hasattr(a, "dtype"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (8,), (1001,), (3, 16), (3, 17), (100, 1), (5, 4, 4)], ids=str)
def test_residual_is_one_bit_an_element_or_nothing(dtype: str, shape: tuple[int, ...]) -> None:
    def residual(n: IntNumerics) -> Any:
        return jax.eval_shape(lambda x: backward(x, n, key=jax.random.key(0)), jax.ShapeDtypeStruct(shape, dtype))

    *rows, columns = shape or (1,)
    least, most = -(-int(np.prod(shape)) // 8), int(np.prod(rows)) * -(-columns // 8)
    for noise_fn in (None, dither):
        assert array_bytes(residual(numerics(noise_fn=noise_fn, clip_gradient=False))) == 0
    assert array_bytes(residual(numerics())) == least
    # beside noise that broadcasts, each row is padded to whole bytes
    assert least <= array_bytes(residual(numerics(noise_fn=dither))) <= most


def test_residual_of_real_arrays_is_as_small_as_their_shapes_say() -> None:
    assert array_bytes(backward(jnp.zeros(1001), numerics())) == 126
    assert array_bytes(backward(jnp.zeros(1001), numerics(clip_gradient=False))) == 0


# --- integers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "dtype", "preserve_zero", "expected"),
    [
        *((1, d, z, "int8") for d in ("float32", "bfloat16", "float16") for z in (False, True)),
        *((8, d, z, "int8") for d in ("float32", "bfloat16", "float16") for z in (False, True)),
        *((9, d, z, "int16") for d in ("float32", "bfloat16", "float16") for z in (False, True)),
        *((16, "float32", z, "int16") for z in (False, True)),
        *((16, "bfloat16", z, "int32") for z in (False, True)),  # the bound rounds to 32768
        *((17, d, z, "int32") for d in ("float32", "bfloat16") for z in (False, True)),
        *((22, d, z, "int32") for d in ("float32", "bfloat16") for z in (False, True)),
    ],
)
def test_integers_are_the_smallest_that_hold_every_bucket(
    bits: int, dtype: str, preserve_zero: bool, expected: str
) -> None:
    n = numerics(bits, preserve_zero=preserve_zero)
    ends = np.asarray([-np.inf, np.inf, np.nan], dtype)
    q = jax.jit(lambda x: quantize_to_int(x, n))(ends)
    assert_same_bits(q, oracle.quantize(ends, None, spec_of(n, integer_dtype=np.dtype(expected))))
    assert jax.eval_shape(lambda x: quantize_to_int(x, n, dtype=jnp.int32), ends).dtype == jnp.int32


def test_integers_in_float32_compute_need_no_wider_dtype_for_bfloat16() -> None:
    n = numerics(16, noise_dtype=jnp.float32)
    ends = np.asarray([-np.inf, np.inf], BFLOAT16)
    assert_same_bits(quantize_to_int(ends, n), np.asarray([-32767, 32767], np.int16))


def test_integers_are_buckets_by_number_and_nan_is_zero() -> None:
    x = jnp.asarray([-0.1, 0.1, -7.5, 7.5, -1.0, 2.5, np.nan, 99.0, -99.0])
    halves = quantize_to_int(x, numerics(4, preserve_zero=False))
    assert_same_bits(halves, np.asarray([-1, 0, -8, 7, -1, 2, 0, 7, -8], np.int8))
    whole = quantize_to_int(x, numerics(4))
    assert_same_bits(whole, np.asarray([0, 0, -7, 7, -1, 2, 0, 7, -7], np.int8))


@every_dtype
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 9, 16, 22])
def test_from_int_inverts_quantize_to_int(dtype: np.dtype, bits: int) -> None:
    noise_dtypes = (None,) if dtype == np.float32 else (None, jnp.float32)
    if bits == 22 and dtype == np.float16:
        noise_dtypes = (jnp.float32,)  # without it the bound is infinite, which no integer dtype holds
    several = [numerics(bits, preserve_zero=z, noise_dtype=d) for z in (False, True) for d in noise_dtypes]
    x = np.concatenate([oracle.flushed(oracle.values(spec_of(n), dtype)) for n in several])
    x = x[~np.isnan(x)]
    got = jax.jit(lambda x: [from_int(quantize_to_int(x, n), n, dtype) for n in several])(x)
    for n, y in zip(several, got, strict=True):
        expected = oracle.quantize(x, None, spec_of(n))
        assert_same_bits(y, np.where(expected == 0, np.zeros((), dtype), expected))  # integers have no -0.0


# --- shapes and float64 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0), (1, 1, 1), (2, 3, 5)], ids=str)
def test_every_shape_is_quantized(shape: tuple[int, ...]) -> None:
    x = np.linspace(-3.3, 9.9, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    n, key = numerics(4, noise_fn=dither), jax.random.key(0)

    @jax.jit
    def everything(x: jax.Array, key: jax.Array) -> tuple[jax.Array, ...]:
        return quantize(x, n, key=key), quantize_to_int(x, n, key=key), *backward(x, n, key=key)(jnp.ones_like(x))

    y, q, gradient = everything(x, key)
    noise = np.asarray(dither(shape, key))
    assert_same_bits(y, oracle.quantize(x, noise, spec_of(n)))
    assert_same_bits(q, oracle.quantize(x, noise, spec_of(n, integer_dtype=np.dtype(np.int8))))
    assert_same_bits(gradient, oracle.mask(x, spec_of(n)).astype(np.float32))
    assert from_int(q, n, jnp.float32).shape == shape


@pytest.mark.parametrize("implementation", [None, "reference", "xla"])
@pytest.mark.parametrize("noise_dtype", [None, jnp.float32], ids=["as-x", "float32"])
def test_float64_under_x64(implementation: str | None, noise_dtype: Any) -> None:
    with jax.enable_x64(True):
        n, key = numerics(4, noise_fn=dither, noise_dtype=noise_dtype), jax.random.key(5)
        x = np.asarray([-9, -7, 0.5 + 2**-40, 2.5, np.nextafter(7.0, 8), np.nan, -0.0, np.inf])
        noise = np.asarray(dither(x.shape, key))
        y, gradient = jax.vjp(lambda x: quantize(x, n, key=key, implementation=implementation), jnp.asarray(x))
        assert_same_bits(y, oracle.quantize(x, noise, spec_of(n)))
        assert_same_bits(gradient(jnp.ones(8))[0], oracle.mask(x, spec_of(n)).astype(np.float64))
        quiet = n.replace(noise_fn=None)  # 0.5 + 2**-40 is a tie in float32 only
        assert_same_bits(
            quantize_to_int(x, quiet, implementation=implementation), np.asarray([-7, -7, 1, 2, 7, 0, 0, 7], np.int8)
        )


# --- without jit ------------------------------------------------------------------------------------------------------


def test_a_call_never_writes_an_array_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """For an error message in case: that would fetch all of it from the device."""
    n = numerics(8, noise_fn=dither)
    x, key = jnp.asarray(X), jax.random.key(0)

    def refuse(array: jax.Array) -> str:
        raise AssertionError("written out")

    monkeypatch.setattr(type(x), "__repr__", refuse)
    quantize(x, n, key=key)
    from_int(quantize_to_int(x, n, key=key), n, jnp.float32)
    n.vjp_bwd(n.vjp_fwd(x, Context(key=key))[1], x)


def test_a_call_without_jit_gives_the_bits_of_one_under_jit() -> None:
    n = numerics(8, noise_fn=dither)
    run = lambda x: quantize(x, n, key=jax.random.key(0))  # noqa: E731
    assert_same_bits(np.asarray(run(X)), np.asarray(jax.jit(run)(X)))


# --- arrays of other libraries ----------------------------------------------------------------------------------------


class Variable:
    """What holds an array for JAX, as variables of Flax and Equinox do."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __jax_array__(self) -> jax.Array:
        return jnp.asarray(self.value)


def test_what_says_how_it_becomes_an_array_of_jax_is_one() -> None:
    n = numerics(4, noise_fn=dither)
    key, x = jax.random.key(0), X.reshape(2, 4)
    assert_same_bits(quantize(Variable(x), n, key=key), quantize(x, n, key=key))
    q = quantize_to_int(Variable(x), n, key=key)
    assert_same_bits(q, quantize_to_int(x, n, key=key))
    assert_same_bits(from_int(Variable(q), n, jnp.float32), from_int(q, n, jnp.float32))


@pytest.mark.parametrize("view", [np.s_[::2, ::2], np.s_[::-1, ::-1], np.s_[:, 1:]], ids=str)
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_that_is_not_contiguous_is_quantized_in_its_own_order(order: Any, view: Any) -> None:
    whole = np.random.default_rng(0).uniform(-9, 9, (6, 8)).astype(np.float32, order=order)
    x = whole[view]
    x.flags.writeable = False
    assert not x.flags.c_contiguous
    assert_same_bits(quantize(x, numerics(4)), np.rint(np.clip(x, -7, 7)))


# --- calls outside of every transform: one program, but for code of the user ------------------------------------------


class Changing(PhiloxUniform):
    """Noise of the user, which reads what may change and cannot be traced."""

    amplitude = 1.0

    def seeded(self, shape: Any, key: Any) -> None:
        return None

    def __call__(self, shape: Any, key: Any) -> Any:
        assert not isinstance(key, jax.core.Tracer)
        return np.full(shape, self.amplitude, np.float32)


class Bounded(IntNumerics):
    """Numerics of the user whose bound may change."""

    bound = 7.0

    def spec(self) -> Any:
        return dataclasses.replace(super().spec(), bound=type(self).bound)


class WithNoise(IntNumerics):
    """Numerics of the user that draw noise without a noise function."""

    def noise_and_spec(self, x: Any, key: Any, part: Any = None) -> Any:
        return jnp.full(x.shape, float(jax.random.key_data(key)[1])), self.spec()


def test_what_changes_in_the_users_own_classes_counts_from_the_next_call_on() -> None:
    x, key, noise = jnp.arange(3.0), jax.random.key(0), Changing()
    n = IntNumerics.symmetric(8, noise_fn=noise)
    for amplitude in (1.0, 5.0):
        object.__setattr__(noise, "amplitude", amplitude)
        for y in (quantize(x, n, key=key), quantize_to_int(x, n, key=key), n.fwd(x, Context(key=key))):
            np.testing.assert_array_equal(y, np.arange(3) + amplitude)
    for bound in (2.0, 1.0):
        Bounded.bound = bound
        m = Bounded.symmetric(8)
        for y in (quantize(x, m), quantize_to_int(x, m), m.fwd(x, Context())):
            np.testing.assert_array_equal(y, np.minimum(np.arange(3), bound))
    for seed in (3, 4):
        np.testing.assert_array_equal(
            quantize(x, WithNoise.symmetric(8), key=jax.random.key(seed)), np.arange(3) + seed
        )


@pytest.mark.parametrize("noise_fn", [None, PhiloxUniform()], ids=repr)
def test_a_second_call_is_the_program_of_the_first(monkeypatch: pytest.MonkeyPatch, noise_fn: Any) -> None:
    x, key, n = jnp.arange(11.0), jax.random.key(0), IntNumerics.symmetric(8, noise_fn=noise_fn)
    calls = [
        lambda: quantize(x, n, key=key),
        lambda: quantize_to_int(x, n, key=key),
        lambda: n.fwd(x, Context(key=key)),
    ]
    first = [call() for call in calls]
    monkeypatch.setattr(_operations, "quantize", None)  # which is called only when a program is traced
    for call, expected in zip(calls, first, strict=True):
        assert_same_bits(call(), expected)


@pytest.mark.parametrize("dtype", [[1], {}, np.zeros(2)], ids=lambda value: type(value).__name__)
def test_a_dtype_that_cannot_be_hashed_is_only_kept(dtype: Any) -> None:
    n = IntNumerics.symmetric(8, clip_gradient=True, dtype=dtype)
    for y in (quantize(X, n), n.fwd(X, Context()), n.vjp_fwd(X, Context())[0]):
        assert_same_bits(y, quantize(X, n.replace(dtype=None)))
