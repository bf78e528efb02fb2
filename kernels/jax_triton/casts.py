"""Stochastic rounding to a smaller float dtype: `kernels/float_rounding.py` in Triton's language."""
# Triton need not be installed, and to a type checker the functions are objects of Triton.
# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

import triton
import triton.language as tl

from .. import float_rounding
from ..generators.noise import ONE

INFINITY, MANTISSA = tl.constexpr(float_rounding.INFINITY), tl.constexpr(float_rounding.MANTISSA)
MOST, SMALLEST = tl.constexpr(float_rounding.MOST), tl.constexpr(float_rounding.SMALLEST)
BITS_OF_ONE = tl.constexpr(ONE)


@triton.jit
def aligned(u, how: tl.constexpr):
    """See `float_rounding._aligned`."""
    least, number, below = u * 0, u, u * 0
    if how.least_exponent > 1:
        exponent = tl.maximum(u >> MANTISSA, 1)
        above = exponent - how.least_exponent
        least = tl.maximum(above, 0) << how.mantissa
        number = u - ((exponent - 1) << MANTISSA)
        below = tl.maximum(-above, 0)
    return least, number, below


@triton.jit
def rounded(x, noise, how: tl.constexpr):
    """See `float_rounding.rounded`."""
    bits = x.to(tl.int32, bitcast=True)
    u = bits & 0x7FFFFFFF
    least, number, below = aligned(u, how)
    dropped: tl.constexpr = MANTISSA - how.mantissa
    if how.by_draws:
        draw = ((noise + 1.5).to(tl.int32, bitcast=True) - BITS_OF_ONE) >> 7
        number = number << (16 - dropped) if dropped <= 16 else number >> (dropped - 16)
        code = least + (((number >> tl.minimum(below, MOST)) + draw) >> 16)
    else:
        places = below + dropped
        shift = tl.minimum(places, MOST)
        whole = number >> shift
        rest = number - (whole << shift)
        unit = ((127 - tl.minimum(places, SMALLEST)) << MANTISSA).to(tl.float32, bitcast=True)
        up = (rest > 0) & (rest.to(tl.float32) * unit + noise >= 0.5)
        code = least + whole + tl.where(up, 1, 0)
    last = u * 0 + how.largest + (0 if how.saturates else 1)
    if how.saturates and how.has_infinity:
        last = tl.where(u == INFINITY, how.largest + 1, last)
    code = tl.where(u > INFINITY, how.nan, tl.minimum(code, last))
    width: tl.constexpr = how.codes.itemsize * 8
    return (code | ((bits >> (32 - width)) & (1 << (width - 1)))).to(tl.int8 if width == 8 else tl.int16)
