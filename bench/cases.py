"""Which cases there are: an operation, a dtype and a shape, with every way to do it."""

import dataclasses
import importlib.util
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

from bench import arrays
from bench.names import INTERPRETED, INTERPRETED_MOSAIC
from bench.operation import Operation
from bench.operations import operations
from intnumerics.kernels import TABLE
from intnumerics.kernels.gpu.pallas import has_triton

DTYPES = ("float32", "bfloat16")
EXPONENTS = (12, 15, 18, 21, 24, 27)
QUICK_DTYPES, QUICK_EXPONENTS = ("bfloat16",), (20,)


@dataclasses.dataclass(frozen=True)
class Case:
    """What is measured together: an operation, and the dtype and the shape of x."""

    operation: Operation
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def key(self) -> dict[str, Any]:
        """What its result begins with."""
        return {"operation": self.operation.name, "dtype": self.dtype, "shape": list(self.shape)}


def implementations(platform: str) -> tuple[str, ...]:
    """Those of ours that have a name on a platform, as JAX names it."""
    return tuple(dict.fromkeys(row.name for row in TABLE if row.platform in (None, platform)))


def here(platform: str, interpreted: bool = False) -> tuple[str, ...]:
    """Those that can run here, but for the reference; without a GPU, `interpreted` adds the kernels for CUDA."""
    has = {"reference": False, "pallas_triton": has_triton(), "jax_triton": importlib.util.find_spec("jax_triton")}
    found = tuple(name for name in implementations(platform) if has.get(name, True))
    return (*found, INTERPRETED, INTERPRETED_MOSAIC) if interpreted and platform != "cuda" else found


def select(
    platform: str, exponents: Iterable[int], dtypes: Iterable[str] = DTYPES, words: Iterable[str] = ()
) -> Iterator[Case]:
    """The cases of a platform, for sizes as powers of 2, of the operations that have all `words` in their names."""
    for operation in operations():
        here = not operation.platforms or platform in operation.platforms
        if here and all(word in operation.name for word in words):
            for dtype, exponent in itertools.product(dtypes, exponents):
                yield Case(operation, dtype, arrays.shape_of(operation.rank, 1 << exponent))
