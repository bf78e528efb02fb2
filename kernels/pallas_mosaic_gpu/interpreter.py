"""Runs the body of a kernel in plain jnp, one program after another, for `interpret="cuda"`.

Mosaic GPU's own interpreter came with JAX 0.11, and does not run under `vmap` or on several devices. Pallas' general
one does not take slices of references in a `shard_map` that is checked.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


class Ref:
    """An array that a kernel reads and writes, with what the kernels here use of a reference of Pallas."""

    def __init__(self, value: jax.Array) -> None:
        self.value, self.dtype = value, value.dtype

    @property
    def at(self) -> "Ref":
        """What is indexed for a part of the array."""
        return self

    def __getitem__(self, index: Any) -> Any:
        if hasattr(index, "size") and hasattr(index, "start"):  # a slice, as `pl.ds` makes it
            return Part(self, index.start, index.size)
        return lax.dynamic_index_in_dim(self.value, index, keepdims=False)


class Part:
    """Consecutive elements of an array."""

    def __init__(self, ref: Ref, start: jax.Array, size: int) -> None:
        self.ref, self.start, self.size = ref, start, size

    def __getitem__(self, _: Any) -> jax.Array:
        return lax.dynamic_slice_in_dim(self.ref.value, self.start, self.size)

    def __setitem__(self, _: Any, value: jax.Array) -> None:
        self.ref.value = lax.dynamic_update_slice_in_dim(self.ref.value, value, self.start, 0)


def run(
    body: Callable[..., None], grid: tuple[int], inputs: Sequence[jax.Array], results: Sequence[jax.ShapeDtypeStruct]
) -> list[jax.Array]:
    """Runs `body(i, *refs)` for each program of a grid; what no program writes is 0."""

    def program(i: jax.Array, before: list[jax.Array]) -> list[jax.Array]:
        refs = [Ref(value) for value in (*inputs, *before)]
        body(i, *refs)
        return [ref.value for ref in refs[len(inputs) :]]

    axes = tuple(jax.typeof(inputs[0]).manual_axis_type.varying)
    start = [jnp.zeros(result.shape, result.dtype) for result in results]
    if axes:  # inside `shard_map`, results vary along the axes of the first array
        start = [lax.pcast(value, axes, to="varying") for value in start]
    return lax.fori_loop(0, *grid, program, start)
