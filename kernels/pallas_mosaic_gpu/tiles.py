"""Tiles of flattened arrays for the Mosaic GPU kernels: the elements that a warpgroup handles at a time.

Mosaic GPU has no masked loads and stores, so a kernel handles whole blocks only, and XLA the elements after them: see
`rest.py`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from ..gpu.shapes import index_dtype, indices
from ..gpu.tuning import PER_THREAD, WARP
from . import interpreter

THREADS = 4 * WARP  # of a warpgroup
TILE = THREADS * PER_THREAD  # elements
ALIGNED = 256  # bytes

# A tile is [THREADS, PER_THREAD]: each thread has eight consecutive elements, which it moves 128 bits at a time, which
# share a Philox block, and whose mask is one byte.
ELEMENTS = plgpu.Layout.TILED(
    plgpu.Tiling(((THREADS, PER_THREAD), (WARP, PER_THREAD))), warp_dims=(-4,), lane_dims=(-2,), vector_dim=-1
)
ROWS = ELEMENTS.reduce((1,))  # one number per thread


# False, True for `interpreter.py`, or `plgpu.InterpretGPUParams()` for Mosaic GPU's own interpreter, which finds races.
# The latter has ordered side effects, so it works in direct calls of these kernels, and not through `quantize`.
Interpret = Any
Part = TypeVar("Part")
Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class Tile:
    """The elements that the threads of a program handle at a time, as arrays [THREADS, PER_THREAD] or [THREADS]."""

    index: jax.Array  # of the first eight elements, counted in eights, within the example
    origin: jax.Array  # the same in the flattened arrays
    interpret: Interpret

    def load(self, ref: Any) -> jax.Array:
        """The elements of `ref`."""
        part = ref.at[pl.ds(_eights(self.origin), TILE)]
        if self.interpret:  # no interpreter has reshaped references
            return self._in_layout(part[...].reshape(THREADS, PER_THREAD), ELEMENTS)
        return load(part.reshape(THREADS, PER_THREAD), ELEMENTS)

    def store(self, ref: Any, value: jax.Array) -> None:
        """Writes the elements of `ref`."""
        part = ref.at[pl.ds(_eights(self.origin), TILE)]
        if self.interpret:
            part[...] = value.reshape(TILE)
        else:
            store(part.reshape(THREADS, PER_THREAD), value)

    def load_bytes(self, ref: Any) -> jax.Array:
        """The bytes of a packed mask, one per thread."""
        part = ref.at[pl.ds(self.origin, THREADS)]
        return self._in_layout(part[...], ROWS) if self.interpret else load(part, ROWS)

    def store_bytes(self, ref: Any, value: jax.Array) -> None:
        """Writes the bytes of a packed mask."""
        part = ref.at[pl.ds(self.origin, THREADS)]
        if self.interpret:
            part[...] = value
        else:
            store(part, value)

    def eights(self, first: jax.Array) -> jax.Array:
        """The number of each thread's eight elements, if those of the example are counted from `first`."""
        with indices(first.dtype):
            return first + self.index.astype(first.dtype) + self._in_layout(lax.iota(first.dtype, THREADS), ROWS)

    @property
    def index_dtype(self) -> np.dtype:
        """The dtype that the numbers of all eights fit."""
        return self.index.dtype

    def columns(self) -> jax.Array:
        """Each element's place among the eight of its thread, int32."""
        return self._in_layout(lax.broadcasted_iota(jnp.int32, (THREADS, PER_THREAD), 1), ELEMENTS)

    def spread(self, rows: jax.Array) -> jax.Array:
        """One number per thread, for each of its elements."""
        return self._in_layout(lax.broadcast_in_dim(rows, (THREADS, PER_THREAD), (0,)), ELEMENTS)

    def _in_layout(self, x: jax.Array, layout: Any) -> jax.Array:
        return x if self.interpret is True else plgpu.layout_cast(x, layout)


@dataclasses.dataclass(frozen=True)
class Program:
    """One program of a grid, which handles a block of an example."""

    i: jax.Array  # its number
    example: jax.Array | None  # the number of the example, or None if there is only one
    tiles: tuple[Tile, ...]  # of the block

    def each(self, ref: Any) -> Iterator[tuple[Tile, jax.Array]]:
        """Each tile, and its elements of `ref`, which are loaded before the tile that precedes it is handled."""
        return ahead(lambda tile: tile.load(ref), self.tiles)


def ahead(read: Callable[[Part], Value], parts: Sequence[Part]) -> Iterator[tuple[Part, Value]]:
    """Each part and what is read of it, which is read before the part that precedes it is handled."""
    values = [read(parts[0])]
    for part, after in zip(parts, (*parts[1:], None), strict=True):
        value = values.pop()
        if after is not None:
            values.append(read(after))
        yield part, value


def unbounded(i: jax.Array, last: int) -> jax.Array:
    """An index of a place, which LLVM does not know to be small even if the last place is only `last` bytes on.

    Mosaic GPU declares all arrays to be aligned to `ALIGNED` bytes, and LLVM would put an offset that is known to be
    smaller into the low bits of the address by `or`. But XLA aligns some arrays to fewer bytes.
    """
    return lax.optimization_barrier(i) if last < ALIGNED else i


def load(ref: Any, layout: Any) -> jax.Array:
    """The elements of a part of global memory, as arrays of this layout."""
    # Mosaic GPU calls a transfer "optimized" if it is one of shared memory without bank conflicts.
    index = ((),) if jax.__version_info__ < (0, 11) else ()  # later JAX warns of an index, and then has none
    take: Any = plgpu.load
    return take(ref, *index, layout=layout, optimized=False)


def store(ref: Any, value: jax.Array) -> None:
    """Writes the elements of a part of global memory."""
    put: Any = getattr(plgpu, "store", None)
    if put is None:
        ref[...] = value
    else:
        put(ref, value, optimized=False)


Kernel = Callable[..., None]


def for_each_block(
    kernel: Kernel,
    n: int,
    inputs: Sequence[jax.Array],
    outputs: Sequence[Any],
    name: str,
    interpret: Interpret,
    size: int,
    examples: int = 1,
) -> list[jax.Array]:
    """Runs `kernel(program, *refs)` for every whole block of `size` elements.

    The flattened arrays have `examples` times `n` elements. If there are several examples, n is a multiple of 8.
    """
    blocks, dtype = n // size, index_dtype(n * examples)

    def body(i: jax.Array, *refs: Any) -> None:
        i = unbounded(i, ((examples - 1) * n + (blocks - 1) * size) // 8)  # in the packed mask, the smallest array
        block, example = i, None
        if examples > 1:
            example, block = lax.div(i, jnp.full((), blocks, i.dtype)), lax.rem(i, jnp.full((), blocks, i.dtype))
        with indices(dtype):
            number = lambda value: jnp.full((), value, dtype)  # noqa: E731
            first = block.astype(dtype) * number(size // PER_THREAD)
            before = number(0) if example is None else example.astype(dtype) * number(n // PER_THREAD)
            turns = [first + number(turn * THREADS) for turn in range(size // TILE)]
            tiles = [Tile(index, before + index if examples > 1 else index, interpret) for index in turns]
        kernel(Program(i, example, tuple(tiles)), *refs)

    return launch(body, examples * blocks, inputs, outputs, name, interpret)


def launch(
    body: Kernel,
    programs: int,
    inputs: Sequence[jax.Array],
    outputs: Sequence[Any],
    name: str,
    interpret: Interpret,
    shared: int = 0,
) -> list[jax.Array]:
    """Runs `body(i, *refs)` for each of some programs, a warpgroup each; its results are like `outputs`.

    Each program keeps `shared` bytes of shared memory from others, so that fewer run at once on a core.
    """
    axes = jax.typeof(inputs[0]).manual_axis_type  # inside `shard_map`, results vary along the same axes
    types = [jax.ShapeDtypeStruct(a.shape, a.dtype, manual_axis_type=axes) for a in outputs]
    if interpret is True:
        return interpreter.run(body, (programs,), inputs, types)
    run = plgpu.kernel(
        lambda *refs: body(lax.axis_index("block"), *refs[: len(inputs) + len(types)]),
        out_type=types,
        scratch_types=[plgpu.SMEM((shared,), jnp.int8)] if shared else [],
        grid=(programs,),
        grid_names=("block",),
        # Lane semantics compile to the same machine code as Warpgroup semantics, in an eighth of the time.
        compiler_params=plgpu.CompilerParams(
            lowering_semantics=plgpu.LoweringSemantics.Lane, unsafe_no_auto_barriers=True
        ),
        interpret=interpret or None,
        kernel_name=name,
    )
    return run(*inputs)


def _eights(number: jax.Array) -> jax.Array:
    """The index of the first of eight elements."""
    with indices(number.dtype):
        return number * jnp.full((), PER_THREAD, number.dtype)
