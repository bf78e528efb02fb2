"""Pallas for TPU: the kernels, and the calls that run them over all blocks of an array."""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from .spec import QuantSpec, packed_shape
from .tpu_body import LANES, inside, masked, pack, quantize_block, unpack, widen
from .tpu_tiling import Tiling, tile


def carried(x: jax.Array) -> jax.Array:
    """x as a kernel takes it: float16 as its bits."""
    return lax.bitcast_convert_type(x, jnp.int16) if x.dtype == jnp.float16 else x


def carrier(dtype: np.dtype) -> np.dtype:
    """The dtype in which a kernel gives numbers of `dtype`."""
    return np.dtype(jnp.int16) if dtype == jnp.float16 else np.dtype(dtype)


# --- kernels ----------------------------------------------------------------------------------------------------------


def rows_of(ref: jax.Ref) -> jax.Array:
    """What a block holds, by rows of lanes."""
    return ref[...].reshape(-1, LANES) if len(ref.shape) == 1 else ref[...]


def without_tail(packed: jax.Array, tiling: Tiling) -> jax.Array:
    """A block of packed bytes with 0 in the bits beyond the end of the last axis, where a block may hold anything."""
    length, block = tiling.shape[-1], tiling.packed.block[-1]
    if length % 8 == 0 or (tiling.grid[-1] == 1 and not tiling.folded):
        return packed
    index = lax.broadcasted_iota(jnp.int32, packed.shape, packed.ndim - 1)
    if tiling.folded:
        index = index + lax.broadcasted_iota(jnp.int32, packed.shape, 0) * LANES
    last = length // 8 - pl.program_id(len(tiling.grid) - 1) * (block or 1)
    return jnp.where(index == last, packed & ((1 << length % 8) - 1), packed)


def quantize_kernel(*refs: jax.Ref, spec: QuantSpec, tiling: Tiling, dtypes: tuple[np.dtype, ...]) -> None:
    """One block of x, and of noise if `dtypes` names its dtype too, to the result and, if it is asked for, the mask."""
    blocks = [widen(rows_of(ref), dtype) for ref, dtype in zip(refs, dtypes, strict=False)]
    x, noise = blocks if len(blocks) == 2 else (*blocks, None)
    y_ref, *packed_refs = refs[len(blocks) :]
    y_ref[...] = quantize_block(x, noise, spec, dtypes[0]).reshape(y_ref.shape)
    for packed_ref in packed_refs:
        packed = without_tail(pack(inside(x, spec, dtypes[0]), tiling.folded), tiling)
        packed_ref[...] = packed.reshape(packed_ref.shape).astype(jnp.uint8)


def from_mask_kernel(g_ref: jax.Ref, packed_ref: jax.Ref, o_ref: jax.Ref, *, tiling: Tiling) -> None:
    """One block of `where(mask, g, 0)`."""
    g = rows_of(g_ref)
    o_ref[...] = masked(g, unpack(rows_of(packed_ref), g.shape, tiling.folded)).reshape(o_ref.shape)


def from_x_kernel(g_ref: jax.Ref, x_ref: jax.Ref, o_ref: jax.Ref, *, spec: QuantSpec, dtype: np.dtype) -> None:
    """One block of `where(|x| <= bound, g, 0)`."""
    mask = inside(widen(rows_of(x_ref), dtype), spec, dtype)
    o_ref[...] = masked(rows_of(g_ref), mask).reshape(o_ref.shape)


def run(
    kernel: Callable[..., None],
    operands: Sequence[tuple[jax.Array, Tiling, tuple[int, ...]]],
    results: Sequence[tuple[Tiling, tuple[int, ...], np.dtype]],
    name: str,
    interpret: bool,
) -> list[jax.Array]:
    """Runs a kernel over all blocks.

    Args:
        kernel: Takes the blocks of operands and results.
        operands: Arrays, each with its tiling and its shape as the kernel sees it.
        results: The tilings, shapes and dtypes of what comes back.
        name: What a profile shows.
        interpret: Whether to interpret the kernel, on any platform.
    """
    arrays = [carried(a).reshape(shape) for a, _, shape in operands]
    axes = jax.typeof(arrays[0]).manual_axis_type
    out = [jax.ShapeDtypeStruct(t.shape, carrier(d), manual_axis_type=axes) for t, _, d in results]
    tiling, moved = operands[0][1], sum(a.size * a.dtype.itemsize for a in (*arrays, *out))
    returned = pl.pallas_call(
        kernel,
        grid=tiling.grid,
        in_specs=[tiles.block_spec(shape) for _, tiles, shape in operands],
        out_specs=[tiles.block_spec(tiles.shape) for tiles, _, _ in results],
        out_shape=out,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",) * len(tiling.grid)),
        cost_estimate=pl.CostEstimate(flops=8 * math.prod(tiling.shape), bytes_accessed=moved, transcendentals=0),
        interpret=interpret,
        name=f"intnumerics_{name}",
    )(*arrays)
    restored = [a.reshape(shape) for a, (_, shape, _) in zip(returned, results, strict=True)]
    return [
        lax.bitcast_convert_type(a, d) if d == jnp.float16 else a
        for a, (_, _, d) in zip(restored, results, strict=True)
    ]


# --- what `reference.py` documents ------------------------------------------------------------------------------------


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
    """`reference.quantize` in one pass over x."""
    check(x=x.dtype, noise=None if noise is None else noise.dtype, noise_dtype=spec.noise_dtype)
    dtype, packed = spec.result_dtype(x.dtype), packed_shape(x.shape)
    if x.size == 0:
        y = jnp.zeros(x.shape, dtype)
        return (y, jnp.zeros(packed, jnp.uint8)) if spec.with_mask else y
    tiling, noise_shape = tile(x, noise, dtype.itemsize)
    operands, results = [(x, tiling, tiling.shape)], [(tiling, x.shape, dtype)]
    if noise is not None:
        operands.append((noise, tiling, noise_shape))
    if spec.with_mask:
        results.append((tiling.packed, packed, np.dtype(jnp.uint8)))
    dtypes = tuple(a.dtype for a, _, _ in operands)
    kernel = functools.partial(quantize_kernel, spec=spec, tiling=tiling, dtypes=dtypes)
    y, *mask = run(kernel, operands, results, "quantize", interpret)
    return (y, mask[0]) if spec.with_mask else y


def clip_gradient_from_mask(g: jax.Array, packed: jax.Array, *, interpret: bool = False) -> jax.Array:
    """`reference.clip_gradient_from_mask` in one pass over g."""
    check(g=g.dtype)
    if g.size == 0:
        return g
    tiling, _ = tile(g)
    operands = [(g, tiling, tiling.shape), (packed, tiling.packed, tiling.packed.shape)]
    kernel = functools.partial(from_mask_kernel, tiling=tiling)
    return run(kernel, operands, [(tiling, g.shape, g.dtype)], "clip_gradient_from_mask", interpret)[0]


def clip_gradient_from_x(g: jax.Array, x: jax.Array, spec: QuantSpec, *, interpret: bool = False) -> jax.Array:
    """`reference.clip_gradient_from_x` in one pass over g and x."""
    check(g=g.dtype, x=x.dtype)
    if g.size == 0:
        return g
    tiling, _ = tile(g, itemsize=x.dtype.itemsize)
    operands = [(g, tiling, tiling.shape), (x, tiling, tiling.shape)]
    kernel = functools.partial(from_x_kernel, spec=spec, dtype=x.dtype)
    return run(kernel, operands, [(tiling, g.shape, g.dtype)], "clip_gradient_from_x", interpret)[0]
