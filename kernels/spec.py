"""The static description of one quantization, shared by every implementation."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jax import export

Rounding = Literal["half_to_even", "floor_plus_half"]
Generator = Literal["philox", "threefry_23_bits", "threefry_16_bits", "hardware"]


def is_static(*shapes: Sequence[int]) -> bool:
    """Whether all sizes of shapes are known numbers.

    In a program that `jax.export` traces for many shapes, sizes may be symbols. A symbol can be multiplied, and `==` is
    True only where it is for every value of the symbol; but a comparison by size raises. So ask this first, and if a
    size is unknown, decide as for a large array.

    Example:
        >>> from jax import export
        >>> is_static((3, 128)), is_static(export.symbolic_shape("b, 128"))
        (True, False)
    """
    return not any(export.is_symbolic_dim(size) for shape in shapes for size in shape)


@dataclasses.dataclass(frozen=True)
class Draw:
    """Noise that an implementation draws itself, from a *seed* that it is given in the place of the noise.

    A seed is uint32 of shape (*batch, 4): the two words of a key, then the low and the high word of the 64-bit number
    of the first element, 0 for a whole array. Its batch axes are the leading axes of x, or 1 where they share a seed;
    each example has the noise of its own seed.

    An array may be a part of a larger one, as a shard is. An element's number is then its row-major index in the whole.

    Attributes:
        generator: `"philox"`, 16 bits an element of the stream in `philox.py`; `"threefry_23_bits"` and
            `"threefry_16_bits"`, the bits that `jax.random` gives for a threefry key; `"hardware"`, a TPU's own
            generator.
        shape: The shape of the noise of one example: that of x without batch axes, or 1 where a draw is shared. It, and
            `whole`, may have symbols for sizes (see `is_static`).
        whole: The shape of the array that it is a part of; of an array that is none, `shape`.
        aligned: Whether the number of the first element is a multiple of 8.

    Example:
        >>> rows = Draw("philox", (2, 16), whole=(8, 16))
        >>> rows.strides, rows.is_contiguous, Draw("philox", (8, 8), whole=(8, 16)).is_contiguous
        ((16, 1), True, False)
    """

    generator: Generator
    shape: tuple[int, ...]
    whole: tuple[int, ...] = ()
    aligned: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "whole", self.whole or self.shape)

    @property
    def strides(self) -> tuple[int, ...]:
        """By how much an element's number grows along each axis."""
        return strides_of(self.whole)

    def sizes_within(self, axis: int) -> tuple[int, ...]:
        """The sizes whose product is the stride along an axis."""
        return self.whole[axis + 1 :] if self.whole[axis] != 1 else (0,)

    @property
    def is_static(self) -> bool:
        """Whether all sizes are known."""
        return is_static(self.shape, self.whole)

    @property
    def is_contiguous(self) -> bool:
        """Whether the numbers of the elements follow one another."""
        step = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1 and stride != step:
                return False
            step *= size
        return True

    @property
    def span(self) -> int:
        """From the number of the first element to that after the last."""
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        return last + 1 if math.prod(self.shape) else 0

    def spans_at_most(self, limit: int) -> bool:
        """Whether `span` is known and no more than a limit."""
        return self.is_static and self.span <= limit

    @property
    def is_in_rows_of_blocks(self) -> bool:
        """Whether the rows begin each at a Philox block, or follow one another from a block on.

        And whether 32 bits count the blocks from the first element to the last.
        """
        return self.aligned and (self.is_contiguous or self.whole[-1] % 8 == 0) and self.spans_at_most(8 << 32)

    @property
    def is_in_blocks_of_8(self) -> bool:
        """Whether eight elements from a multiple of 8 on, in memory, have the numbers that a Philox block serves."""
        if self.is_contiguous:
            return self.aligned
        return self.aligned and self.shape[-1] % 8 == 0 and self.whole[-1] % 8 == 0


@dataclasses.dataclass(frozen=True)
class QuantSpec:
    """Everything about a quantization that is known before an array is seen.

    Attributes:
        bound: Largest magnitude that the clip lets through, in buckets.
        clip: Whether values beyond `bound` are brought back to it. The mask uses `bound` either way.
        rounding: `"half_to_even"`, `"floor_plus_half"` (bucket centres at halves), or None for no rounding.
        noise_dtype: Dtype in which noise, clip and rounding happen; None means that of x, as in the formula's source.
        integer_dtype: Dtype of an integer result, or None for a result in the dtype of x. An integer result is the
            rounded value, or for `"floor_plus_half"` the bucket number `floor(x)`; NaN becomes 0.
        with_mask: Whether the clip mask is returned beside the result, packed along the last axis to one bit an
            element, low bit first, as `numpy.packbits(mask, axis=-1, bitorder="little")` does.
        draw: What noise is drawn in the pass, or None for an array of noise or for none.
    """

    bound: float
    clip: bool
    rounding: Rounding | None
    noise_dtype: np.dtype | None = None
    integer_dtype: np.dtype | None = None
    with_mask: bool = False
    draw: Draw | None = None

    def compute_dtype(self, dtype: np.dtype) -> np.dtype:
        """The dtype in which an x of `dtype` is clipped and rounded; `noise_dtype` widens it and never narrows it."""
        return np.dtype(dtype) if self.noise_dtype is None else wider(dtype, self.noise_dtype)

    def bound_in(self, dtype: np.dtype) -> float:
        """`bound` as an x of `dtype` meets it: rounded to the dtype of the clip (255.5 is 256 in bfloat16).

        Example:
            >>> import jax.numpy as jnp
            >>> QuantSpec(255.5, clip=True, rounding=None).bound_in(jnp.bfloat16)
            256.0
        """
        with np.errstate(over="ignore"):  # float16 has no 2**16: infinity is what the formula clips to there
            return float(np.asarray(self.bound, self.compute_dtype(dtype)))

    def result_dtype(self, dtype: np.dtype) -> np.dtype:
        """The dtype of the result for an x of `dtype`."""
        return np.dtype(dtype) if self.integer_dtype is None else self.integer_dtype


def wider(a: np.dtype, b: np.dtype) -> np.dtype:
    """The float dtype that jnp promotes two float dtypes to; `jnp.promote_types` refuses where promotion is strict.

    Example:
        >>> import jax.numpy as jnp
        >>> wider(jnp.bfloat16, jnp.float16)
        dtype('float32')
    """
    a, b = np.dtype(a), np.dtype(b)
    return a if a == b else np.dtype(np.float64 if np.float64 in (a, b) else np.float32)


def strides_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides of an array that broadcasts: 0 along axes that it shares.

    Example:
        >>> strides_of((4, 1, 5))
        (5, 0, 1)
    """
    return tuple(math.prod(shape[axis + 1 :]) if size != 1 else 0 for axis, size in enumerate(shape))


def packed_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the packed clip mask of an array of `shape`, one byte for eight elements of the last axis.

    Example:
        >>> packed_shape((4, 17))
        (4, 3)
    """
    return (*shape[:-1], -(-shape[-1] // 8))
