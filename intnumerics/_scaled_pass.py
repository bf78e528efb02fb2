"""A quantization with scales: by one that is given, or by that of each slice's largest magnitude, in one read of x."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from . import _operations
from ._dispatch import ANY, Choice
from ._integer_dtypes import written_as
from .kernels import QuantSpec, Scaling, scaling
from .kernels.spec import wider


class Slices(NamedTuple):
    """What one scale covers, and how the scale follows from the largest magnitude."""

    how: Scaling
    axes: tuple[int, ...]  # from 0 on
    block: int | None  # how many elements of the last axis, the only one of `axes`; None for all

    def in_one_read(self, rank: int) -> bool:
        """Whether slices are the last axis of an array, or its blocks, so that a kernel reads the array once."""
        return self.block is not None or self.axes == (rank - 1,)

    def scale(self, x: jax.Array) -> jax.Array:
        """The scale of each slice of x."""
        return scale_by_absmax(x, self.how, self.axes, self.block)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def scale_by_absmax(x: jax.Array, how: Scaling, axes: tuple[int, ...], block: int | None = None) -> jax.Array:
    """The scale of each slice along some axes of x, or of each block of its last axis; it has no gradient."""
    x = jax.lax.stop_gradient(x)
    return scaling.scale_of(_operations.absmax(x, tuple(axis - x.ndim for axis in axes), block), how)


def scaled_pass(
    x: jax.Array,
    noise: jax.Array | None,
    spec: QuantSpec,
    scale: jax.Array | None,
    slices: Slices | None,
    integers: np.dtype | None = None,
    choice: Choice = ANY,
) -> tuple[jax.Array, jax.Array]:
    """x quantized by a scale, or by the maxima of slices; and the scale, in the rank of x.

    The result has the dtype of x, or `integers`.
    """
    if integers is not None:
        spec = dataclasses.replace(spec, integer_dtype=written_as(integers))
    if scale is None and slices is not None:
        if slices.in_one_read(x.ndim):
            y, scale = _operations.quantize_by_absmax(x, noise, spec, slices.how, slices.block, choice)
            return y if integers is None else y.astype(integers), scale
        scale = slices.scale(x)
    assert scale is not None
    y = _operations.quantize(x, noise, spec, choice, "straight", scale)
    return y if integers is None else y.astype(integers), scale


def wide_type(x: jax.Array) -> Any:
    """The type of x in buckets, to which noise is added: float32, or float64 for float64."""
    return jax.ShapeDtypeStruct(x.shape, wider(x.dtype, np.dtype(np.float32)))
