"""Stochastic rounding to a smaller float dtype: `kernels/float_rounding.py` in Triton's language."""
# Triton need not be installed, and to a type checker the functions are objects of Triton.
# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

import triton
import triton.language as tl

from .. import float_rounding
from ..generators.noise import ONE

INFINITY, MANTISSA = tl.constexpr(float_rounding.INFINITY), tl.constexpr(float_rounding.MANTISSA)
LEADING = tl.constexpr(1 << float_rounding.MANTISSA)
MOST, SMALLEST = tl.constexpr(float_rounding.MOST), tl.constexpr(float_rounding.SMALLEST)
BITS_OF_ONE = tl.constexpr(ONE)


@triton.jit
def aligned(u, how: tl.constexpr):
    """See `float_rounding._aligned`."""
    number, below = u, u * 0
    if how.least_exponent > 1:
        small = tl.minimum(u, LEADING * how.least_exponent)
        number = ((small & (LEADING - 1)) | LEADING) + (u - small)
        below = how.least_exponent - (small >> MANTISSA)
    return number, below


@triton.jit
def rounded(x, noise, how: tl.constexpr):
    """See `float_rounding.rounded`."""
    bits = x.to(tl.int32, bitcast=True)
    u = bits & 0x7FFFFFFF
    number, below = aligned(u, how)
    dropped: tl.constexpr = how.dropped
    if how.by_draws:
        draw = ((noise + 1.5).to(tl.int32, bitcast=True) - BITS_OF_ONE) >> 7
        if dropped < 16:
            number = tl.minimum(number, (how.largest + 1) << dropped) << (16 - dropped)
        else:
            below += dropped - 16
        code = ((number >> tl.minimum(below, MOST)) + draw) >> 16
    else:
        places = below + dropped
        shift = tl.minimum(places, MOST)
        code = number >> shift
        rest = number - (code << shift)
        unit = ((127 - tl.minimum(places, SMALLEST)) << MANTISSA).to(tl.float32, bitcast=True)
        up = (rest > 0) & (u > 0) & (rest.to(tl.float32) * unit + noise >= 0.5)
        code += tl.where(up, 1, 0)
    last = u * 0 + how.largest + (0 if how.saturates else 1)
    if how.saturates and how.has_infinity:
        last = tl.where(u == INFINITY, how.largest + 1, last)
    code = tl.minimum(code, last)
    if how.saturates or how.has_infinity:
        code = tl.where(u > INFINITY, how.nan, code)
    width: tl.constexpr = how.codes.itemsize * 8
    return (code | ((bits >> (32 - width)) & (1 << (width - 1)))).to(tl.int8 if width == 8 else tl.int16)
