"""Which implementation runs a call: decided when the platform is known."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import mlir

from ._call import Call
from ._error_values import shown
from .kernels import KERNEL_DTYPES, TABLE, Draw, Implementation, Operation
from .kernels.gpu.shapes import draws_in_kernel
from .kernels.gpu.tuning import SMALL, device_kind
from .kernels.spec import is_static


def names() -> list[str]:
    """The names that `implementation=` takes."""
    return list(dict.fromkeys(row.name for row in TABLE))


def check(implementation: Any, interpret: Any, *dtypes: str) -> None:
    """Refuses what no platform can run, before anything is traced.

    Args:
        implementation: What the user wrote.
        interpret: What the user wrote.
        *dtypes: Names of the dtypes of the arrays of floats.

    Raises:
        ValueError: An unknown implementation or platform, or one that does not take the dtypes.
    """
    rows = [row for row in TABLE if isinstance(implementation, str) and row.name == implementation]
    if implementation is not None and not rows:
        raise ValueError(
            f"implementation={shown(implementation)} is not known: use one of {', '.join(map(repr, names()))}, "
            "or None for the fastest on the platform"
        )
    platforms = [row.platform for row in rows if row.interpretable]
    if interpret is not None and not (isinstance(interpret, str) and interpret in platforms):
        kernels = [(row.name, row.platform) for row in TABLE if row.interpretable]
        raise ValueError(
            f"interpret={shown(interpret)} with implementation={implementation!r} names no kernel: use "
            + " or ".join(f"implementation={name!r}, interpret={platform!r}" for name, platform in kernels)
            + ", or leave interpret out"
        )
    for dtype in dtypes:
        if rows and not any(dtype in row.dtypes for row in rows):
            raise ValueError(
                f"implementation={implementation!r} does not take {dtype}: it takes {', '.join(rows[0].dtypes)}; "
                "use implementation='xla', or None"
            )


def is_elsewhere(ctx: mlir.LoweringRuleContext, platform: str | None) -> bool:
    """Whether a program is to run in another place: it is exported, or lowered for a GPU where none is known."""
    unknown = platform == "cuda" and device_kind() is None
    return ctx.module_context.lowering_parameters.for_export or unknown


def is_partitioned(ctx: mlir.LoweringRuleContext) -> bool:
    """Whether XLA splits the program here: on a TPU, or in a `shard_map` along some axes of a mesh and not all."""
    context: Any = ctx.module_context.axis_context
    if hasattr(context, "manual_axes"):
        return set(context.manual_axes) != set(context.mesh.axis_names)
    return getattr(context, "num_devices", 1) > 1


def operations(
    call: Call, platform: str | None, arrays: tuple[jax.Array, ...], partitioned: bool, elsewhere: bool
) -> Callable[[str], Operation | None]:
    """The operations, by name, that serve `call` on `platform`.

    Args:
        call: What is done, and by whom.
        platform: As JAX names it, or None for one that it does not.
        arrays: What it is done to.
        partitioned: Whether XLA may split the program over several devices.
        elsewhere: Whether the program is to run in another place: it is exported, or no such device is known here.

    Raises:
        ValueError: The named implementation has no row for the platform, does not draw the noise, or is a kernel where
            XLA may split the program or where a size is a symbol.
    """
    if call.draw is not None and call.draw.generator == "hardware":
        _check_hardware(call, platform)
    if call.implementation is None:
        row = fastest(call, platform, arrays, partitioned, elsewhere)
        _check_unpartitioned(row, partitioned)
        _check_sizes(row, call, arrays)
        return row.operation
    rows = [row for row in TABLE if row.name == call.implementation]
    for row in rows:
        if row.platform in (None, call.interpret or platform):
            _check_unpartitioned(row, partitioned and call.interpret is None)
            _check_sizes(row, call, arrays)
            return functools.partial(row.operation, interpret=call.interpret is not None)
    interpretable = " or ".join(f"{row.platform!r}" for row in rows if row.interpretable)
    raise ValueError(
        f"implementation={call.implementation!r} does not run on the platform {platform!r}, only on "
        + " and ".join(f"{row.platform!r} ({row.install})" for row in rows)
        + "; use implementation=None for the fastest of each platform"
        + (f", or interpret={interpretable} to try a kernel out on a CPU, slowly" if interpretable else "")
    )


def _check_unpartitioned(row: Implementation, partitioned: bool) -> None:
    """Refuses a kernel in a program that XLA splits: it cannot split the kernel, or gathers all operands for it."""
    if partitioned and row.is_kernel:
        kernels = " or ".join(dict.fromkeys(repr(row.name) for row in TABLE if row.is_kernel))
        raise ValueError(
            f"a kernel (implementation={kernels}, or HardwareUniform) cannot be in a program that XLA splits over "
            "several devices, as on TPUs with Auto axes, and in a jax.shard_map along some axes of a mesh and not all: "
            "make the mesh with jax.make_mesh(..., axis_types=(jax.sharding.AxisType.Explicit, ...)), "
            "or call it inside jax.shard_map along all axes, or use implementation=None and PhiloxUniform"
        )


def _are_sizes_known(call: Call, arrays: tuple[jax.Array, ...]) -> bool:
    """Whether no shape has a symbol: that of no array, and of none that noise is drawn for."""
    return is_static(*(a.shape for a in arrays)) and (call.draw is None or call.draw.is_static)


def _check_sizes(row: Implementation, call: Call, arrays: tuple[jax.Array, ...]) -> None:
    """Refuses a kernel where a size is a symbol, as the blocks of a kernel are counted before it is compiled."""
    if row.is_kernel and not _are_sizes_known(call, arrays):
        shapes = [a.shape for a in arrays] + ([] if call.draw is None else [call.draw.whole])
        shape = next(shape for shape in shapes if not is_static(shape))
        kernels = " or ".join(dict.fromkeys(repr(row.name) for row in TABLE if row.is_kernel))
        raise ValueError(
            f"the shape ({', '.join(map(str, shape))}) has symbolic sizes, and a kernel (implementation={kernels}, or "
            "HardwareUniform) needs known sizes, from which its grid is made: use implementation=None and "
            "PhiloxUniform, which XLA compiles for any size, or export the function for fixed shapes"
        )


def _check_hardware(call: Call, platform: str | None) -> None:
    """Refuses the generator that is in the hardware where there is no such hardware, or no way to it."""
    rows = [row for row in TABLE if "hardware" in row.generators and call.implementation in (None, row.name)]
    if not rows:
        raise ValueError(
            f"noise_fn=HardwareUniform() is not drawn by implementation={call.implementation!r}: use "
            "implementation='pallas', or None, or PhiloxUniform() as the noise function"
        )
    if call.interpret is not None or platform not in [row.platform for row in rows]:
        where = f"the platform {platform!r}" if call.interpret is None else "Pallas' interpret mode"
        raise ValueError(
            f"noise_fn=HardwareUniform() needs a TPU, and {where} has no such generator: use PhiloxUniform(), which "
            "gives the same noise on every platform"
        )


def fastest(
    call: Call, platform: str | None, arrays: tuple[jax.Array, ...], partitioned: bool, elsewhere: bool
) -> Implementation:
    """The row that serves `call` best on `platform`.

    On a CPU it is what was measured (`docs/benchmarks.md`): "xla", whose operations make the fewer instructions, but
    for two cases of the formula as it stands. It has the fewer operations, so that XLA starts no threads for it, where
    small arrays of float32 become integers; and it masks a gradient by an x of bfloat16 in no more time, or less.

    On a GPU it is what was measured on an H200: a kernel where it draws Philox noise for 16-bit floats or for integers,
    in half to five sixths of XLA's time, which in all is more than fusion with the neighbours saves. Else it is XLA: a
    kernel reads and writes 16-bit arrays faster than XLA does, but it keeps the neighbours apart, which costs more. And
    it is XLA in a program that is exported, for JAX does not promise to run a stored kernel for a GPU later, and where
    no GPU is known, without which newer versions of JAX do not lower a kernel.

    For a TPU it is what the compilers say (`bench/aot/counts`), as no kernel has been timed on one yet. A kernel draws
    that noise in a sixth of XLA's instructions there, and packs and unpacks a mask in a third of the bytes. It is XLA
    all the same where it would have to copy the array for a kernel that packs, because of its layout.

    It is XLA, too, where XLA partitions the program: a kernel would have all of the array on every device there.

    A size that is a symbol, in a program exported for many shapes, counts as large; and no kernel serves it, as its
    grid would depend on the symbol.
    """
    rows, x = {row.name: row for row in reversed(TABLE) if row.platform in (None, platform)}, arrays[0]
    if call.draw is not None and call.draw.generator == "hardware":
        return rows["pallas"]
    if platform == "cpu" and (_is_quick_on_one_thread(call, x) or _masks_by_bfloat16(call, arrays)):
        return rows["reference"]
    if partitioned or not _are_sizes_known(call, arrays):
        return rows["xla"]
    if platform == "cuda" and not elsewhere and _is_drawn_by_gpu_kernel(call, arrays):
        return rows["pallas"]
    if platform == "tpu":
        packs_well = call.packing is not None and _is_in_whole_tiles(call.rows(x.shape), x.dtype)
        if packs_well or _is_drawn_well_on_tpu(call.draw, x):
            return rows["pallas"]
    return rows["xla"]


def _is_quick_on_one_thread(call: Call, x: jax.Array) -> bool:
    """Whether XLA for CPU does the formula as it stands sooner than it starts threads for another form."""
    if call.operation != "quantize" or call.static[0].integer_dtype is None:
        return False
    is_small = is_static(x.shape) and x.size <= 1 << 16
    return x.dtype == jnp.float32 and is_small and (call.draw is None or call.draw.generator != "philox")


def _masks_by_bfloat16(call: Call, arrays: tuple[jax.Array, ...]) -> bool:
    """Whether a gradient is masked by the x that it is of, in bfloat16 both."""
    return call.operation == "clip_gradient_from_x" and all(array.dtype == jnp.bfloat16 for array in arrays)


def _is_drawn_by_gpu_kernel(call: Call, arrays: tuple[jax.Array, ...]) -> bool:
    """Whether the kernel for a GPU draws noise for x sooner than XLA does.

    It does not where it would read what XLA drew before, and where float32 stays float32, which takes both as long as a
    copy. The examples of a batch do not share a block, so small ones would leave most of it idle.
    """
    if call.draw is None or arrays[0].dtype.name not in KERNEL_DTYPES:
        return False
    x, seed = arrays
    if x.dtype == jnp.float32 and call.static[0].integer_dtype is None:
        return False
    fills_blocks = seed.ndim == 1 or math.prod(call.draw.shape) >= SMALL.block
    return fills_blocks and draws_in_kernel(x, seed, call.static[0], ("philox",))


def _is_drawn_well_on_tpu(draw: Draw | None, x: jax.Array) -> bool:
    """Whether the TPU kernel draws noise for each element of x, in blocks that do not depend on the chip.

    A batch of rows is not: to the kernel each is an array of its own, for which XLA would copy them all.
    """
    if draw is None or draw.generator != "philox" or x.dtype.name not in KERNEL_DTYPES:
        return False
    if draw.shape != x.shape[x.ndim - len(draw.shape) :] or not draw.is_in_rows_of_blocks:
        return False
    if len(draw.shape) == 1:
        return x.ndim == 1 and (x.size < 1 << 15 or x.size % 1024 == 0)
    return True


def _is_in_whole_tiles(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Whether a TPU kernel takes x as it lies in memory: float32 or bfloat16 in whole tiles of 8 rows of 128 lanes."""
    lanes = shape[-1]
    rows = shape[-2] if len(shape) > 1 else lanes // 128
    return dtype in (jnp.float32, jnp.bfloat16) and lanes % 128 == 0 and rows % 8 == 0 and math.prod(shape) > 0
