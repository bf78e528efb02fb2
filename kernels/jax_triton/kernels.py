"""The kernels, in Triton's language: each program handles one block of the flattened arrays.

A block is a single row of elements. If eight elements share a byte of the mask or words of noise, it is instead rows of
eight, one per thread, in tiles at most as wide as the 128 bits that a thread moves at once. So no value leaves the
registers of a thread. The compiler evaluates conditions on a `plan`.

The formula is that of `elementwise.py`; this one differs where the language allows fewer instructions.
"""
# Triton need not be installed, and to a type checker the functions are objects of Triton.
# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

import triton
import triton.language as tl

from .. import elementwise
from .casts import rounded
from .noise import drawn, index_in, stream_of

SIGN, SIGN_OF_16 = tl.constexpr(elementwise.SIGN), tl.constexpr(elementwise.SIGN >> 16)
WHOLE = tl.constexpr(elementwise.WHOLE)
SIGNED_WHOLE = tl.constexpr(elementwise.SIGNED_WHOLE)
SIGNED_WHOLE_BITS = tl.constexpr(elementwise.SIGNED_WHOLE_BITS)


# --- the formula -----------------------------------------------------------------------------------------------------


@triton.jit
def widen(x):
    """See `elementwise.widen`."""
    if x.dtype == tl.bfloat16:
        wide = (x.to(tl.uint16, bitcast=True).to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    else:
        wide = x.to(tl.float32)
    return wide


@triton.jit
def with_sign_of(magnitude, x):
    """See `elementwise.with_sign_of`; here in the dtype of x."""
    if x.dtype == tl.float32:
        bits = (x.to(tl.uint32, bitcast=True) & SIGN) | magnitude.to(tl.uint32, bitcast=True)
    else:  # in 16 bits: the compiler handles two elements at a time
        bits = (x.to(tl.uint16, bitcast=True) & SIGN_OF_16) | magnitude.to(tl.uint16, bitcast=True)
    return bits.to(x.dtype, bitcast=True)


@triton.jit
def clamp(y, plan: tl.constexpr):
    """Clips; NaN stays NaN."""
    y = tl.maximum(y, -plan.bound, propagate_nan=tl.PropagateNan.ALL)
    return tl.minimum(y, plan.bound, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def floor(y):
    """The floor. Triton's own flushes subnormal numbers to 0, so it is too large for negative ones."""
    below = tl.floor(y)
    return below - tl.where(below > y, 1.0, 0.0)


@triton.jit
def to_integers(y, dtype: tl.constexpr, plan: tl.constexpr):
    """See `elementwise.to_integers`."""
    y = clamp(y, plan)
    if plan.rounding == "floor_plus_half":
        y = floor(y)
    # The smallest integer that is above the bits of every sum, and whose low bits are 0. The bits of NaN are above it.
    end: tl.constexpr = SIGNED_WHOLE_BITS + (1 << min(dtype.primitive_bitwidth, 23))
    bits = tl.minimum((y + SIGNED_WHOLE).to(tl.uint32, bitcast=True), end)
    if dtype == tl.int32:  # the low 23 bits of the sum are the number; for NaN they are 0
        bits = ((bits - SIGNED_WHOLE_BITS) << 9).to(tl.int32, bitcast=True) >> 9
    return bits.to(dtype)


@triton.jit
def nearest(magnitude, plan: tl.constexpr):
    """Clips and rounds to the nearest whole number, ties to even, if the plan says so."""
    if plan.clip:
        magnitude = tl.minimum(magnitude, plan.bound, propagate_nan=tl.PropagateNan.ALL)
    if plan.rounding == "half_to_even":
        rounded = (magnitude + WHOLE) - WHOLE
        # A number of 2**23 or more is whole already, and the sum would round it.
        magnitude = rounded if plan.clip else tl.where(magnitude < WHOLE, rounded, magnitude)
    return magnitude


@triton.jit
def to_floats(y, narrow, dtype: tl.constexpr, plan: tl.constexpr):
    """Clips and rounds, and keeps NaN and the sign of -0.0; `narrow` is y in the dtype of x."""
    if plan.rounding == "floor_plus_half":
        result = (floor(clamp(y, plan) if plan.clip else y) + 0.5).to(dtype)
    else:
        result = with_sign_of(nearest(tl.abs(y), plan).to(dtype), narrow)
    return result


@triton.jit
def formula(x, noise, dtype: tl.constexpr, plan: tl.constexpr):
    """Adds noise, which may be None, clips and rounds."""
    y, narrow = widen(x), x
    if noise is not None and plan.to_float is None:
        y = y + noise
        narrow = y.to(x.dtype)
        if plan.keeps_cast:
            y = narrow.to(tl.float32)
    if plan.to_float is not None:
        how: tl.constexpr = plan.to_float
        result = rounded(y, noise, how)
    elif dtype.is_int():
        result = to_integers(y, dtype, plan)
    else:
        result = to_floats(y, narrow, dtype, plan)
    return result


@triton.jit
def inside(x, plan: tl.constexpr):
    """The clip mask of x in float32; False for NaN."""
    return tl.abs(x) <= plan.bound


# --- blocks ----------------------------------------------------------------------------------------------------------


@triton.jit
def index(i, plan: tl.constexpr):
    """An index, in 64 bits if 32 do not reach all elements."""
    return i.to(tl.int64) if plan.is_wide else i


@triton.jit
def load(pointer, at, limit, whole: tl.constexpr):
    """The elements `at` indices after a pointer; if the block is partial, 0 for indices from `limit`."""
    return tl.load(pointer + at) if whole else tl.load(pointer + at, mask=at < limit, other=0)


@triton.jit
def store(pointer, at, limit, value, whole: tl.constexpr):
    """Writes the elements that `load` reads."""
    if whole:
        tl.store(pointer + at, value)
    else:
        tl.store(pointer + at, value, mask=at < limit)


@triton.jit
def tile(first: tl.constexpr, turn: tl.constexpr, plan: tl.constexpr):
    """The indices, in a block, of columns `first` to `first + plan.width` of a part in rows of eight."""
    row = turn * plan.rows + tl.arange(0, plan.rows)
    return row[:, None] * 8 + (first + tl.arange(0, plan.width))[None, :]


@triton.jit
def tile_bits(mask, at, first: tl.constexpr, limit, whole: tl.constexpr, plan: tl.constexpr):
    """What columns from `first` add to the byte of each row, in float32: integers would be summed as single bytes."""
    if not whole:
        mask = mask & (at < limit)
    bit = (1 << (first + tl.arange(0, plan.width))).to(tl.float32)
    return tl.sum(tl.where(mask, bit[None, :], 0.0), axis=1)


@triton.jit
def one_tile(x, noise, y, values, drawn, at, limit, start, whole: tl.constexpr, plan: tl.constexpr):
    """The formula on loaded values of x, in a row or a tile."""
    if plan.reads_noise:
        if plan.shares_noise is None:
            drawn = widen(load(noise + start, at, limit, whole))
        else:
            sharing: tl.constexpr = plan.shares_noise
            where = index_in(sharing, start + at)
            drawn = widen(tl.load(noise + where) if whole else tl.load(noise + where, mask=at < limit, other=0))
    store(y, at, limit, formula(values, drawn, y.dtype.element_ty, plan), whole)


@triton.jit
def quantize_part(x, noise, y, packed, start, turn: tl.constexpr, whole: tl.constexpr, plan: tl.constexpr):
    """A part of a block in rows of eight."""
    limit = plan.n - start
    at, at_right = tile(0, turn, plan), tile(8 - plan.width, turn, plan)
    values = load(x, at, limit, whole)  # first, so that drawing hides their latency
    right = load(x, at_right, limit, whole) if plan.width == 4 else values
    left_noise, right_noise = None, None
    if plan.draws_noise:
        left_noise, right_noise = drawn(noise, start, turn, plan)
    one_tile(x, noise, y, values, left_noise, at, limit, start, whole, plan)
    if plan.width == 4:
        one_tile(x, noise, y, right, right_noise, at_right, limit, start, whole, plan)
    if packed is not None:
        bits = tile_bits(inside(widen(values), plan), at, 0, limit, whole, plan)
        if plan.width == 4:
            bits += tile_bits(inside(widen(right), plan), at_right, 4, limit, whole, plan)
        byte = turn * plan.rows + tl.arange(0, plan.rows)
        store(packed, byte, (limit + 7) // 8, (bits + WHOLE).to(tl.uint32, bitcast=True).to(tl.uint8), whole)


@triton.jit
def quantize_block(x, noise, y, packed, i, example, whole: tl.constexpr, plan: tl.constexpr):
    """Block `i` of an example."""
    start = index(i, plan) * plan.size
    origin = start
    if plan.examples > 1:
        origin = start + index(example, plan) * plan.n
        if plan.draws_noise:
            sharing: tl.constexpr = plan.shares_seeds
            noise += plan.words * index_in(sharing, example).to(tl.int64)
        if packed is not None:
            packed += index(example, plan) * ((plan.n + 7) // 8)
    if packed is not None:
        packed += start // 8
    if not plan.in_rows:
        x, y = x + origin, y + origin
        at, limit = tl.arange(0, plan.size), plan.n - start
        one_tile(x, noise, y, load(x, at, limit, whole), None, at, limit, start, whole, plan)
    else:
        stream = stream_of(noise, plan) if plan.draws_noise else noise
        for turn in tl.static_range(plan.size // (8 * plan.rows)):
            quantize_part(x + origin, stream, y + origin, packed, start, turn, whole, plan)


@triton.jit
def for_this_program(block: tl.constexpr, a, b, out, packed, plan: tl.constexpr):
    """Runs `block` for the block of this program."""
    i, example = tl.program_id(0), 0
    if plan.examples > 1:  # one grid axis for both, because the other axes are limited to 65535
        example, i = i // plan.blocks, i % plan.blocks
    if plan.n % plan.size == 0:
        block(a, b, out, packed, i, example, True, plan)
    elif plan.n < plan.size:
        block(a, b, out, packed, i, example, False, plan)
    elif i < plan.blocks - 1:
        block(a, b, out, packed, i, example, True, plan)
    else:
        block(a, b, out, packed, i, example, False, plan)


@triton.jit
def quantize(x, noise, y, plan: tl.constexpr):
    """`noise` is an array, the seeds, or anything if the plan has no noise."""
    for_this_program(quantize_block, x, noise, y, None, plan)


@triton.jit
def quantize_with_mask(x, noise, y, packed, plan: tl.constexpr):
    """`quantize`, and the packed mask."""
    for_this_program(quantize_block, x, noise, y, packed, plan)


# --- gradients -------------------------------------------------------------------------------------------------------


@triton.jit
def from_x_block(g, x, out, packed, i, example, whole: tl.constexpr, plan: tl.constexpr):
    """Block `i` of the gradient, masked by x."""
    start = index(i, plan) * plan.size
    at, limit = tl.arange(0, plan.size), plan.n - start
    values, of_x = load(g + start, at, limit, whole), load(x + start, at, limit, whole)
    # Not `widen`: with this cast, the compiler compares in bfloat16.
    store(out + start, at, limit, tl.where(inside(of_x.to(tl.float32), plan), values, 0.0).to(values.dtype), whole)


@triton.jit
def from_mask_block(g, packed, out, _, i, example, whole: tl.constexpr, plan: tl.constexpr):
    """Block `i` of the gradient, masked by the packed mask."""
    start = index(i, plan) * plan.size
    limit = plan.n - start
    for turn in tl.static_range(plan.size // (8 * plan.rows)):
        row = turn * plan.rows + tl.arange(0, plan.rows)
        byte = load(packed + start // 8, row, (limit + 7) // 8, whole).to(tl.int32)
        for k in tl.static_range(8 // plan.width):
            at, column = tile(k * plan.width, turn, plan), k * plan.width + tl.arange(0, plan.width)
            values = load(g + start, at, limit, whole)
            mask = ((byte[:, None] >> column[None, :]) & 1) == 1
            store(out + start, at, limit, tl.where(mask, values, 0.0).to(values.dtype), whole)


@triton.jit
def clip_gradient_from_x(g, x, out, plan: tl.constexpr):
    """`where(|x| <= bound, g, 0)`."""
    for_this_program(from_x_block, g, x, out, None, plan)


@triton.jit
def clip_gradient_from_mask(g, packed, out, plan: tl.constexpr):
    """`where(mask, g, 0)`."""
    for_this_program(from_mask_block, g, packed, out, None, plan)
