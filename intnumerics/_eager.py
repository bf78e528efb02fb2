"""Calls outside of every transform: the noise and the pass are one compiled program, found by the numerics."""

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.core import Tracer

from . import _operations
from ._integer_dtypes import written_as
from .kernels import Interpreted, Name
from .stochastic_rounding import DrawnInPass

if TYPE_CHECKING:
    from .int_numerics import IntNumerics


def is_eager(numerics: "IntNumerics", x: jax.Array, key: Any) -> bool:
    """Whether a call can be one program: no transform sees it, and JAX can trace the noise function.

    A noise function of the user may need the numbers of the key, as NumPy's functions do, and is called as it is.
    """
    if isinstance(x, Tracer) or isinstance(key, Tracer):
        return False
    return numerics.noise_fn is None or isinstance(numerics.noise_fn, DrawnInPass)


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def quantize(
    x: jax.Array,
    key: jax.Array | None,
    numerics: "IntNumerics",
    integers: np.dtype | None = None,
    implementation: Name | None = None,
    interpret: Interpreted | None = None,
) -> jax.Array:
    """The noise of the numerics, and x quantized with it: to `integers`, or in the dtype of x if that is None."""
    noise, spec = numerics.noise_and_spec(x, key)
    if integers is None:
        return _operations.quantize(x, noise, spec, implementation, interpret)
    spec = dataclasses.replace(spec, integer_dtype=written_as(integers))
    return _operations.quantize(x, noise, spec, implementation, interpret).astype(integers)


@functools.partial(jax.jit, static_argnums=2)
def quantize_with_mask(x: jax.Array, key: jax.Array | None, numerics: "IntNumerics") -> tuple[jax.Array, jax.Array]:
    """The same with the packed clip mask."""
    return _operations.quantize_with_mask(x, *numerics.noise_and_spec(x, key))
