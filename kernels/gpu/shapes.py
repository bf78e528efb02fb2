"""What the kernels for CUDA share about shapes: indices, padded rows, and where noise is read or drawn.

Nothing here imports Pallas, so `jax_triton` works without it.
"""

import contextlib
import dataclasses
import math
from collections.abc import Container
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..generators import Generator, hashed
from ..generators.philox import DRAWS
from ..spec import Draw, QuantSpec, strides_of

INT32_END = 1 << 31

# A 16-bit draw, in the upper half of a word and combined with FLIP, is the signed integer
# `(draw + 0.5 - 32768) * 65536`, and the noise is UNIT times this integer.
FLIP, UNIT = 0x80008000, 2.0**-32


def index_dtype(n: int) -> np.dtype:
    """The dtype of indices into an array of `n` elements: int64 only if int32 does not reach."""
    return np.dtype(np.int32 if n < INT32_END else np.int64)


def indices(dtype: np.dtype) -> contextlib.AbstractContextManager[Any]:
    """The context for arithmetic on indices of `dtype`: JAX has 64-bit integers only under `enable_x64`."""
    return jax.enable_x64(True) if np.dtype(dtype).itemsize == 8 else contextlib.nullcontext()


def missing_columns(shape: tuple[int, ...]) -> int:
    """How many columns to add so that the packed mask of the flattened array is that of the array."""
    return 0 if math.prod(shape) == shape[-1] else -shape[-1] % 8


def pad_rows(x: jax.Array, by: int, fill: float) -> jax.Array:
    """x with `by` more columns, filled with `fill`."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, by)], constant_values=fill) if by else x


def padded_for_mask(x: jax.Array, noise: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
    """x, and an array of noise, with columns added so that each row is packed to whole bytes."""
    by = missing_columns(x.shape)
    if noise is not None and noise.shape[-1] == x.shape[-1]:
        noise = pad_rows(noise, by, 0.0)
    return pad_rows(x, by, jnp.nan), noise  # the mask is False for NaN


def draws_in_kernel(x: jax.Array, seed: jax.Array, spec: QuantSpec, in_kernel: Container[Generator]) -> bool:
    """Whether a kernel draws the noise of `spec` itself; if not, it reads an array of noise that is drawn before."""
    if spec.draw is None or spec.draw.generator not in in_kernel:
        return False
    inner = x.shape[seed.ndim - 1 :]
    is_padded = spec.with_mask and missing_columns(inner)  # which moves elements to other rows of eight
    if spec.draw.shape != inner or is_padded:
        return False
    if spec.draw.generator == "hash":
        return (spec.draw.is_in_blocks_of_8 or spec.draw.is_contiguous) and hashed.is_of_two_pairs(spec.draw)
    return spec.draw.is_in_blocks_of_8


@dataclasses.dataclass(frozen=True)
class Sharing:
    """Where each element of a flattened array stands in another flattened array, which it shares along some axes.

    Attributes:
        n: How many elements the first array has.
        groups: The runs of axes along which the other array is not shared: for each run its stride in the first array,
            its size, and its stride in the other array.
    """

    n: int
    groups: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, shape: tuple[int, ...], strides: tuple[int, ...]) -> "Sharing":
        """For an array of `shape`, and another array that has `strides` along its axes, 0 where it is shared."""
        groups: list[tuple[int, int, int]] = []
        stride = 1
        joins = False  # whether the axis just seen, to the right, is the first of a group
        for size, other in zip(reversed(shape), reversed(strides), strict=True):
            if size == 1:
                continue
            if other:
                joins = joins and groups[-1][1] * groups[-1][2] == other
                start, length, step = groups.pop() if joins else (stride, 1, other)
                groups.append((start, length * size, step))
            joins = other > 0
            stride = stride * size
        return cls(math.prod(shape), tuple(groups))

    @classmethod
    def of_blocks(cls, draw: Draw) -> "Sharing":
        """For each eight elements of a draw that `is_in_blocks_of_8`, and the blocks of eight of the whole array."""
        strides = (*(stride // DRAWS for stride in draw.strides[:-1]), 1)
        return cls.of((*draw.shape[:-1], draw.shape[-1] // DRAWS), strides)

    @property
    def is_wide(self) -> bool:
        """Whether indices of the other array take 64 bits."""
        return index_dtype(1 + sum((size - 1) * step for _, size, step in self.groups)).itemsize == 8

    def index(self, i: jax.Array) -> jax.Array:
        """Where element `i` of the first array stands in the other array."""
        with indices(i.dtype):
            index = jnp.zeros_like(i)
            for stride, size, other_stride in self.groups:
                along = lax.div(i, jnp.full_like(i, stride)) if stride > 1 else i
                if stride * size < self.n:
                    along = lax.rem(along, jnp.full_like(i, size))
                index = index + along * jnp.full_like(i, other_stride)
            return index


def seed_of(
    example: jax.Array | None, seeds: Any, batch: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[jax.Array, ...]:
    """The `kernel_words` of an example, from a reference to the flattened ones, which had a shape of (*batch, n)."""
    *seed_batch, count = shape
    at = jnp.int32(0)
    if example is not None:
        at = count * Sharing.of(batch, strides_of(tuple(seed_batch))).index(example)
    return tuple(seeds[at + i] for i in range(count))
