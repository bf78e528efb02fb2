"""Approximate quotients for `tools.ptx`, which refuses them: off by as much as the manual allows, up or down.

A result that agrees with NumPy all the same does not depend on the bits that a device gives.
"""

from collections.abc import Callable, Iterator
from unittest import mock

import numpy as np
import pytest

from tools.ptx.instructions import F32, FORMS, Form

# "Parallel Thread Execution ISA", 9.7.3.8 and 9.7.3.13: the largest errors, in units in the last place.
OFF = {"div.full.f32": 2, "rcp.approx.f32": 1}


def off_by(quotient: Callable[..., np.ndarray], limit: int) -> Callable[..., np.ndarray]:
    """A quotient whose last place is moved by -limit to limit, as a hash of the divisor says."""

    def compute(*numbers: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            exact = np.ascontiguousarray(quotient(*numbers), np.float32)
            divisor = np.ascontiguousarray(numbers[-1], np.float32).view(np.uint32)
            error = (divisor * np.uint32(0x9E3779B9) >> np.uint32(16)).astype(np.int32) % (2 * limit + 1) - limit
            is_number = np.isfinite(exact) & (np.abs(exact) >= np.finfo(np.float32).tiny)
            return np.where(is_number, (exact.view(np.int32) + error).view(np.float32), exact)

    return compute


@pytest.fixture
def approximate_quotients() -> Iterator[None]:
    """Lets `tools.ptx` run the approximations in `OFF`."""
    quotients: dict[str, tuple[int, Callable[..., np.ndarray]]] = {
        "div.full.f32": (2, lambda a, b: a / b),
        "rcp.approx.f32": (1, lambda a: np.float32(1) / a),
    }
    forms = {
        name: Form((F32,), (F32,) * sources, off_by(quotient, OFF[name]))
        for name, (sources, quotient) in quotients.items()
    }
    with mock.patch.dict(FORMS, forms):
        yield
