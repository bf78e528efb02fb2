"""The operations in Pallas' Mosaic GPU: each is one pass over the flattened arrays.

XLA handles the elements after the last whole block, and so all of an example that is smaller than a block. It also
handles by itself what would need one more array for a kernel: noise from an array of another shape than x, noise that
no `STREAMS` draw, and masks of rows that are not whole bytes. Either way there is one pass.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .. import float_rounding, xla
from ..generators import kernel_words
from ..gpu import tuning
from ..gpu.flattened import examples_of
from ..gpu.shapes import draws_in_kernel, missing_columns, seed_of
from ..gpu.tuning import Configuration
from ..spec import Draw, QuantSpec, packed_shape
from . import formula, rest
from .noise import STREAMS
from .tiles import THREADS, TILE, Interpret, Kernel, Program, Tile, for_each_block


def quantize(
    x: jax.Array,
    noise: jax.Array | None,
    spec: QuantSpec,
    *,
    interpret: Interpret = False,
    configuration: Configuration | None = None,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """`reference.quantize`; the array is divided into blocks by `configuration`, or by default as `tuning` says.

    Raises:
        ValueError: `configuration` does not have the four warps of a warpgroup.
    """
    n, examples = examples_of(x, noise, spec)
    operation = tuning.quantization(spec, with_noise=noise is not None)
    size = _block(x, operation, interpret, configuration, n, examples)
    if n < size or not examples or not _is_for_a_kernel(x, noise, spec, n, examples):
        return xla.quantize(x, noise, spec, platform="cuda")
    results = [jax.ShapeDtypeStruct((x.size,), spec.stored_dtype(x.dtype))]
    if spec.with_mask:
        results.append(jax.ShapeDtypeStruct((math.prod(packed_shape(x.shape)),), jnp.uint8))
    if noise is None or spec.draw is None:
        kernel, name, given = _reading(spec, noise is not None), "intnumerics_quantize", noise
    else:
        given = kernel_words(spec.draw, noise)
        kernel, name = _drawing(x, given, spec, spec.draw), "intnumerics_quantize_with_noise"
    inputs = [x.reshape(-1)] if given is None else [x.reshape(-1), given.reshape(-1)]
    found = for_each_block(kernel, n, inputs, results, name, interpret, size, examples)
    if spec.to_float is not None:
        found = [float_rounding.numbers(found[0], spec.to_float)]
    y, *packed = rest.quantize(x, noise, spec, examples, n // size * size, found)
    y = y.reshape(x.shape)
    return (y, packed[0].reshape(packed_shape(x.shape))) if packed else y


def _is_for_a_kernel(x: jax.Array, noise: jax.Array | None, spec: QuantSpec, n: int, examples: int) -> bool:
    """Whether a kernel can do a quantization: XLA does it otherwise, see above."""
    if spec.with_mask and missing_columns(x.shape):
        return False
    if noise is None or spec.draw is None:
        return noise is None or noise.shape == x.shape
    starts_at_eights = examples == 1 or n % 8 == 0
    return starts_at_eights and draws_in_kernel(x, noise, spec, STREAMS)


def _block(
    x: jax.Array,
    operation: str,
    interpret: Interpret,
    configuration: Configuration | None,
    n: int,
    examples: int = 1,
) -> int:
    """How many elements a program handles.

    Without a `configuration` it is halved until the rest of an example, which XLA handles, is at most a 16th of it.
    """
    chosen = configuration or tuning.here("pallas_mosaic_gpu", x.dtype, operation, bool(interpret), n, examples)
    if chosen.threads != THREADS:
        raise ValueError(
            f"configuration={chosen} is not for implementation='pallas_mosaic_gpu', whose programs are one warpgroup: "
            f"give {THREADS // tuning.WARP} warps, and choose only the block"
        )
    block = chosen.block
    while configuration is None and block > TILE and n % block > n // 16:
        block //= 2
    return block


def _reading(spec: QuantSpec, with_noise: bool) -> Kernel:
    """The kernel that reads noise, if there is any."""

    def kernel(program: Program, x_ref: Any, *refs: Any) -> None:
        for tile, values in program.each(x_ref):
            noise = tile.load(refs[0]).astype(jnp.float32) if with_noise else None
            _quantize(program, tile, values, noise, spec, *refs[with_noise:])

    return kernel


def _drawing(x: jax.Array, words: jax.Array, spec: QuantSpec, draw: Draw) -> Kernel:
    """The kernel that draws noise."""
    rank = words.ndim - 1

    def kernel(program: Program, x_ref: Any, words_ref: Any, *refs: Any) -> None:
        stream = STREAMS[draw.generator](seed_of(program.example, words_ref, x.shape[:rank], words.shape), draw)
        for tile in program.tiles:
            values = tile.load(x_ref)  # first, so that drawing hides its latency
            _quantize(program, tile, values, stream.uniform(tile), spec, *refs)

    return kernel


def _quantize(
    program: Program,
    tile: Tile,
    x: jax.Array,
    noise: jax.Array | None,
    spec: QuantSpec,
    y_ref: Any,
    *mask_ref: Any,
) -> None:
    """Quantizes a tile."""
    tile.store(y_ref, formula.quantize(x, noise, spec))
    if mask_ref:
        tile.store_bytes(mask_ref[0], formula.pack(tile, formula.inside(x, spec)))


def clip_gradient_from_mask(
    g: jax.Array, packed: jax.Array, *, interpret: Interpret = False, configuration: Configuration | None = None
) -> jax.Array:
    """`reference.clip_gradient_from_mask`; `configuration` as in `quantize`."""
    size = _block(g, tuning.FROM_MASK, interpret, configuration, g.size)
    if g.size < size or missing_columns(g.shape):
        return xla.clip_gradient_from_mask(g, packed)

    def mask_of(tile: Tile, ref: Any) -> jax.Array:
        return formula.unpack(tile, tile.load_bytes(ref))

    found = _clip_gradient(g, packed, mask_of, tuning.FROM_MASK, interpret, size)
    return rest.clip_gradient_from_mask(g, packed, g.size // size * size, found).reshape(g.shape)


def clip_gradient_from_x(
    g: jax.Array,
    x: jax.Array,
    spec: QuantSpec,
    *,
    interpret: Interpret = False,
    configuration: Configuration | None = None,
) -> jax.Array:
    """`reference.clip_gradient_from_x`; `configuration` as in `quantize`."""
    size = _block(g, tuning.FROM_X, interpret, configuration, g.size)
    if g.size < size:
        return xla.clip_gradient_from_x(g, x, spec)

    def mask_of(tile: Tile, ref: Any) -> jax.Array:
        return formula.inside(tile.load(ref), spec)

    found = _clip_gradient(g, x, mask_of, tuning.FROM_X, interpret, size)
    return rest.clip_gradient_from_x(g, x, spec, g.size // size * size, found).reshape(g.shape)


def _clip_gradient(
    g: jax.Array,
    kept: jax.Array,
    mask_of: Callable[[Tile, Any], jax.Array],
    operation: str,
    interpret: Interpret,
    size: int,
) -> jax.Array:
    """`where(mask, g, 0)`, with the mask that `mask_of` makes from a tile of what was kept for the backward."""

    def kernel(program: Program, g_ref: Any, kept_ref: Any, out_ref: Any) -> None:
        for tile, values in program.each(g_ref):
            tile.store(out_ref, jnp.where(mask_of(tile, kept_ref), values, jnp.zeros_like(values)))

    name, inputs = f"intnumerics_{operation.replace(' ', '_')}", [g.reshape(-1), kept.reshape(-1)]
    [result] = for_each_block(kernel, g.size, inputs, [jax.ShapeDtypeStruct((g.size,), g.dtype)], name, interpret, size)
    return result
