"""The position of an array in a larger one: a shard inside `jax.shard_map` has the noise of the whole array."""

import dataclasses
import math
import numbers
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export, lax
from jax.core import Tracer

from . import _shape_checks
from ._error_values import shown
from .kernels.generators.seeds import advance
from .stochastic_rounding import Seeded


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a larger array."""

    offset: tuple[Any, ...]  # the index in the larger array at which it begins: integers, known or traced
    whole: tuple[int, ...]  # the shape of the larger array

    def seeded(self, seeded: Seeded, shape: tuple[int, ...]) -> Seeded:
        """The draw and the seed of the part, of `shape`, from those of the whole array."""
        whole = seeded.draw.shape  # 1 along axes that share a draw, and so has the part
        shape = tuple(1 if size == 1 else n for n, size in zip(shape, whole, strict=True))
        draw = dataclasses.replace(seeded.draw, shape=shape, whole=whole)
        steps = [
            (at, draw.sizes_within(axis))
            for axis, (at, size) in enumerate(zip(self.offset, whole, strict=True))
            if size != 1 and not (_is_known(at) and at == 0)
        ]
        known = sum(int(at) * math.prod(sizes) for at, sizes in steps if _is_known(at))
        aligned = known % 8 == 0 and all(math.prod(sizes) % 8 == 0 for at, sizes in steps if not _is_known(at))
        return Seeded(dataclasses.replace(draw, aligned=aligned), advance(seeded.seed, steps))

    def cut(self, noise: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The slice of the whole array's noise that belongs to a part of `shape`."""
        noise = jnp.reshape(noise, (1,) * (len(shape) - noise.ndim) + noise.shape)
        sizes = [1 if n == 1 else size for n, size in zip(noise.shape, shape, strict=True)]
        starts = [0 if n == 1 else at for n, at in zip(noise.shape, self.offset, strict=True)]
        return lax.dynamic_slice(noise, [jnp.asarray(at, jnp.int32) for at in starts], sizes)


def part_of(offset: Any, global_shape: Any, shape: tuple[int, ...]) -> Part | None:
    """The position of an array of `shape`, from the user's arguments; None if it is not part of a larger array."""
    if offset is None and global_shape is None:
        return None
    if offset is None or global_shape is None:
        given, missing = ("offset", "global_shape") if global_shape is None else ("global_shape", "offset")
        raise ValueError(
            f"{given}={shown(offset if global_shape is None else global_shape)} is there and {missing} is not: give "
            "both, the index at which x begins in the whole array and the shape of that array, or neither"
        )
    whole = _shape_checks.sequence_of_integers(
        "global_shape", global_shape, "give the shape of the whole array", symbols=True
    )
    at = _offset(offset)
    for name, value in (("offset", at), ("global_shape", whole)):
        if len(value) != len(shape):
            raise ValueError(
                f"{name}={shown(value)} has {len(value)} numbers, and x has {len(shape)} axes, its shape being "
                f"{shape}: give one for each axis"
            )
    for axis, (first, n, size) in enumerate(zip(at, shape, whole, strict=True)):
        first = int(first) if _is_known(first) else 0
        if first < 0 or not _is_at_most(first + n, size):
            raise ValueError(
                f"x has {n} elements from {first} on along axis {axis}, and global_shape={whole} has {size} there: "
                "give the shape of the whole array, and for this shard the index at which it begins"
            )
    return Part(at, whole)


def _is_at_most(end: int, size: int) -> bool:
    """Whether `end <= size`."""
    try:
        return end <= size
    except jax.errors.InconclusiveDimensionOperation:
        raise ValueError(
            f"x ends at {end} and global_shape has {size} there, and it is not known that {end} is at most {size}: "
            f"give jax.export.symbolic_shape the constraint, as in symbolic_shape(..., constraints=['{end} <= {size}'])"
        ) from None


def _is_known(value: Any) -> bool:
    return isinstance(value, numbers.Integral)


def _offset(value: Any) -> tuple[Any, ...]:
    """The offset as Python integers and traced integer scalars."""
    advice = "give an integer for each axis of x, as in (jax.lax.axis_index('rows') * x.shape[0], 0)"
    try:
        items = list(value)
    except TypeError:
        raise TypeError(f"offset={shown(value)} is not a sequence of integers: {advice}") from None
    found: list[Any] = []
    for item in items:
        if export.is_symbolic_dim(item):
            item = jnp.asarray(item)  # as if traced, which it is by now
        dtype = getattr(item, "dtype", None)
        if isinstance(item, bool | np.bool_) or not (
            _is_known(item) or (dtype is not None and jnp.issubdtype(dtype, jnp.integer) and not item.shape)
        ):
            kind = f"a {type(item).__name__}" if isinstance(item, np.generic) else shown(item)
            raise TypeError(f"offset={shown(value)} has {kind}, which is not an integer: {advice}")
        found.append(item if isinstance(item, Tracer) else operator.index(item))
    return tuple(found)
