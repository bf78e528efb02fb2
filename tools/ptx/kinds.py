"""The types of PTX, and how the bits of a register are read as one."""

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

UNSIGNED = {1: np.bool_, 8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}  # what holds a register's bits
SIGNED = {8: np.int8, 16: np.int16, 32: np.int32, 64: np.int64}
FLOATS = {"f16": np.float16, "bf16": ml_dtypes.bfloat16, "f32": np.float32, "f64": np.float64}


class Kind(NamedTuple):
    """A type: its letter (b, u, s, f or p), the bits of a register that holds it, and of how many numbers."""

    name: str
    letter: str
    bits: int
    dtype: Any
    lanes: int = 1

    def of(self, bits: np.ndarray) -> np.ndarray:
        """The numbers in registers, one for each thread; of a packed type (threads, 2), the low one first."""
        numbers = np.ascontiguousarray(bits).view(self.dtype)
        return numbers.reshape(-1, self.lanes) if self.lanes > 1 else numbers

    def to(self, numbers: np.ndarray) -> np.ndarray:
        """The bits of numbers as `of` gives them."""
        return np.ascontiguousarray(numbers, self.dtype).view(UNSIGNED[self.bits]).reshape(-1)


KINDS = {"pred": Kind("pred", "p", 1, np.bool_)}
KINDS |= {f"{letter}{n}": Kind(f"{letter}{n}", letter, n, UNSIGNED[n]) for letter in "bu" for n in SIGNED}
KINDS |= {f"s{n}": Kind(f"s{n}", "s", n, SIGNED[n]) for n in SIGNED}
KINDS |= {name: Kind(name, "f", np.dtype(dtype).itemsize * 8, dtype) for name, dtype in FLOATS.items()}
KINDS |= {f"{n}x2": KINDS[n]._replace(name=f"{n}x2", bits=32, lanes=2) for n in ("u16", "s16", "f16", "bf16")}
