"""The static description of one quantization, shared by every implementation."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from jax import export

if TYPE_CHECKING:  # the table of generators imports this module
    from .generators import Generator

Rounding = Literal["half_to_even", "floor_plus_half"]


def is_static(*shapes: Sequence[int]) -> bool:
    """Whether all sizes of the shapes are known numbers.

    In a program that `jax.export` traces for many shapes, sizes may be symbols. Symbols can be multiplied, and `==`
    between them is True only if it holds for every value of the symbols; but `<` and `>` raise. So call this first, and
    treat an array of unknown size as a large one.

    Example:
        >>> from jax import export
        >>> is_static((3, 128)), is_static(export.symbolic_shape("b, 128"))
        (True, False)
    """
    return not any(export.is_symbolic_dim(size) for shape in shapes for size in shape)


@dataclasses.dataclass(frozen=True)
class Draw:
    """Noise that an implementation draws itself, from a *seed* that it gets in place of an array of noise.

    A seed is uint32 of shape (*batch, 4): the two words of a key, then the low and the high word of the 64-bit number
    of the first element, which is 0 for a whole array. The batch axes are the leading axes of x, or have size 1 where
    they share a seed. Each example has the noise of its own seed.

    The array may be a part of a larger one, for instance a shard. The number of an element is its row-major index in
    the whole array.

    Attributes:
        generator: `"philox"` and `"hash"`, 16 bits per element of the streams in `generators/philox.py` and
            `generators/hashed.py`; `"threefry_23_bits"` and `"threefry_16_bits"`, the bits that `jax.random` gives for
            a threefry key; `"hardware"`, a TPU's own generator.
        shape: The shape of the noise of one example: that of x without batch axes, with size 1 where a draw is shared.
            It, and `whole`, may have symbols for sizes (see `is_static`).
        whole: The shape of the whole array; `shape`, unless the array is a part of a larger one. No element has a
            number that the whole array does not have.
        aligned: Whether the number of the first element is a multiple of 8.

    Example:
        >>> rows = Draw("philox", (2, 16), whole=(8, 16))
        >>> rows.strides, rows.is_contiguous, Draw("philox", (8, 8), whole=(8, 16)).is_contiguous
        ((16, 1), True, False)
    """

    generator: "Generator"
    shape: tuple[int, ...]
    whole: tuple[int, ...] = ()
    aligned: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "whole", self.whole or self.shape)

    @property
    def strides(self) -> tuple[int, ...]:
        """How much the number of an element grows per step along each axis."""
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
        """Whether the numbers of the elements are consecutive."""
        step = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1 and stride != step:
                return False
            step *= size
        return True

    @property
    def span(self) -> int:
        """The number of the last element, minus that of the first, plus 1."""
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        return last + 1 if math.prod(self.shape) else 0

    def spans_at_most(self, limit: int) -> bool:
        """Whether `span` is known and at most a limit."""
        return self.is_static and self.span <= limit

    def whole_has_at_most(self, limit: int) -> bool:
        """Whether the size of the whole array is known and at most a limit."""
        return self.is_static and math.prod(self.whole) <= limit

    @property
    def is_in_rows_of_blocks(self) -> bool:
        """Whether a kernel can count this draw's blocks of eight numbers by rows.

        Each row begins at a multiple of 8, or the rows are consecutive and the first begins at a multiple of 8. And 32
        bits hold the number of blocks from the first element to the last.
        """
        return self.aligned and (self.is_contiguous or self.whole[-1] % 8 == 0) and self.spans_at_most(8 << 32)

    @property
    def is_in_blocks_of_8(self) -> bool:
        """Whether each eight elements that begin at a multiple of 8 in memory have eight numbers that do so too."""
        if self.is_contiguous:
            return self.aligned
        return self.aligned and self.shape[-1] % 8 == 0 and self.whole[-1] % 8 == 0


@dataclasses.dataclass(frozen=True)
class QuantSpec:
    """Everything about a quantization that is known without its arrays.

    Attributes:
        bound: Largest magnitude after the clip, in buckets.
        clip: Whether values beyond `bound` are clipped to it. The mask depends on `bound` either way.
        rounding: `"half_to_even"`, `"floor_plus_half"` (bucket centres at halves), or None for no rounding.
        noise_dtype: Dtype in which noise is added, and values are clipped and rounded; None means the dtype of x, as in
            the source of the formula.
        integer_dtype: Dtype of an integer result, or None for a result in the dtype of x. An integer result is the
            rounded value, or for `"floor_plus_half"` the bucket number `floor(x)`; NaN becomes 0.
        with_mask: Whether the clip mask is the second result, packed along the last axis to one bit per element, low
            bit first, as `numpy.packbits(mask, axis=-1, bitorder="little")` does.
        draw: The noise that is drawn in the pass, or None for an array of noise or for no noise.
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
        """`bound` rounded to the dtype in which an x of `dtype` is clipped (255.5 is 256 in bfloat16).

        Example:
            >>> import jax.numpy as jnp
            >>> QuantSpec(255.5, clip=True, rounding=None).bound_in(jnp.bfloat16)
            256.0
        """
        with np.errstate(over="ignore"):  # the largest float16 is below 2**16, so the formula clips to infinity
            return float(np.asarray(self.bound, self.compute_dtype(dtype)))

    def result_dtype(self, dtype: np.dtype) -> np.dtype:
        """The dtype of the result for an x of `dtype`."""
        return np.dtype(dtype) if self.integer_dtype is None else self.integer_dtype


@dataclasses.dataclass(frozen=True)
class Scaling:
    """How the largest magnitude of a slice becomes its scale: see `scaling.scale_of`.

    Attributes:
        in_buckets: How many buckets the largest magnitude is.
        fits: Whether `maximum / scale` and `maximum * (1 / scale)` must not exceed `in_buckets` on any device.
        fraction: What the largest magnitude is multiplied by before: below 1, elements beyond it are clipped.
        power_of_two: Whether the scale is rounded up to a power of 2.
    """

    in_buckets: float
    fits: bool
    fraction: float = 1.0
    power_of_two: bool = False


def wider(a: np.dtype, b: np.dtype) -> np.dtype:
    """The float dtype that jnp promotes two float dtypes to; `jnp.promote_types` raises if promotion is strict.

    Example:
        >>> import jax.numpy as jnp
        >>> wider(jnp.bfloat16, jnp.float16)
        dtype('float32')
    """
    a, b = np.dtype(a), np.dtype(b)
    return a if a == b else np.dtype(np.float64 if np.float64 in (a, b) else np.float32)


def strides_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides of an array that broadcasts: 0 along axes of size 1.

    Example:
        >>> strides_of((4, 1, 5))
        (5, 0, 1)
    """
    return tuple(math.prod(shape[axis + 1 :]) if size != 1 else 0 for axis, size in enumerate(shape))


def packed_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the packed clip mask of an array of `shape`: one byte per eight elements of the last axis.

    Example:
        >>> packed_shape((4, 17))
        (4, 3)
    """
    return (*shape[:-1], -(-shape[-1] // 8))
