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
    x: jax.Array, noise: jax.Array | None, spec: QuantSpec, choice: Choice = ANY, derivative: Derivative = "formula"
) -> jax.Array:
    """`kernels.reference.quantize` without a mask; noise that broadcasts to x need not have the rank of x."""
    operation, others = _quantization(x, noise, spec, derivative)
    return _run(choice, operation, x, *others)[0]


def quantize_with_mask(
    x: jax.Array, noise: jax.Array | None, spec: QuantSpec, choice: Choice = ANY, derivative: Derivative = "formula"
) -> tuple[jax.Array, jax.Array]:
    """`quantize`, and the clip mask in the same pass, packed as `_mask_packing.py` describes."""
    operation, others = _quantization(x, noise, spec, derivative)
    operation = dataclasses.replace(operation, packing=_packing_by_type(spec, _at_least_1d(x)))
    y, packed = _run(choice, operation, x, *others)
    return y, packed


def quantize_by_scale(
    x: jax.Array,
    scale: jax.Array,
    noise: jax.Array | None,
    spec: QuantSpec,
    choice: Choice = ANY,
    derivative: Derivative = "straight",
) -> jax.Array:
    """`kernels.reference.quantize_by_scale` without a mask; scale and noise need not have the rank of x."""
    operation, others = _quantization(x, noise, spec, derivative)
    return _run(choice, _by_scale(operation), x, *others, _in_rank_of(x, scale))[0]


def quantize_by_scale_with_mask(
    x: jax.Array,
    scale: jax.Array,
    noise: jax.Array | None,
    spec: QuantSpec,
    choice: Choice = ANY,
    derivative: Derivative = "straight",
) -> tuple[jax.Array, jax.Array]:
    """`quantize_by_scale`, and the packed clip mask in the same pass."""
    operation, others = _quantization(x, noise, spec, derivative)
    operation = dataclasses.replace(_by_scale(operation), packing=_packing_by_type(spec, _at_least_1d(x)))
    y, packed = _run(choice, operation, x, *others, _in_rank_of(x, scale))
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


def clip_gradient_from_x(g: jax.Array, x: jax.Array, spec: QuantSpec, choice: Choice = ANY) -> jax.Array:
    """`kernels.reference.clip_gradient_from_x`."""
    return _run(choice, ClipGradientFromX(spec), g, _at_least_1d(x))[0]


def clip_gradient_by_scale(
    g: jax.Array, x: jax.Array, scale: jax.Array, spec: QuantSpec, choice: Choice = ANY
) -> jax.Array:
    """`kernels.reference.clip_gradient_by_scale`; the scale need not have the rank of x."""
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
    operation, others = _quantization(x, noise, spec)
    if scale is not None:
        operation, others = _by_scale(operation), [*others, _in_rank_of(x, scale)]
    return _partitioning.split_as_result(operation, [x, *others]), noise, scale


# --- arrays as the primitive takes them -------------------------------------------------------------------------------


def _at_least_1d(x: jax.Array) -> jax.Array:
    return x.reshape(1) if x.ndim == 0 else x


def _run(choice: Choice, operation: Operation, first: jax.Array, *others: jax.Array) -> Arrays:
    """The results, the first one in the shape of the first operand, which the primitive takes with an axis at least."""
    result, *more = _primitive.run(operation, _at_least_1d(first), *others, **choice._asdict())
    return [result.reshape(first.shape), *more]


def _quantization(
    x: jax.Array, noise: jax.Array | None, spec: QuantSpec, derivative: Derivative = "formula"
) -> tuple[Quantize, list[jax.Array]]:
    """The description of a quantization, and its operands beside x: noise in the rank of x, a seed, or none."""
    if noise is None:
        return Quantize(spec, derivative=derivative), []
    if spec.draw is None:
        axes = max(x.ndim, 1) - noise.ndim
        return Quantize(spec, "noise", derivative=derivative), [jnp.reshape(noise, (1,) * axes + noise.shape)]
    if not spec.draw.shape:
        spec = dataclasses.replace(spec, draw=dataclasses.replace(spec.draw, shape=(1,), whole=(1,)))
    return Quantize(spec, "seed", derivative=derivative), [noise]


def _by_scale(operation: Quantize) -> QuantizeByScale:
    return QuantizeByScale(operation.spec, operation.noise, operation.packing, operation.derivative)


def _in_rank_of(x: jax.Array, scale: jax.Array) -> jax.Array:
    return jnp.reshape(scale, (1,) * (max(x.ndim, 1) - scale.ndim) + scale.shape)


def _packing_by_type(spec: QuantSpec, x: jax.Array) -> Packing:
    """How the mask of x is packed: so that no shard has parts of groups, as far as its type tells how it is split."""
    how = packing(x.shape)
    types = [jax.typeof(x)]
    layout = _partitioning.layout_by_type(Quantize(spec), types, _partitioning.mesh_of(types))
    return BY_THE_BYTE if layout.cuts(Groups(x.ndim - how.axes, how.group)) else how
