"""Stochastic rounding of floats to smaller floats."""

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.core import Tracer
from jax.typing import DTypeLike

from . import _checks, _dispatch, _noise_functions, _operations
from ._dispatch import Choice
from ._error_values import shown
from ._global_position import Part, part_of
from ._noise_of import noise_of
from ._quantize import VALUES
from .kernels import FloatRounding, Interpreted, Name, QuantSpec
from .kernels.generators import IN_16_BITS
from .stochastic_rounding import NOISE_CLASSES, HashUniform, NoiseFn

_FLOAT8 = ("float8_e4m3fn", "float8_e5m2")
_TO = {"float32": ("bfloat16", "float16", *_FLOAT8), "bfloat16": _FLOAT8, "float16": _FLOAT8}
_HASH = HashUniform()


def stochastic_cast(
    x: jax.Array,
    dtype: DTypeLike,
    *,
    key: jax.Array,
    noise_fn: NoiseFn = _HASH,
    overflow: Literal["saturate", "ieee"] = "saturate",
    offset: Sequence[int | jax.Array] | None = None,
    global_shape: Sequence[int] | None = None,
    implementation: Name | None = None,
    interpret: Interpreted | None = None,
) -> jax.Array:
    """Rounds floats to a smaller float dtype stochastically, in one pass: the mean of the result is x.

    A number between two neighbours of `dtype` becomes the one farther from zero with a chance that is its *fraction*,
    its distance from the nearer to zero in units of the gap between the two. With 16-bit draws, those of all noise
    classes but `JaxUniform` and `HardwareUniform`, the chance is `floor(fraction * 65536) / 65536`. That is exact where
    at most 16 bits of x are dropped, as from float32 to bfloat16 and from bfloat16 to float8, and else too low by less
    than `2**-16`. A number that `dtype` holds never changes.

    The gradient goes straight through, also where x is beyond the largest finite number: tangents and cotangents are
    cast, to nearest.

    Args:
        x: float32, bfloat16 or float16 of any shape and in any units. Without x64 a NumPy array of float64 is taken as
            float32, as JAX does everywhere.
        dtype: bfloat16, float16, float8_e4m3fn or float8_e5m2 for float32; one of the two float8 for the others.
        key: A key for `noise_fn`, typed (`jax.random.key`) or legacy uint32. One key gives two arrays of equal size the
            same noise: `jax.random.split` it, and use another one at each step.
        noise_fn: Draws the noise, in gaps between neighbours. What draws more than 16 bits, and any function but those
            of the package, rounds up where the float32 sum of fraction and noise is 1/2 or more. So noise of 1/2 and
            more rounds up all that `dtype` does not hold, and noise of -1/2 and less, or NaN, nothing. Where more than
            16 bits are dropped, that is not quite the rule of 16-bit draws above.
        overflow: What is rounded beyond the largest finite number becomes: with `"saturate"` that number, with `"ieee"`
            infinity, or NaN in float8_e4m3fn, which has no infinity. An infinite x stays infinite in both; in
            float8_e4m3fn it becomes the largest number, or NaN with `"ieee"`.
        offset: As in `quantize`.
        global_shape: As in `quantize`.
        implementation: As in `quantize`.
        interpret: As in `quantize`.

    Returns:
        The numbers in `dtype`, in the shape of x. NaN, zeros and infinities keep their signs.

    Raises:
        TypeError: x is not made of floats, or the key or the noise function is not one.
        ValueError: x is not cast to dtype, overflow is unknown, key is None, the noise does not broadcast to x, a part
            is not within the whole, or an implementation is unknown, does not take the dtype or does not run on the
            platform.
        ImportError: As in `quantize`.

    Source: M. P. Connolly, N. J. Higham, T. Mary, "Stochastic rounding and its probabilistic backward error analysis",
        SIAM J. Sci. Comput. 43, 2021.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> weight = jnp.full(10_000, 1 + 1 / 512)  # a quarter of the way from 1 to the next bfloat16
        >>> y = stochastic_cast(weight, jnp.bfloat16, key=jax.random.key(0))
        >>> sorted(set(y.tolist())), bool(abs(y.astype(jnp.float32).mean() - weight[0]) < 1e-4)
        ([1.0, 1.0078125], True)
        >>> stochastic_cast(jnp.array([1e9, -jnp.inf]), jnp.float16, key=jax.random.key(0))
        Array([6.55e+04,     -inf], dtype=float16)
    """
    x = _checks.floats("x", x)
    to = _target(x.dtype, dtype)
    saturates = _saturates(overflow)
    noise_fn = _noise_function(noise_fn)
    key = _checks.key(key, "noise_fn")
    choice = Choice(implementation, interpret)
    _dispatch.check(choice, x.dtype)
    part = part_of(offset, global_shape, x.shape)
    if part is None and type(noise_fn) in NOISE_CLASSES and not isinstance(x, Tracer) and not isinstance(key, Tracer):
        return _eager(x, key, noise_fn, to, saturates, choice)
    return _cast(x, key, noise_fn, to, saturates, choice, part)


def _cast(
    x: jax.Array, key: jax.Array, noise_fn: NoiseFn, to: np.dtype, saturates: bool, choice: Choice, part: Part | None
) -> jax.Array:
    """The cast, of arguments that were checked."""
    noise, draw = noise_of(noise_fn, x, key, part, "noise_fn")
    if draw is None:
        _dispatch.check(choice, noise.dtype)
    how = FloatRounding(to, saturates, by_draws=draw is not None and draw.generator in IN_16_BITS)
    spec = QuantSpec(math.inf, clip=False, rounding=None, draw=draw, to_float=how)
    x, drawn_from, _ = _operations.of_one_type(x, noise, None, spec)
    return checkpoint_name(_operations.quantize(x, drawn_from, spec, choice, "straight"), VALUES)


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _eager(x: jax.Array, key: jax.Array, noise_fn: NoiseFn, to: np.dtype, saturates: bool, choice: Choice) -> jax.Array:
    """The cast outside of every transform: the noise and the pass are one program."""
    return _cast(x, key, noise_fn, to, saturates, choice, None)


def _target(of_x: np.dtype, value: Any) -> np.dtype:
    """The dtype to cast to."""
    dtype, casts = _checks.dtype_of(value), _TO.get(of_x.name, ())
    if dtype is not None and dtype.name in casts:
        return dtype
    name = shown(value) if dtype is None else dtype.name
    if not casts:
        raise ValueError(
            f"x has dtype {of_x.name}, and only {', '.join(_TO)} are rounded to dtype={name}: cast it first, as in "
            "x.astype(jnp.float32)"
        )
    remedy = f"use one of them, or for rounding to nearest x.astype({name})"
    if dtype == of_x:
        remedy = "leave x as it is, which is of that dtype"
    elif dtype is not None and jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize > of_x.itemsize:
        remedy = f"use one of them, or x.astype({name}), which is exact"
    elif dtype is not None and dtype.name in _TO["float32"]:
        remedy = "use one of them, or cast x first, as in x.astype(jnp.float32), which is exact"
    elif dtype is None:
        remedy = "use one of them, as in jnp.bfloat16"
    raise ValueError(f"{of_x.name} is rounded to {', '.join(casts)}, and not to dtype={name}: {remedy}")


def _saturates(overflow: Any) -> bool:
    if not isinstance(overflow, str) or overflow not in ("saturate", "ieee"):
        raise ValueError(
            f"overflow={shown(overflow)} is neither 'saturate' nor 'ieee': 'saturate' gives the largest finite number, "
            "'ieee' infinity, or NaN in a dtype that has no infinity"
        )
    return overflow == "saturate"


def _noise_function(value: Any) -> NoiseFn:
    if value is None:
        raise ValueError(
            "noise_fn=None, and without noise nothing is rounded stochastically: leave it out, or round to nearest "
            "with x.astype(dtype)"
        )
    return _noise_functions.checked(value)
