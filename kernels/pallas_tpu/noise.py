"""Noise that a TPU kernel draws for a block of x: a stream, or the chip's own generator.

To let the kernels draw from another generator, add a function and an entry of `IN_KERNEL`.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..generators import Generator
from ..spec import Draw
from . import hashed, philox
from .formula import LANES
from .numbers import unsigned
from .tiling import SUBLANES, round_up, tile_draw


def seed_of_step(seed: Sequence[jax.Array], step: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The two words that the generator takes: they differ for every seed and every step of the grid.

    Source: the mixing function is the finalizer of MurmurHash3.
    """
    k0, k1, low, high = seed
    mixed = number = low + step.astype(jnp.uint32) * unsigned(0x9E3779B9)
    mixed = mixed ^ (high * unsigned(0x85EBCA77))
    for shift, multiplier in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = (mixed ^ (mixed >> unsigned(shift))) * unsigned(multiplier)
    return (k0 ^ mixed ^ (mixed >> unsigned(16))).astype(jnp.int32), (k1 + number).astype(jnp.int32)


def hardware_noise(seed: Sequence[jax.Array], draw: Draw, shape: tuple[int, ...], steps: list[jax.Array]) -> jax.Array:
    """The noise of a block from the chip's own generator, from 32 bits per element: 16 would need more shifts."""
    step = jnp.int32(0)  # the number of the block in the grid
    for i, n in zip(steps, tile_draw(draw)[0].grid, strict=True):
        step = step * n + i
    pltpu.prng_seed(*seed_of_step(seed, step))
    tiles = math.prod(shape[:-2]) * round_up(shape[-2], SUBLANES), round_up(shape[-1], LANES)
    return pltpu.bitcast(pltpu.prng_random_bits(tiles), jnp.int32).astype(jnp.float32) * 2.0**-32


@dataclasses.dataclass(frozen=True)
class InKernel:
    """How the kernels draw from a generator."""

    # The noise of a block in whole tiles, float32, from the `generators.kernel_words` of its example, the draw, the
    # shape of the block, and its index in the grid of the example.
    noise: Callable[[Sequence[jax.Array], Draw, tuple[int, ...], list[jax.Array]], jax.Array]
    serves: Callable[[Draw], bool]  # whether the kernels can draw the noise of a draw
    needs_tpu_interpreter: bool = False  # whether only Pallas' interpreter of TPUs interprets it; its bits are 0 there


IN_KERNEL: Mapping[Generator, InKernel] = {
    "philox": InKernel(philox.noise_of_block, lambda draw: draw.is_in_rows_of_blocks),
    "hash": InKernel(hashed.noise_of_block, hashed.serves),
    "hardware": InKernel(hardware_noise, lambda _: True, needs_tpu_interpreter=True),
}


def noise_block(words_ref: jax.Ref, shape: tuple[int, ...], draw: Draw, outer: int) -> jax.Array:
    """The noise of the current block, float32, from the words of its example.

    `outer` is how many axes the grid has before those of the tiling.
    """
    words = [words_ref[0, i] for i in range(words_ref.shape[-1])]
    steps = [pl.program_id(outer + i) for i in range(len(tile_draw(draw)[0].grid))]
    noise = IN_KERNEL[draw.generator].noise(words, draw, shape, steps)
    return noise.reshape(*shape[:-2], -1, noise.shape[-1])[..., : shape[-2], : shape[-1]]
