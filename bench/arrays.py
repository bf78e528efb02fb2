"""The arrays that operations take: random, made on the device, several of each so that no call finds its own cached."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.operations import NEAREST, quantize_with_mask

FEATURES, OUTPUTS = 1024, 256  # of [batch, sequence, features], and of the dot in a chain
DEVIATION = 60.0  # of x, in buckets of 8 bits: one in thirty is clipped
MOST_SETS = 16  # of arrays that take turns
CHECKED = 1 << 16  # elements, from the first on, that are compared with NumPy


def shape_of(rank: int, size: int) -> tuple[int, ...]:
    """The shape of `size` elements, a power of 2 from 2**10 on, with 1 axis or 3."""
    if rank == 1:
        return (size,)
    batch = min(8, size // FEATURES)
    return (batch, size // FEATURES // batch, FEATURES)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _normal(seed: Any, shape: tuple[int, ...], dtype: str) -> jax.Array:
    return jax.random.normal(jax.random.key(seed, impl="rbg"), shape).astype(dtype)


def make(name: str, seed: int, shape: tuple[int, ...], dtype: str) -> Any:
    """One of the arrays that operations name.

    Args:
        name: `"x"` in buckets; `"activation"`, of about 1; `"g"`, a cotangent; `"mask"`, the packed clip mask of x;
            `"key"`, and `"words"`, its data; `"w"`, the int8 weights of a dot.
        seed: Which of them; arrays of one seed belong together.
        shape: The shape of x.
        dtype: The dtype of x.
    """
    if name == "x":
        return _normal(seed, shape, dtype) * jnp.asarray(DEVIATION, dtype)
    if name in ("activation", "g"):
        return _normal(seed + (1 << 20), shape, dtype)
    if name == "mask":
        return quantize_with_mask(make("x", seed, shape, dtype), None, NEAREST.spec())[1]
    if name == "key":
        return jax.random.key(seed)
    if name == "words":
        return jax.random.key_data(jax.random.key(seed))
    assert name == "w"
    return jax.random.randint(jax.random.key(0), (FEATURES, OUTPUTS), -127, 128, jnp.int8)


def size_in_bytes(arrays: Any) -> int:
    """What arrays, or their types, take."""
    leaves = jax.tree.leaves(arrays)
    return sum(
        math.prod(a.shape) * a.dtype.itemsize for a in leaves if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key)
    )


def types(names: tuple[str, ...], shape: tuple[int, ...], dtype: str) -> Mapping[str, Any]:
    """The types of arrays."""
    return {name: jax.eval_shape(lambda name=name: make(name, 0, shape, dtype)) for name in names}


def sets(types: Mapping[str, Any], cache: int) -> int:
    """How many of each array it takes for them to be four times as large as the cache; of small ones, `MOST_SETS`."""
    return max(1, min(MOST_SETS, -(-4 * cache // size_in_bytes(types))))


def pool(names: tuple[str, ...], shape: tuple[int, ...], dtype: str, cache: int) -> list[dict[str, Any]]:
    """So many of each array, by name."""
    count = sets(types(names, shape, dtype), cache)
    return [{name: make(name, seed, shape, dtype) for name in names} for seed in range(count)]


def rows(array: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The first rows of an array, or of its result; of one axis, its first elements."""
    per_row = 1 if len(shape) == 1 else shape[-1]
    count = max(1, min(CHECKED, math.prod(shape)) // per_row)
    flat = array.reshape(-1) if len(shape) == 1 else array.reshape(-1, array.shape[-1])
    return np.asarray(flat[:count])


def first_rows(names: tuple[str, ...], seed: int, shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    """What NumPy needs to check a result: the first rows of x and of what goes with it, and all of the rest."""
    found = {}
    for name in names:
        array = make(name, seed, shape, dtype)
        found[name] = rows(array, shape) if name in ("x", "g", "activation") else array
    return found
