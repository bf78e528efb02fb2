"""The arrays that operations take: random, made on the device, several of each so that no call finds its own cached."""

import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.operations import NEAREST, quantize_with_mask

FEATURES, OUTPUTS = 1024, 256  # of [batch, sequence, features], and of the dot in a chain
DEVIATION = 60.0  # of x, in buckets of 8 bits: one in thirty is clipped
MOST_SETS = 16  # of arrays that take turns
CHECKED = 1 << 16  # elements, from the first on, that are compared with NumPy

Shape = tuple[int, ...]


def shape_of(rank: int, size: int) -> Shape:
    """The shape of `size` elements, a power of 2 from 2**10 on, with 1 to 3 axes."""
    rows = size // FEATURES
    batch = min(8, rows)
    return {1: (size,), 2: (rows, FEATURES), 3: (batch, rows // batch, FEATURES)}[rank]


@functools.partial(jax.jit, static_argnums=(1, 2))
def _normal(seed: Any, shape: Shape, dtype: str) -> jax.Array:
    key = jax.random.key(seed + (1 << 24), impl="rbg")  # not one of those that noise is drawn from
    return jax.random.normal(key, shape).astype(dtype)


def make(name: str, seed: int, shape: Shape, dtype: str) -> Any:
    """One of the arrays that operations name; those of one seed belong together.

    `"x"` is in buckets, `"activation"` of about 1, `"g"` a cotangent, and `"mask"` the packed clip mask of x; `"words"`
    are the data of `"key"`, and `"w"` the int8 weights of a dot. The shape and dtype are those of x.
    """
    if name == "x":
        return _normal(seed, shape, dtype) * jnp.asarray(DEVIATION, dtype)
    if name in ("activation", "g"):
        return _normal(seed + (1 << 20), shape, dtype)
    if name == "mask":
        return quantize_with_mask(make("x", seed, shape, dtype), None, NEAREST.spec())[1]
    if name in ("key", "words"):
        return jax.random.key(seed) if name == "key" else jax.random.key_data(jax.random.key(seed))
    assert name == "w"
    return jax.random.randint(jax.random.key(0), (FEATURES, OUTPUTS), -127, 128, jnp.int8)


def size_in_bytes(arrays: Any) -> int:
    """The bytes of arrays, or of their types; keys do not count."""
    leaves = (a for a in jax.tree.leaves(arrays) if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key))
    return sum(math.prod(a.shape) * a.dtype.itemsize for a in leaves)


def types(names: Iterable[str], shape: Shape, dtype: str) -> dict[str, Any]:
    return {name: jax.eval_shape(lambda name=name: make(name, 0, shape, dtype)) for name in names}


def sets(types: Any, cache: int) -> int:
    """How many of each array are four times as large as the cache; of small ones, `MOST_SETS`."""
    return max(1, min(MOST_SETS, -(-4 * cache // size_in_bytes(types))))


def pool(names: Iterable[str], shape: Shape, dtype: str, cache: int) -> list[dict[str, Any]]:
    """So many of each array, by name."""
    count = sets(types(names, shape, dtype), cache)
    return [{name: make(name, seed, shape, dtype) for name in names} for seed in range(count)]


def rows(array: Any, shape: Shape) -> np.ndarray:
    """The first rows of an array, or of its result; of one axis, its first elements."""
    if len(shape) == 1:
        return np.asarray(array[:CHECKED])
    return np.asarray(array.reshape(-1, array.shape[-1])[: CHECKED // shape[-1]])


def first_rows(inputs: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
    """What NumPy needs to check a result: the first rows of x and of what goes with it, and all of the rest."""
    return {name: rows(a, shape) if name in ("x", "g", "activation") else a for name, a in inputs.items()}
