"""The operations as functions of arrays of any shape, under every transform; their arguments were checked before."""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp

from . import _partitioning, _primitive
from ._mask_packing import BY_THE_BYTE, Packing, packing, packing_of
from ._operation import Groups
from ._quantization import ClipGradientFromMask, ClipGradientFromX, Derivative, Quantize, noise_alone
from .kernels import Draw, QuantSpec


def quantize(
    x: jax.Array,
    noise: jax.Array | None,
    spec: QuantSpec,
    implementation: str | None = None,
    interpret: str | None = None,
    derivative: Derivative = "formula",
) -> jax.Array:
    """`kernels.reference.quantize` without a mask.

    Args:
        x: Floats of any shape.
        noise: None, floats that broadcast to x, or with `spec.draw` the seed of the noise, uint32 [4].
        spec: What to do.
        implementation: A name in `kernels.TABLE`, or None.
        interpret: None, or the platform whose kernel runs in interpret mode.
        derivative: As in `Quantize`.

    Returns:
        The result, in the shape of x.
    """
    rows, operands = _at_least_1d(x), _operands(x, noise, spec)
    operation = dataclasses.replace(_quantization(spec, rows, noise), derivative=derivative)
    [y] = _primitive.run(operation, *operands, implementation=implementation, interpret=interpret)
    return y.reshape(x.shape)


def quantize_with_mask(
    x: jax.Array,
    noise: jax.Array | None,
    spec: QuantSpec,
    implementation: str | None = None,
    interpret: str | None = None,
    derivative: Derivative = "formula",
) -> tuple[jax.Array, jax.Array]:
    """`quantize`, and the clip mask in the same pass.

    Returns:
        The result, and the mask packed to one bit per element, uint8, as `_mask_packing.py` describes.
    """
    rows, operands = _at_least_1d(x), _operands(x, noise, spec)
    operation = dataclasses.replace(
        _quantization(spec, rows, noise), packing=_packing_by_type(spec, rows), derivative=derivative
    )
    y, packed = _primitive.run(operation, *operands, implementation=implementation, interpret=interpret)
    return y.reshape(x.shape), packed


def clip_gradient_from_mask(
    g: jax.Array, packed: jax.Array, implementation: str | None = None, interpret: str | None = None
) -> jax.Array:
    """`kernels.reference.clip_gradient_from_mask`."""
    operation = ClipGradientFromMask(packing_of(packed.shape, _at_least_1d(g).shape))
    return _clip_gradient(operation, g, packed, implementation, interpret)


def clip_gradient_from_x(
    g: jax.Array, x: jax.Array, spec: QuantSpec, implementation: str | None = None, interpret: str | None = None
) -> jax.Array:
    """`kernels.reference.clip_gradient_from_x`."""
    return _clip_gradient(ClipGradientFromX(spec), g, _at_least_1d(x), implementation, interpret)


def _clip_gradient(
    operation: ClipGradientFromMask | ClipGradientFromX,
    g: jax.Array,
    kept: jax.Array,
    implementation: str | None,
    interpret: str | None,
) -> jax.Array:
    operands = _at_least_1d(g), kept
    return _primitive.run(operation, *operands, implementation=implementation, interpret=interpret)[0].reshape(g.shape)


@functools.partial(jax.jit, static_argnums=0)
def drawn(draw: Draw, seed: jax.Array) -> jax.Array:
    """The noise that a pass draws, float32 of (*batch, *draw.shape): what it adds to zeros."""
    zeros = jnp.zeros((*seed.shape[:-1], *draw.shape), jnp.float32)
    return quantize(zeros, seed, noise_alone(draw).spec)


def of_one_type(x: jax.Array, noise: jax.Array, spec: QuantSpec) -> tuple[jax.Array, jax.Array]:
    """x, and noise or its seed, such that the result has the type of x: it varies and is split along the same axes.

    `custom_vjp` wants the cotangent of x in the type of x, and the backward gives it in the type of the result. What is
    done to x here is differentiable: the derivative of an x that several devices share is the sum of their cotangents.
    """
    x, noise = _primitive.varying_alike([x, noise])
    if not x.ndim or not _partitioning.mesh_of([jax.typeof(x), jax.typeof(noise)]).explicit_axes:
        return x, noise
    operands = _operands(x, noise, spec)
    return _partitioning.split_as_result(_quantization(spec, x, noise), operands), noise


# --- arrays as the primitive takes them -------------------------------------------------------------------------------


def _at_least_1d(x: jax.Array) -> jax.Array:
    return x.reshape(1) if x.ndim == 0 else x


def _operands(x: jax.Array, noise: jax.Array | None, spec: QuantSpec) -> list[jax.Array]:
    """x with an axis at least, and noise with as many axes as x, or a seed."""
    x = _at_least_1d(x)
    if noise is None:
        return [x]
    return [x, noise if spec.draw is not None else jnp.reshape(noise, (1,) * (x.ndim - noise.ndim) + noise.shape)]


def _quantization(spec: QuantSpec, x: jax.Array, noise: jax.Array | None) -> Quantize:
    """The description of a quantization of an x with an axis at least."""
    if noise is None:
        return Quantize(spec)
    kind: Literal["noise", "seed"] = "noise" if spec.draw is None else "seed"
    if spec.draw is not None and not spec.draw.shape:
        spec = dataclasses.replace(spec, draw=dataclasses.replace(spec.draw, shape=(1,), whole=(1,)))
    return Quantize(spec, kind)


def _packing_by_type(spec: QuantSpec, x: jax.Array) -> Packing:
    """How the mask of x is packed: so that no shard has parts of groups, as far as its type tells how it is split."""
    how = packing(x.shape)
    layout = _partitioning.layout_by_type(Quantize(spec), [jax.typeof(x)])
    return BY_THE_BYTE if layout.cuts(Groups(x.ndim - how.axes, how.group)) else how
