"""Every transform of JAX around the public functions: the bits and the gradients are as without it.

Loops and branches: test_control_flow.py. `jax.checkpoint`: test_checkpoint.py. What one key and a key an example draw
under `vmap` in every implementation: test_stochastic_rounding.py. Forward mode through `fwd`, switch by switch:
test_derivatives.py. Numerics as an argument of transforms of `fwd`: test_int_numerics.py.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import streams
from jax import lax
from oracle import assert_same_bits
from original import dither, numerics, spec_of

from intnumerics import Context, IntNumerics, from_int, quantize, quantize_to_int
from intnumerics.stochastic_rounding import HashUniform, PhiloxUniform

WORDS = np.asarray([[0, 42], [0, 43], [5, 6]], np.uint32)
KEYS = jax.random.wrap_key_data(WORDS, impl="threefry2x32")
KEY = KEYS[0]
NEAREST = numerics(8)
PHILOX = numerics(8, noise_fn=PhiloxUniform())
# Sixteenths, whose products with 3/4 and sums with noise are exact: no compiler can change them by fusing. Rows are no
# multiple of 8 long, so that bytes of the mask have padding.
X = np.random.default_rng(7).integers(-3200, 3200, (3, 21)).astype(np.float32) / 16


def words_of(key: jax.Array) -> tuple[int, int]:
    first, second = np.asarray(jax.random.key_data(key)).tolist()
    return first, second


def noise_of(n: IntNumerics, shape: tuple[int, ...], key: jax.Array) -> np.ndarray:
    if n.noise_fn is dither:
        return np.asarray(dither(shape, key))
    stream = streams.uniform_hash if isinstance(n.noise_fn, HashUniform) else streams.uniform
    return stream(shape, words_of(key))


def values(x: np.ndarray, key: jax.Array = KEY, n: IntNumerics = PHILOX) -> np.ndarray:
    return np.rint(np.clip(x + noise_of(n, x.shape, key), np.float32(-127), np.float32(127)))


def masked(x: np.ndarray, g: Any) -> np.ndarray:
    return np.where(np.abs(x) <= 127, g, np.float32(0))


def loss(x: jax.Array, key: jax.Array = KEY, n: IntNumerics = PHILOX) -> jax.Array:
    """Its gradient is `masked(x, values(x))`: it shows the values, and so the noise, that a backward computes again."""
    return jnp.sum(quantize(x, n, key=key) ** 2) / 2


def everything(x: Any, n: IntNumerics) -> list[jax.Array]:
    y, backward = jax.vjp(lambda x: quantize(x, n, key=KEY), jnp.asarray(x))
    q = quantize_to_int(x, n, key=KEY)
    return [y, q, from_int(q, n, x.dtype), *backward(jnp.ones_like(y))]


def assert_everything(got: Any, x: np.ndarray, n: IntNumerics) -> None:
    noise = noise_of(n, x.shape, KEY)
    y, q = (oracle.quantize(x, noise, spec_of(n, integer_dtype=d)) for d in (None, np.dtype(np.int8)))
    again = np.where(y == 0, np.zeros((), x.dtype), y)  # integers have no -0.0
    for a, b in zip(got, [y, q, again, oracle.mask(x, spec_of(n)).astype(x.dtype)], strict=True):
        assert_same_bits(a, b)


# --- jit --------------------------------------------------------------------------------------------------------------


def test_jit_gives_the_bits_of_the_formula() -> None:
    assert_everything(jax.jit(lambda x: everything(x, PHILOX))(X), X, PHILOX)


def test_jit_takes_numerics_as_static_and_as_traced_argument() -> None:
    for options in ({"static_argnames": "numerics"}, {"static_argnums": 1}, {}):
        run = jax.jit(lambda x, numerics, key: quantize(x, numerics, key=key), **options)
        for n in (PHILOX, numerics(8, noise_fn=PhiloxUniform())):
            assert_same_bits(run(X, n, key=KEY), values(X))
        assert run._cache_size() == 1, "equal numerics share a program"


@pytest.mark.parametrize("with_gradient", [False, True])
def test_a_donated_x_is_where_the_result_goes(with_gradient: bool) -> None:
    def run(x: jax.Array) -> Any:
        return jax.value_and_grad(loss)(x)[1] if with_gradient else quantize(x, PHILOX, key=KEY)

    compiled = jax.jit(run, donate_argnums=0).lower(X).compile()
    assert compiled.memory_analysis().alias_size_in_bytes >= X.nbytes
    x = jnp.asarray(X).copy()
    result = compiled(x)
    assert x.is_deleted()
    assert_same_bits(result, masked(X, values(X)) if with_gradient else values(X))


def test_eval_shape_runs_nothing_and_results_are_never_weakly_typed() -> None:
    x = jax.ShapeDtypeStruct((1 << 16, 1 << 15), jnp.bfloat16)  # of which there is no room for several
    y, g = jax.eval_shape(lambda x: (quantize(x, PHILOX, key=KEY), jax.grad(loss)(x)), x)
    q = jax.eval_shape(lambda x: quantize_to_int(x, PHILOX, key=KEY), x)
    assert [(a.shape, a.dtype) for a in (y, g, q)] == [(x.shape, d) for d in (x.dtype, x.dtype, jnp.int8)]
    for x in (3.7, jax.ShapeDtypeStruct((), jnp.float32, weak_type=True)):
        for f in (quantize, quantize_to_int):
            assert not jax.eval_shape(lambda x, f=f: f(x, NEAREST), x).weak_type
    assert not quantize(3.7, NEAREST).weak_type


def test_runs_without_jit() -> None:
    x = X.astype(jnp.bfloat16)
    with jax.disable_jit():
        assert_everything(everything(x, PHILOX), x, PHILOX)


def test_constants_of_a_program_can_be_quantized_while_it_is_traced() -> None:
    @jax.jit
    def run() -> jax.Array:
        with jax.ensure_compile_time_eval():
            y = quantize(X, PHILOX, key=KEY)
        np.asarray(y)  # raises for what is traced
        return y

    assert_same_bits(run(), values(X))


@pytest.mark.parametrize("noise_fn", [PhiloxUniform(), HashUniform(), dither], ids=["philox", "hash", "array"])
@pytest.mark.parametrize("preserve_zero", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nothing_leans_on_implicit_promotion(dtype: str, preserve_zero: bool, noise_fn: Any) -> None:
    n, x = numerics(5, noise_fn=noise_fn, preserve_zero=preserve_zero), (X / 6).astype(dtype)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for m in (n, n.replace(noise_dtype=jnp.float32)):
            assert_everything(jax.jit(lambda x, m=m: everything(x, m))(x), x, m)


def test_finite_numbers_pass_under_debug_nans_and_nan_does_not() -> None:
    with jax.debug_nans(True):
        assert_everything(jax.jit(lambda x: everything(x, PHILOX))(X), X, PHILOX)
        for run in (quantize, jax.jit(quantize)):
            with pytest.raises(FloatingPointError, match="nan"):
                run(np.asarray([1, np.nan], np.float32), NEAREST)


# --- derivatives ------------------------------------------------------------------------------------------------------


def test_grad_and_value_and_grad_go_straight_through_times_the_mask() -> None:
    gradient = masked(X, values(X))
    assert_same_bits(jax.grad(loss)(X), gradient)
    value, again = jax.jit(jax.value_and_grad(loss))(X)
    assert_same_bits(value, np.float32(np.sum(values(X).astype(np.float64) ** 2) / 2))  # sums of integers are exact
    assert_same_bits(again, gradient)


def test_jvp_and_linearize_of_fwd_differentiate_the_formula() -> None:
    def fwd(x: jax.Array) -> jax.Array:
        return PHILOX.replace(round=False).fwd(x, Context(KEY))

    x, t = np.arange(-32, 32, dtype=np.float32) / 64 + np.float32(127.5), np.arange(64, dtype=np.float32)
    noisy = x + streams.uniform(x.shape, words_of(KEY))  # which decides for each where it lies
    y, slope = np.minimum(noisy, np.float32(127.5)), (noisy < 127.5).astype(np.float32)
    (value, tangent), (primal, linear) = jax.jvp(fwd, (x,), (t,)), jax.linearize(fwd, x)
    for got in (value, primal):
        assert_same_bits(got, y)
    for got in (tangent, linear(jnp.asarray(t)), jax.jit(linear)(t)):
        assert_same_bits(got, slope * t)


def test_second_derivatives_in_a_loop_are_right() -> None:
    def of_loop(x: jax.Array) -> jax.Array:
        return lax.scan(lambda total, row: (total + (quantize(row, NEAREST) * row).sum(), None), 0.0, x)[0]

    first = X + np.rint(X)  # within the bound, where both factors have the derivative 1
    assert_same_bits(jax.grad(lambda x: (jax.grad(of_loop)(x) ** 2).sum())(X), masked(X, 4 * first))


def straight_through(x: jax.Array, clip_gradient: bool) -> jax.Array:
    """`quantize` to nearest, as jnp writes what goes straight through."""
    passed = jnp.where(jnp.abs(x) <= 127, x, lax.stop_gradient(x)) if clip_gradient else x
    return passed + lax.stop_gradient(jnp.rint(jnp.clip(x, -127, 127)) - x)


def grad_of_grad(f: Any) -> Any:
    return jax.grad(lambda x: jax.grad(f)(x).sum())


def diagonal(second: jax.Array) -> np.ndarray:
    return np.diag(second) if second.ndim == 2 else np.asarray(second)


@pytest.mark.parametrize("clip_gradient", [False, True])
@pytest.mark.parametrize("second", [grad_of_grad, jax.hessian])
def test_second_derivatives_go_straight_through_too(second: Any, clip_gradient: bool) -> None:
    n, x = NEAREST.replace(clip_gradient=clip_gradient), X[0]
    wanted = second(lambda x: jnp.sum(straight_through(x, clip_gradient) ** 2))(x)
    assert_same_bits(diagonal(wanted), masked(x, np.float32(2)) if clip_gradient else np.full_like(x, 2))
    assert_same_bits(second(lambda x: jnp.sum(quantize(x, n) ** 2))(x), wanted)


@pytest.mark.parametrize("clip_gradient", [False, True])
def test_the_value_beside_a_gradient_has_that_gradients_tangent(clip_gradient: bool) -> None:
    n, t = NEAREST.replace(clip_gradient=clip_gradient), np.full_like(X, 3)
    _, tangent = jax.jvp(lambda x: jax.vjp(lambda x: quantize(x, n), x)[0], (X,), (t,))
    assert_same_bits(tangent, masked(X, t) if clip_gradient else t)


@pytest.mark.parametrize("second", [grad_of_grad, jax.hessian])
def test_second_derivatives_of_fwd_are_those_of_the_formula(second: Any) -> None:
    n, x = NEAREST.replace(round=False), X[0]
    got = second(lambda x: jnp.sum(n.fwd(x, Context()) ** 3))(x)
    assert_same_bits(diagonal(got), (np.abs(x) < 127.5).astype(np.float32) * 6 * x)


# --- vmap -------------------------------------------------------------------------------------------------------------


every_noise = pytest.mark.parametrize("n", [PHILOX, numerics(8, noise_fn=dither)], ids=["philox", "array"])


@every_noise
@pytest.mark.parametrize(
    ("x_axis", "key_axis", "out_axis"), [(0, 0, 0), (1, 0, 1), (-1, 1, 2), (2, None, -1), (None, 1, 1)]
)
def test_vmap_along_any_axes_gives_each_example_the_noise_of_its_key(
    x_axis: int | None, key_axis: int | None, out_axis: int, n: IntNumerics
) -> None:
    x = X if x_axis is None else np.stack([X, -X, X / 2], axis=x_axis)
    keys = KEY if key_axis is None else KEYS if key_axis == 0 else jnp.stack([KEYS[::-1], KEYS])

    def one(x: jax.Array, key: jax.Array) -> tuple[jax.Array, ...]:
        key = key[1] if key.ndim else key
        return quantize(x, n, key=key), quantize_to_int(x, n, key=key), jax.grad(loss)(x, key, n)

    got = jax.jit(jax.vmap(one, (x_axis, key_axis), out_axis))(x, keys)
    examples = [X] * 3 if x_axis is None else [X, -X, X / 2]
    drawn = [KEY] * 3 if key_axis is None else KEYS
    y = [values(one, key, n) for one, key in zip(examples, drawn, strict=True)]
    assert_same_bits(got[0], np.stack(y, out_axis))
    assert_same_bits(got[1], np.stack(y, out_axis).astype(np.int8))
    assert_same_bits(got[2], np.stack([masked(a, b) for a, b in zip(examples, y, strict=True)], out_axis))


@every_noise
@pytest.mark.parametrize("x", [X, X[0]], ids=["rows", "scalars"])
def test_nested_vmap_over_examples_and_then_keys_is_a_nested_loop(x: np.ndarray, n: IntNumerics) -> None:
    def one(x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return quantize(x, n, key=key), jax.grad(loss)(x, key, n)

    y, gradient = jax.vmap(jax.vmap(one, (None, 0)), (0, None))(x, KEYS)
    assert_same_bits(y, np.asarray([[values(row, key, n) for key in KEYS] for row in x]))
    assert_same_bits(gradient, np.asarray([[masked(row, values(row, key, n)) for key in KEYS] for row in x]))


def test_grad_of_vmap_is_vmap_of_grad() -> None:
    gradient = np.stack([masked(row, values(row, key)) for row, key in zip(X, KEYS, strict=True)])
    assert_same_bits(jax.vmap(jax.grad(loss))(X, KEYS), gradient)
    assert_same_bits(jax.grad(lambda x: jax.vmap(loss)(x, KEYS).sum())(X), gradient)
