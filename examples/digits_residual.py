"""How much memory a quantizer holds between forward and backward: measured, two ways.

`jax.vjp` returns the result and a function for the backward. That function is a pytree, and its leaves are the arrays
it has kept: the residuals. Adding up their bytes needs no formula and no profiler.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from digits_net import Params, Quantizer, Rounding, forward, make_quantizer

from intnumerics import IntNumerics


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def plain_quantize(x: jax.Array, numerics: IntNumerics, key: jax.Array) -> jax.Array:
    """The formula in plain jnp for float32; its backward needs x itself, so x stays in memory until then."""
    bound = clip_bound(numerics)
    y = x if numerics.noise_fn is None else x + numerics.noise_fn(x.shape, key)
    y = jnp.clip(y, -bound, bound)
    return jnp.round(y) if numerics.preserve_zero else jnp.floor(y) + 0.5


def plain_forward(x: jax.Array, numerics: IntNumerics, key: jax.Array) -> tuple[jax.Array, tuple[jax.Array]]:
    return plain_quantize(x, numerics, key), (x,)


def plain_backward(numerics: IntNumerics, residual: tuple[jax.Array], g: jax.Array) -> tuple[jax.Array, None]:
    (x,) = residual
    return g * (jnp.abs(x) <= clip_bound(numerics)).astype(g.dtype), None


plain_quantize.defvjp(plain_forward, plain_backward)


def clip_bound(numerics: IntNumerics) -> float:
    """The centre of the last bucket, in buckets: what lies beyond is clipped, and so is its gradient."""
    return numerics.get_center_of_last_int_bucket()


class Residuals(NamedTuple):
    """Bytes held between forward and backward: by the quantizers, and by the network with them."""

    quantizers: int
    network: int


def held_bytes(function: Callable[[Any], Any], x: Any) -> int:
    """The bytes that `jax.vjp` of the function, at a pytree x, keeps for the backward."""
    _, backward = jax.vjp(function, x)
    return sum(leaf.nbytes for leaf in jax.tree.leaves(backward))


def quantized_tensors(params: Params, images: jax.Array, quantizer: Quantizer) -> list[jax.Array]:
    """The weights and activations that the network hands to its quantizer, as they come: in float."""
    seen: list[jax.Array] = []

    def record(x: jax.Array) -> jax.Array:
        seen.append(x)
        return quantizer(x)

    forward(params, images, record)
    return seen


def measure(params: Params, images: jax.Array, numerics: IntNumerics, rounding: Rounding) -> Residuals:
    """What one training step on images (batch, 8, 8, 1) holds, with `plain_quantize` or `quantize` for the rounding."""

    def quantizer() -> Quantizer:
        return make_quantizer(numerics, jax.random.key(0), rounding)

    tensors = quantized_tensors(params, images, quantizer())
    quantizers = held_bytes(lambda xs: list(map(quantizer(), xs)), tensors)
    # In the rest are the convolutions' operands, which are float here, and what the ReLUs and norms keep.
    return Residuals(quantizers, held_bytes(lambda p: forward(p, images, quantizer()), params))
