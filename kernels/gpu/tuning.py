"""How the CUDA kernels divide an array: the block size and the number of warps.

`TABLE` has a row for each implementation, device, dtype and operation that was measured to be faster than the heuristic
defaults; `python -m tools.tune --store` writes the rows of the device that it runs on. All others use the defaults. The
results have the same bits either way.

The blocks of the TPU kernels follow from an array's shape and a chip's memory: see `pallas_tpu/tiling.py`.
"""

import dataclasses
from typing import Literal

import numpy as np

from .. import devices
from ..spec import QuantSpec

Kernels = Literal["pallas_triton", "pallas_mosaic_gpu", "jax_triton"]  # the implementations that have blocks

WARP = 32  # threads
PER_THREAD = 8  # elements at least: one Philox block serves eight, and eight 16-bit numbers are 128 bits
BUSY = 512  # blocks that keep the 132 cores of an H100 busy


@dataclasses.dataclass(frozen=True)
class Configuration:
    """How an array is divided.

    Attributes:
        block: The number of elements that a program handles, a power of 2.
        warps: The number of its warps of 32 threads, a power of 2.

    Raises:
        ValueError: Not powers of 2, more warps than CUDA allows, or fewer than eight elements per thread.
    """

    block: int
    warps: int

    def __post_init__(self) -> None:
        if self.block.bit_count() != 1 or self.warps.bit_count() != 1 or self.warps > WARP:
            raise ValueError(f"{self} is invalid: block and warps are powers of 2, and warps are {WARP} at most")
        if self.block < PER_THREAD * self.threads:
            raise ValueError(
                f"{self} has under {PER_THREAD} elements per thread: make block at least {PER_THREAD * self.threads}"
            )

    @property
    def threads(self) -> int:
        """The number of threads of a program."""
        return WARP * self.warps


@dataclasses.dataclass(frozen=True)
class Row:
    """A configuration that was measured to be faster than the defaults.

    Attributes:
        implementation: The implementation that was measured; others do not use the row.
        device: The device, as JAX's `device_kind` names it.
        dtype: Name of the dtype of x, or of the gradient.
        operation: As `quantization`, `FROM_MASK` or `FROM_X` name it.
        configuration: The fastest configuration.
        measured: When, with which versions and on how many elements it was measured, and how much time it saves.
    """

    implementation: Kernels
    device: str
    dtype: str
    operation: str
    configuration: Configuration
    measured: str


SMALL = Configuration(1024, 4)  # 8 elements per thread: many blocks, which keep all cores busy
LARGE = Configuration(4096, 4)  # 32 elements share the set-up of a thread
DRAWING = Configuration(8192, 4)  # if noise is drawn, the set-up takes longer

# The lines between the two marks are written by `python -m tools.tune --store`.
# fmt: off
TABLE: tuple[Row, ...] = (
    Row("pallas_triton", "NVIDIA H100 80GB HBM3", "float32", "quantize, noise drawn", Configuration(4096, 16),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 16.1% less device time"),
    Row("pallas_triton", "NVIDIA H100 80GB HBM3", "float32", "quantize, noise drawn, with mask",
        Configuration(4096, 16), "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 14.3% less device time"),
    Row("pallas_triton", "NVIDIA H100 80GB HBM3", "bfloat16", "quantize, noise drawn", Configuration(1024, 4),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 4.0% less device time"),
    Row("pallas_triton", "NVIDIA H200", "float32", "quantize to int8, noise drawn", Configuration(2048, 8),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 2.4% less device time"),
    Row("pallas_triton", "NVIDIA H200", "float32", "quantize, noise drawn", Configuration(4096, 16),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 23.1% less device time"),
    Row("pallas_triton", "NVIDIA H200", "float32", "quantize, noise drawn, with mask", Configuration(1024, 4),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 19.9% less device time"),
    Row("pallas_triton", "NVIDIA H200", "float32", "quantize, with mask", Configuration(2048, 8),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 2.4% less device time"),
    Row("pallas_triton", "NVIDIA H200", "bfloat16", "clip gradient from mask", Configuration(1024, 4),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 4.6% less device time"),
    Row("pallas_triton", "NVIDIA H200", "bfloat16", "quantize", Configuration(1024, 4),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 4.5% less device time"),
    Row("pallas_triton", "NVIDIA H200", "bfloat16", "quantize, noise drawn", Configuration(1024, 2),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 4.0% less device time"),
    Row("pallas_triton", "NVIDIA H200", "bfloat16", "quantize, noise drawn, with mask", Configuration(8192, 8),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 4.2% less device time"),
    Row("pallas_triton", "NVIDIA H200", "bfloat16", "quantize, with mask", Configuration(1024, 4),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 3.0% less device time"),
    Row("pallas_triton", "NVIDIA H200", "float16", "clip gradient from mask", Configuration(1024, 4),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 3.5% less device time"),
    Row("pallas_triton", "NVIDIA H200", "float16", "clip gradient from x", Configuration(1024, 2),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 2.5% less device time"),
    Row("pallas_triton", "NVIDIA H200", "float16", "quantize", Configuration(2048, 4),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 4.5% less device time"),
    Row("pallas_triton", "NVIDIA H200", "float16", "quantize, noise drawn, with mask", Configuration(8192, 8),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 3.5% less device time"),
    Row("pallas_triton", "NVIDIA H200", "float16", "quantize, with mask", Configuration(1024, 4),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 2.5% less device time"),
)
# fmt: on


@dataclasses.dataclass(frozen=True)
class RowConfiguration:
    """How an array is divided whose rows have a scale each. Each thread has eight elements at a time.

    Attributes:
        threads: The number of threads that share a row, a power of 2.
        warps: The number of a program's warps, a power of 2.
    """

    threads: int
    warps: int

    @property
    def all_threads(self) -> int:
        """The number of threads of a program."""
        return WARP * self.warps

    @property
    def rows(self) -> int:
        """The number of rows of a program."""
        return self.all_threads // self.threads


HELD = 40  # elements of a row per thread: all threads compute the scale, which takes as long as four elements do
ROW_WARPS = 4, 16  # of a program that has several rows, and of one that has a long row


def of_rows(features: int, rows: int, examples: int = 1) -> RowConfiguration:
    """The configuration for `examples` times `rows` rows of so many elements."""
    most, eights = WARP * ROW_WARPS[1], -(-features // PER_THREAD)
    # Four threads with a byte per element write at least a sector of 32 bytes, which is what memory transfers.
    threads = 1 << (max(-(-features // HELD), min(eights, 4)) - 1).bit_length()
    threads, warps = min(threads, most), ROW_WARPS[0]
    while warps > 1 and (rows * threads < WARP * warps or rows * examples * threads < BUSY * WARP * warps):
        warps //= 2
    return RowConfiguration(threads, max(warps, threads // WARP))


FROM_MASK, FROM_X = "clip gradient from mask", "clip gradient from x"


def quantization(spec: QuantSpec, with_noise: bool) -> str:
    """The name of a quantization in the table.

    Example:
        >>> quantization(QuantSpec(127.0, clip=True, rounding="half_to_even", with_mask=True), with_noise=True)
        'quantize, noise read, with mask'
    """
    to = f" to {spec.integer_dtype.name}" if spec.integer_dtype is not None else ""
    noise = "" if not with_noise else ", noise read" if spec.draw is None else ", noise drawn"
    return f"quantize{to}{noise}{', with mask' if spec.with_mask else ''}"


def key_of(row: Row) -> tuple[Kernels, str, str, str]:
    """What a row is for; the table has one row at most for each key."""
    return row.implementation, row.device, row.dtype, row.operation


def defaults(operation: str) -> tuple[Configuration, ...]:
    """The configurations for a device that is not in the table, the largest first."""
    return (DRAWING, LARGE, SMALL) if "noise drawn" in operation else (LARGE, SMALL)


def configuration(
    implementation: Kernels, device: str | None, dtype: str, operation: str, n: int, examples: int = 1
) -> Configuration:
    """The configuration for `examples` times `n` elements; `device` is None if it is not known.

    The candidates are that of the row in the table, and then the defaults, the largest first. The first one is chosen
    whose block `n` elements fill, and that makes enough blocks to keep a device busy; or else the smallest default.
    """
    key = (implementation, device, dtype, operation)
    measured = (row.configuration for row in TABLE if key_of(row) == key)
    choices = (*measured, *defaults(operation))
    return next((c for c in choices if n >= c.block and n * examples >= BUSY * c.block), choices[-1])


def device_kind() -> str | None:
    """JAX's name for the CUDA device to compile for (see `devices.device_kind`)."""
    return devices.device_kind("cuda")


def here(
    implementation: Kernels, dtype: np.dtype, operation: str, interpret: bool, n: int, examples: int = 1
) -> Configuration:
    """`configuration` for the device to compile for; in interpret mode there is no device."""
    device = None if interpret else device_kind()
    return configuration(implementation, device, np.dtype(dtype).name, operation, n, examples)
