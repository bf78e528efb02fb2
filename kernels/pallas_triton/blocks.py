"""Blocks of flattened arrays for the CUDA kernels: the elements that a program handles, and their addresses.

Kernels address blocks themselves (`pl.ANY` and `pl.ds`), and mask the last block if it is partial. With block specs, if
the blocks do not divide the array, JAX up to 0.11.2 stores out of bounds.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from ..gpu.shapes import INT32_END, index_dtype, indices
from ..gpu.tuning import Configuration


@dataclasses.dataclass(frozen=True)
class Block:
    """A part of an example: `size` elements from `start` of its `n` elements."""

    i: jax.Array  # the number of the block in its example
    start: jax.Array  # the index of its first element within the example
    size: int  # how many elements it has, including those beyond the end of the example
    n: int  # how many elements an example has
    example: jax.Array | None = None  # the number of the example, or None if there is only one
    whole: bool = True  # whether all its elements exist

    def local(self) -> jax.Array:
        """The index of each element, counted from `start`."""
        return lax.iota(self.start.dtype, self.size)

    def index(self) -> jax.Array:
        """Each element's index in its example."""
        with indices(self.start.dtype):
            return self.start + self.local()

    def origin(self) -> jax.Array:
        """The index in the flattened arrays of the element at `start`."""
        if self.example is None:
            return self.start
        with indices(self.start.dtype):
            return self.example.astype(self.start.dtype) * jnp.full((), self.n, self.start.dtype) + self.start

    def address(self) -> Any:
        """The indices in the flattened arrays of all elements."""
        return pl.ds(self.origin(), self.size)

    def within(self) -> jax.Array | None:
        """Which elements exist; None if all do."""
        with indices(self.start.dtype):
            return None if self.whole else self.index() < self.n

    def load(self, ref: Any, at: Any = None) -> jax.Array:
        """The elements of `ref` in this block, 0 beyond the end; or the elements at the indices `at`."""
        mask = self.within()
        at = self.address() if at is None else at
        return plt.load(ref.at[at], mask=mask, other=None if mask is None else np.zeros((), ref.dtype)[()])

    def store(self, ref: Any, value: jax.Array) -> None:
        """Writes the elements of `ref` in this block."""
        plt.store(ref.at[self.address()], value, mask=self.within())

    def packed(self) -> "Block":
        """The bytes of the packed mask that belong to this block."""
        with indices(self.start.dtype):
            start = lax.div(self.start, jnp.full((), 8, self.start.dtype))
        return dataclasses.replace(self, start=start, size=self.size // 8, n=-(-self.n // 8))

    def eights(self, rows: int) -> tuple[jax.Array, jax.Array]:
        """The number of a row of eight elements in its example, as a sum: one for the block, and one for the row."""
        return lax.div(self.start, jnp.full((), 8, self.start.dtype)), lax.iota(self.start.dtype, rows)

    def unknown_zero(self) -> jax.Array:
        """A float that rounds to 0, and that the compiler does not know: it replaces NaN before the cast to integers.

        With a constant 0, the compiler would select between bytes after the cast, which takes one more instruction. The
        number of a block, read as the bits of a float, is far below 1/2 for every array that fits in memory.
        """
        return lax.bitcast_convert_type(self.i, jnp.float32)

    def parts(self, size: int) -> list["Block"]:
        """The block, cut into parts of `size` elements."""
        with indices(self.start.dtype):
            starts = [self.start + jnp.full((), first, self.start.dtype) for first in range(0, self.size, size)]
        return [dataclasses.replace(self, start=start, size=size) for start in starts]


@dataclasses.dataclass(frozen=True)
class Columns(Block):
    """Some columns of a block whose elements are arranged in rows of eight: `width` columns from column `first`."""

    first: int = 0
    width: int = 8

    def local(self) -> jax.Array:
        """The index of each element, counted from `start`."""
        dtype, shape = self.start.dtype, (self.size // 8, self.width)
        with indices(dtype):
            row, column = (lax.broadcasted_iota(dtype, shape, axis) for axis in (0, 1))
            return row * jnp.full((), 8, dtype) + (column + jnp.full((), self.first, dtype))

    def address(self) -> Any:
        """The indices in the flattened arrays of all elements."""
        with indices(self.start.dtype):
            return self.origin() + self.local()


def columns(block: Block, width: int) -> list[Columns]:
    """The columns of a block whose elements are arranged in rows of eight, `width` at a time."""
    fields = {field.name: getattr(block, field.name) for field in dataclasses.fields(Block)}
    return [Columns(**fields, first=first, width=width) for first in range(0, 8, width)]


Kernel = Callable[..., None]


def for_each_block(
    kernel: Kernel,
    n: int,
    inputs: Sequence[jax.Array],
    outputs: Sequence[Any],
    name: str,
    interpret: bool,
    configuration: Configuration,
    examples: int = 1,
) -> list[jax.Array]:
    """Runs `kernel(block, *refs)` for every block of flattened arrays that have `examples` times `n` elements."""
    total, size = n * examples, configuration.block
    blocks = pl.cdiv(n, size)

    def program(*refs: Any) -> None:
        i, example = block_and_example(blocks, examples)
        block = Block(i, block_start(i, size, total), size, n, example)
        if n >= size:
            pl.when(i < n // size)(lambda: kernel(block, *refs))
        if n % size:
            pl.when(i == n // size)(lambda: kernel(dataclasses.replace(block, whole=False), *refs))

    return call(program, examples * blocks, inputs, outputs, name, interpret, configuration.warps, 8 * total)


def block_and_example(blocks: int, examples: int) -> tuple[jax.Array, jax.Array | None]:
    """The number of the program's block in its example, and the number of the example, or None if there is only one."""
    i = pl.program_id(0)
    if examples == 1:
        return i, None
    # There is one grid axis for both, because the other axes are limited to 65535.
    return lax.rem(i, jnp.full((), blocks, i.dtype)), lax.div(i, jnp.full((), blocks, i.dtype))


def call(
    program: Callable[..., None],
    programs: int,
    inputs: Sequence[jax.Array],
    outputs: Sequence[Any],
    name: str,
    interpret: bool,
    warps: int,
    flops: int,
) -> list[jax.Array]:
    """Runs `program(*refs)` so many times, on references to whole arrays."""
    for array in (*inputs, *outputs):
        check_addressable(array)
    anywhere = pl.BlockSpec(memory_space=pl.ANY)
    axes = jax.typeof(inputs[0]).manual_axis_type  # inside `shard_map`, results vary along the same axes
    return pl.pallas_call(
        program,
        grid=(programs,),
        in_specs=[anywhere] * len(inputs),
        out_specs=[anywhere] * len(outputs),
        out_shape=[jax.ShapeDtypeStruct(a.shape, a.dtype, manual_axis_type=axes) for a in outputs],
        compiler_params=plt.CompilerParams(num_warps=warps, num_stages=1),
        cost_estimate=pl.CostEstimate(
            flops=flops,
            transcendentals=0,
            bytes_accessed=sum(a.size * a.dtype.itemsize for a in (*inputs, *outputs)),
        ),
        name=name,
        interpret=interpret,
    )(*inputs)


def block_start(i: jax.Array, size: int, n: int) -> jax.Array:
    """The index of the first element of block `i`, in a dtype that can index arrays of `n` elements."""
    dtype = index_dtype(n)
    with indices(dtype):
        return lax.convert_element_type(i, dtype) * jnp.full((), size, dtype)


def check_addressable(array: Any) -> None:
    """Raises NotImplementedError for an array that Pallas would address wrongly."""
    if array.dtype.itemsize == 1 and INT32_END < array.size <= 2 * INT32_END:
        raise NotImplementedError(
            f"implementation='pallas_triton' cannot address {array.size} elements of {array.dtype.name}: Pallas uses "
            "signed 32-bit offsets up to 2**32 bytes; use implementation='xla', or None"
        )
