"""Calls outside of every transform: the noise and the pass are one program, compiled once for each numerics."""

import dataclasses
import functools
from typing import TYPE_CHECKING

import jax
import numpy as np

from . import _operations
from ._dispatch import ANY, Choice
from ._integer_dtypes import written_as

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


@functools.partial(jax.jit, static_argnums=2)
def quantize_with_mask(x: jax.Array, key: jax.Array | None, numerics: "IntNumerics") -> tuple[jax.Array, jax.Array]:
    """x quantized, and the packed clip mask."""
    return _operations.quantize_with_mask(x, *numerics.noise_and_spec(x, key))
