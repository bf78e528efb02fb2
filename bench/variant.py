"""One way to do an operation, as it is measured, and what is asked of its result.

A check takes the result and what NumPy expects, and returns what is wrong, or nothing.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

Function = Callable[..., Any]

OF_SCALES = 0.01  # bfloat16 and a bound of 127.5, where ours is 127, are off by 0.4% each
MEAN = 0.03  # of tens of thousands of values, each off by less than a bucket or two
RELATIVE = 0.05


def same_values(found: np.ndarray, expected: np.ndarray) -> str:
    wrong = int(np.count_nonzero(found != expected))
    return f"{wrong} of {expected.size} values differ from NumPy's" if wrong else ""


def within_a_bucket(found: np.ndarray, expected: np.ndarray, buckets: float = 1.0) -> str:
    """Two ways to round what comes before may differ by a bucket."""
    worst = float(np.max(np.abs(found - expected), initial=0.0))
    return "" if worst <= buckets else f"{worst} buckets from NumPy's"  # NaN is not within anything


def other_draws(found: np.ndarray, expected: np.ndarray, buckets: float = 2.0) -> str:
    """Results with other noise are at most two buckets apart, since bfloat16 rounds the sum, and equal on average."""
    off = float(np.mean(found - expected))
    if expected.size > 1 << 12 and not abs(off) <= MEAN:
        return f"{off} buckets from NumPy's on average"
    return within_a_bucket(found, expected, buckets)


def other_scales(found: np.ndarray, expected: np.ndarray) -> str:
    """Integers by scales that are off by `OF_SCALES` are another bucket apart."""
    return other_draws(found, expected, 3.0)


def near(found: np.ndarray, expected: np.ndarray) -> str:
    """Scales of another bound, or rounded to bfloat16."""
    worst = float(np.max(np.abs(found / expected - 1), initial=0.0))
    return "" if worst <= OF_SCALES else f"a scale is off by {worst:.1%} from NumPy's"


def close(found: np.ndarray, expected: np.ndarray) -> str:
    """A sum over quantized values: the norm of the difference, divided by the norm."""
    off = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    return "" if off <= RELATIVE else f"{off:.1%} from NumPy's"


@dataclasses.dataclass(frozen=True)
class Variant:
    function: Function
    takes: tuple[str, ...]  # names of the arrays that it is called with, as `arrays.py` makes them
    kind: Literal["jit", "torch"] = "jit"  # of JAX's arrays, or of PyTorch's tensors
    agrees: Callable[[np.ndarray, np.ndarray], str] = same_values  # what is asked of its first result
    scales_agree: Callable[[np.ndarray, np.ndarray], str] = same_values  # and of its second, if these are scales
