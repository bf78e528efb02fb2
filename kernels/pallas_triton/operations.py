"""The operations in Pallas for CUDA: each is one pass over the flattened arrays."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .. import elementwise
from ..gpu import flattened, tuning
from ..gpu.shapes import Sharing, seed_of
from ..gpu.tuning import Configuration
from ..spec import Draw, QuantSpec, strides_of
from .blocks import Block, Columns, Kernel, columns, for_each_block
from .noise import STREAMS, rejoin

PAST_INFINITY = 0x7F0000  # takes the bits of infinity to the end of int32

# --- the mask, eight elements per byte -------------------------------------------------------------------------------


def pack(mask: jax.Array) -> jax.Array:
    """Packs eight elements per byte, low bit first."""
    bits = mask.astype(jnp.int32).reshape(-1, 8)
    return jnp.sum(bits << lax.broadcasted_iota(jnp.int32, bits.shape, 1), axis=1).astype(jnp.uint8)


def _bits(mask: jax.Array, place: Columns) -> jax.Array:
    """What the mask of some columns adds to the byte of each row."""
    within = place.within()
    mask = mask if within is None else mask & within
    bit = lax.broadcasted_iota(jnp.int32, mask.shape, 1) + place.first
    return jnp.sum(mask.astype(jnp.int32) << bit, axis=1)


def unpack(packed: jax.Array) -> jax.Array:
    """The inverse of `pack`."""
    shape = (packed.shape[0], 8)
    bits = lax.broadcast_in_dim(packed.astype(jnp.int32), shape, (0,)) >> lax.broadcasted_iota(jnp.int32, shape, 1)
    return (bits & 1).reshape(-1) == 1


# --- the formula -----------------------------------------------------------------------------------------------------


def quantized(x: jax.Array, noise: jax.Array | None, spec: QuantSpec, zero: jax.Array, interpret: bool) -> jax.Array:
    """`elementwise.quantize`, in fewer instructions if there is noise and integers are narrow.

    Without noise, the compiler clips two 16-bit floats at once.
    """
    if noise is None or spec.integer_dtype is None or spec.integer_dtype.itemsize > 2:
        return elementwise.quantize(x, noise, spec, zero)
    y = elementwise.widen(elementwise.add_noise(x, noise, spec))
    if interpret:  # a CPU's NaN may have a sign
        y = jnp.where(y == y, y, jnp.nan)
    return to_narrow_integers(y, spec.bound_in(x.dtype), spec)


def to_narrow_integers(y: jax.Array, bound: float, spec: QuantSpec) -> jax.Array:
    """`elementwise.to_integers` of at most 16 bits, which clips the bits of the sum with `SIGNED_WHOLE`.

    As integers, the bits of positive floats are in the order of the floats, and those of negative floats are below
    them. On a GPU a sum of float32 that is NaN has the bits 0x7FFFFFFF. So NaN comes after infinity, and
    `PAST_INFINITY`, whose low 16 bits are 0, makes a negative integer of NaN alone.
    """
    if spec.rounding == "floor_plus_half":
        y, low, high = jnp.floor(y), math.floor(-bound), math.floor(bound)
    else:
        low, high = round(-bound), round(bound)
    bits = lax.bitcast_convert_type(y + elementwise.SIGNED_WHOLE, jnp.int32)
    bits = jnp.maximum(bits, elementwise.SIGNED_WHOLE_BITS + low) + PAST_INFINITY
    bits = jnp.minimum(bits, elementwise.SIGNED_WHOLE_BITS + high + PAST_INFINITY)
    return jnp.maximum(bits, 0).astype(spec.integer_dtype)


# --- the operations --------------------------------------------------------------------------------------------------


def quantize(
    x: jax.Array,
    noise: jax.Array | None,
    spec: QuantSpec,
    *,
    interpret: bool = False,
    configuration: Configuration | None = None,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """`reference.quantize`; the array is divided into blocks by `configuration`, or by default as `tuning` says."""

    def run(x: jax.Array, noise: jax.Array | None, spec: QuantSpec, results: flattened.Results) -> list[jax.Array]:
        n, examples = flattened.examples_of(x, noise, spec)
        operation = tuning.quantization(spec, with_noise=noise is not None)
        chosen = configuration or tuning.here("pallas_triton", x.dtype, operation, interpret, n, examples)
        if noise is None or spec.draw is None:
            kernel, name = _reading(x, noise, spec, interpret), "intnumerics_quantize"
        else:
            kernel = _drawing(x, noise, spec, spec.draw, chosen.threads, interpret)
            name = "intnumerics_quantize_with_noise"
        inputs = [x.reshape(-1)] if noise is None else [x.reshape(-1), noise.reshape(-1)]
        return for_each_block(kernel, n, inputs, results, name, interpret, chosen, examples)

    return flattened.quantize(x, noise, spec, STREAMS, run)


def _reading(x: jax.Array, noise: jax.Array | None, spec: QuantSpec, interpret: bool) -> Kernel:
    """The kernel that reads noise, if there is any, from an array that broadcasts to x."""
    sharing = None if noise is None or noise.shape == x.shape else Sharing.of(x.shape, strides_of(noise.shape))

    def kernel(block: Block, x_ref: Any, *refs: Any) -> None:
        noise_ref, (y_ref, *mask_ref) = (None, refs) if noise is None else (refs[0], refs[1:])
        values, added = block.load(x_ref), None
        if noise_ref is not None:
            at = None if sharing is None else sharing.index(block.index())
            added = elementwise.widen(block.load(noise_ref, at))
        block.store(y_ref, quantized(values, added, spec, block.unknown_zero(), interpret))
        if mask_ref:
            mask = elementwise.inside(values, spec)
            within = block.within()
            block.packed().store(mask_ref[0], pack(mask if within is None else mask & within))

    return kernel


def _drawing(x: jax.Array, seed: jax.Array, spec: QuantSpec, draw: Draw, rows: int, interpret: bool) -> Kernel:
    """The kernel that draws noise, in parts of `rows` times eight elements: a thread's eight stay in its registers."""
    rank, result = seed.ndim - 1, spec.result_dtype(x.dtype)
    width = 16 // max(x.dtype.itemsize, result.itemsize)  # so that a thread moves at most 128 bits at once
    joins = result.itemsize < x.dtype.itemsize

    def kernel(block: Block, x_ref: Any, seed_ref: Any, y_ref: Any, *mask_ref: Any) -> None:
        stream = STREAMS[draw.generator](
            block, seed_of(block.example, seed_ref, x.shape[:rank], seed.shape), draw, rows
        )
        zero = block.unknown_zero()
        for turn, part in enumerate(block.parts(8 * rows)):
            places = columns(part, width)
            values = [place.load(x_ref) for place in places]  # first, so that drawing hides their latency
            noise = stream.uniform(turn, width)
            results = [quantized(x, u, spec, zero, interpret) for x, u in zip(values, noise, strict=True)]
            if joins:
                results = [rejoin(results)]
            for place, result in zip(columns(part, 8) if joins else places, results, strict=True):
                place.store(y_ref, result)
            if mask_ref:
                bits = (_bits(elementwise.inside(x, spec), place) for x, place in zip(values, places, strict=True))
                part.packed().store(mask_ref[0], sum(bits, jnp.int32(0)).astype(jnp.uint8))

    return kernel


def clip_gradient_from_mask(
    g: jax.Array, packed: jax.Array, *, interpret: bool = False, configuration: Configuration | None = None
) -> jax.Array:
    """`reference.clip_gradient_from_mask`; `configuration` as in `quantize`."""

    def mask_of(block: Block, ref: Any) -> jax.Array:
        return unpack(block.packed().load(ref))

    return _clip_gradient(g, packed, mask_of, tuning.FROM_MASK, interpret, configuration)


def clip_gradient_from_x(
    g: jax.Array, x: jax.Array, spec: QuantSpec, *, interpret: bool = False, configuration: Configuration | None = None
) -> jax.Array:
    """`reference.clip_gradient_from_x`; `configuration` as in `quantize`."""

    def mask_of(block: Block, ref: Any) -> jax.Array:
        return elementwise.inside(block.load(ref), spec)

    return _clip_gradient(g, x, mask_of, tuning.FROM_X, interpret, configuration)


def _clip_gradient(
    g: jax.Array,
    kept: jax.Array,
    mask_of: Callable[[Block, Any], jax.Array],
    operation: str,
    interpret: bool,
    configuration: Configuration | None,
) -> jax.Array:
    """`where(mask, g, 0)`, with the mask that `mask_of` makes from a block of what was kept for the backward."""

    def kernel(block: Block, g_ref: Any, kept_ref: Any, out_ref: Any) -> None:
        values = block.load(g_ref)
        block.store(out_ref, jnp.where(mask_of(block, kept_ref), values, jnp.zeros_like(values)))

    def run(g: jax.Array, kept: jax.Array, results: flattened.Results) -> list[jax.Array]:
        chosen = configuration or tuning.here("pallas_triton", g.dtype, operation, interpret, g.size)
        name, inputs = f"intnumerics_{operation.replace(' ', '_')}", [g.reshape(-1), kept.reshape(-1)]
        return for_each_block(kernel, g.size, inputs, results, name, interpret, chosen)

    return flattened.clip_gradient(g, kept, run)
