"""Which implementation does an operation: decided when the platform is known."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast, get_args

import jax
import numpy as np
from jax.interpreters import mlir

from ._error_values import shown
from ._operation import Arrays, Operation, Typed
from .kernels import TABLE, Implementation, Interpreted, Name, rows_of
from .kernels.gpu.tuning import device_kind
from .kernels.spec import is_static


class Choice(NamedTuple):
    """What the user says about who does an operation."""

    implementation: Name | None = None  # None is the fastest known
    interpret: Interpreted | None = None  # the platform whose kernel runs in interpret mode


ANY = Choice()  # the fastest implementation


@dataclasses.dataclass(frozen=True)
class Call:
    """An operation, and what the user says about who does it: see `Choice`."""

    operation: Operation
    implementation: Name | None = None
    interpret: Interpreted | None = None

    def with_operation(self, operation: Operation) -> "Call":
        """This call with another operation and the same implementation."""
        return dataclasses.replace(self, operation=operation)


def check(choice: Choice, *dtypes: np.dtype) -> None:
    """Refuses what no platform can run for arrays of floats of some dtypes, before anything is traced."""
    implementation, interpret = cast("tuple[Any, Any]", choice)  # whatever the user wrote
    if implementation is None and interpret is None:
        return
    rows = rows_of(implementation) if isinstance(implementation, str) else []
    if isinstance(implementation, str) and implementation == "triton":
        raise ValueError(
            "implementation='triton' is now called 'jax_triton', as elsewhere Triton means Pallas' lowering: "
            "use implementation='jax_triton', or None for the fastest on the platform"
        )
    if implementation is not None and not rows:
        names = ", ".join(map(repr, get_args(Name)))
        raise ValueError(
            f"implementation={shown(implementation)} is not known: use one of {names}, "
            "or None for the fastest on the platform"
        )
    platforms = [row.platform for row in rows if row.interpretable]
    if interpret is not None and not (isinstance(interpret, str) and interpret in platforms):
        kernels = [(name, row.platform) for name in get_args(Name) for row in rows_of(name) if row.interpretable]
        raise ValueError(
            f"interpret={shown(interpret)} with implementation={implementation!r} names no kernel: use "
            + " or ".join(f"implementation={name!r}, interpret={platform!r}" for name, platform in kernels)
            + ", or leave interpret out"
        )
    for dtype in dtypes:
        if rows and not any(dtype.name in row.dtypes for row in rows):
            raise ValueError(
                f"implementation={implementation!r} does not take {dtype.name}: it takes {', '.join(rows[0].dtypes)}; "
                "use implementation='xla', or None"
            )


# --- where a program runs ---------------------------------------------------------------------------------------------


def is_partitioned_by_xla(ctx: mlir.LoweringRuleContext) -> bool:
    """Whether XLA splits the whole program over several devices."""
    context: Any = ctx.module_context.axis_context
    return not hasattr(context, "manual_axes") and getattr(context, "num_devices", 1) > 1


def needs_partitioner(ctx: mlir.LoweringRuleContext, platform: str | None, call: Call) -> bool:
    """Whether XLA splits the whole program, and needs our rules to split a call.

    It does not need them for plain jnp that is elementwise. On a TPU it splits all plain jnp by itself, because libtpu
    does not run JAX's partitioners (jax-ml/jax#38196).
    """
    if platform == "tpu" or not is_partitioned_by_xla(ctx):
        return False
    operands: Any = ctx.avals_in
    row = choose(call, platform, operands, partitioned=False, elsewhere=is_elsewhere(ctx, platform))
    return row.is_kernel or not call.operation.is_elementwise


def is_partitioned(ctx: mlir.LoweringRuleContext) -> bool:
    """Whether XLA splits this part of the program: all of it, or the inside of a `shard_map` along some mesh axes."""
    context: Any = ctx.module_context.axis_context
    if hasattr(context, "manual_axes"):
        return set(context.manual_axes) != set(context.mesh.axis_names)
    return is_partitioned_by_xla(ctx)


def is_elsewhere(ctx: mlir.LoweringRuleContext, platform: str | None) -> bool:
    """Whether the device is not known: the program is exported, or is for a GPU and there is none here."""
    return ctx.module_context.lowering_parameters.for_export or (platform == "cuda" and device_kind() is None)


# --- the choice -------------------------------------------------------------------------------------------------------


def implementation(ctx: mlir.LoweringRuleContext, platform: str | None, call: Call) -> Callable[..., Arrays]:
    """What does a call in a program that is lowered for a platform, as a function of the operands."""
    types: Any = ctx.avals_in
    row = choose(call, platform, types, is_partitioned(ctx), is_elsewhere(ctx, platform))
    operation = call.operation
    function = row.operation(operation.name, call.interpret is not None)

    def does(*operands: jax.Array) -> Arrays:
        with jax.named_scope(f"intnumerics_{operation.name}"):
            return operation.formula(*operands) if function is None else operation.call(function, *operands)

    return does


def choose(
    call: Call, platform: str | None, operands: Sequence[Typed], partitioned: bool, elsewhere: bool
) -> Implementation:
    """The row of the table that does a call on a platform, which is None if JAX does not name it.

    XLA may split a program that is `partitioned` over several devices. A program that is `elsewhere` runs on a device
    that is not known here.
    """
    _check_generator(call, platform)
    if call.implementation is None:
        row = _fastest(call.operation, platform, operands, partitioned, elsewhere)
    else:
        row, partitioned = _named(call, platform), partitioned and call.interpret is None
    if row.is_kernel:
        _check_unpartitioned(partitioned)
        _check_sizes(call.operation.sizes(*operands))
    return row


def _fastest(
    operation: Operation, platform: str | None, operands: Sequence[Typed], partitioned: bool, elsewhere: bool
) -> Implementation:
    """The row that the operation says is the fastest, or the next one in the table that has the operation."""
    rows = [row for row in TABLE if row.platform in (None, platform)]
    if only := _only_with_hardware(operation):
        return next(row for row in rows if row in only)
    # JAX does not promise to run a stored kernel for a GPU later, and newer versions lower none without a known GPU.
    # XLA gathers the whole array on every device for a kernel in a program that it splits.
    may_be_kernel = (
        not partitioned and is_static(*operation.sizes(*operands)) and not (platform == "cuda" and elsewhere)
    )
    name = operation.fastest(platform, operands, may_be_kernel)
    first = next(row for row in rows_of(name) if row in rows)
    usable = (row for row in (first, *rows) if may_be_kernel or not row.is_kernel)
    return next(row for row in usable if has(row, operation))


def has(row: Implementation, operation: Operation) -> bool:
    """Whether an implementation has an operation; the reference does every operation by its formula."""
    return row.name == "reference" or row.operation(operation.name) is not None


def _is_there(row: Implementation) -> bool:
    """Whether the module of an implementation can be imported: JAX may have removed what it needs."""
    try:
        return row.operation("quantize") is not None
    except ImportError:
        return False


def _named(call: Call, platform: str | None) -> Implementation:
    rows = rows_of(cast(Name, call.implementation))
    for row in rows:
        if row.platform in (None, call.interpret or platform):
            if has(row, call.operation):
                return row
            others = dict.fromkeys(repr(row.name) for row in TABLE if _is_there(row) and has(row, call.operation))
            raise ValueError(
                f"implementation={call.implementation!r} does not have the operation {call.operation.name!r}, only "
                f"{' and '.join(others)} have: use one of them, or None for the fastest on the platform"
            )
    interpretable = " or ".join(f"{row.platform!r}" for row in rows if row.interpretable)
    raise ValueError(
        f"implementation={call.implementation!r} does not run on the platform {platform!r}, only on "
        + " and ".join(f"{row.platform!r} ({row.install})" for row in rows)
        + "; use implementation=None for the fastest of each platform"
        + (f", or interpret={interpretable} to try a kernel out on a CPU, slowly" if interpretable else "")
    )


def _kernels() -> str:
    return " or ".join(repr(name) for name in get_args(Name) if rows_of(name)[0].is_kernel)


def _check_unpartitioned(partitioned: bool) -> None:
    """Refuses a kernel in a program that XLA splits: it cannot split the kernel, or gathers all operands for it."""
    if partitioned:
        raise ValueError(
            f"a kernel (implementation={_kernels()}, or HardwareUniform) cannot be in a program that XLA splits over "
            "several devices, as on TPUs with Auto axes, and in a jax.shard_map along some axes of a mesh and not all: "
            "make the mesh with jax.make_mesh(..., axis_types=(jax.sharding.AxisType.Explicit, ...)), "
            "or call it inside jax.shard_map along all axes, or use implementation=None and HashUniform"
        )


def _check_sizes(shapes: Sequence[tuple[int, ...]]) -> None:
    """Refuses a kernel where a size is a symbol, as the blocks of a kernel are counted before it is compiled."""
    for shape in shapes:
        if not is_static(shape):
            raise ValueError(
                f"the shape ({', '.join(map(str, shape))}) has symbolic sizes, and a kernel "
                f"(implementation={_kernels()}, or HardwareUniform) needs known sizes, from which its grid is made: "
                "use implementation=None and HashUniform, which XLA compiles for any size, or export the function "
                "for fixed shapes"
            )


def _only_with_hardware(operation: Operation) -> list[Implementation]:
    """The rows that draw the noise of an operation, if only some platforms have the generator."""
    drawing = [row for row in TABLE if operation.generator in row.generators]
    return drawing if operation.generator and all(row.platform for row in drawing) else []


def _check_generator(call: Call, platform: str | None) -> None:
    """Refuses a generator that is in the hardware if there is no such hardware, or no way to it."""
    drawing = _only_with_hardware(call.operation)
    if not drawing:
        return
    rows = [row for row in drawing if call.implementation in (None, row.name)]
    if not rows:
        raise ValueError(
            f"noise_fn=HardwareUniform() is not drawn by implementation={call.implementation!r}: use "
            "implementation='pallas', or None, or PhiloxUniform() as the noise function"
        )
    if call.interpret is not None or platform not in [row.platform for row in rows]:
        where = f"the platform {platform!r}" if call.interpret is None else "Pallas' interpret mode"
        raise ValueError(
            f"noise_fn=HardwareUniform() needs a TPU, and {where} has no such generator: use HashUniform(), which "
            "gives the same noise on every platform"
        )
