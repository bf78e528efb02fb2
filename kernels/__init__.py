"""Arrays in, arrays out: the operations of quantization, each with several implementations.

An implementation is a room: a module or package whose functions are named as in `reference.py`, which documents them.
`TABLE` says which room serves which name on which platform. To add an implementation, write a room and add a row. A
room need not have every operation.
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
from typing import Any, Literal

from .generators import PLAIN
from .generators import Generator as Generator
from .gpu import pallas
from .spec import Draw as Draw
from .spec import FloatRounding as FloatRounding
from .spec import QuantSpec as QuantSpec
from .spec import Scaling as Scaling
from .spec import packed_shape as packed_shape

Operation = Callable[..., Any]
# What users write as `implementation=`: the names of the table, and "pallas" for CUDA too, where it is one of two.
Name = Literal["reference", "xla", "pallas", "pallas_triton", "pallas_mosaic_gpu", "jax_triton"]
Interpreted = Literal["cuda", "tpu"]  # and as `interpret=`


@dataclasses.dataclass(frozen=True)
class Implementation:
    """One row of the table. If two rows of a name serve a platform, the first one is used.

    Attributes:
        name: One of `Name`.
        platform: The platform that it is lowered for, as JAX names it, or None for every platform.
        room: The module in this package that has the functions; it is imported when it is first used.
        dtypes: Names of the dtypes of the floats that it takes.
        is_kernel: Whether it calls a kernel, which XLA can neither split over devices nor fuse.
        interpretable: Whether `interpret=True` runs its kernels on a CPU.
        install: What a user without the platform or package would install.
        in_pass: The generators whose noise its kernels can draw while they quantize.
        by_platform: The operations that are told the platform, as `platform=`, because their form depends on it.
    """

    name: Name
    platform: str | None
    room: str
    dtypes: tuple[str, ...]
    is_kernel: bool = False
    interpretable: bool = False
    install: str = ""
    in_pass: tuple[Generator, ...] = ()
    by_platform: tuple[str, ...] = ()

    @property
    def generators(self) -> tuple[Generator, ...]:
        """The generators whose noise it draws, while it quantizes or before (see `spec.Draw`)."""
        return tuple(dict.fromkeys((*PLAIN, *self.in_pass)))

    def operation(self, name: str, interpret: bool = False) -> Operation | None:
        """The function of an operation, to be interpreted or not; None if the room does not have it."""
        function: Operation | None = getattr(importlib.import_module(f".{self.room}", __name__), name, None)
        options: dict[str, Any] = {"platform": self.platform} if name in self.by_platform else {}
        if interpret:
            options["interpret"] = True
        return functools.partial(function, **options) if function and options else function


KERNEL_DTYPES = ("float32", "bfloat16", "float16")
ALL_DTYPES = (*KERNEL_DTYPES, "float64")


def _kernel(name: Name, platform: str, room: str, extra: str, **fields: Any) -> Implementation:
    """A row for a room of kernels, which need what this package's extra installs."""
    install = f"pip install 'intnumerics[{extra}]'"
    return Implementation(name, platform, room, KERNEL_DTYPES, is_kernel=True, install=install, **fields)


FORMS = ("quantize", "quantize_by_scale", "quantize_by_absmax", "absmax")  # whose plain form depends on the platform

TABLE = (
    Implementation("reference", None, "reference", ALL_DTYPES),
    Implementation("xla", "cpu", "xla", ALL_DTYPES, by_platform=FORMS),
    Implementation("xla", "cuda", "xla", ALL_DTYPES, by_platform=FORMS),
    Implementation("xla", "tpu", "xla", ALL_DTYPES, by_platform=FORMS),
    Implementation("xla", None, "xla", ALL_DTYPES),
    _kernel("pallas_triton", "cuda", "pallas_triton", extra="cuda13", interpretable=True, in_pass=("philox", "hash")),
    _kernel(
        "pallas_mosaic_gpu",
        "cuda",
        "pallas_mosaic_gpu",
        extra="cuda13",
        interpretable=True,
        in_pass=("philox", "hash"),
    ),
    _kernel("pallas", "tpu", "pallas_tpu", extra="tpu", interpretable=True, in_pass=("philox", "hash", "hardware")),
    _kernel("jax_triton", "cuda", "jax_triton", extra="triton", in_pass=("philox", "hash")),
)


def rows_of(name: str) -> list[Implementation]:
    """The rows of a name that users write; for CUDA `"pallas"` is one of two rows."""
    on_cuda = pallas.compiler() if name == "pallas" else name
    return [row for row in TABLE if row.name == (on_cuda if row.platform == "cuda" else name)]
