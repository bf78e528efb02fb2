"""What the PTX ISA manual says numbers are, from Python's integers and fractions alone: an interpreter is held to this.

A value of every float format here is exactly a Python float, so bits become floats, operations are exact in
`fractions.Fraction`, and `Format.encode` rounds once, to the format.
"""

import dataclasses
import itertools
import math
from fractions import Fraction

import numpy as np

ROUNDINGS = ("rn", "rz", "rm", "rp")


def signed(bits: int, width: int) -> int:
    """The number that `bits` is in two's complement."""
    bits &= (1 << width) - 1
    return bits - (1 << width) if bits >> (width - 1) else bits


def integer(bits: int, kind: str) -> int:
    """The number that `bits` is as `kind`, such as "s16" or "u64"."""
    width = int(kind[1:])
    return signed(bits, width) if kind[0] == "s" else bits & (1 << width) - 1


def clamp(value: int, kind: str) -> int:
    """`value` limited to what `kind` can hold."""
    width = int(kind[1:])
    low, high = (-(1 << width - 1), (1 << width - 1) - 1) if kind[0] == "s" else (0, (1 << width) - 1)
    return min(max(value, low), high)


def integers(width: int) -> list[int]:
    """Bits that matter to integers of a width: extremes of both signs, and of halves, and some in between."""
    top, half = 1 << width - 1, 1 << width // 2
    values = [0, 1, 2, 3, 7, half - 1, half, half + 1, top - 1, top, top + 1, 2 * top - 1, 2 * top - 2, 2 * top - half]
    mixed = [0x0123456789ABCDEF >> (64 - width), 0xFEDCBA9876543210 >> (64 - width), 0xA5A5A5A5A5A5A5A5 >> (64 - width)]
    return sorted({*values, *mixed})


def mode_round(value: Fraction, mode: str) -> int:
    """The integer next to `value`: to nearest and even, or toward zero, minus or plus infinity."""
    low = math.floor(value)
    if value == low or mode[:2] == "rm":
        return low
    if mode[:2] == "rp":
        return low + 1
    if mode[:2] == "rz":
        return low + (value < 0)
    return low + (2 * (value - low) > 1 or (2 * (value - low) == 1 and low % 2))


@dataclasses.dataclass(frozen=True)
class Format:
    """A binary float format: its name in PTX, its width, and how many bits of mantissa are stored."""

    name: str
    width: int
    mantissa: int

    @property
    def bias(self) -> int:
        return (1 << self.width - 2 - self.mantissa) - 1

    @property
    def infinity(self) -> int:
        return (2 * self.bias + 1) << self.mantissa

    @property
    def sign(self) -> int:
        return 1 << self.width - 1

    @property
    def canonical(self) -> int:
        """The canonical NaN: CUDART_NAN_F, CUDART_NAN_FP16 and CUDART_NAN_BF16 of CUDA's headers."""
        return self.sign - 1

    def is_nan(self, bits: int) -> bool:
        return bits & ~self.sign > self.infinity

    def is_subnormal(self, bits: int) -> bool:
        return 0 < bits & ~self.sign < 1 << self.mantissa

    def flush(self, bits: int) -> int:
        """A subnormal number becomes zero of its sign."""
        return bits & self.sign if self.is_subnormal(bits) else bits

    def decode(self, bits: int) -> float:
        magnitude, negative = bits & ~self.sign, bool(bits & self.sign)
        if magnitude > self.infinity:
            return math.nan
        if magnitude == self.infinity:
            return -math.inf if negative else math.inf
        exponent, fraction = divmod(magnitude, 1 << self.mantissa)
        implicit = (1 << self.mantissa) if exponent else 0
        value = math.ldexp(implicit + fraction, max(exponent, 1) - self.bias - self.mantissa)
        return -value if negative else value

    def encode(self, value: Fraction | float, mode: str = "rn", negative_zero: bool = False) -> int:
        """The bits of `value`, rounded once; `negative_zero` is the sign if `value` is zero."""
        if isinstance(value, float):
            if math.isnan(value):
                return self.canonical
            if math.isinf(value) or value == 0:
                return (self.infinity if value else 0) | (self.sign if math.copysign(1, value) < 0 else 0)
            value = Fraction(value)
        if value == 0:
            return self.sign if negative_zero else 0
        sign = self.sign if value < 0 else 0
        size = abs(value)
        exponent = size.numerator.bit_length() - size.denominator.bit_length()
        exponent -= size < Fraction(2) ** exponent
        exponent = max(exponent, 1 - self.bias)
        ulp = Fraction(2) ** (exponent - self.mantissa)
        steps = abs(mode_round(value / ulp, mode))  # of one ulp; a carry into the next binade is right by itself
        bits = steps + ((exponent + self.bias - 1) << self.mantissa)
        if bits >= self.infinity:
            away = mode == "rn" or (mode == "rp" and value > 0) or (mode == "rm" and value < 0)
            bits = self.infinity if away else self.infinity - 1
        return sign | bits

    def values(self) -> list[int]:
        """Bits that matter: zeros, subnormals, near one, ties, near overflow, infinities, NaN; of both signs."""
        m, one = self.mantissa, self.bias << self.mantissa
        third = sum(1 << i for i in range(0, m, 2))
        sizes = [0, 1, 2, (1 << m - 1) | 1, (1 << m) - 1, 1 << m, (1 << m) + 1]
        sizes += [one - (1 << m), one - 1, one, one + 1, one | 1 << m - 1, one + (1 << m) | 1 << m - 2]
        sizes += [self.bias - m - 1 << m, (self.bias - m - 1 << m) + 1, self.bias - 2 << m | third]
        sizes += [self.bias - (self.bias + m) // 2 << m | third, (self.bias + min(m, self.bias)) << m | 1]
        sizes += [self.infinity - 1, self.infinity, *self.nans()]
        return [size | sign for size in sizes for sign in (0, self.sign)]

    def nans(self) -> list[int]:
        """Quiet and signalling NaN, with and without a payload, positive."""
        quiet = 1 << self.mantissa - 1
        return [self.infinity | quiet, self.infinity | quiet | 3, self.infinity | 1, self.infinity | quiet - 1]


F16, BF16, F32, F64 = Format("f16", 16, 10), Format("bf16", 16, 7), Format("f32", 32, 23), Format("f64", 64, 52)
FORMATS = {form.name: form for form in (F16, BF16, F32, F64)}


def exact(operation: str, *operands: float, mode: str = "rn") -> tuple[Fraction | float, bool]:
    """`add`, `sub`, `mul`, `div` or `fma`, exactly, and whether it is negative if it is zero.

    IEEE 754, 6.3: a product or quotient has the exclusive or of the signs; a sum of opposite signs that is zero is +0,
    or -0 where rounding goes toward minus infinity. (PTX ISA, 9.7.3: "Instructions that support rounding modifiers are
    IEEE-754 compliant.")
    """
    a, b, *rest = operands
    if operation == "fma":
        c = rest[0]
        if all(map(math.isfinite, operands)):
            total = Fraction(a) * Fraction(b) + Fraction(c)
            product_negative = math.copysign(1, a) * math.copysign(1, b) < 0
            agree = product_negative == (math.copysign(1, c) < 0)
            both = product_negative if agree else mode == "rm"
            return total, both
        product = a * b if not (math.isfinite(a) and math.isfinite(b)) else 0.0
        return product + c, False
    if operation == "sub":
        return exact("add", a, -b, mode=mode)
    if operation in ("mul", "div"):
        negative = math.copysign(1, a) * math.copysign(1, b) < 0
        if operation == "div" and b == 0:
            return (math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, -1 if negative else 1)), negative
        if not (math.isfinite(a) and math.isfinite(b)):
            return (a * b if operation == "mul" else a / b), negative
        return (Fraction(a) * Fraction(b) if operation == "mul" else Fraction(a) / Fraction(b)), negative
    if not (math.isfinite(a) and math.isfinite(b)):
        return a + b, False
    agree = math.copysign(1, a) == math.copysign(1, b)
    return Fraction(a) + Fraction(b), (math.copysign(1, a) < 0) if agree else mode == "rm"


def saturate(form: Format, bits: int) -> int:
    """9.7.3: "saturation of results to the range [0.0, 1.0], with NaNs being flushed to positive zero"."""
    if form.is_nan(bits) or bits & form.sign:
        return 0
    return min(bits, form.bias << form.mantissa)


def pairs(*lists: list[int]) -> list[np.ndarray]:
    """All combinations, one array for each list, as unsigned 64-bit integers."""
    return [np.array(column, np.uint64) for column in zip(*itertools.product(*lists), strict=True)]
