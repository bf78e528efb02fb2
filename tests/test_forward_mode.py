"""Forward mode through `quantize` is refused by name, and reverse mode never meets the refusal."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from meshes import KINDS, mesh, placed
from oracle import assert_same_bits
from original import numerics

from intnumerics import MASK, Context, PhiloxUniform, quantize

X = np.linspace(-9, 9, 64, dtype=np.float32).reshape(8, 8)
G = np.where(np.abs(X) <= 7, np.float32(1), np.float32(0))  # of the sum, at 4 bits
WAY_OUT = r"quantize has no derivative in forward mode .* numerics\.fwd\(x, Context\(key=key\)\)"

quiet = functools.partial(quantize, numerics=numerics(4))
noisy = functools.partial(quantize, numerics=numerics(4, noise_fn=PhiloxUniform()), key=jax.random.key(0))


def scanned(f: Any) -> Any:
    return lambda x: lax.scan(lambda count, row: (count + 1, f(row)), 0, x)[1]


def in_shard_map(f: Any) -> Any:
    return jax.shard_map(f, mesh=mesh(AxisType.Auto), in_specs=P("rows"), out_specs=P("rows"))


def jvp(f: Any) -> Any:
    return lambda x: jax.jvp(f, (x,), (x,))


FORWARD = {
    "jvp": jvp(quiet),
    "jvp-with-noise": jvp(noisy),
    "jit-jvp": jax.jit(jvp(quiet)),
    "jvp-jit": jvp(jax.jit(quiet)),
    "jacfwd": jax.jacfwd(quiet),
    "jit-jacfwd": jax.jit(jax.jacfwd(quiet)),
    "jit-jacfwd-jit": jax.jit(jax.jacfwd(jax.jit(quiet))),
    "linearize": lambda x: jax.linearize(quiet, x)[1](x),
    "vmap-jvp": jax.vmap(jvp(quiet)),
    "jvp-vmap": jvp(jax.vmap(quiet)),
    "jvp-scan": jvp(scanned(quiet)),
    "jvp-checkpoint": jvp(jax.checkpoint(quiet)),
    "jvp-while": jvp(lambda x: lax.while_loop(lambda x: x[0, 0] < -8, quiet, x)),
    "export": lambda x: export.export(jax.jit(jvp(quiet)))(x),
}


@pytest.mark.parametrize("forward", FORWARD.values(), ids=FORWARD)
def test_forward_mode_is_refused_with_the_way_out(forward: Any) -> None:
    with pytest.raises(TypeError, match=WAY_OUT):
        forward(jnp.asarray(X))


@pytest.mark.mesh
def test_forward_mode_is_refused_in_a_shard_map() -> None:
    with pytest.raises(TypeError, match=WAY_OUT):
        jvp(in_shard_map(quiet))(jnp.asarray(X))


def test_the_way_out_has_both_modes() -> None:
    n = numerics(4, round=False)
    _, tangent = jax.jvp(lambda x: n.fwd(x, Context()), (X,), (X,))
    assert_same_bits(tangent, X * (np.abs(X) <= 7.5).astype(np.float32))
    assert not np.asarray(jax.jvp(lambda x: numerics(4).fwd(x, Context()), (X,), (X,))[1]).any()


def test_what_is_not_differentiated_may_be_in_forward_mode() -> None:
    expected = np.rint(np.clip(X, -7, 7))
    assert_same_bits(jax.jvp(lambda w: quiet(X) * w, (X,), (X,))[1], expected * X)
    assert_same_bits(jax.jvp(lambda x: quiet(lax.stop_gradient(x)) + x, (X,), (X,))[1], X)


def total(f: Any) -> Any:
    return lambda x: f(x).sum()


REVERSE = {
    "grad": jax.grad(total(quiet)),
    "grad-with-x": jax.grad(total(functools.partial(quiet, residual="x"))),
    "grad-with-noise": jax.grad(total(noisy)),
    "jit-grad": jax.jit(jax.grad(total(quiet))),
    "grad-jit": jax.grad(total(jax.jit(quiet))),
    "grad-vmap": jax.grad(total(jax.vmap(quiet))),
    "vmap-grad": jax.vmap(jax.grad(total(quiet))),
    "jit-vmap-grad-jit": jax.jit(jax.vmap(jax.grad(total(jax.jit(quiet))))),
    "grad-scan": jax.grad(total(scanned(quiet))),
    "vmap-grad-scan": lambda x: jax.vmap(jax.grad(total(scanned(quiet))))(x[None])[0],
    "vmap-grad-checkpoint-scan": lambda x: jax.vmap(jax.grad(total(scanned(jax.checkpoint(quiet)))))(x[None])[0],
    "grad-checkpoint-policy": jax.grad(
        total(jax.checkpoint(quiet, policy=jax.checkpoint_policies.save_only_these_names(MASK)))
    ),
    "vmap-cond": jax.vmap(jax.grad(lambda x: lax.cond(x[0] > 99, jnp.sin, quiet, x).sum())),
    "vmap-vjp": lambda x: jax.vmap(jax.vjp(jax.jit(quiet), x)[1])(jnp.ones((1, *x.shape)))[0][0],
    "transposed-linearize": lambda x: jax.linear_transpose(jax.linearize(quiet, x)[1], x)(jnp.ones_like(x))[0],
    "jacrev": lambda x: jax.jacrev(quiet)(x).sum((0, 1)),
}


@pytest.mark.parametrize("reverse", REVERSE.values(), ids=REVERSE)
def test_reverse_mode_goes_straight_through(reverse: Any) -> None:
    assert_same_bits(reverse(jnp.asarray(X)), G)


@pytest.mark.mesh
@pytest.mark.parametrize("kind", KINDS)
def test_reverse_mode_goes_straight_through_on_a_mesh(kind: AxisType) -> None:
    assert_same_bits(jax.jit(jax.grad(total(quiet)))(placed(X, mesh(kind), "rows", "lanes")), G)


@pytest.mark.mesh
def test_reverse_mode_goes_straight_through_in_a_shard_map() -> None:
    assert_same_bits(jax.jit(jax.grad(total(in_shard_map(quiet))))(X), G)


@pytest.mark.parametrize("wrapper", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_forward_over_reverse_is_reverse_over_forward(wrapper: Any) -> None:
    def square(x: jax.Array) -> jax.Array:
        return (quiet(x) ** 2).sum()

    inside = np.abs(X[0]) <= 7
    expected = np.diag(np.where(inside, np.float32(2), np.float32(0)))
    assert_same_bits(wrapper(jax.hessian(square))(X[0]), expected)
    assert_same_bits(wrapper(jax.jacrev(jax.grad(square)))(X[0]), expected)


def test_a_program_has_nothing_more_for_the_refusal() -> None:
    """The marker on x is no operation of a compiled program."""
    text = jax.jit(quiet).lower(X).as_text()
    assert "intnumerics_identity" not in text
    assert text.count("stablehlo.") == jax.jit(lambda x: numerics(4).fwd(x, Context())).lower(X).as_text().count(
        "stablehlo."
    )
