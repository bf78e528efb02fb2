"""Pallas for CUDA, through Pallas' Triton lowering: one pass over the flattened arrays.

Blocks are addressed by hand (`pl.ANY` and `pl.ds`) and the last, partial one is masked: with block specs, a block that
does not divide the array stores out of bounds on JAX up to 0.11.2.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from . import body
from .spec import QuantSpec, packed_shape

WARPS = 4
LARGE_BLOCK, SMALL_BLOCK = 4096, 1024  # 32 elements a thread spread the set-up thin; 8 keep all cores busy
LARGE = 1 << 21  # elements from which 132 cores are busy with large blocks
INT32_END = 1 << 31


@dataclasses.dataclass(frozen=True)
class Block:
    """The part of program `i`, `size` elements from `start`, of a flattened array of `n` elements."""

    i: jax.Array
    start: jax.Array
    size: int
    n: int

    def index(self) -> jax.Array:
        """Each element's index in the array."""
        with indices(self.start.dtype):
            return self.start + lax.iota(self.start.dtype, self.size)

    def within(self) -> jax.Array | None:
        """Which elements exist; None where all do."""
        with indices(self.start.dtype):
            return self.index() < self.n if isinstance(self, Tail) else None

    def load(self, ref: Any, at: Any = None) -> jax.Array:
        """This part of `ref`, 0 beyond the end; or the elements `at` an array of indices."""
        mask = self.within()
        at = pl.ds(self.start, self.size) if at is None else at
        return plt.load(ref.at[at], mask=mask, other=None if mask is None else np.zeros((), ref.dtype)[()])

    def store(self, ref: Any, value: jax.Array) -> None:
        """Writes this part of `ref`."""
        plt.store(ref.at[pl.ds(self.start, self.size)], value, mask=self.within())

    def packed(self) -> "Block":
        """The part of the packed mask that belongs to this part, eight elements a byte."""
        with indices(self.start.dtype):
            start = lax.div(self.start, jnp.full((), 8, self.start.dtype))
        return type(self)(self.i, start, self.size // 8, -(-self.n // 8))


class Tail(Block):
    """The last part of an array, where it is not a whole block."""


Kernel = Callable[..., None]


def for_each_block(
    kernel: Kernel, n: int, inputs: Sequence[jax.Array], outputs: Sequence[Any], name: str, interpret: bool
) -> list[jax.Array]:
    """Runs `kernel(block, *refs)` for every block of arrays of `n` elements."""
    for array in (*inputs, *outputs):
        _check_addressable(array)
    size = LARGE_BLOCK if n >= LARGE else SMALL_BLOCK

    def program(*refs: Any) -> None:
        i = pl.program_id(0)
        if n >= size:
            pl.when(i < n // size)(lambda: kernel(Block(i, block_start(i, size, n), size, n), *refs))
        if n % size:
            pl.when(i == n // size)(lambda: kernel(Tail(i, block_start(i, size, n), size, n), *refs))

    anywhere = pl.BlockSpec(memory_space=pl.ANY)
    axes = jax.typeof(inputs[0]).manual_axis_type  # along which a result varies inside `shard_map`, as the inputs do
    return pl.pallas_call(
        program,
        grid=(pl.cdiv(n, size),),
        in_specs=[anywhere] * len(inputs),
        out_specs=[anywhere] * len(outputs),
        out_shape=[jax.ShapeDtypeStruct(a.shape, a.dtype, manual_axis_type=axes) for a in outputs],
        compiler_params=plt.CompilerParams(num_warps=WARPS, num_stages=1),
        cost_estimate=pl.CostEstimate(
            flops=8 * n, transcendentals=0, bytes_accessed=sum(a.size * a.dtype.itemsize for a in (*inputs, *outputs))
        ),
        name=name,
        interpret=interpret,
    )(*inputs)


def index_dtype(n: int) -> np.dtype:
    """What indices of an array of `n` elements are made of: 64 bits where 32 do not reach."""
    return np.dtype(np.int32 if n < INT32_END else np.int64)


def indices(dtype: np.dtype) -> contextlib.AbstractContextManager[Any]:
    """Where arithmetic on indices of `dtype` is written: JAX has 64-bit integers only where they are asked for."""
    return jax.enable_x64(True) if dtype == np.int64 else contextlib.nullcontext()


def block_start(i: jax.Array, size: int, n: int) -> jax.Array:
    """The index of the first element of block `i`."""
    dtype = index_dtype(n)
    with indices(dtype):
        return lax.convert_element_type(i, dtype) * jnp.full((), size, dtype)


def _check_addressable(array: Any) -> None:
    if array.dtype.itemsize == 1 and INT32_END < array.size <= 2 * INT32_END:
        raise NotImplementedError(
            f"implementation='pallas' cannot address {array.size} elements of {array.dtype.name} on a GPU: Pallas "
            "uses signed 32-bit offsets up to 2**32 bytes; use implementation='xla', or None"
        )


# --- noise that broadcasts -------------------------------------------------------------------------------------------


def broadcast_index(i: jax.Array, shape: tuple[int, ...], noise_shape: tuple[int, ...]) -> jax.Array:
    """Where the noise of element `i` of an array of `shape` stands in noise that broadcasts to it, both flattened."""
    with indices(i.dtype):
        index = jnp.zeros_like(i)
        for group_stride, size, noise_stride in kept_groups(shape, noise_shape):
            along = lax.div(i, jnp.full_like(i, group_stride)) if group_stride > 1 else i
            if group_stride * size < math.prod(shape):
                along = lax.rem(along, jnp.full_like(i, size))
            index = index + along * jnp.full_like(i, noise_stride)
        return index


def kept_groups(shape: tuple[int, ...], noise_shape: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """The runs of axes along which the noise is not shared: (stride in x, size, stride in the noise) of each."""
    groups: list[tuple[int, int, int]] = []
    stride = noise_stride = 1
    joins = False  # whether the axis just seen, to the right, is the first of a group
    for size, noise_size in zip(reversed(shape), reversed(noise_shape), strict=True):
        if size == 1:
            continue
        if noise_size == size:
            start, length, noise_start = groups.pop() if joins else (stride, 1, noise_stride)
            groups.append((start, length * size, noise_start))
        joins = noise_size == size
        stride, noise_stride = stride * size, noise_stride * noise_size
    return groups


# --- the mask, eight elements a byte ---------------------------------------------------------------------------------


def pack(mask: jax.Array) -> jax.Array:
    """Eight elements a byte, low bit first."""
    bits = mask.astype(jnp.int32).reshape(-1, 8)
    return jnp.sum(bits << lax.broadcasted_iota(jnp.int32, bits.shape, 1), axis=1).astype(jnp.uint8)


def unpack(packed: jax.Array) -> jax.Array:
    """`pack` undone."""
    shape = (packed.shape[0], 8)
    bits = lax.broadcast_in_dim(packed.astype(jnp.int32), shape, (0,)) >> lax.broadcasted_iota(jnp.int32, shape, 1)
    return (bits & 1).reshape(-1) == 1


def _ragged(shape: tuple[int, ...]) -> int:
    """By how much rows must grow for the packed mask of the flattened array to be that of the rows."""
    return 0 if math.prod(shape) == shape[-1] else -shape[-1] % 8


def _pad_rows(x: jax.Array, by: int, fill: float) -> jax.Array:
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, by)], constant_values=fill) if by else x


# --- the operations --------------------------------------------------------------------------------------------------


def quantize(
    x: jax.Array, noise: jax.Array | None, spec: QuantSpec, *, interpret: bool = False
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """`reference.quantize` in one pass."""
    shape, dtype = x.shape, x.dtype
    if spec.with_mask:
        if noise is not None and noise.shape[-1] == shape[-1]:
            noise = _pad_rows(noise, _ragged(shape), 0.0)
        x = _pad_rows(x, _ragged(shape), jnp.nan)  # NaN is outside
    if not x.size:
        empty = jnp.zeros(shape, spec.result_dtype(dtype))
        return (empty, jnp.zeros(packed_shape(shape), jnp.uint8)) if spec.with_mask else empty
    noise_shape = x.shape if noise is None else noise.shape

    def kernel(block: Block, x_ref: Any, *refs: Any) -> None:
        noise_ref, (y_ref, *mask_ref) = (None, refs) if noise is None else (refs[0], refs[1:])
        values, drawn = block.load(x_ref), None
        if noise_ref is not None:
            at = None if noise_shape == x.shape else broadcast_index(block.index(), x.shape, noise_shape)
            drawn = body.widen(block.load(noise_ref, at))
        # A zero for NaN that the compiler cannot see through, or it would select bytes, at one instruction more.
        tiny = lax.bitcast_convert_type(block.i, jnp.float32)
        block.store(y_ref, body.quantize(values, drawn, spec, tiny))
        if mask_ref:
            mask = body.inside(values, spec)
            within = block.within()
            block.packed().store(mask_ref[0], pack(mask if within is None else mask & within))

    outputs = [jax.ShapeDtypeStruct((x.size,), spec.result_dtype(dtype))]
    if spec.with_mask:
        outputs.append(jax.ShapeDtypeStruct((-(-x.size // 8),), jnp.uint8))
    inputs = [x.reshape(-1)] if noise is None else [x.reshape(-1), noise.reshape(-1)]
    y, *packed = for_each_block(kernel, x.size, inputs, outputs, "intnumerics_quantize", interpret)
    y = y.reshape(x.shape)[..., : shape[-1]]
    return (y, packed[0].reshape(packed_shape(shape))) if spec.with_mask else y


def clip_gradient_from_mask(g: jax.Array, packed: jax.Array, *, interpret: bool = False) -> jax.Array:
    """`reference.clip_gradient_from_mask` in one pass."""
    shape = g.shape
    if not g.size:
        return g
    g = _pad_rows(g, _ragged(shape), 0.0)

    def kernel(block: Block, g_ref: Any, packed_ref: Any, out_ref: Any) -> None:
        values = block.load(g_ref)
        mask = unpack(block.packed().load(packed_ref))
        block.store(out_ref, jnp.where(mask, values, jnp.zeros_like(values)))

    out = [jax.ShapeDtypeStruct((g.size,), g.dtype)]
    inputs = [g.reshape(-1), packed.reshape(-1)]
    [result] = for_each_block(kernel, g.size, inputs, out, "intnumerics_clip_gradient_from_mask", interpret)
    return result.reshape(g.shape)[..., : shape[-1]]


def clip_gradient_from_x(g: jax.Array, x: jax.Array, spec: QuantSpec, *, interpret: bool = False) -> jax.Array:
    """`reference.clip_gradient_from_x` in one pass."""
    if not g.size:
        return g

    def kernel(block: Block, g_ref: Any, x_ref: Any, out_ref: Any) -> None:
        values = block.load(g_ref)
        mask = body.inside(block.load(x_ref), spec)
        block.store(out_ref, jnp.where(mask, values, jnp.zeros_like(values)))

    out = [jax.ShapeDtypeStruct((g.size,), g.dtype)]
    inputs = [g.reshape(-1), x.reshape(-1)]
    [result] = for_each_block(kernel, g.size, inputs, out, "intnumerics_clip_gradient_from_x", interpret)
    return result.reshape(g.shape)
