"""Calls outside of every transform: the noise and the pass are one program, compiled once for each numerics."""

import dataclasses
import functools
from typing import TYPE_CHECKING

import jax
import numpy as np

from . import _operations
from ._dispatch import ANY, Choice
from ._integer_dtypes import written_as
from ._scaled_pass import Slices, scaled_pass, wide_type

if TYPE_CHECKING:
    from .int_numerics import IntNumerics


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def quantize(
    x: jax.Array, key: jax.Array | None, numerics: "IntNumerics", integers: np.dtype | None = None, choice: Choice = ANY
) -> jax.Array:
    """The noise of the numerics, and x quantized with it: to `integers`, or in the dtype of x if that is None."""
    noise, spec = numerics.noise_and_spec(x, key)
    if integers is None:
        return _operations.quantize(x, noise, spec, choice)
    spec = dataclasses.replace(spec, integer_dtype=written_as(integers))
    return _operations.quantize(x, noise, spec, choice).astype(integers)


@functools.partial(jax.jit, static_argnums=(3, 4, 5, 6))
def quantize_scaled(
    x: jax.Array,
    scale: jax.Array | None,
    key: jax.Array | None,
    numerics: "IntNumerics",
    slices: Slices | None,
    integers: np.dtype | None,
    choice: Choice,
) -> tuple[jax.Array, jax.Array]:
    """`quantize` with a scale that is given, or with that of each of the slices; and the scale."""
    noise, spec = numerics.noise_and_spec(wide_type(x), key)
    return scaled_pass(x, noise, spec, scale, slices, integers, choice)


@functools.partial(jax.jit, static_argnums=2)
def quantize_with_mask(x: jax.Array, key: jax.Array | None, numerics: "IntNumerics") -> tuple[jax.Array, jax.Array]:
    """x quantized, and the packed clip mask."""
    return _operations.quantize_with_mask(x, *numerics.noise_and_spec(x, key))
