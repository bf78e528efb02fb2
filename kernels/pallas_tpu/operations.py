"""The operations in Pallas for TPU: the kernels, and the calls that run them over all blocks of an array."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..generators import PLAIN, drawn, kernel_words
from ..spec import Draw, QuantSpec, packed_shape
from .formula import LANES, inside, masked, pack, quantize_block, unpack, widen
from .noise import IN_KERNEL, noise_block
from .tiling import Tiling, tile, tile_draw


def carried(x: jax.Array) -> jax.Array:
    """x as a kernel takes and returns it: float16 as the int16 of its bits, because Mosaic does not take float16."""
    return lax.bitcast_convert_type(x, jnp.int16) if x.dtype == jnp.float16 else x


# --- kernels ----------------------------------------------------------------------------------------------------------


def rows_of(ref: jax.Ref) -> jax.Array:
    """The elements of a block, in rows of lanes."""
    return ref[...].reshape(-1, LANES) if len(ref.shape) == 1 else ref[...]


def without_tail(packed: jax.Array, tiling: Tiling) -> jax.Array:
    """A block of packed bytes with zeros for the bits beyond the end of the last axis, where a block is undefined."""
    length, block = tiling.shape[-1], tiling.packed.block[-1]
    if length % 8 == 0 or (tiling.grid[-1] == 1 and not tiling.folded):
        return packed
    index = lax.broadcasted_iota(jnp.int32, packed.shape, packed.ndim - 1)
    if tiling.folded:
        index = index + lax.broadcasted_iota(jnp.int32, packed.shape, 0) * LANES
    last = length // 8 - pl.program_id(len(tiling.grid) - 1) * (block or 1)
    return jnp.where(index == last, packed & ((1 << length % 8) - 1), packed)


def write(
    x: jax.Array, noise: jax.Array | None, refs: Sequence[jax.Ref], spec: QuantSpec, tiling: Tiling, dtype: np.dtype
) -> None:
    """Writes the result of a block and, if there is a reference for it, the packed mask."""
    y_ref, *packed_refs = refs
    y_ref[...] = quantize_block(x, noise, spec, dtype).reshape(y_ref.shape)
    for packed_ref in packed_refs:
        packed = without_tail(pack(inside(x, spec, dtype), tiling.folded), tiling)
        packed_ref[...] = packed.reshape(packed_ref.shape).astype(jnp.uint8)


def from_mask_kernel(g_ref: jax.Ref, packed_ref: jax.Ref, o_ref: jax.Ref, *, tiling: Tiling) -> None:
    """One block of `where(mask, g, 0)`."""
    g = rows_of(g_ref)
    o_ref[...] = masked(g, unpack(rows_of(packed_ref), g.shape, tiling.folded)).reshape(o_ref.shape)


def from_x_kernel(g_ref: jax.Ref, x_ref: jax.Ref, o_ref: jax.Ref, *, spec: QuantSpec, dtype: np.dtype) -> None:
    """One block of `where(|x| <= bound, g, 0)`."""
    mask = inside(widen(rows_of(x_ref), dtype), spec, dtype)
    o_ref[...] = masked(rows_of(g_ref), mask).reshape(o_ref.shape)


def per_example(words: jax.Array, batch: tuple[int, ...]) -> jax.Array:
    """The words of seeds, for each example of a batch, whose axes may have size 1: uint32 (examples, n)."""
    return jnp.broadcast_to(words, (*batch, words.shape[-1])).reshape(-1, words.shape[-1])


def words_of(draw: Draw, seed: jax.Array, batch: tuple[int, ...]) -> jax.Array:
    """The `kernel_words` for each example of a batch, or once for all examples: uint32 (examples or 1, n)."""
    if math.prod(seed.shape[:-1]) != 1:
        return per_example(kernel_words(draw, seed), batch)
    # Twice, because XLA for TPU makes a program for each operation on a single number, of which there are hundreds.
    return kernel_words(draw, lax.optimization_barrier(jnp.broadcast_to(seed.reshape(1, -1), (2, 4))))[:1]


def run(
    kernel: Callable[..., None],
    operands: Sequence[tuple[jax.Array, Tiling, tuple[int, ...]]],
    results: Sequence[tuple[Tiling, tuple[int, ...], np.dtype]],
    name: str,
    interpret: bool | pltpu.InterpretParams,
    words: jax.Array | None = None,
) -> list[jax.Array]:
    """Runs a kernel over all blocks of the operands, which have their tiling and their shape in the kernel.

    With `words`, as `words_of` returns them, those of the current example are the first argument of the kernel.
    """
    arrays = [carried(a).reshape(shape) for a, _, shape in operands]
    in_specs = [tiles.block_spec(shape) for _, tiles, shape in operands]
    axes = jax.typeof(arrays[0]).manual_axis_type
    if words is not None:
        several, n = len(words) > 1, words.shape[1]  # if several, the first axis of the grid counts the examples
        spec = pl.BlockSpec((None, 1, n), lambda *at: (at[0] if several else 0, 0, 0), memory_space=pltpu.SMEM)
        arrays, in_specs = [words[:, None], *arrays], [spec, *in_specs]
    out = [
        jax.ShapeDtypeStruct(tiles.shape, jnp.int16 if dtype == jnp.float16 else dtype, manual_axis_type=axes)
        for tiles, _, dtype in results
    ]
    tiling, moved = results[0][0], sum(a.size * a.dtype.itemsize for a in (*arrays, *out))
    returned = pl.pallas_call(
        kernel,
        grid=tiling.grid,
        in_specs=in_specs,
        out_specs=[tiles.block_spec(tiles.shape) for tiles, _, _ in results],
        out_shape=out,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",) * len(tiling.grid)),
        cost_estimate=pl.CostEstimate(flops=8 * math.prod(tiling.shape), bytes_accessed=moved, transcendentals=0),
        interpret=interpret,
        name=f"intnumerics_{name}",
    )(*arrays)
    restored = [(a.reshape(shape), dtype) for a, (_, shape, dtype) in zip(returned, results, strict=True)]
    return [lax.bitcast_convert_type(a, dtype) if dtype == jnp.float16 else a for a, dtype in restored]


# --- the operations, which `reference.py` documents -------------------------------------------------------------------


def check(**dtypes: np.dtype | None) -> None:
    """Raises NotImplementedError for a dtype that the kernels do not take."""
    for name, dtype in dtypes.items():
        if dtype is not None and dtype not in (jnp.float32, jnp.bfloat16, jnp.float16):
            raise NotImplementedError(
                f"{name} is {dtype}, which the TPU kernels do not take: "
                'make it float32, bfloat16 or float16, or use implementation="xla"'
            )


def quantize(
    x: jax.Array, noise: jax.Array | None, spec: QuantSpec, *, interpret: bool = False
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """See `reference.quantize`; one pass over x."""
    check(x=x.dtype, noise=None if noise is None or spec.draw else noise.dtype, noise_dtype=spec.noise_dtype)
    dtype, packed = spec.result_dtype(x.dtype), packed_shape(x.shape)
    if x.size == 0:
        y = jnp.zeros(x.shape, dtype)
        return (y, jnp.zeros(packed, jnp.uint8)) if spec.with_mask else y
    if noise is not None and spec.draw is not None:
        return quantize_with_draw(x, noise, spec, spec.draw, interpret)
    tiling, noise_shape = tile(x, noise, dtype.itemsize)
    operands = [(x, tiling, tiling.shape)]
    if noise is not None:
        operands.append((noise, tiling, noise_shape))
    dtypes = [a.dtype for a, _, _ in operands]

    def kernel(*refs: jax.Ref) -> None:
        blocks = [widen(rows_of(ref), dtype) for ref, dtype in zip(refs, dtypes, strict=False)]
        block, added = blocks if len(blocks) == 2 else (*blocks, None)
        write(block, added, refs[len(blocks) :], spec, tiling, dtypes[0])

    y, *mask = run(kernel, operands, results_of(x, spec, tiling), "quantize", interpret)
    return (y, mask[0]) if spec.with_mask else y


def results_of(x: jax.Array, spec: QuantSpec, tiling: Tiling) -> list[tuple[Tiling, tuple[int, ...], np.dtype]]:
    """The results of a quantization, as `run` takes them."""
    results = [(tiling, x.shape, spec.result_dtype(x.dtype))]
    if spec.with_mask:
        results.append((tiling.packed, packed_shape(x.shape), np.dtype(jnp.uint8)))
    return results


def quantize_with_draw(
    x: jax.Array, seed: jax.Array, spec: QuantSpec, draw: Draw, interpret: bool
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """`quantize` with noise that is drawn.

    The kernel draws the noise, except if a draw is shared along an axis, if an example is a single number without axes,
    or if the kernel cannot draw from the generator. Then the noise is drawn before the pass.
    """
    batch = x.shape[: x.ndim - len(draw.shape)]
    generator = IN_KERNEL.get(draw.generator)
    if generator is None or not draw.shape or (*batch, *draw.shape) != x.shape or not generator.serves(draw):
        noise = drawn_before(draw, seed, interpret)
        return quantize(x, noise, dataclasses.replace(spec, draw=None), interpret=interpret)
    (example, _), examples = tile_draw(draw), math.prod(batch)
    if len(example.shape) == 1 and examples > 1:  # a batch of rows would have other blocks
        one_by_one = (x.reshape(-1, *draw.shape), per_example(seed, batch))
        results = lax.map(lambda one: quantize(one[0], one[1], spec, interpret=interpret), one_by_one)
        return jax.tree.map(lambda a: a.reshape(*batch, -1), results)
    tiling = example if examples == 1 else example.of_batch(examples)
    outer, dtype = len(tiling.grid) - len(example.grid), x.dtype

    def kernel(words_ref: jax.Ref, x_ref: jax.Ref, *refs: jax.Ref) -> None:
        block = widen(rows_of(x_ref), dtype)
        write(block, noise_block(words_ref, block.shape, draw, outer), refs, spec, tiling, dtype)

    interpreted = pltpu.InterpretParams() if interpret and generator.needs_tpu_interpreter else interpret
    operands, results = [(x, tiling, tiling.shape)], results_of(x, spec, tiling)
    y, *mask = run(kernel, operands, results, "quantize_with_noise", interpreted, words_of(draw, seed, batch))
    return (y, mask[0]) if spec.with_mask else y


def drawn_before(draw: Draw, seed: jax.Array, interpret: bool) -> jax.Array:
    """`generators.drawn` for every generator; without a plain form, a kernel adds the noise to zeros."""
    if draw.generator in PLAIN:
        return drawn(draw, seed, "tpu")
    batch, shape = seed.shape[:-1], draw.shape or (1,)
    spec = QuantSpec(math.inf, clip=False, rounding=None, draw=Draw(draw.generator, shape))
    zeros = lax.full_like(seed, 0, jnp.float32, (*batch, *shape))  # varies along the same axes of a mesh as the seed
    return cast(jax.Array, quantize(zeros, seed, spec, interpret=interpret)).reshape(*batch, *draw.shape)


def clip_gradient_from_mask(g: jax.Array, packed: jax.Array, *, interpret: bool = False) -> jax.Array:
    """See `reference.clip_gradient_from_mask`; one pass over g."""
    check(g=g.dtype)
    if g.size == 0:
        return g
    tiling, _ = tile(g)
    operands = [(g, tiling, tiling.shape), (packed, tiling.packed, tiling.packed.shape)]
    kernel = functools.partial(from_mask_kernel, tiling=tiling)
    return run(kernel, operands, [(tiling, g.shape, g.dtype)], "clip_gradient_from_mask", interpret)[0]


def clip_gradient_from_x(g: jax.Array, x: jax.Array, spec: QuantSpec, *, interpret: bool = False) -> jax.Array:
    """See `reference.clip_gradient_from_x`; one pass over g and x."""
    check(g=g.dtype, x=x.dtype)
    if g.size == 0:
        return g
    tiling, _ = tile(g, itemsize=x.dtype.itemsize)
    operands = [(g, tiling, tiling.shape), (x, tiling, tiling.shape)]
    kernel = functools.partial(from_x_kernel, spec=spec, dtype=x.dtype)
    return run(kernel, operands, [(tiling, g.shape, g.dtype)], "clip_gradient_from_x", interpret)[0]
