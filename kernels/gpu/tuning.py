"""How the CUDA kernels divide an array: elements of a block and warps of a program, by device, dtype and operation.

`TABLE` holds what was measured, one row for each; `python -m tools.tune --store` writes it, on the device that it is
for. A device, dtype or operation without a row has the heuristic defaults. Results are the same bits either way.

The blocks of the TPU kernels follow from an array's shape and a chip's memory: see `pallas_tpu/tiling.py`.
"""

import dataclasses

import jax
import numpy as np

from ..spec import QuantSpec

WARP = 32  # threads
PER_THREAD = 8  # elements at least: what one Philox block serves, and 128 bits of 16-bit numbers
BUSY = 512  # blocks from which the 132 cores of an H100 are busy


@dataclasses.dataclass(frozen=True)
class Configuration:
    """How an array is divided.

    Attributes:
        block: Elements that a program handles, a power of 2.
        warps: Warps of 32 threads that it has, a power of 2.

    Raises:
        ValueError: Not powers of 2, more warps than CUDA has, or fewer than eight elements a thread.
    """

    block: int
    warps: int

    def __post_init__(self) -> None:
        if self.block.bit_count() != 1 or self.warps.bit_count() != 1 or self.warps > WARP:
            raise ValueError(f"{self} is none: block and warps are powers of 2, and warps are {WARP} at most")
        if self.block < PER_THREAD * self.threads:
            raise ValueError(
                f"{self} has fewer than {PER_THREAD} elements a thread: make block at least {PER_THREAD * self.threads}"
            )

    @property
    def threads(self) -> int:
        """Threads of a program."""
        return WARP * self.warps


@dataclasses.dataclass(frozen=True)
class Row:
    """What was measured to be faster than the defaults.

    Attributes:
        device: The device, as JAX's `device_kind` names it.
        dtype: Name of the dtype of x, or of the gradient.
        operation: As `quantization`, `FROM_MASK` or `FROM_X` name it.
        configuration: What was the fastest there.
        measured: When, with which versions, on how many elements, and by how much it was faster.
    """

    device: str
    dtype: str
    operation: str
    configuration: Configuration
    measured: str


SMALL = Configuration(1024, 4)  # 8 elements a thread keep all cores busy
LARGE = Configuration(4096, 4)  # 32 spread the set-up thin
DRAWING = Configuration(8192, 4)  # and where noise is drawn there is more of it

# The lines between the two marks are written by `python -m tools.tune --store`.
# fmt: off
TABLE: tuple[Row, ...] = (
    Row("NVIDIA H100 80GB HBM3", "bfloat16", "quantize to int8, noise drawn", Configuration(2048, 2),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 3.2% less device time"),
    Row("NVIDIA H100 80GB HBM3", "bfloat16", "quantize, noise drawn, with mask", Configuration(1024, 4),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 5.4% less device time"),
    Row("NVIDIA H200", "float32", "quantize to int8, noise drawn", Configuration(2048, 8),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 2.4% less device time"),
    Row("NVIDIA H200", "float32", "quantize, noise drawn", Configuration(4096, 16),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 23.1% less device time"),
    Row("NVIDIA H200", "float32", "quantize, noise drawn, with mask", Configuration(1024, 4),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 19.9% less device time"),
    Row("NVIDIA H200", "float32", "quantize, with mask", Configuration(2048, 8),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 2.4% less device time"),
    Row("NVIDIA H200", "bfloat16", "clip gradient from mask", Configuration(1024, 4),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 4.6% less device time"),
    Row("NVIDIA H200", "bfloat16", "quantize", Configuration(1024, 4),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 4.5% less device time"),
    Row("NVIDIA H200", "bfloat16", "quantize, noise drawn", Configuration(1024, 2),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 4.0% less device time"),
    Row("NVIDIA H200", "bfloat16", "quantize, noise drawn, with mask", Configuration(8192, 8),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 4.2% less device time"),
    Row("NVIDIA H200", "bfloat16", "quantize, with mask", Configuration(1024, 4),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 3.0% less device time"),
    Row("NVIDIA H200", "float16", "clip gradient from mask", Configuration(1024, 4),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 3.5% less device time"),
    Row("NVIDIA H200", "float16", "clip gradient from x", Configuration(1024, 2),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 2.5% less device time"),
    Row("NVIDIA H200", "float16", "quantize", Configuration(2048, 4),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 4.5% less device time"),
    Row("NVIDIA H200", "float16", "quantize, noise drawn, with mask", Configuration(8192, 8),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 3.5% less device time"),
    Row("NVIDIA H200", "float16", "quantize, with mask", Configuration(1024, 4),
        "2026-11-27, JAX 0.11.2, driver 580.159.04, 2**26 elements: 2.5% less device time"),
)
# fmt: on

FROM_MASK, FROM_X = "clip gradient from mask", "clip gradient from x"


def quantization(spec: QuantSpec, with_noise: bool) -> str:
    """What a quantization is called in the table.

    Example:
        >>> quantization(QuantSpec(127.0, clip=True, rounding="half_to_even", with_mask=True), with_noise=True)
        'quantize, noise read, with mask'
    """
    to = f" to {spec.integer_dtype.name}" if spec.integer_dtype is not None else ""
    noise = "" if not with_noise else ", noise read" if spec.draw is None else ", noise drawn"
    return f"quantize{to}{noise}{', with mask' if spec.with_mask else ''}"


def defaults(operation: str) -> tuple[Configuration, ...]:
    """The configurations for a device that is not in the table, the larger first."""
    return (DRAWING, LARGE, SMALL) if "noise drawn" in operation else (LARGE, SMALL)


def configuration(device: str | None, dtype: str, operation: str, n: int, examples: int = 1) -> Configuration:
    """The configuration for `examples` times `n` elements: that of the table's row, then the defaults by size.

    It is the first of them that `n` elements fill a block of, and that there are enough blocks of to keep a device
    busy; or else the smallest default.

    Args:
        device: What JAX's `device_kind` says, or None where the device is not known.
        dtype: Name of the dtype of x, or of the gradient.
        operation: As `quantization`, `FROM_MASK` or `FROM_X` name it.
        n: Elements of an example.
        examples: How many examples there are.
    """
    key = (device, dtype, operation)
    measured = (row.configuration for row in TABLE if (row.device, row.dtype, row.operation) == key)
    choices = (*measured, *defaults(operation))
    return next((c for c in choices if n >= c.block and n * examples >= BUSY * c.block), choices[-1])


def device_kind() -> str | None:
    """What JAX calls the CUDA device that is compiled for: that of the mesh that is set, or of this process.

    None where there is neither, as where a program is exported on a machine that has no such device.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is not None and device.platform in ("gpu", "cuda"):
        return device.device_kind
    try:
        return jax.local_devices(backend="cuda")[0].device_kind
    except RuntimeError:  # as JAX says that it has no such backend
        return None


def here(dtype: np.dtype, operation: str, interpret: bool, n: int, examples: int = 1) -> Configuration:
    """`configuration` on the device that is compiled for; in interpret mode there is none."""
    return configuration(None if interpret else device_kind(), np.dtype(dtype).name, operation, n, examples)
