"""What the TPU kernels compute on a block: the formula in float32, conversions of float16, and the packed mask.

The formula differs from that of `elementwise.py` because a TPU has cheaper operations: `min` and `max` propagate NaN,
and together are one instruction. Mosaic does not support float16, so kernels get its bits as int16, and the functions
here convert them exactly.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from .. import float_rounding
from ..float_rounding import bits_of
from ..spec import FloatRounding, QuantSpec

SIGN = -(1 << 31)
WHOLE = 1.5 * 2.0**23  # near it, consecutive float32 numbers differ by 1, so a sum with it rounds, ties to even,
WHOLE_BITS = 0x4B400000
LARGEST_ROUNDED = 2.0**22  # numbers up to this magnitude

F16_EXPONENT_GAP = (127 - 15) << 23  # between the exponent biases of float32 and float16
F16_NORMAL, F16_OVERFLOW = 2.0**-14, 65520.0  # the smallest normal number; what rounds to infinity

LANES = 128
CHUNK = 8 * LANES  # elements whose mask bits are one row of packed bytes


def float_of(bits: jax.Array) -> jax.Array:
    """The float32 numbers that have these bits, int32."""
    return lax.bitcast_convert_type(bits, jnp.float32)


def f16_from_bits(h: jax.Array) -> jax.Array:
    """The float32 values of float16 bits in int32; subnormal ones as a difference of normals, which is not flushed."""
    magnitude = (h & 0x7FFF) << 13
    exponent = magnitude & 0x0F800000
    normal = magnitude + jnp.where(exponent == 0x0F800000, 2 * F16_EXPONENT_GAP, F16_EXPONENT_GAP)
    subnormal = float_of(magnitude + (F16_EXPONENT_GAP + (1 << 23))) - F16_NORMAL
    value = jnp.where(exponent == 0, subnormal, float_of(normal))
    return float_of(bits_of(value) | ((h & 0x8000) << 16))


def f16_bits(y: jax.Array) -> jax.Array:
    """The bits, in int32, of float32 values rounded to float16, ties to even."""
    bits = bits_of(y)
    magnitude = jnp.abs(y)
    kept = (bits & 0x7FFFFFFF) - F16_EXPONENT_GAP
    normal = (kept + 0xFFF + ((kept >> 13) & 1)) >> 13
    subnormal = bits_of(magnitude + 0.5) - 0x3F000000  # 2**-24 is a unit of 0.5's last place
    h = jnp.where(magnitude < F16_NORMAL, subnormal, normal)
    h = jnp.where(magnitude >= F16_OVERFLOW, 0x7C00, h)
    return jnp.where(y == y, h, 0x7E00) | ((bits >> 16) & 0x8000)


def widen(x: jax.Array, dtype: np.dtype) -> jax.Array:
    """A block of numbers of `dtype`, as a kernel gets them, in float32."""
    return f16_from_bits(x.astype(jnp.int32)) if dtype == jnp.float16 else x.astype(jnp.float32)


def narrow(y: jax.Array, dtype: np.dtype) -> jax.Array:
    """A block of float32, rounded to `dtype`, as a kernel writes it."""
    return f16_bits(y).astype(jnp.int16) if dtype == jnp.float16 else y.astype(dtype)


def rounded(y: jax.Array, largest: float) -> jax.Array:
    """y rounded to whole numbers, ties to even, keeping -0.0 and NaN; |y| is at most `largest`, which may be inf."""
    if largest > LARGEST_ROUNDED:
        return lax.round(y, lax.RoundingMethod.TO_NEAREST_EVEN)
    whole = WHOLE - (WHOLE - y)  # in interpret mode, XLA would simplify y + WHOLE - WHOLE
    return float_of(bits_of(whole) | (bits_of(y) & SIGN))  # keeps the sign of zero


def integers(y: jax.Array, largest: float, dtype: np.dtype) -> jax.Array:
    """y rounded as in `rounded`, as integers: the low bits of the sum with WHOLE. NaN gives 0."""
    if largest > LARGEST_ROUNDED:
        whole = lax.round(y, lax.RoundingMethod.TO_NEAREST_EVEN).astype(jnp.int32)
    else:
        whole = bits_of(y + WHOLE) - (WHOLE_BITS if dtype == jnp.int32 else 0)
    return jnp.where(y == y, whole, 0).astype(dtype)


def range_of(spec: QuantSpec, dtype: np.dtype) -> tuple[float, float]:
    """The smallest and the largest result of the clip for an x of `dtype`, within the range of an integer result."""
    bound = spec.bound_in(dtype)
    if spec.integer_dtype is None:
        return -bound, bound
    integer = np.iinfo(spec.integer_dtype)
    return max(-bound, float(integer.min)), min(bound, float(integer.max))


def quantize_block(x: jax.Array, noise: jax.Array | None, spec: QuantSpec, dtype: np.dtype) -> jax.Array:
    """`reference.quantize` for a block of numbers of `dtype`, widened to float32; the result as a kernel writes it."""
    if noise is not None and spec.to_float is not None:
        return to_float(x, noise, spec.to_float)
    y, low, high = x, *range_of(spec, dtype)
    if noise is not None:
        y = y + noise
        compute = spec.compute_dtype(dtype)
        y = f16_from_bits(f16_bits(y)) if compute == jnp.float16 else y.astype(compute).astype(jnp.float32)
    if spec.clip:
        y = jnp.minimum(jnp.maximum(y, low), high)
    if spec.rounding == "floor_plus_half":
        y = jnp.floor(y)
    if spec.integer_dtype is not None:
        return integers(y, -low, spec.integer_dtype)
    if spec.rounding == "floor_plus_half":
        y = y + 0.5
    elif spec.rounding == "half_to_even":
        y = rounded(y, high if spec.clip else math.inf)
    return narrow(y, dtype)


def to_float(x: jax.Array, noise: jax.Array, how: FloatRounding) -> jax.Array:
    """A block of float32 rounded to a smaller float dtype, as a kernel writes it: to codes of float16."""
    codes = float_rounding.rounded(x, noise, how).astype(how.codes)
    return codes if how.dtype == jnp.float16 else pltpu.bitcast(codes, how.dtype)


def inside(x: jax.Array, spec: QuantSpec, dtype: np.dtype) -> jax.Array:
    """The clip mask of a block widened to float32; False for NaN."""
    return jnp.abs(x) <= spec.bound_in(dtype)


def masked(g: jax.Array, mask: jax.Array) -> jax.Array:
    """`where(mask, g, 0)`; 16-bit numbers, including float16 bits, are widened to the 32 bits of the mask."""
    wide = g.astype(jnp.int32 if g.dtype == jnp.int16 else jnp.float32)
    return jnp.where(mask, wide, jnp.zeros_like(wide)).astype(g.dtype)


# --- the packed mask: the matrix unit combines and spreads lanes, exactly, since bfloat16 holds every byte ------------


def lane_of_byte(axis: int, at: int) -> jax.Array:
    """[128, 128]: whether the index along `axis`, minus `at`, is an eighth of the index along the other axis."""
    shape = (LANES, LANES)
    byte, lane = lax.broadcasted_iota(jnp.int32, shape, axis), lax.broadcasted_iota(jnp.int32, shape, 1 - axis)
    return byte - (lane >> 3) == at


def bytes_of(ones: jax.Array) -> jax.Array:
    """Packs float32 [rows, lanes] of ones and zeros into [rows, lanes / 8] whole numbers below 256."""
    if ones.ndim == 3:
        return jnp.stack([bytes_of(slab) for slab in ones])
    weight = jnp.left_shift(1, lax.broadcasted_iota(jnp.int32, (LANES, LANES), 0) & 7).astype(jnp.float32)
    tiles = [jnp.where(lane_of_byte(1, 16 * j), weight, 0.0).astype(jnp.bfloat16) for j in range(8)]
    weights, packed = jnp.concatenate(tiles), []
    for at in range(0, ones.shape[1], CHUNK):
        part = ones[:, at : at + CHUNK].astype(jnp.bfloat16)
        lanes = part.shape[1]
        packed.append(jnp.dot(part, weights[:lanes, : pl.cdiv(lanes, 8)], preferred_element_type=jnp.float32))
    return jnp.concatenate(packed, axis=1) if len(packed) > 1 else packed[0]


def bytes_by_lane(packed: jax.Array, lanes: int) -> jax.Array:
    """Repeats float32 bytes [rows, lanes / 8] in [rows, lanes]: each byte in the eight lanes of its bits."""
    if packed.ndim == 3:
        return jnp.stack([bytes_by_lane(slab, lanes) for slab in packed])
    tiles = [lane_of_byte(0, 16 * j).astype(jnp.float32).astype(jnp.bfloat16) for j in range(8)]
    select, spread = jnp.concatenate(tiles, axis=1), []
    for at in range(0, packed.shape[1], LANES):
        part = packed[:, at : at + LANES].astype(jnp.bfloat16)
        here = select[: part.shape[1], : lanes - 8 * at]
        spread.append(jnp.dot(part, here, preferred_element_type=jnp.float32))
    return jnp.concatenate(spread, axis=1) if len(spread) > 1 else spread[0]


def pack(mask: jax.Array, folded: bool) -> jax.Array:
    """The packed bytes of a block of the mask, in int32; if `folded`, eight rows of the mask give one row of bytes."""
    ones = jnp.where(mask, 1.0, 0.0)
    return bytes_of(ones.reshape(-1, CHUNK) if folded else ones).astype(jnp.int32)


def unpack(packed: jax.Array, shape: tuple[int, ...], folded: bool) -> jax.Array:
    """The mask of a block of `shape` from its packed bytes; each lane shifts its bit to the sign."""
    spread = bytes_by_lane(packed.astype(jnp.int32).astype(jnp.float32), CHUNK if folded else shape[-1])
    bit = lax.broadcasted_iota(jnp.int32, shape, len(shape) - 1) & 7
    return jnp.left_shift(spread.reshape(shape).astype(jnp.int32), 31 - bit) < 0
