"""The description of an operation that is measured, and how ours is called."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bench import variant
from bench.names import INTERPRETED, INTERPRETED_MOSAIC, OURS
from bench.variant import Function, Variant
from intnumerics.kernels import rows_of

Arrays = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Operation:
    name: str
    takes: tuple[str, ...]  # names of the arrays of our function: what must be read at least
    ours: Callable[[str | None], Function]  # our function, given the name of an implementation or None
    others: Mapping[str, Variant]  # the baselines by name; ratios are to the speed of the first
    expected: Callable[[Arrays], Any]  # the first result in NumPy, or it and scales, from the first rows of the arrays
    agrees: Callable[[np.ndarray, np.ndarray], str] = variant.same_values  # what is asked of our result
    scales_agree: Callable[[np.ndarray, np.ndarray], str] = variant.same_values  # and of our scales, if there are some
    rank: int = 1  # the number of axes of x: 1; 2 for [tokens, features], or 3 for [batch, sequence, features]
    platforms: tuple[str, ...] = ()  # where it runs; empty for everywhere
    needs: str = ""  # the operation of `kernels` that it is, if not every implementation has that

    @property
    def baseline(self) -> str:
        """The name of what ratios are to."""
        return next(iter(self.others))

    def variants(self, implementations: tuple[str, ...]) -> dict[str, Variant]:
        """Every way to do it, by name: ours with `None` and by the names given, then the others."""
        names = (None, *(name for name in implementations if not self.needs or has(name, self.needs)))
        made = functools.partial(Variant, takes=self.takes, agrees=self.agrees, scales_agree=self.scales_agree)
        ours = {f"{OURS}, {name}" if name else OURS: made(self.ours(name)) for name in names}
        return ours | dict(self.others)


def how(name: str | None) -> dict[str, Any]:
    """The arguments of our functions that run an implementation, by the name that it has in the results."""
    if name in (INTERPRETED, INTERPRETED_MOSAIC):
        return {"implementation": name.split()[0], "interpret": "cuda"}
    return {"implementation": name}


def has(name: str, operation: str) -> bool:
    """Whether an implementation, by its name in the results, has an operation, or cannot be imported to tell."""
    options = how(name)
    rows = [r for r in rows_of(options["implementation"]) if r.platform == options.get("interpret", r.platform)]
    try:
        return any(row.operation(operation) for row in rows)
    except ImportError:
        return True
