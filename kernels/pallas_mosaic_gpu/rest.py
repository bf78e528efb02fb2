"""The elements after the last whole block of a Mosaic GPU kernel, computed by XLA.

XLA writes them into the array of the kernel's results, in place.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .. import xla
from ..generators import drawn
from ..gpu.shapes import index_dtype, indices
from ..spec import QuantSpec


def quantize(
    x: jax.Array, noise: jax.Array | None, spec: QuantSpec, examples: int, done: int, results: list[jax.Array]
) -> list[jax.Array]:
    """The flattened results, of which a kernel has written the first `done` elements of each example."""
    if done * examples == x.size:
        return results
    if noise is not None and spec.draw is not None:
        noise, spec = drawn(spec.draw, noise, "cuda"), dataclasses.replace(spec, draw=None)
    if noise is not None:
        noise = _after(jnp.broadcast_to(noise, x.shape), examples, done)
    rest = xla.quantize(_after(x, examples, done), noise, spec, platform="cuda")
    parts = rest if isinstance(rest, tuple) else (rest,)
    starts = (done, done // 8)[: len(parts)]
    return [_written(result, part, at) for result, part, at in zip(results, parts, starts, strict=True)]


def clip_gradient_from_mask(g: jax.Array, packed: jax.Array, done: int, result: jax.Array) -> jax.Array:
    """The flattened gradient, of which a kernel has written the first `done` elements."""
    if done == g.size:
        return result
    kept = packed.reshape(1, -1)[:, done // 8 :]
    return _written(result, xla.clip_gradient_from_mask(_after(g, 1, done), kept), done)


def clip_gradient_from_x(g: jax.Array, x: jax.Array, spec: QuantSpec, done: int, result: jax.Array) -> jax.Array:
    """The flattened gradient, of which a kernel has written the first `done` elements."""
    if done == g.size:
        return result
    return _written(result, xla.clip_gradient_from_x(_after(g, 1, done), _after(x, 1, done), spec), done)


def _after(x: jax.Array, examples: int, done: int) -> jax.Array:
    """The elements of each example after the first `done`, [examples, n - done]."""
    return x.reshape(examples, -1)[:, done:]


def _written(result: jax.Array, part: jax.Array, at: int) -> jax.Array:
    """A flattened result, with `part` in each example from the element `at` on."""
    whole = result.reshape(part.shape[0], -1)
    with indices(dtype := index_dtype(math.prod(whole.shape))):
        start = (jnp.zeros((), dtype), jnp.asarray(np.asarray(at, dtype)))
        return lax.dynamic_update_slice(whole, part, start).reshape(-1)
