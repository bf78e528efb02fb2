"""What arguments must be: each check names the argument, its value, the reason and the way out."""

import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

FLOATS = ("float32", "bfloat16", "float16", "float64")
MAX_BITS = 22


def bits(value: Any) -> None:
    """Refuses bits that float32 cannot hold.

    Raises:
        TypeError: Not a number.
        ValueError: Below 1 or above 22.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise TypeError(f"bits={value!r} is not a number: give the number of bits, from 1 to {MAX_BITS}")
    if not 1 <= float(value) <= MAX_BITS:
        raise ValueError(
            f"bits={value!r} is not from 1 to {MAX_BITS}: float32 holds no more buckets exactly; "
            "leave the array unquantized beyond that"
        )


def switch(name: str, value: Any) -> None:
    """Refuses a switch that is neither True nor False, with a TypeError."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}={value!r} is neither True nor False: it is a switch, decided before tracing")


def noise_fn(value: Any) -> None:
    """Refuses noise that cannot be called, with a TypeError."""
    if value is not None and not callable(value):
        raise TypeError(
            f"noise_fn={value!r} is not callable: give a function of (shape, key), or None for no noise; "
            "an array of noise is given as `lambda shape, key: array`"
        )


def noise_dtype(value: Any) -> np.dtype | None:
    """None or float32, as a dtype.

    Raises:
        ValueError: Anything else.
    """
    if value is None:
        return None
    dtype = _dtype(value)
    if dtype is None or dtype != jnp.float32:
        raise ValueError(
            f"noise_dtype={value!r} is neither None nor float32: None rounds the sum to the dtype of x, "
            "jnp.float32 keeps it exact until the end"
        )
    return dtype


def floats(name: str, value: Any) -> jax.Array:
    """An array of floats.

    Raises:
        TypeError: Not an array, or one of another dtype.
    """
    array = _array(f"{name}={value!r}", value, "give a JAX or NumPy array of floats")
    if array.dtype.name not in FLOATS:
        raise TypeError(
            f"{name} has dtype {array.dtype.name}, and only {', '.join(FLOATS)} can be quantized: "
            f"cast it first, as in {name}.astype(jnp.float32)"
        )
    return array


def key(value: Any) -> jax.Array:
    """One random key.

    Raises:
        ValueError: None, or more than one key.
        TypeError: Neither a typed key nor a legacy uint32 key.
    """
    if value is None:
        raise ValueError(
            "key=None, and numerics.noise_fn needs one to draw noise: pass key=jax.random.key(seed), to the methods of "
            "the numerics in Context(key=...)"
        )
    dtype = getattr(value, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not typed and dtype != jnp.uint32:
        raise TypeError(
            f"key={value!r} is neither a typed key nor a legacy uint32 key: make one with jax.random.key(seed)"
        )
    if value.ndim != (0 if typed else 1):
        raise ValueError(
            f"key has shape {value.shape}, and one key is needed, of shape {() if typed else '(2,)'}: "
            "index the array of keys, or use jax.vmap for a key for each example"
        )
    return value


def noise(value: Any, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    """Noise that broadcasts to `shape`, as an array of floats.

    Args:
        value: What a noise function returned.
        shape: That of x.
        dtype: That of x; noise that is weakly typed or made of integers takes it, as it would in a sum with x.

    Raises:
        TypeError: Not real numbers.
        ValueError: It does not broadcast to `shape`, or would enlarge it.
    """
    remedy = "return real numbers, as float32 in [-0.5, 0.5)"
    array = _array(f"numerics.noise_fn returned {value!r}, which", value, remedy)
    if array.dtype.name not in FLOATS and not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"numerics.noise_fn returned dtype {array.dtype.name}, which is not added to floats: {remedy}")
    try:
        fits = np.broadcast_shapes(array.shape, shape) == tuple(shape)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"numerics.noise_fn returned shape {array.shape}, which does not broadcast to the shape {tuple(shape)} "
            "of x: each dimension is that of x, or 1 where one draw is shared"
        )
    weak = array.weak_type or not jnp.issubdtype(array.dtype, jnp.floating)
    return array.astype(dtype) if weak else array


def integer_dtype(value: Any, lowest: float, highest: float) -> np.dtype:
    """The dtype for integers from `lowest` to `highest`; the smallest of int8, int16 and int32 for None.

    Raises:
        ValueError: A dtype that is none of the three, or is too small.
    """
    signed = [np.dtype(d) for d in (np.int8, np.int16, np.int32)]
    fitting = [d for d in signed if np.iinfo(d).min <= lowest and highest <= np.iinfo(d).max]
    if not math.isfinite(highest) or not fitting:
        raise ValueError(
            f"the buckets reach from {lowest} to {highest} in the dtype of x, which no integer dtype holds: "
            "use noise_dtype=jnp.float32, fewer bits, or a wider x"
        )
    if value is None:
        return fitting[0]
    dtype = _dtype(value)
    if dtype is None or dtype not in signed:
        raise ValueError(f"dtype={value!r} is none of int8, int16 and int32: use one of them, or None for the smallest")
    if dtype not in fitting:
        raise ValueError(
            f"dtype={dtype.name} is too small for the buckets from {lowest:g} to {highest:g}: "
            f"use {fitting[0].name}, or None for the smallest that fits"
        )
    return dtype


def integers(name: str, value: Any) -> jax.Array:
    """An array of integers.

    Raises:
        TypeError: Another dtype.
    """
    array = _array(f"{name}={value!r}", value, "quantize_to_int() makes arrays of integers")
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name} has dtype {array.dtype.name}, and integers are needed: quantize_to_int() makes them")
    return array


def float_dtype(name: str, value: Any) -> np.dtype:
    """A float dtype that can be quantized.

    Raises:
        TypeError: Another dtype.
    """
    dtype = _dtype(value)
    if dtype is None or dtype.name not in FLOATS:
        raise TypeError(f"{name}={value!r} is no float dtype for values: use one of {', '.join(FLOATS)}")
    return dtype


def _array(subject: str, value: Any, remedy: str) -> jax.Array:
    """An array from an array or a number; a list or anything else is a TypeError, as for jnp's functions."""
    try:
        if hasattr(value, "dtype") or isinstance(value, numbers.Number):
            return jnp.asarray(value)
    except (TypeError, ValueError):
        pass
    raise TypeError(f"{subject} is not an array: {remedy}")


def _dtype(value: Any) -> np.dtype | None:
    """The dtype that `value` names, or None."""
    try:
        return None if value is None else jnp.dtype(value)  # to NumPy, None is float64
    except TypeError:
        return None
