"""`FORMS`: every form of an instruction that computes, by its opcode, such as "mul.wide.u32"."""

import itertools
import operator
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from . import floats
from .kinds import KINDS, UNSIGNED, Kind

Compute = Callable[..., np.ndarray | tuple[np.ndarray, ...]]
PRED, B32, U32, F32, F64 = (KINDS[name] for name in ("pred", "b32", "u32", "f32", "f64"))
INTEGERS = [KINDS[f"{letter}{bits}"] for letter in "us" for bits in (16, 32, 64)]
BITS = [KINDS[f"b{bits}"] for bits in (16, 32, 64)]
FLUSHED = [F32, KINDS["f16"], KINDS["f16x2"]]  # may have .ftz
FLOATS = [*FLUSHED, KINDS["bf16"], KINDS["bf16x2"], F64]
MODES = {"": "n", ".rn": "n", ".rz": "z", ".rm": "m", ".rp": "p"}


class Form(NamedTuple):
    """The types of the results and the sources of an instruction, and how the former follow from the latter.

    Registers have the widths of these types; if `is_relaxed`, they may be wider, as the manual allows for `cvt`. The
    result depends on so many of the lowest bits of a source: `low`.
    """

    results: tuple[Kind, ...]
    sources: tuple[Kind, ...]
    compute: Compute
    is_relaxed: bool = False
    low: int = 64


FORMS: dict[str, Form] = {}


def define(name: str, kind: Kind, sources: int, compute: Compute) -> None:
    """Adds a form whose result and sources have one type, which ends its name."""
    FORMS[f"{name}.{kind.name}"] = Form((kind,), (kind,) * sources, compute)


def exactly(compute: Callable[..., np.ndarray], kind: Kind, clamps: bool = False) -> Compute:
    """An operation on Python's integers, which do not overflow; the result wraps or is clamped to the type."""
    low, high = int(np.iinfo(kind.dtype).min), int(np.iinfo(kind.dtype).max)

    def of_arrays(*numbers: np.ndarray) -> np.ndarray:
        found = compute(*(a.astype(object) for a in numbers))
        found = (np.clip(found, low, high) if clamps else found) & (1 << kind.bits) - 1
        return found.astype(UNSIGNED[kind.bits]).view(kind.dtype)

    return of_arrays


def flags(*names: str) -> Iterator[tuple[str, *tuple[bool, ...]]]:
    """Each choice of modifiers that may stand there: the text, and which do."""
    for chosen in itertools.product((False, True), repeat=len(names)):
        yield "".join(itertools.compress(names, chosen)), *chosen


# --- arithmetic ------------------------------------------------------------------------------------------------------


def product(kind: Kind, half: str) -> Compute:
    if half == "hi" and kind.bits == 64:
        return exactly(lambda a, b: a * b >> 64, kind)
    dtype = kind.dtype if half == "lo" else KINDS[f"{kind.letter}{2 * kind.bits}"].dtype
    by = kind.bits if half == "hi" else 0
    return lambda a, b: a.astype(dtype) * b.astype(dtype) >> dtype(by)


def change_sign(kind: Kind, is_abs: bool, ftz: bool = False) -> Compute:
    dtype = UNSIGNED[np.dtype(kind.dtype).itemsize * 8]
    sign = dtype(1 << (np.dtype(dtype).itemsize * 8 - 1))

    def compute(a: np.ndarray) -> np.ndarray:  # keeps the other bits of NaN, which the manual leaves open
        bits = np.ascontiguousarray(floats.flushed(a) if ftz else a).view(dtype)
        return (bits & ~sign if is_abs else bits ^ sign).view(kind.dtype)

    return compute


for kind in INTEGERS:
    for name, operation in (("add", np.add), ("sub", np.subtract), ("min", np.minimum), ("max", np.maximum)):
        define(name, kind, 2, operation)
    for half in ("lo", "hi", *(["wide"] if kind.bits < 64 else [])):
        wide, multiply = KINDS[f"{kind.letter}{2 * kind.bits}"] if half == "wide" else kind, product(kind, half)
        FORMS[f"mul.{half}.{kind.name}"] = Form((wide,), (kind, kind), multiply)
        FORMS[f"mad.{half}.{kind.name}"] = Form((wide,), (kind, kind, wide), lambda a, b, c, f=multiply: f(a, b) + c)
    if kind.letter == "s":
        define("abs", kind, 1, np.abs)
        define("neg", kind, 1, np.negative)
for name, operation in (("min", np.minimum), ("max", np.maximum)):
    define(f"{name}.relu", KINDS["s32"], 2, lambda a, b, f=operation: np.maximum(f(a, b), 0))
for kind in (KINDS["u16x2"], KINDS["s16x2"]):
    for name, operation in (("add", np.add), ("min", np.minimum), ("max", np.maximum)):
        define(name, kind, 2, operation)
for name, operation in (("add", operator.add), ("sub", operator.sub)):
    define(f"{name}.sat", KINDS["s32"], 2, exactly(operation, KINDS["s32"], clamps=True))
for kind, (name, sources) in itertools.product(FLOATS, (("add", 2), ("sub", 2), ("mul", 2), ("fma", 3))):
    modes, modifiers = MODES if kind is F32 else ("", ".rn"), (".ftz", ".sat") if kind in FLUSHED else ()
    for mode, (text, *chosen) in itertools.product(modes, flags(*modifiers)):
        if name != "fma" or (mode and kind is not F64):
            define(f"{name}{mode}{text}", kind, sources, floats.arithmetic(name, kind, MODES[mode], *chosen))
for mode, (ftz, *ftz_) in itertools.product((".rn", ".rz", ".rm", ".rp"), flags(".ftz")):
    define(f"div{mode}{ftz}", F32, 2, floats.arithmetic("div", F32, MODES[mode], *ftz_))
define("rcp.rn", F64, 1, lambda a: floats.rounded(1 / a, F64))
for kind in (F32, F64):
    define("copysign", kind, 2, lambda a, b: np.copysign(b, a))  # the sign is that of the first
for kind in FLOATS:
    for ftz, *ftz_ in flags(".ftz") if kind in FLUSHED else flags():
        for name in ("abs", "neg"):
            define(f"{name}{ftz}", kind, 1, change_sign(kind, name == "abs", *ftz_))
        for (nan, *nan_), name in itertools.product(flags() if kind is F64 else flags(".NaN"), ("min", "max")):
            define(f"{name}{ftz}{nan}", kind, 2, floats.extreme(kind, name == "min", any(nan_), any(ftz_)))

# --- bits ------------------------------------------------------------------------------------------------------------

LOGIC = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}


def shift(kind: Kind, is_left: bool) -> Compute:
    def compute(a: np.ndarray, by: np.ndarray) -> np.ndarray:
        amount = np.minimum(by, kind.bits - 1).astype(kind.dtype)
        if kind.letter == "s":  # the sign fills the rest
            return a >> amount
        return np.where(by >= kind.bits, 0, a << amount if is_left else a >> amount)

    return compute


def funnel(is_left: bool, clamps: bool) -> Compute:
    def compute(low: np.ndarray, high: np.ndarray, by: np.ndarray) -> np.ndarray:
        n, both = np.minimum(by, 32) if clamps else by % 32, high.astype(np.uint64) << 32 | low
        return both << n >> 32 if is_left else both >> n

    return compute


def extract(kind: Kind) -> Compute:
    dtype = np.int64 if kind.letter == "s" else np.uint64

    def compute(a: np.ndarray, start: np.ndarray, length: np.ndarray) -> np.ndarray:
        start, length = (number.astype(dtype) & 0xFF for number in (start, length))
        field = np.where((start > 63) & (kind.letter == "u"), 0, a.astype(dtype) >> np.minimum(start, 63))
        rest = 64 - np.clip(length, 1, 64)
        return np.where(length == 0, 0, field << rest >> rest)

    return compute


def permute(a: np.ndarray, b: np.ndarray, choice: np.ndarray) -> np.ndarray:
    places = np.arange(4, dtype=np.uint64)
    which = choice.astype(np.uint64)[:, None] >> 4 * places
    byte = (b.astype(np.uint64) << 32 | a)[:, None] >> 8 * (which & 7) & 0xFF
    byte = np.where(which & 8, (byte >> 7) * 0xFF, byte)  # or all bits as the sign
    return (byte << 8 * places).sum(axis=1)


for kind in (PRED, *BITS):
    for name, operation in LOGIC.items():
        define(name, kind, 2, operation)
    define("not", kind, 1, np.bitwise_not)
for kind in BITS:
    FORMS[f"shl.{kind.name}"] = Form((kind,), (kind, U32), shift(kind, is_left=True))
for kind in (*BITS, *INTEGERS):
    FORMS[f"shr.{kind.name}"] = Form((kind,), (kind, U32), shift(kind, is_left=False))
for direction, mode in itertools.product("lr", ("clamp", "wrap")):
    FORMS[f"shf.{direction}.{mode}.b32"] = Form((B32,), (B32, B32, U32), funnel(direction == "l", mode == "clamp"))
for kind in (KINDS[name] for name in ("u32", "u64", "s32", "s64")):
    FORMS[f"bfe.{kind.name}"] = Form((kind,), (kind, U32, U32), extract(kind))
FORMS["prmt.b32"] = Form((B32,), (B32, B32, U32), permute)

# --- choices ---------------------------------------------------------------------------------------------------------

OF_UNSIGNED = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}


def comparison(kind: Kind, name: str, combine: str, ftz: bool = False) -> Compute:
    def compute(a: np.ndarray, b: np.ndarray, c: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
        a, b = (floats.flushed(a), floats.flushed(b)) if ftz else (a, b)
        true = floats.compare(name, a, b) if kind.letter == "f" else floats.COMPARE[OF_UNSIGNED.get(name, name)](a, b)
        found = (true[:, 0], true[:, 1]) if kind.lanes > 1 else (true, ~true)
        return found if c is None else tuple(LOGIC[combine](each, c) for each in found)

    return compute


for kind in (*BITS, *INTEGERS, F32, F64):
    FORMS[f"selp.{kind.name}"] = Form((kind,), (kind, kind, PRED), lambda a, b, p: np.where(p, a, b))
for kind in (*BITS, *INTEGERS, *FLOATS):
    names = {"b": [*floats.EQUAL], "u": [*floats.COMPARE, *OF_UNSIGNED]}.get(kind.letter, [*floats.COMPARE])
    names += [*(f"{name}u" for name in names), *floats.UNORDERED] if kind.letter == "f" else []
    modifiers = (".ftz",) if kind in FLUSHED else ()
    for name, combine, (ftz, *ftz_) in itertools.product(names, ("", *LOGIC), flags(*modifiers)):
        form = Form((PRED, PRED), (kind, kind, *(PRED,) * bool(combine)), comparison(kind, name, combine, *ftz_))
        FORMS[f"setp.{name}{'.' * bool(combine)}{combine}{ftz}.{kind.name}"] = form
