"""Integers and scales from one read: `quantize_by_absmax` in Pallas' Mosaic GPU.

A warpgroup handles whole slices, in pieces as `pieces.py` describes. Slices of up to `pieces.KEPT` elements stay in
registers between the maximum and the quantization. Of longer ones, all but the last pieces are read again, from the
end, and such that the cache still holds them: with at most two programs per core, slices of 65,536 elements of bfloat16
take 35 MB on an H100's 132 cores, which share 50 MB of cache.

XLA handles slices that are not whole eights or have fewer than 16 elements, arrays of so few short slices that they do
not fill a warpgroup, seeds that change within it, and noise that a kernel neither draws nor reads in the shape of x.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .. import scaling, xla
from ..generators import kernel_words
from ..gpu.flattened import examples_of
from ..gpu.shapes import draws_in_kernel, indices, seed_of
from ..gpu.tuning import PER_THREAD
from ..spec import Draw, QuantSpec, Scaling
from . import formula, interpreter
from .noise import STREAMS
from .pieces import AT_ONCE, Piece, Rows, rows_of
from .tiles import Interpret, ahead, launch, unbounded

FILLING = 76 * 1024  # bytes of the 228 KB of shared memory of a core: two programs fit


def quantize_by_absmax(
    x: jax.Array,
    noise: jax.Array | None,
    spec: QuantSpec,
    how: Scaling,
    block: int | None,
    *,
    interpret: Interpret = False,
) -> tuple[jax.Array, jax.Array]:
    """`reference.quantize_by_absmax`."""
    rows = _rows(x, noise, spec, x.shape[-1] if block is None else block)
    if rows is None:
        return xla.quantize_by_absmax(x, noise, spec, how, block, platform="cuda")
    shape = (rows.count, rows.eights, PER_THREAD)
    inputs, noise_of = [x.reshape(shape)], _no_noise
    if noise is not None and spec.draw is not None:
        words = kernel_words(spec.draw, noise)
        inputs.append(words.reshape(-1))
        noise_of = _drawing(x, words, spec.draw)
    elif noise is not None:
        inputs.append(noise.reshape(shape))
        noise_of = _reading

    def kernel(i: jax.Array, x_ref: Any, *refs: Any) -> None:
        *others, y_ref, scale_ref = refs
        example, piece_at = _pieces(i, rows, interpret)
        noise_at = noise_of(example, *others)

        def pieces(turn: jax.Array) -> list[Piece]:
            first = turn * jnp.int32(AT_ONCE * rows.lanes)
            return [piece_at(first + jnp.int32(k * rows.lanes)) for k in range(AT_ONCE)]

        def highest(turn: jax.Array, top: jax.Array) -> jax.Array:
            return formula.highest([top, *(formula.lifted(piece.load(x_ref)) for piece in pieces(turn))])

        last = [piece_at(start) for start in rows.starts[rows.turns * AT_ONCE :]]
        kept = [piece.load(x_ref) for piece in last]
        top = formula.highest([formula.lifted(value) for value in kept])
        scale = scaling.scale_of(formula.largest_finite(_loop(rows.turns, highest, top), x.dtype), how)
        last[0].store_of_rows(scale_ref, scale)
        units, inverse = last[0].spread(scale), last[0].spread(scaling.inverse_of(scale))

        def finish(these: Sequence[Piece], values: Sequence[jax.Array]) -> None:
            for (piece, added), value in zip(ahead(noise_at, these), values, strict=True):
                y = formula.quantize_by_scale(value, units, inverse, added, spec)
                piece.store(y_ref, y)

        def again(turn: jax.Array, carry: jax.Array) -> jax.Array:
            these = pieces(jnp.int32(rows.turns - 1) - turn)  # what was read last is in the cache most likely
            finish(these, [piece.load(x_ref) for piece in these])
            return carry

        _loop(rows.turns, again, jnp.int32(0), y_ref)
        finish(last, kept)

    outputs = [jax.ShapeDtypeStruct(shape, spec.result_dtype(x.dtype)), jax.ShapeDtypeStruct(shape[:1], jnp.float32)]
    name = "intnumerics_quantize_by_absmax" + "_with_noise" * (noise is not None and spec.draw is not None)
    y, scale = launch(kernel, rows.programs, inputs, outputs, name, interpret, FILLING if rows.turns else 0)
    return y.reshape(x.shape), scale.reshape(*x.shape[:-1], -1)


def _rows(x: jax.Array, noise: jax.Array | None, spec: QuantSpec, size: int) -> Rows | None:
    """How a kernel divides x into slices of `size` elements; None if it cannot: see above."""
    if noise is None or spec.draw is None:
        return rows_of(x.size // max(size, 1), size) if noise is None or noise.shape == x.shape else None
    if not draws_in_kernel(x, noise, spec, STREAMS):
        return None
    return rows_of(x.size // max(size, 1), size, examples_of(x, noise, spec)[1])


def _pieces(i: jax.Array, rows: Rows, interpret: Interpret) -> tuple[jax.Array | None, Callable[[Any], Piece]]:
    """The example of a program's rows, if there are several, and a piece of the rows from its first eight elements."""
    row, example, within = i * jnp.int32(rows.together), None, None
    if rows.count % rows.together:
        row = jnp.minimum(row, jnp.int32(rows.count - rows.together))
    row = unbounded(row, 4 * (rows.count - rows.together))  # in the scales, the smallest array
    if rows.examples > 1:
        example = lax.div(row, jnp.int32(rows.count // rows.examples))
        within = lax.rem(row, jnp.int32(rows.count // rows.examples))
    with indices(rows.index_dtype):
        within = (row if within is None else within).astype(rows.index_dtype)
        first = within * jnp.full((), rows.eights, rows.index_dtype)
    return example, lambda start: Piece(rows, row, first, start, interpret)


def _loop(turns: int, body: Callable[[jax.Array, jax.Array], jax.Array], carry: jax.Array, *refs: Any) -> jax.Array:
    """The carry after some turns of a body, which writes to references."""
    if not turns:
        return carry
    if any(isinstance(ref, interpreter.Ref) for ref in refs):
        return interpreter.loop(turns, body, carry, refs)
    return lax.fori_loop(0, turns, body, carry)


NoiseOf = Callable[..., Callable[[Piece], jax.Array | None]]  # of an example, and the reference to noise or to words


def _no_noise(example: jax.Array | None) -> Callable[[Piece], None]:
    return lambda piece: None


def _reading(example: jax.Array | None, ref: Any) -> Callable[[Piece], jax.Array]:
    return lambda piece: piece.load(ref).astype(jnp.float32)


def _drawing(x: jax.Array, words: jax.Array, draw: Draw) -> NoiseOf:
    rank = words.ndim - 1

    def noise_of(example: jax.Array | None, ref: Any) -> Callable[[Piece], jax.Array]:
        return STREAMS[draw.generator](seed_of(example, ref, x.shape[:rank], words.shape), draw).uniform

    return noise_of
