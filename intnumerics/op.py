"""The one place that knows platforms and transforms; the kernels below it know arrays only.

Each operation is `custom_jvp` (its derivative is that of the formula) over `custom_vmap` (a batch axis is one more
axis of the array) over one primitive, which is lowered to an implementation when the platform is known. So one traced
function serves several platforms.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.extend.core import Primitive
from jax.interpreters import mlir

from . import dispatch
from .dispatch import Call
from .kernels import Draw, QuantSpec, reference

PLATFORMS = ("cpu", "cuda", "rocm", "tpu", None)  # None: any other


# --- the primitive: lowered per platform -----------------------------------------------------------------------------

leaf_p = Primitive("intnumerics")
leaf_p.multiple_results = True


@leaf_p.def_abstract_eval
def _abstract(*avals: Any, call: Call) -> list[Any]:
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals]
    if call.draw is not None:  # the noise changes no shape, and not every implementation can draw it
        call, shapes = _with_array(call), [shapes[0], jax.ShapeDtypeStruct((1,) * shapes[0].ndim, np.float32)]
    results = jax.tree.leaves(jax.eval_shape(call.of(reference), *shapes))
    # As x in all else: sharded likewise, and varying along the same axes of a mesh.
    return [avals[0].update(shape=a.shape, dtype=a.dtype, weak_type=False) for a in results]


@functools.cache
def _compiled(call: Call) -> Callable[..., list[jax.Array]]:
    return jax.jit(functools.partial(leaf_p.bind, call=call))


@leaf_p.def_impl
def _eager(*arrays: jax.Array, call: Call) -> list[jax.Array]:
    with jax.disable_jit(False):
        return _compiled(call)(*arrays)


def _lower(platform: str | None) -> None:
    def rule(ctx: mlir.LoweringRuleContext, *operands: Any, call: Call) -> Any:
        def run(*arrays: jax.Array) -> list[jax.Array]:
            operations = dispatch.operations(call, platform, arrays, _is_partitioned(ctx))
            return jax.tree.leaves(call.of(operations)(*arrays))

        return mlir.lower_fun(run, multiple_results=True)(ctx, *operands)

    mlir.register_lowering(leaf_p, rule, platform=platform)


def _is_partitioned(ctx: mlir.LoweringRuleContext) -> bool:
    """Whether XLA may split the program over devices here; not where `shard_map` has done so along all mesh axes."""
    context: Any = ctx.module_context.axis_context
    if hasattr(context, "manual_axes"):
        return set(context.manual_axes) != set(context.mesh.axis_names)
    return getattr(context, "num_devices", 1) > 1


for _platform in PLATFORMS:
    _lower(_platform)


# --- vmap: the batch axis becomes the first axis of the array ---------------------------------------------------------


@functools.cache
def _batchable(call: Call) -> Callable[..., list[jax.Array]]:
    @custom_vmap
    def bind(*arrays: jax.Array) -> list[jax.Array]:
        return leaf_p.bind(*arrays, call=call)

    @bind.def_vmap
    def _(size: int, batched: list[bool], *arrays: jax.Array) -> tuple[list[jax.Array], list[bool]]:
        def lead(i: int, array: jax.Array) -> jax.Array:
            if batched[i]:
                return array
            is_noise = call.operation == "quantize" and i == 1  # or a seed: what all examples share stays one
            return array[None] if is_noise else jnp.broadcast_to(array, (size, *array.shape))

        results = bind(*(lead(i, a) for i, a in enumerate(arrays)))
        return results, [True] * len(results)

    return bind


# --- noise that is drawn in the pass, as an array ---------------------------------------------------------------------


def _with_array(call: Call) -> Call:
    """The call on an array of noise, where it drew the noise from a seed."""
    return dataclasses.replace(call, static=(dataclasses.replace(call.static[0], draw=None),))


@functools.partial(jax.jit, static_argnums=0)
def drawn(draw: Draw, seed: jax.Array) -> jax.Array:
    """The noise that a pass draws, float32 of (*batch, *draw.shape): what it adds to zeros."""
    spec = QuantSpec(math.inf, clip=False, rounding=None, draw=draw)
    zeros = jnp.zeros((*seed.shape[:-1], *draw.shape), jnp.float32)
    return quantize(zeros, seed, spec)


# --- derivatives: those of the formula --------------------------------------------------------------------------------


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _differentiable(call: Call, *arrays: jax.Array) -> list[jax.Array]:
    return _batchable(call)(*arrays)


@_differentiable.defjvp
def _jvp(call: Call, primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]) -> tuple[Any, Any]:
    result = _differentiable(call, *primals)
    if call.draw is not None:
        x, seed = primals
        call, primals = _with_array(call), (x, drawn(call.draw, seed))
        tangents = (tangents[0], jnp.zeros_like(primals[1]))
    formula = call.of(reference)
    _, out = jax.jvp(lambda *arrays: jax.tree.leaves(formula(*arrays)), primals, tangents)
    return result, out


_jitted = jax.jit(_differentiable, static_argnums=(0,))


def _run(call: Call, *arrays: jax.Array) -> list[jax.Array]:
    """Runs a call; inside `shard_map` with checked axes, arrays that vary along fewer mesh axes first do along all."""
    axes = [jax.typeof(a).manual_axis_type.varying for a in arrays]
    every = frozenset[str]().union(*axes)
    alike = [
        jax.lax.pcast(a, tuple(every - own), to="varying") if every - own else a
        for a, own in zip(arrays, axes, strict=True)
    ]
    return _jitted(call, *alike)


# --- the operations ---------------------------------------------------------------------------------------------------


def quantize(
    x: jax.Array,
    noise: jax.Array | None,
    spec: QuantSpec,
    implementation: str | None = None,
    interpret: str | None = None,
) -> jax.Array:
    """`kernels.reference.quantize` for every shape and under every transform.

    Args:
        x: Floats of any shape.
        noise: None, floats that broadcast to x, or with `spec.draw` the seed of the noise, uint32 [4].
        spec: What to do.
        implementation: A name in `kernels.TABLE`, or None.
        interpret: None, or the platform whose kernel runs in interpret mode.

    Returns:
        The result, in the shape of x.
    """
    return _quantize(x, noise, spec, implementation, interpret)[0]


def quantize_with_mask(
    x: jax.Array,
    noise: jax.Array | None,
    spec: QuantSpec,
    implementation: str | None = None,
    interpret: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    """`quantize`, and the clip mask in the same pass.

    Returns:
        The result, and the mask packed to one bit an element, uint8: along the last axis, or along as many of the last
        axes together as it takes to fill whole bytes, where no shared noise ties the axes to their places.
    """
    y, packed = _quantize(x, noise, dataclasses.replace(spec, with_mask=True), implementation, interpret)
    return y, packed


def _quantize(
    x: jax.Array, noise: jax.Array | None, spec: QuantSpec, implementation: str | None, interpret: str | None
) -> list[jax.Array]:
    arrays = [_at_least_1d(x)]
    # Whether shared noise ties the axes to their places; what the hardware draws hangs on them as well.
    tied = spec.draw is not None and (spec.draw.shape != x.shape or spec.draw.generator == "hardware")
    if noise is not None and spec.draw is None:
        arrays.append(jnp.reshape(noise, (1,) * (arrays[0].ndim - noise.ndim) + noise.shape))
        tied = arrays[1].shape != arrays[0].shape
    if spec.with_mask and not tied:
        arrays = [_whole_bytes(a) for a in arrays]
    if noise is not None and spec.draw is not None:
        draw = (
            spec.draw if tied else Draw(spec.draw.generator, arrays[0].shape)
        )  # an index is row-major in either shape
        arrays, spec = [*arrays, noise], dataclasses.replace(spec, draw=draw)
    call = Call("quantize", (spec,), noise is None, implementation, interpret)
    y, *packed = _run(call, *arrays)
    return [y.reshape(x.shape), *packed]


def clip_gradient_from_mask(
    g: jax.Array, packed: jax.Array, implementation: str | None = None, interpret: str | None = None
) -> jax.Array:
    """`kernels.reference.clip_gradient_from_mask` for every shape and under every transform."""
    call = Call("clip_gradient_from_mask", (), False, implementation, interpret)
    leading = g.shape[: packed.ndim - 1]
    return _run(call, g.reshape(*leading, math.prod(g.shape[len(leading) :])), packed)[0].reshape(g.shape)


def clip_gradient_from_x(
    g: jax.Array, x: jax.Array, spec: QuantSpec, implementation: str | None = None, interpret: str | None = None
) -> jax.Array:
    """`kernels.reference.clip_gradient_from_x` for every shape and under every transform."""
    call = Call("clip_gradient_from_x", (spec,), False, implementation, interpret)
    return _run(call, _at_least_1d(g), _at_least_1d(x))[0].reshape(g.shape)


def _whole_bytes(x: jax.Array) -> jax.Array:
    """x with as many of its last axes merged as it takes for the packed mask to fill its bytes."""
    axis = max((i for i in range(x.ndim) if math.prod(x.shape[i:]) % 8 == 0), default=0)
    return x.reshape(*x.shape[:axis], math.prod(x.shape[axis:]))


def _at_least_1d(x: jax.Array) -> jax.Array:
    return x.reshape(1) if x.ndim == 0 else x
