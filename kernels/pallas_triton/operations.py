"""Pallas for CUDA, through Pallas' Triton lowering: one pass over the flattened arrays."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .. import elementwise
from ..generators import drawn as draw_array
from ..gpu import tuning
from ..gpu.shapes import draws_in_kernel, pad_rows, padded_for_mask, ragged
from ..gpu.tuning import Configuration
from ..spec import Draw, QuantSpec, packed_shape, strides_of
from .blocks import Block, Columns, columns, for_each_block
from .noise import Stream, broadcast_index, join, split

# --- the mask, eight elements a byte ---------------------------------------------------------------------------------


def pack(mask: jax.Array) -> jax.Array:
    """Eight elements a byte, low bit first."""
    bits = mask.astype(jnp.int32).reshape(-1, 8)
    return jnp.sum(bits << lax.broadcasted_iota(jnp.int32, bits.shape, 1), axis=1).astype(jnp.uint8)


def _bits(mask: jax.Array, place: Columns) -> jax.Array:
    """What columns of a part add to the bytes of their rows."""
    within = place.within()
    mask = mask if within is None else mask & within
    bit = lax.broadcasted_iota(jnp.int32, mask.shape, 1) + place.first
    return jnp.sum(mask.astype(jnp.int32) << bit, axis=1)


def unpack(packed: jax.Array) -> jax.Array:
    """`pack` undone."""
    shape = (packed.shape[0], 8)
    bits = lax.broadcast_in_dim(packed.astype(jnp.int32), shape, (0,)) >> lax.broadcasted_iota(jnp.int32, shape, 1)
    return (bits & 1).reshape(-1) == 1


# --- the operations --------------------------------------------------------------------------------------------------


def quantize(
    x: jax.Array,
    noise: jax.Array | None,
    spec: QuantSpec,
    *,
    interpret: bool = False,
    configuration: Configuration | None = None,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """`reference.quantize` in one pass, divided as it is told or, without a configuration, as `tuning` says."""
    shape, dtype = x.shape, spec.result_dtype(x.dtype)
    if not x.size:
        empty = jnp.zeros(shape, dtype)
        return (empty, jnp.zeros(packed_shape(shape), jnp.uint8)) if spec.with_mask else empty
    if noise is not None and spec.draw is not None:
        if draws_in_kernel(x, noise, spec):
            return _quantize_drawing(x, noise, spec, spec.draw, interpret, configuration)
        noise, spec = draw_array(spec.draw, noise), dataclasses.replace(spec, draw=None)
    if spec.with_mask:
        x, noise = padded_for_mask(x, noise)
    noise_shape = x.shape if noise is None else noise.shape

    def kernel(block: Block, x_ref: Any, *refs: Any) -> None:
        noise_ref, (y_ref, *mask_ref) = (None, refs) if noise is None else (refs[0], refs[1:])
        values, drawn = block.load(x_ref), None
        if noise_ref is not None:
            at = None
            if noise_shape != x.shape:
                at = broadcast_index(block.index(), x.shape, strides_of(noise_shape))
            drawn = elementwise.widen(block.load(noise_ref, at))
        block.store(y_ref, elementwise.quantize(values, drawn, spec, _tiny(block)))
        if mask_ref:
            mask = elementwise.inside(values, spec)
            within = block.within()
            block.packed().store(mask_ref[0], pack(mask if within is None else mask & within))

    outputs = [jax.ShapeDtypeStruct((x.size,), dtype)]
    if spec.with_mask:
        outputs.append(jax.ShapeDtypeStruct((-(-x.size // 8),), jnp.uint8))
    inputs = [x.reshape(-1)] if noise is None else [x.reshape(-1), noise.reshape(-1)]
    chosen = configuration or tuning.here(
        x.dtype, tuning.quantization(spec, with_noise=noise is not None), interpret, x.size
    )
    y, *packed = for_each_block(kernel, x.size, inputs, outputs, "intnumerics_quantize", interpret, chosen)
    y = y.reshape(x.shape)[..., : shape[-1]]
    return (y, packed[0].reshape(packed_shape(shape))) if spec.with_mask else y


def _quantize_drawing(
    x: jax.Array, seed: jax.Array, spec: QuantSpec, draw: Draw, interpret: bool, configuration: Configuration | None
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """`quantize` where `draws_in_kernel`: in parts of eight elements a thread, in whose registers they stay."""
    shape, dtype, rank = x.shape, spec.result_dtype(x.dtype), seed.ndim - 1
    n, examples = math.prod(shape[rank:]), math.prod(shape[:rank])
    width = 16 // max(x.dtype.itemsize, dtype.itemsize)  # so that neither moves more than 128 bits at once
    joins = dtype.itemsize < x.dtype.itemsize
    chosen = configuration or tuning.here(x.dtype, tuning.quantization(spec, True), interpret, n, examples)

    def kernel(block: Block, x_ref: Any, seed_ref: Any, y_ref: Any, *mask_ref: Any) -> None:
        stream = Stream(block, seed_ref, shape[:rank], seed.shape[:rank], draw, chosen.threads)
        for turn, part in enumerate(block.parts(8 * chosen.threads)):
            places = columns(part, width)
            values = [place.load(x_ref) for place in places]  # first, so that the stream hides their latency
            noise = stream.uniform(turn, width)
            results = [elementwise.quantize(x, u, spec, _tiny(block)) for x, u in zip(values, noise, strict=True)]
            if joins:
                results = [join([column for result in results for column in split(result)])]
            for place, result in zip(columns(part, 8) if joins else places, results, strict=True):
                place.store(y_ref, result)
            if mask_ref:
                bits = (_bits(elementwise.inside(x, spec), place) for x, place in zip(values, places, strict=True))
                part.packed().store(mask_ref[0], sum(bits, jnp.int32(0)).astype(jnp.uint8))

    outputs = [jax.ShapeDtypeStruct((x.size,), dtype)]
    if spec.with_mask:
        outputs.append(jax.ShapeDtypeStruct((examples * -(-n // 8),), jnp.uint8))
    inputs = [x.reshape(-1), seed.reshape(-1)]
    y, *packed = for_each_block(
        kernel, n, inputs, outputs, "intnumerics_quantize_with_noise", interpret, chosen, examples
    )
    y = y.reshape(shape)
    return (y, packed[0].reshape(packed_shape(shape))) if spec.with_mask else y


def _tiny(block: Block) -> jax.Array:
    """A zero for NaN that the compiler cannot see through, or it would select bytes, at one instruction more."""
    return lax.bitcast_convert_type(block.i, jnp.float32)


def clip_gradient_from_mask(
    g: jax.Array, packed: jax.Array, *, interpret: bool = False, configuration: Configuration | None = None
) -> jax.Array:
    """`reference.clip_gradient_from_mask` in one pass; `configuration` as in `quantize`."""
    shape = g.shape
    if not g.size:
        return g
    g = pad_rows(g, ragged(shape), 0.0)

    def kernel(block: Block, g_ref: Any, packed_ref: Any, out_ref: Any) -> None:
        values = block.load(g_ref)
        mask = unpack(block.packed().load(packed_ref))
        block.store(out_ref, jnp.where(mask, values, jnp.zeros_like(values)))

    out = [jax.ShapeDtypeStruct((g.size,), g.dtype)]
    inputs = [g.reshape(-1), packed.reshape(-1)]
    chosen = configuration or tuning.here(g.dtype, tuning.FROM_MASK, interpret, g.size)
    [result] = for_each_block(kernel, g.size, inputs, out, "intnumerics_clip_gradient_from_mask", interpret, chosen)
    return result.reshape(g.shape)[..., : shape[-1]]


def clip_gradient_from_x(
    g: jax.Array,
    x: jax.Array,
    spec: QuantSpec,
    *,
    interpret: bool = False,
    configuration: Configuration | None = None,
) -> jax.Array:
    """`reference.clip_gradient_from_x` in one pass; `configuration` as in `quantize`."""
    if not g.size:
        return g

    def kernel(block: Block, g_ref: Any, x_ref: Any, out_ref: Any) -> None:
        values = block.load(g_ref)
        mask = elementwise.inside(block.load(x_ref), spec)
        block.store(out_ref, jnp.where(mask, values, jnp.zeros_like(values)))

    out = [jax.ShapeDtypeStruct((g.size,), g.dtype)]
    inputs = [g.reshape(-1), x.reshape(-1)]
    chosen = configuration or tuning.here(g.dtype, tuning.FROM_X, interpret, g.size)
    [result] = for_each_block(kernel, g.size, inputs, out, "intnumerics_clip_gradient_from_x", interpret, chosen)
    return result.reshape(g.shape)
