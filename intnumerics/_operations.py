"""The one place that knows platforms and transforms; the kernels below it know arrays only.

An operation is a stack, from the outside in: `custom_jvp`, as its derivative is that of the formula; `custom_vmap`, as
a batch axis is one more axis of the array; then what splits it over a mesh (`sharding.py`); and a primitive, which is
lowered to an implementation when the platform is known, so that one traced function serves several platforms. A TPU has
no `custom_partitioning`: where types do not tell how a program is split, XLA splits plain jnp there, as it does
anywhere if sizes are symbols, for which there are no kernels.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.extend.core import Primitive
from jax.interpreters import ad, mlir

from . import _dispatch, _partitioning
from ._call import Call
from ._mask_packing import packing_of
from ._version import __version__
from .kernels import Draw, QuantSpec, reference
from .kernels.spec import is_static

PLATFORMS = ("cpu", "cuda", "rocm", "tpu", None)  # None: any other
PROGRAMS = 4096  # that are kept for calls to come, as many as JAX keeps of one function


# --- the primitive: lowered per platform -----------------------------------------------------------------------------

leaf_p = Primitive("intnumerics")
leaf_p.multiple_results = True


@leaf_p.def_abstract_eval
def _abstract(x: Any, *_: Any, call: Call) -> list[Any]:
    # As x in all else: varying along the same axes of a mesh.
    return [x.update(shape=shape, dtype=dtype, weak_type=False) for shape, dtype in call.results(x)]


def _no_derivative(*_: Any, **__: Any) -> NoReturn:
    """What is left of a quantization in a loop that older versions of JAX differentiate twice."""
    raise NotImplementedError(
        f"JAX {jax.__version__} has no second derivative of a quantization inside jax.lax.scan or jax.lax.map: use JAX "
        "0.12 or newer, or write the loop in Python"
    )


ad.primitive_jvps[leaf_p] = _no_derivative


def _leaf(call: Call, *arrays: jax.Array) -> list[jax.Array]:
    return leaf_p.bind(*arrays, call=call)


def _lower(platform: str | None) -> None:
    def rule(ctx: mlir.LoweringRuleContext, *operands: Any, call: Call) -> Any:
        def run(*arrays: jax.Array) -> list[jax.Array]:
            partitioned, elsewhere = _dispatch.is_partitioned(ctx), _dispatch.is_elsewhere(ctx, platform)
            operations = _dispatch.operations(call, platform, arrays, partitioned, elsewhere)
            with jax.named_scope(f"intnumerics_{call.operation}"):
                return call.of(operations)(*arrays)

        return mlir.lower_fun(run, multiple_results=True)(ctx, *operands)

    mlir.register_lowering(leaf_p, rule, platform=platform)


for _platform in PLATFORMS:
    _lower(_platform)


# --- sharding: each device its shard ----------------------------------------------------------------------------------


def _sharded(call: Call, *arrays: jax.Array) -> list[jax.Array]:
    mesh = _partitioning.mesh_of(arrays)
    if mesh.explicit_axes:
        return _partitioning.by_type(_leaf, call, arrays)
    if mesh.manual_axes:  # in the hands of who wrote the `shard_map`, and of XLA along the axes that they left
        return _leaf(call, *arrays)
    if not is_static(*(a.shape for a in arrays)):  # no kernel takes symbols, and XLA itself splits plain jnp
        return _leaf(call, *arrays)

    def by_partitioner(*arrays: jax.Array) -> list[jax.Array]:
        return _partitioning.by_partitioner(_leaf, call, arrays)

    # libtpu does not run JAX's partitioners (jax-ml/jax#38196).
    return jax.lax.platform_dependent(*arrays, tpu=functools.partial(_leaf, call), default=by_partitioner)


# --- vmap: the batch axis becomes the first axis of the array ---------------------------------------------------------


@functools.lru_cache(PROGRAMS)
def _batchable(call: Call) -> Callable[..., list[jax.Array]]:
    @custom_vmap
    def bind(*arrays: jax.Array) -> list[jax.Array]:
        return _sharded(call, *arrays)

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


@functools.partial(jax.jit, static_argnums=0)
def drawn(draw: Draw, seed: jax.Array) -> jax.Array:
    """The noise that a pass draws, float32 of (*batch, *draw.shape): what it adds to zeros."""
    spec = QuantSpec(math.inf, clip=False, rounding=None, draw=draw)
    zeros = jnp.zeros((*seed.shape[:-1], *draw.shape), jnp.float32)
    return quantize(zeros, seed, spec)


# --- derivatives: those of the formula --------------------------------------------------------------------------------


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _differentiable(call: Call, *arrays: jax.Array) -> list[jax.Array]:
    return _batchable(call)(*arrays) if call.operation == "quantize" else [_linear(call, *arrays)]


def _linear(call: Call, g: jax.Array, kept: jax.Array) -> jax.Array:
    """A clip of a gradient: linear in g, and its own transpose, for `jax.linear_transpose`.

    JAX does not transpose `custom_vmap`, but it transposes `custom_linear_solve` by the rule that it is given.
    `symmetric=True` says that the operation is its own transpose. The system itself, `lambda g: g`, is not used.
    """
    if _partitioning.mesh_of([g, kept]).explicit_axes:  # a solution has the type of g
        g = _partitioning.split_as_result(call, [g, kept])
    return jax.lax.custom_linear_solve(lambda g: g, g, lambda _, g: _batchable(call)(g, kept)[0], symmetric=True)


@_differentiable.defjvp
def _jvp(call: Call, primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]) -> tuple[Any, Any]:
    result = _differentiable(call, *primals)
    if call.draw is not None:
        x, seed = primals
        call, primals = call.with_spec(draw=None), (x, drawn(call.draw, seed))
        tangents = (tangents[0], jnp.zeros_like(primals[1]))
    formula = call.of(functools.partial(getattr, reference))
    _, out = jax.jvp(formula, primals, tangents)
    return result, out


@functools.lru_cache(PROGRAMS)
def _jitted(call: Call) -> Any:
    """`_differentiable` under a name that a profile shows, and that tells this call from every other.

    What a partitioner calls back is not in the text of a program. JAX's compilation cache can leave it out of its key
    as well (`jax_remove_custom_partitioning_ptr_from_cache_key`). Then only the name tells 8 bits from 4.
    """

    def run(*arrays: jax.Array) -> list[jax.Array]:
        return _differentiable(call, *arrays)

    digest = hashlib.sha256(f"{__version__} {call!r}".encode()).hexdigest()[:12]
    run.__name__ = run.__qualname__ = f"intnumerics_{call.operation}_{digest}"
    return jax.jit(run)


def _run(call: Call, *arrays: jax.Array) -> list[jax.Array]:
    with jax.disable_jit(False):  # a program is what there is to a pass; without one there would be many
        return _jitted(call)(*_varying_alike(arrays))


# --- types: what a result has of each operand -------------------------------------------------------------------------


def _varying_alike(arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """Arrays that all vary along the mesh axes that any of them varies along, inside `shard_map` with checked axes."""
    axes = [jax.typeof(a).manual_axis_type.varying for a in arrays]
    every = frozenset[str]().union(*axes)
    return [
        jax.lax.pcast(a, tuple(every - own), to="varying") if every - own else a
        for a, own in zip(arrays, axes, strict=True)
    ]


def of_one_type(x: jax.Array, noise: jax.Array, spec: QuantSpec) -> tuple[jax.Array, jax.Array]:
    """x, and noise or its seed, such that the result has the type of x: it varies and is split along the same axes.

    `custom_vjp` wants the cotangent of x in the type of x, and the backward gives it in the type of the result. What is
    done to x here is differentiable; where x is one for several devices, its derivative sums up their cotangents.
    """
    x, noise = _varying_alike([x, noise])
    if not x.ndim or not _partitioning.mesh_of([x, noise]).explicit_axes:
        return x, noise
    return _partitioning.split_as_result(Call("quantize", (spec,)), [x, _of_rank(noise, x, spec)]), noise


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
        The result, and the mask packed to one bit per element, uint8, as `packing.py` describes.
    """
    spec = dataclasses.replace(spec, with_mask=True)
    y, packed = _quantize(x, noise, spec, implementation, interpret)
    return y, packed


def _quantize(
    x: jax.Array, noise: jax.Array | None, spec: QuantSpec, implementation: str | None, interpret: str | None
) -> list[jax.Array]:
    arrays = [_at_least_1d(x)]
    if noise is not None:
        noise = _of_rank(noise, arrays[0], spec)
    if noise is not None and spec.draw is not None and not x.ndim:
        spec = dataclasses.replace(spec, draw=dataclasses.replace(spec.draw, shape=(1,), whole=(1,)))
    how = _partitioning.packing_by_type(arrays[0]) if spec.with_mask else None
    call = Call("quantize", (spec,), noise is None, implementation, interpret, how)
    y, *packed = _run(call, *arrays, *([] if noise is None else [noise]))
    return [y.reshape(x.shape), *packed]


def _of_rank(noise: jax.Array, x: jax.Array, spec: QuantSpec) -> jax.Array:
    """An array of noise with as many axes as x; a seed as it is."""
    return noise if spec.draw is not None else jnp.reshape(noise, (1,) * (x.ndim - noise.ndim) + noise.shape)


def clip_gradient_from_mask(
    g: jax.Array, packed: jax.Array, implementation: str | None = None, interpret: str | None = None
) -> jax.Array:
    """`kernels.reference.clip_gradient_from_mask` for every shape and under every transform."""
    arrays = _at_least_1d(g), packed
    how = packing_of(packed.shape, arrays[0].shape)
    call = Call("clip_gradient_from_mask", (), False, implementation, interpret, how)
    return _run(call, *arrays)[0].reshape(g.shape)


def masked(tangent: jax.Array, packed: jax.Array) -> jax.Array:
    """`clip_gradient_from_mask` in plain jnp, which every transform knows to be linear."""
    shape = tangent.shape or (1,)
    mask = packing_of(packed.shape, shape).unpack(packed, shape).reshape(tangent.shape)
    return jnp.where(mask, tangent, jnp.zeros_like(tangent))


def clip_gradient_from_x(
    g: jax.Array, x: jax.Array, spec: QuantSpec, implementation: str | None = None, interpret: str | None = None
) -> jax.Array:
    """`kernels.reference.clip_gradient_from_x` for every shape and under every transform."""
    call = Call("clip_gradient_from_x", (spec,), False, implementation, interpret)
    return _run(call, _at_least_1d(g), _at_least_1d(x))[0].reshape(g.shape)


def _at_least_1d(x: jax.Array) -> jax.Array:
    return x.reshape(1) if x.ndim == 0 else x
