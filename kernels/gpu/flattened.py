"""The steps before and after a kernel for CUDA, which works on flattened arrays.

Arrays are padded if the packed mask needs it, noise that the kernel does not draw is drawn, and results get their
shapes back.
"""

import dataclasses
import math
from collections.abc import Callable, Container

import jax
import jax.numpy as jnp

from .. import float_rounding
from ..generators import Generator, drawn, kernel_words
from ..spec import QuantSpec, packed_shape
from .shapes import draws_in_kernel, missing_columns, pad_rows, padded_for_mask

Results = list[jax.ShapeDtypeStruct]  # the shapes and dtypes of what a kernel returns
Quantize = Callable[[jax.Array, jax.Array | None, QuantSpec, Results], list[jax.Array]]
Clip = Callable[[jax.Array, jax.Array, Results], list[jax.Array]]


def quantize(
    x: jax.Array, noise: jax.Array | None, spec: QuantSpec, in_kernel: Container[Generator], run: Quantize
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """`reference.quantize` with a kernel that can draw from the generators `in_kernel`.

    The function `run` runs the kernel. It gets x, the noise, the spec and the results to return, all flattened. The
    spec has a `draw` if the kernel is to draw the noise, from the `kernel_words` that are then in the noise's place.
    """
    shape = x.shape
    if not x.size:
        empty = jnp.zeros(shape, spec.result_dtype(x.dtype))
        return (empty, jnp.zeros(packed_shape(shape), jnp.uint8)) if spec.with_mask else empty
    noise, spec = noise_for_kernel(x, noise, spec, in_kernel)
    if spec.with_mask and spec.draw is None:
        x, noise = padded_for_mask(x, noise)
    n, examples = examples_of(x, noise, spec)
    results = [jax.ShapeDtypeStruct((x.size,), spec.stored_dtype(x.dtype))]
    if spec.with_mask:
        results.append(jax.ShapeDtypeStruct((examples * -(-n // 8),), jnp.uint8))
    y, *packed = run(x, noise, spec, results)
    y = y.reshape(x.shape)[..., : shape[-1]]
    if spec.to_float is not None:
        return float_rounding.numbers(y, spec.to_float)
    return (y, packed[0].reshape(packed_shape(shape))) if spec.with_mask else y


def noise_for_kernel(
    x: jax.Array, noise: jax.Array | None, spec: QuantSpec, in_kernel: Container[Generator]
) -> tuple[jax.Array | None, QuantSpec]:
    """What a kernel that draws from the generators `in_kernel` takes as its noise, and the spec for it.

    If the kernel does not draw the noise of the spec, it is drawn here; if it does, it takes the `kernel_words`.
    """
    if noise is None or spec.draw is None:
        return noise, spec
    if draws_in_kernel(x, noise, spec, in_kernel):
        return kernel_words(spec.draw, noise), spec
    return drawn(spec.draw, noise), dataclasses.replace(spec, draw=None)


def examples_of(x: jax.Array, noise: jax.Array | None, spec: QuantSpec) -> tuple[int, int]:
    """How many elements an example has, and how many examples x has: several only if noise is drawn for each."""
    rank = 0 if noise is None or spec.draw is None else noise.ndim - 1
    return math.prod(x.shape[rank:]), math.prod(x.shape[:rank])


def clip_gradient(g: jax.Array, kept: jax.Array, run: Clip) -> jax.Array:
    """A gradient that is clipped by a kernel, which `run` runs on arrays like g and like the packed mask, or x."""
    if not g.size:
        return g
    length = g.shape[-1]
    if kept.dtype == jnp.uint8:  # a packed mask, whose rows are whole bytes; x is an array of floats
        g = pad_rows(g, missing_columns(g.shape), 0.0)
    [result] = run(g, kept, [jax.ShapeDtypeStruct((g.size,), g.dtype)])
    return result.reshape(g.shape)[..., :length]
