"""The noise function of a numerics: what it must be, how it is called, and which functions count as equal."""

import functools
import inspect
import weakref
from collections.abc import Callable, Hashable
from types import CodeType, FunctionType, ModuleType
from typing import Any

import jax

from ._error_values import shown

# The class to use for a string that other packages accept, or that is the name of one of our classes.
_NAMED = {
    "jax.uniform": "JaxUniform",  # in AQT's config
    "custom-1": "RandomCenteredUniform",
    "uniform": "JaxUniform",  # in Qwix's rules
    "low_bit_uniform": "RandomCenteredUniform",
    "jaxuniform": "JaxUniform",
    "randomcentereduniform": "RandomCenteredUniform",
    "random_centered_uniform": "RandomCenteredUniform",
    "philox": "PhiloxUniform",
    "philoxuniform": "PhiloxUniform",
    "hash": "HashUniform",
    "hashuniform": "HashUniform",
    "hardwareuniform": "HardwareUniform",
}


def checked(value: Any) -> Any:
    """A noise function or None. Of functions that do the same, the first one replaces the others."""
    if value is None:
        return None
    if isinstance(value, str):
        name = _NAMED.get(value.lower(), "PhiloxUniform")
        raise TypeError(
            f"noise_fn={shown(value)} is a string, and a function of (shape, key) is needed: write "
            f"noise_fn=intnumerics.{name}()"
        )
    if isinstance(value, type):
        raise TypeError(
            f"noise_fn={value.__name__} is a class, and an object of it is needed: write {value.__name__}()"
        )
    if not callable(value):
        raise TypeError(
            f"noise_fn={shown(value)} is not callable: give a function of (shape, key), or None for no noise; "
            "an array of noise is given as `lambda shape, key: array`"
        )
    return _one_of_alike(value)


def draw(noise_fn: Callable[[tuple[int, ...], jax.Array], Any], shape: tuple[int, ...], key: jax.Array) -> Any:
    """`noise_fn(shape, key)`, with another error if it does not take these arguments; its own errors pass."""
    try:
        return noise_fn(shape, key)
    except TypeError as error:
        # Only after an error: reading a signature takes time, and it may be wrong about a function that can be called.
        if reason := _refuses(noise_fn):
            raise TypeError(f"numerics.noise_fn={shown(noise_fn)} {reason}") from error
        raise


def _refuses(noise_fn: Callable[..., Any]) -> str | None:
    """Why a function does not take a shape and a key, and what to write; None if its signature accepts them."""
    try:
        signature = inspect.signature(noise_fn)
    except (TypeError, ValueError):  # as for some that are not written in Python
        return None
    names = list(signature.parameters)
    takes, called = f"takes ({', '.join(names)})", "and is called as noise_fn(shape, key)"
    try:
        signature.bind((), None)
    except TypeError:
        alone = "; a function of the shape alone, as Qwix has, would draw the same noise at each call"
        return (
            f"{takes}, {called}: write a function of both, as in "
            f"lambda shape, key: jax.random.uniform(key, shape) - 0.5{alone if len(names) == 1 else ''}"
        )
    if names[0] in ("key", "rng"):
        return (
            f"{takes}, the key first, {called}: change the order, as in "
            "lambda shape, key: jax.random.uniform(key, shape) - 0.5"
        )
    return None


# --- functions that are equal ----------------------------------------------------------------------------------------

_alike: weakref.WeakValueDictionary[Hashable, Any] = weakref.WeakValueDictionary()


def _one_of_alike(noise_fn: Any) -> Any:
    """The first function, still in use, that does the same as this one.

    A numerics is a static value, and functions are equal only to themselves. With a lambda that is written in a call,
    `jax.jit` would thus compile again at each call.
    """
    same = _what_it_does(noise_fn)
    return noise_fn if same is None else _alike.setdefault(same, noise_fn)


def _names(code: CodeType) -> set[str]:
    """The names that a function's code uses, including those in functions within it."""
    return set(code.co_names).union(*(_names(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


def _what_it_does(noise_fn: Any) -> Hashable | None:
    """A value that functions share only if they do the same; None if that cannot be known."""
    if type(noise_fn) is FunctionType:
        read = [noise_fn.__globals__[name] for name in _names(noise_fn.__code__) if name in noise_fn.__globals__]
        may_change = noise_fn.__closure__ or noise_fn.__defaults__ or noise_fn.__kwdefaults__ or noise_fn.__dict__
        if may_change or not all(isinstance(value, ModuleType) for value in read):
            return None
        return noise_fn.__code__, id(noise_fn.__globals__)
    if type(noise_fn) is functools.partial and not noise_fn.__dict__:
        parts = _what_it_does(noise_fn.func) or noise_fn.func, noise_fn.args, tuple(noise_fn.keywords.items())
        try:
            hash(parts)
        except TypeError:
            return None
        return parts, repr(parts[1:])  # repr tells 0 from False, which are equal
    return None
