"""Quantization inside the loops and branches of `jax.lax`, with keys that are carried and split."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from oracle import assert_same_bits
from test_transforms import KEY, KEYS, PHILOX, X, loss, masked, values

from intnumerics import quantize


@pytest.mark.parametrize("batch_size", [None, 2])
def test_map_gives_each_example_the_noise_of_its_key(batch_size: int | None) -> None:
    got = lax.map(lambda pair: quantize(pair[0], PHILOX, key=pair[1]), (X, KEYS), batch_size=batch_size)
    assert_same_bits(got, np.stack([values(row, key) for row, key in zip(X, KEYS, strict=True)]))


def step(state: Any, x: jax.Array) -> tuple[Any, None]:
    """Carries what was quantized, and the key."""
    y, key = state
    key, own = jax.random.split(key)
    return (quantize(y * 0.75 + x, PHILOX, key=own), key), None


def by_scan(x: jax.Array, checkpoint: Any = lambda f: f) -> jax.Array:
    return lax.scan(checkpoint(step), (jnp.zeros(21), KEY), x)[0][0]


def by_fori_loop(x: jax.Array) -> jax.Array:
    return lax.fori_loop(0, 3, lambda i, state: step(state, x[i])[0], (jnp.zeros(21), KEY))[0]


def by_while_loop(x: jax.Array) -> jax.Array:
    def body(at: Any) -> Any:
        return at[0] + 1, step(at[1], x[at[0]])[0]

    return lax.while_loop(lambda at: at[0] < 3, body, (0, (jnp.zeros(21), KEY)))[1][0]


def chain() -> tuple[np.ndarray, np.ndarray]:
    """The last value of three steps, and the gradient by X of half the sum of its squares."""
    y, key, before = np.zeros(21, np.float32), KEY, []
    for row in X:
        key, own = jax.random.split(key)
        before.append(y * np.float32(0.75) + row)
        y = values(before[-1], own)
    g, gradient = y, np.zeros_like(X)
    for i in (2, 1, 0):
        gradient[i] = masked(before[i], g)
        g = gradient[i] * np.float32(0.75)
    return y, gradient


LOOPS = {
    "scan": by_scan,
    "scan of checkpoint": functools.partial(by_scan, checkpoint=jax.checkpoint),
    "scan of checkpoint, mask saved": functools.partial(
        by_scan,
        checkpoint=functools.partial(
            jax.checkpoint, policy=jax.checkpoint_policies.save_only_these_names("intnumerics_mask")
        ),
    ),
    "fori_loop": by_fori_loop,
    "while_loop": by_while_loop,
}


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_a_loop_that_carries_and_splits_its_key_is_the_steps_one_by_one(loop: Any) -> None:
    y, gradient = chain()
    assert_same_bits(loop(jnp.asarray(X)), y)
    if loop is not by_while_loop:  # which JAX does not differentiate in reverse
        assert_same_bits(jax.grad(lambda x: jnp.sum(loop(x) ** 2) / 2)(X), gradient)


def test_cond_takes_the_gradient_of_the_branch_that_ran() -> None:
    def run(x: jax.Array, quantizes: bool) -> jax.Array:
        return lax.cond(quantizes, loss, lambda x: jnp.sum(x), x)

    gradients = masked(X, values(X)), np.ones_like(X)
    for quantizes, gradient in zip((True, False), gradients, strict=True):
        assert_same_bits(jax.jit(jax.grad(run))(X, quantizes), gradient)
    rows = jax.vmap(jax.grad(run))(np.stack([X, X]), np.asarray([True, False]))  # where both branches run
    assert_same_bits(rows, np.stack(gradients))
