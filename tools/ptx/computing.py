"""The instructions that compute on integers, on floats, or on either."""

import functools
from collections.abc import Callable

import numpy as np

from . import floats
from .forms import Form, Parts, family, uniform
from .kinds import KINDS, SIGNED, UNSIGNED, Kind

PRED, U32 = KINDS["pred"], KINDS["u32"]


def extremes(kind: Kind) -> tuple[int, int]:
    """The least and the greatest integer of a type."""
    info = np.iinfo(kind.dtype)
    return int(info.min), int(info.max)


def exactly(compute: Callable[..., object], kind: Kind) -> Callable[..., np.ndarray]:
    """A function of Python's integers, which have no end, and its result in the range of a type: for what is rare."""
    mask = (1 << kind.bits) - 1

    def of_arrays(*numbers: np.ndarray) -> np.ndarray:
        found = [int(compute(*each)) & mask for each in np.broadcast(*(a.astype(object) for a in numbers))]
        return np.array(found, UNSIGNED[kind.bits]).view(kind.dtype)

    return of_arrays


def clamped(compute: Callable[..., int], kind: Kind) -> Callable[..., int]:
    low, high = extremes(kind)
    return lambda *numbers: min(max(compute(*numbers), low), high)


# --- sums and products -----------------------------------------------------------------------------------------------


@family("add", "sub")
def sum_of(parts: Parts) -> Form:
    kind = parts.kind("usf")
    if kind.letter == "f":
        return of_floats(parts, kind, 2)
    operation = np.add if parts.name == "add" else np.subtract
    if kind.name == "s32" and parts.has("sat"):
        exact = (lambda a, b: a + b) if parts.name == "add" else (lambda a, b: a - b)
        return uniform(kind, 2, exactly(clamped(exact, kind), kind))
    return uniform(kind, 2, operation)


@family("mul", "mad", "fma")
def product_of(parts: Parts) -> Form:
    sources = 2 if parts.name == "mul" else 3
    kind = parts.kind("f" if parts.name == "fma" else "usf")
    if kind.letter == "f":
        if parts.name != "mul" and kind.name == "f64":
            raise parts.unsupported()
        return of_floats(parts, kind, sources)
    half = parts.take("lo", "hi", "wide")
    if not half or kind.lanes > 1 or (half == "wide" and kind.bits == 64):
        raise parts.unsupported()
    wide = KINDS[f"{kind.letter}{2 * kind.bits}"] if half == "wide" else kind

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if half == "lo":
            return a * b
        if kind.bits == 64:
            return exactly(lambda a, b: (a * b) >> 64, kind)(a, b)
        twice = (UNSIGNED if kind.letter == "u" else SIGNED)[2 * kind.bits]
        whole = a.astype(twice) * b.astype(twice)
        return whole if half == "wide" else (whole >> twice(kind.bits)).astype(kind.dtype)

    if sources == 2:
        return Form((wide,), (kind, kind), product)
    return Form((wide,), (kind, kind, wide), lambda a, b, c: product(a, b) + c)


def of_floats(parts: Parts, kind: Kind, sources: int) -> Form:
    """An operation on floats that is rounded."""
    mode, ftz, sat = parts.mode(kind), parts.ftz(kind), parts.sat(kind)
    return uniform(kind, sources, floats.arithmetic(parts.name, kind, mode, ftz, sat))


@family("div", "rem", "rcp", "sqrt")
def quotient_of(parts: Parts) -> Form:
    kind = parts.kind("usf")
    if kind.letter == "f":  # without .rn and the like it is an approximation, whose bits are the device's
        if kind.name not in ("f32", "f64") or not {"rn", "rz", "rm", "rp"} & set(parts.rest) or parts.name == "rem":
            raise parts.unsupported()
        mode, ftz = parts.mode(kind), parts.ftz(kind)
        sources = 2 if parts.name == "div" else 1
        return uniform(kind, sources, floats.arithmetic(parts.name, kind, mode, ftz, False))
    if parts.name not in ("div", "rem") or kind.lanes > 1:
        raise parts.unsupported()

    def divide(a: int, b: int) -> int:
        if b == 0:  # "an unspecified, machine-specific value"
            return -1
        quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        return quotient if parts.name == "div" else a - quotient * b

    return uniform(kind, 2, exactly(divide, kind))


@family("min", "max")
def extreme_of(parts: Parts) -> Form:
    kind = parts.kind("usf")
    if kind.letter != "f":
        return uniform(kind, 2, np.minimum if parts.name == "min" else np.maximum)
    choose = floats.smaller if parts.name == "min" else floats.larger
    keeps_nan = kind.name != "f64" and parts.has("NaN")
    return uniform(kind, 2, functools.partial(choose, kind=kind, keeps_nan=keeps_nan, ftz=parts.ftz(kind)))


@family("abs", "neg")
def sign_of(parts: Parts) -> Form:
    kind, name = parts.kind("sf"), parts.name
    if kind.letter == "s":
        return uniform(kind, 1, np.abs if name == "abs" else np.negative)
    ftz, dtype = parts.ftz(kind), UNSIGNED[kind.element_bits]
    sign = dtype(1 << (kind.element_bits - 1))

    def change(a: np.ndarray) -> np.ndarray:  # keeps the bits of NaN, which the manual leaves open
        bits = np.ascontiguousarray(floats.flushed(a) if ftz else a).view(dtype)
        return (bits & ~sign if name == "abs" else bits ^ sign).view(kind.dtype)

    return uniform(kind, 1, change)


# --- bits ------------------------------------------------------------------------------------------------------------

LOGIC = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.bitwise_not}


@family("and", "or", "xor", "not")
def logic_of(parts: Parts) -> Form:
    return uniform(parts.kind("bp"), 1 if parts.name == "not" else 2, LOGIC[parts.name])


@family("cnot", "popc", "clz", "brev")
def count_of(parts: Parts) -> Form:
    kind = parts.kind("b")
    if kind.bits == 8 or (kind.bits == 16 and parts.name != "cnot"):
        raise parts.unsupported()
    if parts.name == "cnot":
        return uniform(kind, 1, lambda a: (a == 0).astype(kind.dtype))
    result = kind if parts.name == "brev" else U32
    count = {
        "popc": lambda a: a.bit_count(),
        "clz": lambda a: kind.bits - a.bit_length(),
        "brev": lambda a: int(f"{a:0{kind.bits}b}"[::-1], 2),
    }[parts.name]
    return Form((result,), (kind,), exactly(count, result))


@family("shl", "shr")
def shift_of(parts: Parts) -> Form:
    kind = parts.kind("b" if parts.name == "shl" else "bus")
    if kind.bits == 8:
        raise parts.unsupported()
    last = kind.bits - 1

    def shift(a: np.ndarray, by: np.ndarray) -> np.ndarray:
        amount = np.minimum(by, last).astype(kind.dtype)
        if parts.name == "shr" and kind.letter == "s":  # "shift amounts greater than the register width are clamped"
            return a >> amount
        return np.where(by > last, 0, a << amount if parts.name == "shl" else a >> amount)

    return Form((kind,), (kind, U32), shift)


@family("shf")
def funnel(parts: Parts) -> Form:
    kind = parts.kind("b")
    direction, clamps = parts.take("l", "r"), parts.take("clamp", "wrap") == "clamp"
    if kind.bits != 32 or not direction:
        raise parts.unsupported()

    def shift(low: np.ndarray, high: np.ndarray, by: np.ndarray) -> np.ndarray:
        n = (np.minimum(by, 32) if clamps else by % 32).astype(np.uint64)
        both = high.astype(np.uint64) << 32 | low
        return ((both << n) >> 32 if direction == "l" else both >> n).astype(np.uint32)

    return Form((kind,), (kind, kind, U32), shift)


@family("bfe", "bfi")
def field(parts: Parts) -> Form:
    extracts = parts.name == "bfe"
    kind = parts.kind("us" if extracts else "b")
    if kind.bits < 32:
        raise parts.unsupported()

    def extract(a: int, start: int, length: int) -> int:
        start, length = start & 0xFF, length & 0xFF
        found = (a & ((1 << kind.bits) - 1)) >> start & ((1 << length) - 1)
        if kind.letter == "s" and length:
            sign = a >> min(start + length - 1, kind.bits - 1) & 1
            found |= -sign << min(length, max(kind.bits - start, 0))
        return found

    def insert(a: int, b: int, start: int, length: int) -> int:
        mask = ((1 << (length & 0xFF)) - 1) << (start & 0xFF)
        return (b & ~mask) | (a << (start & 0xFF) & mask)

    sources = (kind, U32, U32) if extracts else (kind, kind, U32, U32)
    return Form((kind,), sources, exactly(extract if extracts else insert, kind))


@family("prmt")
def permute(parts: Parts) -> Form:
    kind = parts.kind("b")
    if kind.bits != 32:
        raise parts.unsupported()

    def pick(a: np.ndarray, b: np.ndarray, choice: np.ndarray) -> np.ndarray:
        both, result = b.astype(np.uint64) << 32 | a, np.zeros(1, np.uint32)
        for i in range(4):
            which = choice >> (4 * i)
            byte = (both >> (8 * (which & 7)).astype(np.uint64)).astype(np.uint32) & 0xFF
            byte = np.where(which & 8, np.where(byte & 0x80, 0xFF, 0), byte).astype(np.uint32)
            result = result | byte << (8 * i)
        return result

    return Form((kind,), (kind, kind, U32), pick)


@family("lop3")
def table_of_bits(parts: Parts) -> Form:
    kind = parts.kind("b")
    if kind.bits != 32:
        raise parts.unsupported()

    def look_up(a: np.ndarray, b: np.ndarray, c: np.ndarray, table: np.ndarray) -> np.ndarray:
        result = np.zeros(1, np.uint32)
        for i in range(8):  # a is the high bit of an index, c the low
            chosen = (a if i & 4 else ~a) & (b if i & 2 else ~b) & (c if i & 1 else ~c)
            result = result | np.where(table >> i & 1, chosen, 0).astype(np.uint32)
        return result

    return Form((kind,), (kind, kind, kind, U32), look_up)


# --- choices ---------------------------------------------------------------------------------------------------------


@family("selp")
def select(parts: Parts) -> Form:
    kind = parts.kind("busf")
    if kind.bits == 8 or kind.lanes > 1:
        raise parts.unsupported()
    return Form((kind,), (kind, kind, PRED), lambda a, b, p: np.where(p, a, b))


INTEGER_COMPARISONS = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}  # of unsigned ones
UNORDERED = ("equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan")


@family("setp", "set")
def comparison(parts: Parts) -> Form:
    kind = parts.kind("busf")
    result = parts.kind("usf") if parts.name == "set" else PRED
    ftz, combine = parts.ftz(kind), parts.take("and", "or", "xor")
    name = parts.rest.pop(0) if parts.rest else ""
    known = floats.COMPARE if kind.letter != "b" else ("eq", "ne")
    if kind.letter == "u" and name in INTEGER_COMPARISONS:
        name = INTEGER_COMPARISONS[name]
    if name not in known and not (kind.letter == "f" and name in UNORDERED):
        raise parts.unsupported()
    if kind.bits == 8 or (kind.lanes > 1 and kind.letter != "f") or (result is not PRED and result.bits != 32):
        raise parts.unsupported()

    def compare(a: np.ndarray, b: np.ndarray, c: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
        a, b = (floats.flushed(a), floats.flushed(b)) if ftz else (a, b)
        true = floats.compare(name, a, b) if kind.letter == "f" else floats.COMPARE[name](a, b)
        found = (true[:, 0], true[:, 1]) if kind.lanes > 1 else (true, ~true)
        if c is not None:
            found = tuple(LOGIC[combine](each, c) for each in found)
        return found if result is PRED else (np.where(found[0], true_value, 0),)

    true_value = 1 if result.letter == "f" else extremes(result)[result.letter == "u"] if result is not PRED else True
    return Form((result, result)[: 1 + (result is PRED)], (kind, kind, *(PRED,) * bool(combine)), compare)
