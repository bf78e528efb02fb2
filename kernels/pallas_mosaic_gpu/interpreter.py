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
        if isinstance(index, tuple) or (hasattr(index, "size") and hasattr(index, "start")):
            return Part(self, index if isinstance(index, tuple) else (index,))
        return lax.dynamic_index_in_dim(self.value, index, keepdims=False)

    def __setitem__(self, index: jax.Array, value: jax.Array) -> None:
        self.value = lax.dynamic_update_index_in_dim(self.value, value, index, 0)


class Part:
    """The elements of an array at slices, as `pl.ds` makes them, or numbers, along its first axes."""

    def __init__(self, ref: Ref, index: tuple[Any, ...]) -> None:
        self.ref = ref
        starts = [one.start if hasattr(one, "start") else one for one in index]
        [dtype] = {start.dtype for start in starts if isinstance(start, jax.Array)} or {jnp.dtype(jnp.int32)}
        rest = ref.value.shape[len(index) :]
        self.starts = [jnp.asarray(start, dtype) for start in (*starts, *(0 for _ in rest))]
        self.sizes = (*(getattr(one, "size", 1) if hasattr(one, "start") else 1 for one in index), *rest)
        self.shape = (*(one.size for one in index if hasattr(one, "start")), *rest)

    def __getitem__(self, _: Any) -> jax.Array:
        return lax.dynamic_slice(self.ref.value, self.starts, self.sizes).reshape(self.shape)

    def __setitem__(self, _: Any, value: jax.Array) -> None:
        self.ref.value = lax.dynamic_update_slice(self.ref.value, value.reshape(self.sizes), self.starts)


def loop(count: int, body: Callable[[jax.Array, Any], Any], carry: Any, refs: Sequence[Ref]) -> Any:
    """`lax.fori_loop` over a body that writes to some references."""

    def turn(i: jax.Array, state: Any) -> Any:
        carry, values = state
        for ref, value in zip(refs, values, strict=True):
            ref.value = value
        return body(i, carry), [ref.value for ref in refs]

    carry, values = lax.fori_loop(0, count, turn, (carry, [ref.value for ref in refs]))
    for ref, value in zip(refs, values, strict=True):
        ref.value = value
    return carry


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
