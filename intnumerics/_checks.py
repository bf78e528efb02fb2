"""Checks of arguments: each error names the argument, its value, the reason and the remedy."""

import functools
import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ._error_values import is_array, shown

FLOATS = ("float32", "bfloat16", "float16", "float64")
_FLOATS = frozenset(jnp.dtype(name) for name in FLOATS)  # NumPy makes the name of a dtype anew each time
_BY_TYPE: dict[Any, np.dtype] = {t: jnp.dtype(t) for t in (jnp.float32, jnp.bfloat16, jnp.float16, jnp.float64)}
_INTEGERS = frozenset(jnp.dtype(name) for name in ("int2", "int4", "int8", "int16", "int32", "uint8"))  # the usual ones
MAX_BITS = 22

SETTINGS: Any = jax.config  # JAX does not declare the types of its settings


def bits(value: Any) -> Any:
    """A number of bits: a whole number, of any type of numbers; as a Python int from an array of one."""
    value = value if isinstance(value, int) else _static("bits", value)
    allowed = f"from 1 to {MAX_BITS}"
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise TypeError(f"bits={shown(value)} is not a number: give the number of bits, {allowed}")
    number = value if isinstance(value, int) else float(value)  # float does not hold every int
    if number > MAX_BITS:
        raise ValueError(
            f"bits={value!r} is not {allowed}: float32 holds no more buckets exactly; "
            "leave the array unquantized beyond that"
        )
    if number < 1:
        raise ValueError(
            f"bits={value!r} is not {allowed}: one bucket or none is left below 1 bit; to leave the array "
            "unquantized, do not call quantize"
        )
    if not float(number).is_integer():
        raise ValueError(
            f"bits={value!r} is not a whole number {allowed}: the buckets of an integer type are counted in whole "
            "bits; scale x by another factor for a grid of another size"
        )
    return value


def switch(name: str, value: Any) -> Any:
    """True or False, as a Python bool from an array of one."""
    value = value if isinstance(value, bool) else _static(name, value)
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}={shown(value)} is neither True nor False: it is a switch, decided before tracing")
    return value


def _static(name: str, value: Any) -> Any:
    """The value of a field that is part of a program: as it is, or the one item of an array of rank 0."""
    if isinstance(value, Tracer):
        raise TypeError(
            f"{name}={shown(value)} is known only when the program runs, and what is compiled depends on it: make it "
            f"a static argument, as in jax.jit(f, static_argnames={name!r}), or make the numerics outside of the "
            "function, one for each value"
        )
    is_one = isinstance(value, np.ndarray | jax.Array) and not value.shape
    if is_one and isinstance(value.dtype, np.dtype) and value.dtype.kind in "biuf":
        return jax.device_get(value).item()
    return value


def noise_dtype(value: Any) -> np.dtype | None:
    """None or float32, as a dtype."""
    if value is None:
        return None
    dtype = dtype_of(value)
    if dtype is None or dtype != jnp.float32:
        raise ValueError(
            f"noise_dtype={shown(value)} is neither None nor float32: None rounds the sum to the dtype of x, "
            "jnp.float32 keeps it exact until the end"
        )
    return dtype


def floats(name: str, value: Any) -> jax.Array:
    """An array of floats."""
    if isinstance(value, jax.Array) and value.dtype in _FLOATS:
        return value
    array = _array(f"{name}={{}}", value, "give a JAX or NumPy array of floats, as in jnp.asarray(...)")
    if array.dtype.name not in FLOATS:
        raise TypeError(
            f"{name} has dtype {array.dtype.name}, and only {', '.join(FLOATS)} are taken: "
            f"cast it first, as in {name}.astype(jnp.float32)"
        )
    return array


def key_of(context: Any) -> Any:
    """The key of a context; anything without one, such as a bare key, raises a TypeError."""
    if not hasattr(context, "key"):
        raise TypeError(f"context={shown(context)} has no key: give a Context, as in Context(key=jax.random.key(seed))")
    return context.key


NOISE_FN = "numerics.noise_fn"  # what errors call a noise function, which has another name where it is an argument


def key(value: Any, noise_fn: str = NOISE_FN) -> jax.Array:
    """One random key, typed or a legacy one."""
    if value is None:
        methods = ", to the methods of the numerics in Context(key=...)" if noise_fn == NOISE_FN else ""
        raise ValueError(f"key=None, and {noise_fn} needs one to draw noise: pass key=jax.random.key(seed){methods}")
    dtype = getattr(value, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not typed and dtype != jnp.uint32:
        raise TypeError(
            f"key={shown(value)} is neither a typed key nor a legacy uint32 key: make one with jax.random.key(seed)"
        )
    if value.ndim != (0 if typed else 1):
        raise ValueError(
            f"key has shape {value.shape}, and one key is needed, of shape {() if typed else '(2,)'}: "
            "index the array of keys, or use jax.vmap for a key for each example"
        )
    default = SETTINGS.jax_default_prng_impl
    if not typed and value.shape != (shape := _legacy_key_shape(default)):
        raise ValueError(
            f"key has shape {value.shape}, and a legacy key of JAX's default generator {default!r} has "
            f"{shape}: make a typed key, which knows its generator, with jax.random.key(seed, impl=...)"
        )
    return value


@functools.cache
def _legacy_key_shape(generator: str) -> tuple[int, ...]:
    return jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=generator))).shape


def noise(value: Any, shape: tuple[int, ...], dtype: np.dtype, noise_fn: str = NOISE_FN) -> jax.Array:
    """Noise for an x of a shape and a dtype, which weakly typed noise and integers take, as they would in a sum."""
    remedy = "return real numbers, as float32 in [-0.5, 0.5)"
    array = _array(f"{noise_fn} returned {{}}, which", value, remedy)
    if array.dtype.name not in FLOATS and not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{noise_fn} returned dtype {array.dtype.name}, which is not added to floats: {remedy}")
    pairs = zip(reversed(array.shape), reversed(shape), strict=False)
    if array.ndim > len(shape) or any(n not in (1, size) for n, size in pairs):
        raise ValueError(
            f"{noise_fn} returned shape {array.shape}, which does not broadcast to the shape {tuple(shape)} "
            "of x: each dimension is that of x, or 1 where one draw is shared"
        )
    weak = array.weak_type or not jnp.issubdtype(array.dtype, jnp.floating)
    return array.astype(dtype) if weak else array


def residual(value: Any) -> None:
    """Raises a ValueError for anything that `quantize` cannot keep for its backward."""
    if not isinstance(value, str) or value not in ("mask", "x"):
        raise ValueError(
            f"residual={shown(value)} is neither 'mask' nor 'x': 'mask' keeps one bit per element for the backward, "
            "'x' keeps x itself; to keep nothing use numerics.replace(clip_gradient=False)"
        )


def mask_or_x(residual: Any, shape: tuple[int, ...]) -> jax.Array:
    """The one array of a residual: a packed clip mask, uint8, or x itself, floats of `shape`."""
    remedy = "give what vjp_fwd returned beside the result, (mask,), or (x,) as FJFormer's vjp_fwd returns it"
    if not isinstance(residual, tuple | list) or len(residual) != 1:
        raise TypeError(f"residual is {shown(residual)}, which is not a tuple of one array: {remedy}")
    array = _array("residual[0] is {}, which", residual[0], remedy)
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


def integers(name: str, value: Any) -> jax.Array:
    """An array of integers."""
    if isinstance(value, jax.Array) and value.dtype in _INTEGERS:
        return value
    array = _array(f"{name}={{}}", value, "quantize_to_int() makes arrays of integers")
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name} has dtype {array.dtype.name}, and integers are needed: quantize_to_int() makes them")
    return array


def real_array(name: str, value: Any) -> jax.Array:
    """An array of floats, or a number as one."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_ | np.generic)
    array = (
        jnp.asarray(float(value)) if number else _array(f"{name}={{}}", value, "give a number or an array of floats")
    )
    if array.dtype.name not in FLOATS:
        raise TypeError(
            f"{name} has dtype {array.dtype.name}, and only numbers and {', '.join(FLOATS)} are taken: "
            f"cast it first, as in {name}.astype(jnp.float32)"
        )
    return array


def positive(name: str, value: Any, dtype: np.dtype | None = None) -> None:
    """Refuses a number that is not above 0 or not finite, alone or in an array of NumPy; JAX's are not fetched.

    With a dtype it also refuses a number that is not normal in it, or whose reciprocal is not.
    """
    if not isinstance(value, numbers.Real | np.ndarray) or isinstance(value, bool | np.bool_):
        return
    given = np.asarray(value)
    if given.dtype.kind not in "iu" and given.dtype.name not in FLOATS:
        return
    wide = given.astype(np.float64)
    if not ((wide > 0) & np.isfinite(wide)).all():
        what = "the size of a bucket" if name == "scale" else "the largest magnitude to keep"
        raise ValueError(f"{name}={shown(value)} is not above 0 and finite: give {what}, in the units of x")
    tiny = 0.0 if dtype is None else float(jnp.finfo(dtype).smallest_normal)
    if tiny and not ((tiny <= wide) & (wide <= 1 / tiny)).all():
        power = round(math.log2(tiny))
        raise ValueError(
            f"{name}={shown(value)} is not from 2**{power} to 2**{-power}, the numbers by which {np.dtype(dtype).name} "
            "can be divided: bring x into that range before, and its result back"
        )


def float_dtype(name: str, value: Any) -> np.dtype:
    """A float dtype that can be quantized."""
    if isinstance(value, type) and (known := _BY_TYPE.get(value)) is not None:  # in a third of the time
        return known
    dtype = dtype_of(value)
    if dtype is None or (dtype not in _FLOATS and dtype.name not in FLOATS):
        raise TypeError(f"{name}={shown(value)} is not a float dtype: use one of {', '.join(FLOATS)}")
    return dtype


def _array(subject: str, value: Any, remedy: str) -> jax.Array:
    """An array from an array or a number; a list or anything else is a TypeError, as for jnp's functions.

    `subject` has {} for the value.
    """
    reason = "is not an array"
    try:
        if hasattr(value, "dtype") or hasattr(value, "__jax_array__") or isinstance(value, numbers.Number):
            return jnp.asarray(value)
    except (TypeError, ValueError) as error:
        reason = f"is not an array that JAX takes ({_root(error)})"
    raise TypeError(f"{subject.format(shown(value))} {reason}: {_way_to_an_array(value) or remedy}")


def _way_to_an_array(value: Any) -> str | None:
    """How to turn a value into an array or arrays; None if that is not known."""
    if isinstance(value, np.ma.MaskedArray):
        return "fill it first, as in array.filled(0)"
    if isinstance(value, np.ndarray) and not value.dtype.isnative:
        return "it is not in this machine's byte order; convert it, as in array.astype(array.dtype.newbyteorder('='))"
    if not is_array(value) and any(map(is_array, jax.tree.leaves(value))):
        return "it is a pytree; call the function for each of its arrays, as in jax.tree.map(lambda x: f(x, ...), tree)"
    return None


def _root(error: BaseException) -> str:
    """JAX's message, without the errors around it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()).rstrip(".")


def dtype_of(value: Any) -> np.dtype | None:
    """The dtype that `value` names, or None."""
    try:
        return None if value is None or is_array(value) else jnp.dtype(value)  # to NumPy, None is float64
    except TypeError:
        return None
