"""The operations as functions of arrays of any shape, under every transform; their arguments were checked before."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from . import _partitioning, _primitive
from ._dispatch import ANY, Choice
from ._mask_packing import BY_THE_BYTE, Packing, packing, packing_of
from ._operation import Arrays, Groups, Operation
from ._quantization import ClipGradientFromMask, ClipGradientFromX, Derivative, Quantize, noise_alone
from ._scaled_quantization import AbsMax, ClipGradientByScale, QuantizeByAbsMax, QuantizeByScale
from .kernels import Draw, QuantSpec, Scaling, scaling


def quantize(
    x: jax.Array,
    noise: jax.Array | None,
    spec: QuantSpec,
    choice: Choice = ANY,
    derivative: Derivative = "formula",
    scale: jax.Array | None = None,
) -> jax.Array:
    """`kernels.reference.quantize`, or `quantize_by_scale`, without a mask; noise and scale need not have x's rank.

    With a scale there is no derivative `"formula"`.
    """
    operation, others = _quantization(x, noise, spec, derivative, scale)
    return _run(choice, operation, x, *others)[0]


def quantize_with_mask(
    x: jax.Array,
    noise: jax.Array | None,
    spec: QuantSpec,
    choice: Choice = ANY,
    derivative: Derivative = "formula",
    scale: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """`quantize`, and the clip mask in the same pass, packed as `_mask_packing.py` describes."""
    operation, others = _quantization(x, noise, spec, derivative, scale)
    operation = dataclasses.replace(operation, packing=_packing_by_type(spec, _at_least_1d(x)))
    y, packed = _run(choice, operation, x, *others)
    return y, packed


def quantize_by_absmax(
    x: jax.Array,
    noise: jax.Array | None,
    spec: QuantSpec,
    how: Scaling,
    block: int | None = None,
    choice: Choice = ANY,
) -> tuple[jax.Array, jax.Array]:
    """`kernels.reference.quantize_by_absmax`, of an x with at least one axis."""
    operation, others = _quantization(x, noise, spec)
    y, scale = _run(choice, QuantizeByAbsMax(operation.spec, operation.noise, how, block), x, *others)
    return y, scale


def absmax(x: jax.Array, axes: tuple[int, ...], block: int | None = None) -> jax.Array:
    """`kernels.reference.absmax`."""
    if not axes:
        return scaling.largest_finite(x, ())
    [largest] = _primitive.run(AbsMax(axes, block), x, **ANY._asdict())
    return largest


def clip_gradient_from_mask(g: jax.Array, packed: jax.Array, choice: Choice = ANY) -> jax.Array:
    """`kernels.reference.clip_gradient_from_mask`."""
    how = packing_of(packed.shape, _at_least_1d(g).shape)
    return _run(choice, ClipGradientFromMask(how), g, packed)[0]


def clip_gradient_from_x(
    g: jax.Array, x: jax.Array, spec: QuantSpec, choice: Choice = ANY, scale: jax.Array | None = None
) -> jax.Array:
    """`kernels.reference.clip_gradient_from_x`, or `clip_gradient_by_scale`."""
    if scale is None:
        return _run(choice, ClipGradientFromX(spec), g, _at_least_1d(x))[0]
    return _run(choice, ClipGradientByScale(spec), g, _at_least_1d(x), _in_rank_of(x, scale))[0]


@functools.partial(jax.jit, static_argnums=0)
def drawn(draw: Draw, seed: jax.Array) -> jax.Array:
    """The noise that a pass draws, float32 of (*batch, *draw.shape): what it adds to zeros."""
    zeros = jnp.zeros((*seed.shape[:-1], *draw.shape), jnp.float32)
    return quantize(zeros, seed, noise_alone(draw).spec)


def of_one_type(
    x: jax.Array, noise: jax.Array | None, scale: jax.Array | None, spec: QuantSpec
) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
    """x, noise or its seed, and a scale, such that the result has the type of x: it varies and is split along its axes.

    `custom_vjp` wants the cotangent of x in the type of x, and the backward gives it in the type of the result. What is
    done to x here is differentiable: the derivative of an x that several devices share is the sum of their cotangents.
    """
    given = [array for array in (noise, scale) if array is not None]
    if not given:
        return x, None, None
    x, *given = _primitive.varying_alike([x, *given])
    noise, scale = (None if array is None else given.pop(0) for array in (noise, scale))
    types = [jax.typeof(array) for array in (x, noise, scale) if array is not None]
    if not x.ndim or not _partitioning.mesh_of(types).explicit_axes:
        return x, noise, scale
    operation, others = _quantization(x, noise, spec, scale=scale)
    return _partitioning.split_as_result(operation, [x, *others]), noise, scale


# --- arrays as the primitive takes them -------------------------------------------------------------------------------


def _at_least_1d(x: jax.Array) -> jax.Array:
    return x.reshape(1) if x.ndim == 0 else x


def _run(choice: Choice, operation: Operation, first: jax.Array, *others: jax.Array) -> Arrays:
    """The results, the first one in the shape of the first operand, which the primitive takes with an axis at least."""
    result, *more = _primitive.run(operation, _at_least_1d(first), *others, **choice._asdict())
    return [result.reshape(first.shape), *more]


def _quantization(
    x: jax.Array,
    noise: jax.Array | None,
    spec: QuantSpec,
    derivative: Derivative = "formula",
    scale: jax.Array | None = None,
) -> tuple[Quantize, list[jax.Array]]:
    """The description of a quantization, and its operands beside x: noise in the rank of x or a seed, and a scale."""
    kind, others = None, list[jax.Array]()
    if noise is not None and spec.draw is None:
        kind, others = "noise", [_in_rank_of(x, noise)]
    elif noise is not None and spec.draw is not None:
        kind, others = "seed", [noise]
        if not spec.draw.shape:
            spec = dataclasses.replace(spec, draw=dataclasses.replace(spec.draw, shape=(1,), whole=(1,)))
    if scale is None:
        return Quantize(spec, kind, derivative=derivative), others
    return QuantizeByScale(spec, kind, derivative=derivative), [*others, _in_rank_of(x, scale)]


def _in_rank_of(x: jax.Array, array: jax.Array) -> jax.Array:
    """Noise or a scale in the rank of x, which has at least one axis."""
    return jnp.reshape(array, (1,) * (max(x.ndim, 1) - array.ndim) + array.shape)


def _packing_by_type(spec: QuantSpec, x: jax.Array) -> Packing:
    """How the mask of x is packed: so that no shard has parts of groups, as far as its type tells how it is split."""
    how = packing(x.shape)
    types = [jax.typeof(x)]
    layout = _partitioning.layout_by_type(Quantize(spec), types, _partitioning.mesh_of(types))
    return BY_THE_BYTE if layout.cuts(Groups(x.ndim - how.axes, how.group)) else how
