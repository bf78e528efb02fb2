"""The implementation that is the fastest known for each operation: `implementation=None`.

On a CPU and on a GPU it is what was measured (`docs/benchmarks.md`); for a TPU it is what the compilers' counts say
(`bench/aot/counts`), as nothing was timed on one. A size that is a symbol counts as large.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import jax.numpy as jnp
import numpy as np

from ._operation import Shape, Typed
from .kernels import KERNEL_DTYPES, Draw, QuantSpec
from .kernels.generators import hashed
from .kernels.gpu import tuning
from .kernels.gpu.shapes import draws_in_kernel
from .kernels.spec import is_static

# GPUs whose memory is so quick that XLA's Philox, which arithmetic bounds, takes 1.5 times as long as a kernel for
# float32 to int8. On an H100 it takes 1.1 times as long by itself, and 0.7 times between gelu and a dot.
QUICK_MEMORY = ("NVIDIA H200",)

LONGEST_ROW = 1 << 16  # elements that a kernel reads for one scale


def of_quantization(
    spec: QuantSpec, packed_rows: Shape | None, platform: str | None, operands: Sequence[Typed], allows_kernels: bool
) -> str:
    """The fastest implementation of a quantization; `packed_rows` is the shape in which a mask is packed."""
    x = operands[0]
    if spec.to_float is not None:
        is_kernel = allows_kernels and platform == "tpu" and _is_cast_by_tpu_kernel(spec.draw, x)
        return "pallas" if is_kernel else "xla"
    if platform == "cpu" and _starts_no_threads(spec, x):
        return "reference"
    if allows_kernels and platform == "cuda" and _is_drawn_by_gpu_kernel(spec, operands):
        return "pallas"
    if allows_kernels and platform == "tpu" and _is_drawn_by_tpu_kernel(spec.draw, x):
        return "pallas"
    if packed_rows is None or any(operand.dtype == np.float64 for operand in operands[1:]):  # noise no kernel reads
        return "xla"
    return with_mask(packed_rows, platform, operands, allows_kernels)


def of_absmax(block: int | None, platform: str | None, operands: Sequence[Typed], allows_kernels: bool) -> str:
    """The fastest that quantizes by the maxima of rows or blocks: a kernel reads x once, and XLA twice.

    One core handles a row, so XLA, which gives a row to many, is left the longest rows. A CPU reads small arrays from
    its cache, so that the formula as it stands, without "xla"'s barrier between the reads, is sooner done.
    """
    x = operands[0]
    if platform == "cpu" and _is_small(x):
        return "reference"
    if not allows_kernels or platform not in ("cuda", "tpu") or x.dtype.name not in KERNEL_DTYPES:
        return "xla"
    if any(operand.dtype == np.float64 for operand in operands[1:]):  # noise no kernel reads
        return "xla"
    return "pallas" if block is not None or x.shape[-1] <= LONGEST_ROW else "xla"


def with_mask(packed_rows: Shape, platform: str | None, operands: Sequence[Typed], allows_kernels: bool) -> str:
    """The fastest that packs or unpacks a mask: a TPU kernel moves a third of the bytes that XLA does.

    Where the array does not lie in memory in whole tiles, XLA would copy it for the kernel.
    """
    if allows_kernels and platform == "tpu" and _is_in_whole_tiles(packed_rows, operands[0].dtype):
        return "pallas"
    return "xla"


def of_clip_from_x(platform: str | None, operands: Sequence[Typed]) -> str:
    """The fastest that masks a gradient by x: on a CPU that is the formula as it stands in bfloat16."""
    return "reference" if platform == "cpu" and all(a.dtype == jnp.bfloat16 for a in operands) else "xla"


def _starts_no_threads(spec: QuantSpec, x: Typed) -> bool:
    """Whether XLA for CPU does the formula as it stands sooner than it starts threads for the form of "xla".

    The formula has fewer operations, so that XLA starts no threads for small arrays of float32 that become integers.
    """
    draws_in_16_bits = spec.draw is not None and spec.draw.generator in ("philox", "hash")
    return spec.integer_dtype is not None and x.dtype == jnp.float32 and _is_small(x) and not draws_in_16_bits


def _is_small(x: Typed) -> bool:
    return is_static(x.shape) and math.prod(x.shape) <= 1 << 16


def _is_drawn_by_gpu_kernel(spec: QuantSpec, operands: Sequence[Typed]) -> bool:
    """Whether the CUDA kernel draws noise for x sooner than XLA does.

    For 16-bit floats it takes half to three quarters of XLA's time, and saves more than fusion with the neighbours
    does. From float32 to integers that is so on `QUICK_MEMORY` alone; from float32 to float32 both take as long as a
    copy. There is no gain where the kernel would read noise that XLA draws before it. The examples of a batch do not
    share a block, so small ones would leave most of it idle.
    """
    if spec.draw is None or operands[0].dtype.name not in KERNEL_DTYPES:
        return False
    x, seed = operands
    if x.dtype == jnp.float32 and (spec.integer_dtype is None or tuning.device_kind() not in QUICK_MEMORY):
        return False
    fills_blocks = len(seed.shape) == 1 or math.prod(spec.draw.shape) >= tuning.SMALL.block
    return fills_blocks and draws_in_kernel(cast(Any, x), cast(Any, seed), spec, ("philox",))


def _is_drawn_by_tpu_kernel(draw: Draw | None, x: Typed) -> bool:
    """Whether the TPU kernel draws noise for each element of x: Philox in a sixth of XLA's instructions, a hash in 0.7.

    A batch of rows is left to XLA: to the kernel each row is an array of its own, for which XLA would copy them all.
    """
    if draw is None or draw.generator not in ("philox", "hash") or x.dtype.name not in KERNEL_DTYPES:
        return False
    rank, n = len(x.shape), math.prod(x.shape)
    is_served = draw.is_in_rows_of_blocks if draw.generator == "philox" else hashed.is_of_two_pairs(draw)
    if draw.shape != tuple(x.shape)[rank - len(draw.shape) :] or not is_served:
        return False
    if len(draw.shape) == 1:  # blocks that do not depend on the chip
        return rank == 1 and (n < 1 << 15 or n % 1024 == 0)
    return True


def _is_cast_by_tpu_kernel(draw: Draw | None, x: Typed) -> bool:
    """Whether the TPU kernel rounds x to smaller floats.

    From float32, memory leaves XLA time for the arithmetic, except Philox's, and XLA fuses it with an optimizer's.
    """
    takes_longer = draw is not None and (draw.generator == "philox" or x.dtype != jnp.float32)
    return takes_longer and _is_drawn_by_tpu_kernel(draw, x)


def _is_in_whole_tiles(shape: Shape, dtype: np.dtype) -> bool:
    """Whether a TPU kernel takes x as it lies in memory: float32 or bfloat16 in whole tiles of 8 rows of 128 lanes."""
    lanes = shape[-1]
    rows = shape[-2] if len(shape) > 1 else lanes // 128
    return dtype in (jnp.float32, jnp.bfloat16) and lanes % 128 == 0 and rows % 8 == 0 and math.prod(shape) > 0
