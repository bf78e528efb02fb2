"""`fwd` and `vjp_fwd` are differentiable themselves, the way their jnp formula is."""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from oracle import assert_same_bits
from original import bound_of, dither, numerics, original

from intnumerics import Context

SWITCHES = list(itertools.product((False, True), repeat=3))
every_switch = pytest.mark.parametrize(("preserve_zero", "clip", "rounds"), SWITCHES)


@every_switch
@pytest.mark.parametrize("method", ["fwd", "vjp_fwd"])
def test_forward_is_differentiable_as_its_formula(method: str, preserve_zero: bool, clip: bool, rounds: bool) -> None:
    n = numerics(2, preserve_zero=preserve_zero, clip=clip, round=rounds)
    b = bound_of(n)
    x = jnp.asarray([-b - 1, -b, np.nextafter(np.float32(-b), 0), -0.3, 0.0, 0.5, b, b + 1], jnp.float32)
    t = jnp.arange(1.0, 9.0)

    def ours(x: jax.Array) -> jax.Array:
        return n.fwd(x, Context()) if method == "fwd" else n.vjp_fwd(x, Context())[0]

    def theirs(x: jax.Array) -> jax.Array:
        return original(x, n)

    def derivatives(f: Callable[[jax.Array], jax.Array]) -> dict[str, jax.Array]:
        def cubed(x: jax.Array) -> jax.Array:
            return jnp.sum(t * f(x) ** 3)

        return {
            "jvp": jax.jvp(f, (x,), (t,))[1],
            "linearize": jax.linearize(f, x)[1](t),
            "vjp": jax.vjp(f, x)[1](t)[0],
            "jacfwd": jax.jacfwd(f)(x),
            "grad": jax.grad(cubed)(x),
            "second": jax.jvp(jax.grad(cubed), (x,), (t,))[1],
            "hessian": jax.jacrev(jax.grad(cubed))(x),
        }

    # One compilation each instead of many: what is compared is which rule differentiates, not how operations fuse.
    got, wanted = (jax.jit(derivatives, static_argnums=0)(f) for f in (ours, theirs))
    for name in wanted:
        assert_same_bits(got[name], wanted[name])
    assert np.any(wanted["jvp"]) == (not rounds)


def test_forward_is_differentiable_in_bfloat16_with_the_rounded_bound() -> None:
    n = numerics(9, round=False)  # the bound 255.5 is 256 in bfloat16
    x, t = jnp.asarray([255, 256, 258, -256], jnp.bfloat16), jnp.ones(4, jnp.bfloat16)
    expected = jax.jvp(lambda x: original(x, n), (x,), (t,))[1]
    assert_same_bits(expected, np.asarray([1, 0.5, 0, 0.5], ml_dtypes.bfloat16))
    assert_same_bits(jax.jvp(lambda x: n.fwd(x, Context()), (x,), (t,))[1], expected)
    assert_same_bits(jax.grad(lambda x: n.fwd(x, Context()).sum())(x), expected)


def test_the_derivative_reaches_what_the_noise_depends_on_as_in_the_formula() -> None:
    x, key = jnp.asarray([0.1, 0.9, 5.0]), jax.random.key(0)
    noise = dither(x.shape, key)

    def ours(scale: jax.Array) -> jax.Array:
        n = numerics(2, round=False, noise_fn=lambda shape, key: scale * dither(shape, key))
        return n.fwd(x, Context(key))

    def theirs(scale: jax.Array) -> jax.Array:
        return original(x, numerics(2, round=False), scale * noise)

    assert_same_bits(jax.jacfwd(ours)(2.0), jax.jacfwd(theirs)(2.0))
    assert_same_bits(jax.jacrev(ours)(2.0), jax.jacrev(theirs)(2.0))
