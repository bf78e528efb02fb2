"""What arguments must be: each check names the argument, its value, the reason and the way out."""

import functools
import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

FLOATS = ("float32", "bfloat16", "float16", "float64")
MAX_BITS = 22

_settings: Any = jax.config  # JAX does not declare the types of its settings


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
    """Refuses noise that cannot be called, or a class of it, with a TypeError."""
    if isinstance(value, type):
        raise TypeError(
            f"noise_fn={value.__name__} is a class, and an object of it is needed: write {value.__name__}()"
        )
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
    array = _array(f"{name}={{!r}}", value, "give a JAX or NumPy array of floats")
    if array.dtype.name not in FLOATS:
        raise TypeError(
            f"{name} has dtype {array.dtype.name}, and only {', '.join(FLOATS)} are taken: "
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
    if not typed and value.shape != (shape := _legacy_key_shape(default_generator())):
        raise ValueError(
            f"key has shape {value.shape}, and a legacy key of JAX's default generator {default_generator()!r} has "
            f"{shape}: make a typed key, which knows its generator, with jax.random.key(seed, impl=...)"
        )
    return value


@functools.cache
def _legacy_key_shape(generator: str) -> tuple[int, ...]:
    return jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=generator))).shape


def default_generator() -> str:
    """The name of the generator of legacy keys."""
    return _settings.jax_default_prng_impl


def threefry_is_partitionable() -> bool:
    """Whether an element's bits from a threefry key depend on its index alone."""
    return _settings.jax_threefry_partitionable


def key_reuse_is_checked() -> bool:
    """Whether JAX looks for keys that are used twice."""
    return _settings.jax_debug_key_reuse


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
    array = _array("numerics.noise_fn returned {!r}, which", value, remedy)
    if array.dtype.name not in FLOATS and not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"numerics.noise_fn returned dtype {array.dtype.name}, which is not added to floats: {remedy}")
    pairs = zip(reversed(array.shape), reversed(shape), strict=False)
    if array.ndim > len(shape) or any(n not in (1, size) for n, size in pairs):
        raise ValueError(
            f"numerics.noise_fn returned shape {array.shape}, which does not broadcast to the shape {tuple(shape)} "
            "of x: each dimension is that of x, or 1 where one draw is shared"
        )
    weak = array.weak_type or not jnp.issubdtype(array.dtype, jnp.floating)
    return array.astype(dtype) if weak else array


def residual(value: Any) -> None:
    """Refuses what `quantize` cannot keep for its backward, with a ValueError."""
    if not isinstance(value, str) or value not in ("mask", "x"):
        raise ValueError(
            f"residual={value!r} is neither 'mask' nor 'x': 'mask' keeps one bit per element for the backward, 'x' "
            "keeps x itself; to keep nothing use numerics.replace(clip_gradient=False)"
        )


def mask_or_x(residual: Any, shape: tuple[int, ...]) -> jax.Array:
    """The one array of a residual: a packed clip mask, uint8, or x itself, floats of `shape`.

    Raises:
        TypeError: Not one array, or one of another dtype.
        ValueError: Floats of another shape.
    """
    remedy = "give what vjp_fwd returned beside the result, (mask,), or (x,) as FJFormer's vjp_fwd returns it"
    if not isinstance(residual, tuple | list) or len(residual) != 1:
        raise TypeError(f"residual is {_summary(residual)}, which is not a tuple of one array: {remedy}")
    array = _array(f"residual[0] is {_summary(residual[0])}, which", residual[0], remedy)
    if array.dtype == jnp.uint8:
        return array
    if array.dtype.name not in FLOATS:
        raise TypeError(f"residual[0] has dtype {array.dtype.name}, neither uint8, of a mask, nor a float: {remedy}")
    if array.shape != shape:
        raise ValueError(
            f"residual[0] has shape {array.shape} and dtype {array.dtype.name}, and grad has shape {shape}: an x has "
            "the shape of grad"
        )
    return array


def _summary(value: Any) -> str:
    """A value in a few words, without the numbers in it."""
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)} items"
    return f"a {type(value).__name__}"


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
    array = _array(f"{name}={{!r}}", value, "quantize_to_int() makes arrays of integers")
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
        raise TypeError(f"{name}={value!r} is not a float dtype: use one of {', '.join(FLOATS)}")
    return dtype


def _array(subject: str, value: Any, remedy: str) -> jax.Array:
    """An array from an array or a number; a list or anything else is a TypeError, as for jnp's functions.

    `subject` has {!r} for the value, which is written for an error alone: writing an array out fetches it.
    """
    try:
        if hasattr(value, "dtype") or hasattr(value, "__jax_array__") or isinstance(value, numbers.Number):
            return jnp.asarray(value)
    except (TypeError, ValueError):
        pass
    raise TypeError(f"{subject.format(value)} is not an array: {remedy}")


def _dtype(value: Any) -> np.dtype | None:
    """The dtype that `value` names, or None."""
    try:
        return None if value is None else jnp.dtype(value)  # to NumPy, None is float64
    except TypeError:
        return None
