"""One way to do an operation, as it is measured."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from bench import checks


@dataclasses.dataclass(frozen=True)
class Variant:
    """A function, and how it is called.

    Attributes:
        function: What is measured.
        takes: Names of the arrays that it is called with, as `arrays.py` makes them.
        kind: `"jit"`, `"eager"`, or `"torch"` for a function of PyTorch's tensors.
        agrees: What is asked of its first result, of `checks.py`.
    """

    function: Callable[..., Any]
    takes: tuple[str, ...]
    kind: Literal["jit", "eager", "torch"] = "jit"
    agrees: Callable[[np.ndarray, np.ndarray], str] = checks.same_values
