"""The static description of one quantization, shared by every implementation."""

import dataclasses
from typing import Literal

import numpy as np

Rounding = Literal["half_to_even", "floor_plus_half"]
Generator = Literal["philox", "threefry_23_bits", "threefry_16_bits", "hardware"]


@dataclasses.dataclass(frozen=True)
class Draw:
    """Noise that an implementation draws itself, from a *seed* that it is given in the place of the noise.

    A seed is uint32 of shape (*batch, 4): the two words of a key, then the low and the high word of the 64-bit number
    of the first block that is drawn, 0 for a whole array. Its batch axes are the leading axes of x, or 1 where they
    share a seed; each example has the noise of its own seed.

    Attributes:
        generator: `"philox"`, 16 bits an element of the stream in `philox.py`; `"threefry_23_bits"` and
            `"threefry_16_bits"`, the bits that `jax.random` gives for a threefry key, of which the number of the first
            block is that of the first element; `"hardware"`, a TPU's own generator.
        shape: The shape of the noise of one example: that of x without batch axes, or 1 where a draw is shared.
    """

    generator: Generator
    shape: tuple[int, ...]


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


def packed_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the packed clip mask of an array of `shape`, one byte for eight elements of the last axis.

    Example:
        >>> packed_shape((4, 17))
        (4, 3)
    """
    return (*shape[:-1], -(-shape[-1] // 8))
