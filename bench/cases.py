"""Which cases there are: an operation, a dtype and a shape, with every way to do it."""

import dataclasses
import importlib.util
import math
from collections.abc import Iterable, Iterator

from bench import arrays
from bench.names import INTERPRETED
from bench.operations import Operation, operations
from intnumerics.kernels import TABLE

DTYPES = ("float32", "bfloat16")
EXPONENTS = (12, 15, 18, 21, 24, 27, 30)
QUICK_DTYPES, QUICK_EXPONENTS = ("bfloat16",), (20,)
RANK_3_EXPONENTS = (18, 24)  # of operations that are measured with one axis as well


@dataclasses.dataclass(frozen=True)
class Case:
    """What is measured together.

    Attributes:
        operation: What is done.
        dtype: The dtype of x.
        shape: The shape of x.
    """

    operation: Operation
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Elements of x."""
        return math.prod(self.shape)

    @property
    def name(self) -> str:
        """What it is called."""
        return f"{self.operation.name}, {self.dtype} [{', '.join(map(str, self.shape))}]"


def implementations(platform: str) -> tuple[str, ...]:
    """Those of ours that have a name on a platform, as JAX names it."""
    return tuple(dict.fromkeys(row.name for row in TABLE if row.platform in (None, platform)))


def here(platform: str, interpreted: bool = False) -> tuple[str, ...]:
    """Those of `implementations` that can run here, but for the reference: what they need is installed.

    Args:
        platform: As JAX names it.
        interpreted: Whether a kernel for CUDA is to be among them where there is no such device, interpreted.
    """
    missing = {"jax_triton"} if importlib.util.find_spec("jax_triton") is None else set()
    found = tuple(name for name in implementations(platform) if name not in {"reference", *missing})
    return (*found, INTERPRETED) if interpreted and platform != "cuda" else found


def select(
    platform: str,
    exponents: Iterable[int],
    dtypes: Iterable[str] = DTYPES,
    words: Iterable[str] = (),
    every_rank: bool = False,
) -> Iterator[Case]:
    """The cases of a platform.

    Args:
        platform: As JAX names it.
        exponents: Sizes, as powers of 2.
        dtypes: Dtypes of x.
        words: What must all be in the name of an operation.
        every_rank: Whether every size is measured with three axes too, and not a small and a large one alone.
    """
    for operation in operations():
        if operation.platforms and platform not in operation.platforms:
            continue
        if not all(word in operation.name for word in words):
            continue
        for dtype in dtypes:
            for exponent in exponents:
                for rank in operation.ranks:
                    if rank == 1 or operation.ranks == (3,) or every_rank or exponent in RANK_3_EXPONENTS:
                        yield Case(operation, dtype, arrays.shape_of(rank, 1 << exponent))
