"""The JAX primitive that every operation is an instance of: its rules for types, derivatives, batching and lowering.

The rules read the description of the operation. It is lowered to an implementation when the platform is known, so one
traced function serves several platforms. Where arrays are split over a mesh, lowering first splits the operation.
"""

import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from . import _dispatch, _partitioning
from ._checks import SETTINGS
from ._dispatch import Call
from ._operation import Arrays, Operation
from ._version import __version__
from .kernels import Interpreted, Name
from .kernels.spec import is_static

PLATFORMS = ("cpu", "cuda", "rocm", "tpu", None)  # None: any other
PROGRAMS = 4096  # that are kept for calls to come, as many as JAX keeps of one function

operation_p = Primitive("intnumerics")
operation_p.multiple_results = True


def run(
    operation: Operation, *operands: jax.Array, implementation: Name | None, interpret: Interpreted | None
) -> Arrays:
    """Does an operation, under every transform."""
    with jax.disable_jit(False):  # an operation is one program even if the user's functions are not compiled
        return program(Call(operation, implementation, interpret))(*varying_alike(operands))


def _bind(call: Call, *operands: jax.Array) -> Arrays:
    """Binds the primitive, with the call as XLA's partitioner takes it, if the partitioner may be asked.

    It is not asked if the types of the arrays tell how they are split, nor inside `shard_map`: there XLA splits plain
    jnp along the axes that the user leaves to it. Nor is it asked if a size is a symbol: no kernel takes symbols.
    """
    types = [jax.typeof(operand) for operand in operands]
    mesh, partitionable = _partitioning.mesh_of(types), None
    if not mesh.explicit_axes and not mesh.manual_axes and is_static(*(of.shape for of in types)):
        shapes = tuple((of.shape, of.dtype) for of in types)
        partitionable = _for_partitioner(call, shapes, SETTINGS.jax_use_shardy_partitioner)
    return operation_p.bind(*operands, call=call, partitionable=partitionable)


def _bind_on_device(call: Call, operation: Operation, *operands: jax.Array) -> Arrays:
    """Binds the primitive on arrays that are on one device, where nothing is left to split."""
    return operation_p.bind(*operands, call=call.with_operation(operation), partitionable=None)


@functools.lru_cache(PROGRAMS)
def _for_partitioner(call: Call, types: tuple[tuple[tuple[int, ...], np.dtype], ...], asks_shardy: bool) -> ClosedJaxpr:
    """The call wrapped in `custom_partitioning`, as a jaxpr.

    It is made when the call is traced. JAX tells a lowering rule the devices of a program only if the program has
    `custom_partitioning` in it. The rule in it depends on which of XLA's partitioners is asked.
    """
    by_partitioner = functools.partial(
        _partitioning.by_partitioner, call.operation, functools.partial(_bind_on_device, call)
    )
    return jax.make_jaxpr(by_partitioner)(*(jax.ShapeDtypeStruct(*of) for of in types))


@functools.lru_cache(PROGRAMS)
def program(call: Call) -> Any:
    """The primitive under a name that a profile shows, and that differs for calls that differ.

    What a partitioner calls back is not in the text of a program. JAX's compilation cache can leave it out of its key
    as well (`jax_remove_custom_partitioning_ptr_from_cache_key`). Then only the name tells 8 bits from 4.
    """

    def bound(*operands: jax.Array) -> Arrays:
        return _bind(call, *operands)

    digest = hashlib.sha256(f"{__version__} {call!r}".encode()).hexdigest()[:12]
    bound.__name__ = bound.__qualname__ = f"intnumerics_{call.operation.name}_{digest}"
    return jax.jit(bound)


def varying_alike(arrays: Sequence[jax.Array]) -> Sequence[jax.Array]:
    """Inside `shard_map`: arrays that all vary along the mesh axes that any of them varies along."""
    varying = [jax.typeof(array).manual_axis_type.varying for array in arrays]
    every = frozenset[str]().union(*varying)
    if not every:
        return arrays
    return [
        jax.lax.pcast(array, tuple(every - own), to="varying") if every - own else array
        for array, own in zip(arrays, varying, strict=True)
    ]


# --- types ------------------------------------------------------------------------------------------------------------


@operation_p.def_abstract_eval
def _types(*operands: Any, call: Call, partitionable: ClosedJaxpr | None) -> list[Any]:
    """Results vary along the mesh axes along which the operands vary, and their types are split as the layout says."""
    results, mesh = call.operation.results(*operands), _partitioning.mesh_of(operands)
    splits: list[Any] = [((),) * len(result.shape) for result in results]
    if mesh.explicit_axes:
        splits = _partitioning.layout_by_type(call.operation, operands, mesh).of_results()
    shardings = (_partitioning.sharding(mesh, split) for split in splits)
    return [
        operands[0].update(shape=result.shape, dtype=result.dtype, weak_type=False, sharding=sharding)
        for result, sharding in zip(results, shardings, strict=True)
    ]


# --- derivatives ------------------------------------------------------------------------------------------------------


def _jvp(
    operands: Sequence[jax.Array], tangents: Sequence[Any], *, call: Call, partitionable: ClosedJaxpr | None
) -> tuple[Arrays, list[Any]]:
    results = operation_p.bind(*operands, call=call, partitionable=partitionable)
    moving = {
        place: tangent
        for place, (operand, tangent) in enumerate(zip(operands, tangents, strict=True))
        if _is_float(operand) and not isinstance(tangent, ad.Zero)
    }
    if not moving or (call.operation.is_linear and 0 not in moving):  # a mask does not change smoothly
        return results, [_zero(result) for result in results]
    if call.operation.is_linear:
        out = operation_p.bind(moving[0], *operands[1:], call=call, partitionable=partitionable)
    else:
        out = call.operation.jvp(
            lambda operation, *arrays: _bind(call.with_operation(operation), *arrays), operands, results, moving
        )
    pairs = zip(results, out, strict=True)
    return results, [tangent if _is_float(result) else _zero(result) for result, tangent in pairs]


def _is_float(array: Any) -> bool:
    return jnp.issubdtype(array.dtype, jnp.floating)


def _zero(primal: jax.Array) -> ad.Zero:
    return ad.Zero(jax.typeof(primal).to_tangent_aval())


def _transpose(cotangents: Sequence[Any], *operands: Any, call: Call, partitionable: ClosedJaxpr | None) -> list[Any]:
    """The cotangent of the first operand, in which the operation is linear and its own transpose."""
    [cotangent], [first, *kept] = cotangents, operands
    if isinstance(cotangent, ad.Zero):
        return [ad.Zero(first.aval), *[None] * len(kept)]
    if not call.operation.is_linear or not ad.is_undefined_primal(first):
        raise NotImplementedError(f"{call.operation.name} is not linear in this operand, and has no transpose")
    [result] = operation_p.bind(cotangent, *kept, call=call, partitionable=partitionable)
    if _partitioning.mesh_of([first.aval]).explicit_axes:
        result = jax.sharding.reshard(result, first.aval.sharding)
    return [result, *[None] * len(kept)]


ad.primitive_jvps[operation_p] = _jvp
ad.primitive_transposes[operation_p] = _transpose


# --- vmap: the batch axis becomes the first axis of every array -------------------------------------------------------


def _batch(
    operands: Sequence[jax.Array], axes: Sequence[int | None], *, call: Call, partitionable: ClosedJaxpr | None
) -> tuple[Arrays, list[int]]:
    size = next(array.shape[axis] for array, axis in zip(operands, axes, strict=True) if axis is not None)

    def lead(array: jax.Array, axis: int | None, broadcasts: bool) -> jax.Array:
        if axis is not None:
            return jnp.moveaxis(array, axis, 0)
        return array[None] if broadcasts else jnp.broadcast_to(array, (size, *array.shape))

    broadcast = [operand.broadcasts for operand in call.operation.operands]
    results = _bind(call, *map(lead, operands, axes, broadcast))
    return results, [0] * len(results)


batching.primitive_batchers[operation_p] = _batch


# --- lowering, and sharding before it ---------------------------------------------------------------------------------


def _lower(
    platform: str | None, ctx: mlir.LoweringRuleContext, *operands: Any, call: Call, partitionable: ClosedJaxpr | None
) -> Any:
    if _partitioning.mesh_of(ctx.avals_in).explicit_axes:
        does = functools.partial(_partitioning.by_type, call.operation, functools.partial(_bind_on_device, call))
    elif partitionable is not None and _dispatch.needs_partitioner(ctx, platform, call):
        does = jaxpr_as_fun(partitionable)
    else:
        does = _dispatch.implementation(ctx, platform, call)
    return mlir.lower_fun(does, multiple_results=True)(ctx, *operands)


for _platform in PLATFORMS:
    mlir.register_lowering(operation_p, functools.partial(_lower, _platform), platform=_platform)
