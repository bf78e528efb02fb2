"""Noise in the kernels: drawn from a seed, or read from an array that broadcasts.

This is `pallas_triton/noise.py` in Triton's language; the comments on the method are there. To draw from another
generator, add its functions here and its name to `GENERATORS` in `operations.py`.
"""
# Triton need not be installed, and to a type checker the functions are objects of Triton.
# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

import triton
import triton.language as tl

from ..generators import hashed, philox
from ..gpu.shapes import FLIP, UNIT

MULTIPLIER_0, MULTIPLIER_1 = (tl.constexpr(m) for m in philox.MULTIPLIERS)
WEYL_0, WEYL_1 = (tl.constexpr(w) for w in philox.WEYL)
ROUNDS = tl.constexpr(philox.ROUNDS)
DOMAIN = tl.constexpr(philox.DOMAIN)
HASH_0, HASH_1, HASH_2 = (tl.constexpr(m) for m in hashed.MULTIPLIERS)
SHIFT_0, SHIFT_1, SHIFT_2, SHIFT_3 = (tl.constexpr(s) for s in hashed.SHIFTS)
NOISE_FLIP, NOISE_UNIT = tl.constexpr(FLIP), tl.constexpr(UNIT)
UPPER, SIGN = tl.constexpr(0xFFFF0000), tl.constexpr(0x80000000)


@triton.jit
def index_in(sharing: tl.constexpr, i):
    """Where element `i` stands in the array that is shared: see `Sharing` in `gpu/shapes.py`."""
    index = i * 0
    for k in tl.static_range(len(sharing.groups)):
        along = i // sharing.groups[k][0]
        if sharing.groups[k][0] * sharing.groups[k][1] < sharing.n:
            along = along % sharing.groups[k][1]
        index += along * sharing.groups[k][2]
    return index


@triton.jit
def product(multiplier: tl.constexpr, word):
    """The high and the low word of a product, which is one instruction on a GPU."""
    whole = word.to(tl.uint64) * multiplier
    return (whole >> 32).to(tl.uint32), whole.to(tl.uint32)


@triton.jit
def philox4x32(c0, c1, k0, k1):
    """The output for the counter (c0, c1, 0, DOMAIN)."""
    c2 = c0 * 0
    c3 = c2 + DOMAIN
    for _ in tl.static_range(ROUNDS):
        high0, low0 = product(MULTIPLIER_0, c0)
        high1, low1 = product(MULTIPLIER_1, c2)
        c0, c1, c2, c3 = high1 ^ (c1 ^ k0), low1, high0 ^ (c3 ^ k1), low0
        k0, k1 = k0 + WEYL_0, k1 + WEYL_1
    return c0, c1, c2, c3


@triton.jit
def hashed_word(low, a, b):
    """See `hashed.word`."""
    w = low ^ a
    x = (w ^ (w >> SHIFT_0)) * HASH_0
    x = (x ^ (x >> SHIFT_1) ^ b) * HASH_1
    x = (x ^ (x >> SHIFT_2)) * HASH_2
    return x ^ (x >> SHIFT_3) ^ w


@triton.jit
def join4(a, b, c, d):
    """[rows, 4] from its columns, in registers."""
    return tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), (a.shape[0], 4))


@triton.jit
def uniform(draws):
    """The noise of draws in the upper halves of words, as signed integers."""
    return draws.to(tl.int32, bitcast=True).to(tl.float32) * NOISE_UNIT


@triton.jit
def stream_of(seed, plan: tl.constexpr):
    """What all parts of a block have in common: the kernel words of the example, and NOISE_FLIP."""
    words = (tl.load(seed), tl.load(seed + 1), tl.load(seed + 2), tl.load(seed + 3))
    if plan.generator == "hash":
        words = words + (tl.load(seed + 4), tl.load(seed + 5))  # noqa: RUF005
    # Unknown to the compiler, this is NOISE_FLIP, which it keeps in a register: see `pallas_triton/noise.py`.
    return words, NOISE_FLIP ^ (words[len(words) - 1] & SIGN)


@triton.jit
def philox_words(seed, eight):
    """The four words of each eight, which is counted from the first element of the array."""
    k0, k1, low, high = seed
    first = (high.to(tl.uint64) << 29) | (low >> 3).to(tl.uint64)
    number = first + eight.to(tl.uint64)
    c0 = first.to(tl.uint32) + eight.to(tl.uint32)  # from `number`, it would be a product of 64 bits
    return philox4x32(c0, (number >> 32).to(tl.uint32), k0, k1)


@triton.jit
def subkeys(number, words, plan: tl.constexpr):
    """The subkeys for the low words of numbers of blocks."""
    a, b = words[0], words[1]
    if plan.carries:
        wrapped = number < words[4]
        a, b = tl.where(wrapped, words[2], a), tl.where(wrapped, words[3], b)
    return a, b


@triton.jit
def hash_of(number, words, plan: tl.constexpr):
    """The words of blocks, from the low words of their numbers."""
    a, b = subkeys(number, words, plan)
    return hashed_word(number, a, b)


@triton.jit
def straddling(right, left, shift):
    """The 32 bits from bit `shift` of two words; one instruction."""
    return (((left.to(tl.uint64) << 32) | right.to(tl.uint64)) >> shift).to(tl.uint32)


@triton.jit
def hash_words(words, eight, plan: tl.constexpr):
    """The four words of each eight, which is counted from the first element of the array."""
    first = words[4] + eight.to(tl.uint32) * 4
    if plan.straddles:
        w0, w1, w2 = hash_of(first, words, plan), hash_of(first + 1, words, plan), hash_of(first + 2, words, plan)
        w3, w4 = hash_of(first + 3, words, plan), hash_of(first + 4, words, plan)
        shift = ((words[5] << 4) & 31).to(tl.uint64)
        w0, w1 = straddling(w0, w1, shift), straddling(w1, w2, shift)
        w2, w3 = straddling(w2, w3, shift), straddling(w3, w4, shift)
    else:  # the first number is a multiple of 4, so no carry separates the four
        a, b = subkeys(first, words, plan)
        w0, w1 = hashed_word(first, a, b), hashed_word(first ^ 1, a, b)
        w2, w3 = hashed_word(first ^ 2, a, b), hashed_word(first ^ 3, a, b)
    return w0, w1, w2, w3


@triton.jit
def drawn(stream, start, turn: tl.constexpr, plan: tl.constexpr):
    """The noise of a part: float32 [rows, 8] twice, or the left and the right half if a tile has four columns."""
    words, flip = stream
    eight = start // 8 + turn * plan.rows + tl.arange(0, plan.rows)
    if plan.shares_blocks is not None:
        sharing: tl.constexpr = plan.shares_blocks
        eight = index_in(sharing, eight.to(tl.int64) if sharing.is_wide else eight)
    if plan.generator == "hash":
        w0, w1, w2, w3 = hash_words(words, eight, plan)
    else:
        w0, w1, w2, w3 = philox_words(words, eight)
    d0, d2, d4, d6 = (w0 << 16) + flip, (w1 << 16) + flip, (w2 << 16) + flip, (w3 << 16) + flip
    d1, d3 = (w0 & UPPER) ^ flip, (w1 & UPPER) ^ flip
    d5, d7 = (w2 & UPPER) ^ flip, (w3 & UPPER) ^ flip
    if plan.width == 8:
        even, odd = join4(d0, d2, d4, d6), join4(d1, d3, d5, d7)
        left = uniform(tl.reshape(tl.join(even, odd), (plan.rows, 8)))
        right = left
    else:
        left, right = uniform(join4(d0, d1, d2, d3)), uniform(join4(d4, d5, d6, d7))
    return left, right
