"""Arrays in, arrays out: the operations of quantization, each with several implementations.

An implementation is a module with the functions that `reference.py` defines. `TABLE` says which module serves which
name on which platform; a new one is a module and a row.
"""

if __name__ == "kernels":
    raise ImportError(
        "this folder is the package intnumerics.kernels: write `from intnumerics import kernels` "
        "(the name `kernels` belongs to another project on the Python package index)"
    )

import dataclasses
import functools
import importlib
from collections.abc import Callable
from typing import Any

from .generators import noise
from .spec import Draw as Draw
from .spec import Generator as Generator
from .spec import QuantSpec as QuantSpec
from .spec import packed_shape as packed_shape


@dataclasses.dataclass(frozen=True)
class Implementation:
    """One row of the table; of two rows of a name that serve a platform, the first does.

    Attributes:
        name: What users write as `implementation=`.
        platform: The platform that it is lowered for, as JAX names it, or None for every one.
        module: The module's name in this package; it is imported when it is first used.
        dtypes: Names of the dtypes that it takes.
        is_kernel: Whether it calls a kernel, which XLA can neither split over devices nor fuse.
        interpretable: Whether it is a kernel that `interpret=True` runs on a CPU.
        install: What a user without the platform or package would install.
        generators: Names of the generators whose noise it draws while it quantizes, or before (see `spec.Draw`).
    """

    name: str
    platform: str | None
    module: str
    dtypes: tuple[str, ...]
    is_kernel: bool = False
    interpretable: bool = False
    install: str = ""
    generators: tuple[Generator, ...] = noise.PLAIN

    def operation(self, name: str, interpret: bool = False) -> Callable[..., Any] | None:
        """The module's function of a name, in interpret mode if asked for; None if the module does not have it."""
        function = getattr(importlib.import_module(f".{self.module}", __name__), name, None)
        return functools.partial(function, interpret=True) if function and interpret else function


KERNEL_DTYPES = ("float32", "bfloat16", "float16")
ALL_DTYPES = (*KERNEL_DTYPES, "float64")

TABLE = (
    Implementation("reference", None, "reference", ALL_DTYPES),
    Implementation("xla", "cpu", "xla.cpu", ALL_DTYPES),
    Implementation("xla", "cuda", "xla.gpu", ALL_DTYPES),
    Implementation("xla", "tpu", "xla.tpu", ALL_DTYPES),
    Implementation("xla", None, "xla.operations", ALL_DTYPES),
    Implementation(
        "pallas",
        "cuda",
        "pallas_triton",
        KERNEL_DTYPES,
        is_kernel=True,
        interpretable=True,
        install="pip install 'intnumerics[cuda13]'",
    ),
    Implementation(
        "pallas",
        "tpu",
        "pallas_tpu",
        KERNEL_DTYPES,
        is_kernel=True,
        interpretable=True,
        install="pip install 'intnumerics[tpu]'",
        generators=(*noise.PLAIN, "hardware"),
    ),
    Implementation(
        "jax_triton",
        "cuda",
        "jax_triton",
        KERNEL_DTYPES,
        is_kernel=True,
        install="pip install 'intnumerics[triton]'",
    ),
)
