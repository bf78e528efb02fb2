"""What the kernels for CUDA share that is about shapes alone: blocks, rows, and where noise is read or drawn.

Nothing here imports Pallas, so that `jax_triton` works without it.
"""

import math
from collections.abc import Container

import jax
import jax.numpy as jnp
import numpy as np

from ..spec import QuantSpec

INT32_END = 1 << 31

FLIP = 0x80008000  # makes of a draw, in the upper half of a word, the signed integer `(draw + 0.5 - 32768) * 65536`
UNIT = 2.0**-32  # of that integer


def index_dtype(n: int) -> np.dtype:
    """What indices of an array of `n` elements are made of: 64 bits where 32 do not reach."""
    return np.dtype(np.int32 if n < INT32_END else np.int64)


def ragged(shape: tuple[int, ...]) -> int:
    """By how much rows must grow for the packed mask of the flattened array to be that of the rows."""
    return 0 if math.prod(shape) == shape[-1] else -shape[-1] % 8


def pad_rows(x: jax.Array, by: int, fill: float) -> jax.Array:
    """x with `by` more columns."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, by)], constant_values=fill) if by else x


def padded_for_mask(x: jax.Array, noise: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
    """x, and an array of noise, with rows that the packed mask has in whole bytes."""
    by = ragged(x.shape)
    if noise is not None and noise.shape[-1] == x.shape[-1]:
        noise = pad_rows(noise, by, 0.0)
    return pad_rows(x, by, jnp.nan), noise  # NaN is outside


def draws_in_kernel(x: jax.Array, seed: jax.Array, spec: QuantSpec, in_pass: Container[str] = ("philox",)) -> bool:
    """Whether the kernel draws the noise that `spec` asks for, or reads it from an array that is drawn before."""
    if spec.draw is None or spec.draw.generator not in in_pass:
        return False
    inner = x.shape[seed.ndim - 1 :]
    moved = spec.with_mask and ragged(inner)  # by padding
    return spec.draw.shape == inner and spec.draw.is_in_blocks_of_8 and not moved


def kept_groups(shape: tuple[int, ...], strides: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """The runs of axes along which another array is not shared: (stride, size, stride in the other) of each."""
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
    return groups
