"""The generators of noise: a row of `TABLE` for each.

To add a generator, write a module with its plain form, add its name to `Generator` and a row to `TABLE`. Every
implementation can then use its noise, drawn before the pass. For a kernel that draws the noise in its pass, add a
function to the room of the kernel, and the name to `in_pass` of the room's row in the table of implementations.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from ..spec import Draw
from . import hashed, noise, philox, threefry

Generator = Literal["philox", "hash", "threefry_23_bits", "threefry_16_bits", "hardware"]
Bits = Callable[[Draw, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Row:
    """How a generator is drawn from in plain jnp."""

    bits: Bits  # random bits, uint32, from a draw and its seed as `drawn` takes them
    noise: Callable[[jax.Array], jax.Array]  # noise from these bits, float32
    # Functions that return the same bits, for the platforms on which another form is faster.
    by_platform: Mapping[str, Bits] = dataclasses.field(default_factory=dict[str, Bits])
    # Functions that draw the same noise, for the platforms on which that is cheaper than to draw bits.
    drawn_by_platform: Mapping[str, Bits] = dataclasses.field(default_factory=dict[str, Bits])
    # What a kernel that draws takes in place of a seed: uint32 of (*batch, n).
    words_of_kernel: Callable[[jax.Array], jax.Array] | None = None


def _by_conversion(bits: Bits) -> Bits:
    """Draws the noise of 16-bit draws as it is cheapest on CUDA."""
    return lambda draw, seed: noise.from_16_bits_on_cuda(bits(draw, seed))


TABLE: Mapping[Generator, Row | None] = {  # None for a generator that only kernels can draw from
    "philox": Row(
        philox.draws,
        noise.from_16_bits,
        {"cpu": philox.draws_on_cpu, "tpu": philox.draws_on_tpu},
        {"cuda": _by_conversion(philox.draws)},
    ),
    "hash": Row(
        hashed.draws,
        noise.from_16_bits,
        {"cuda": hashed.draws_on_cuda, "tpu": hashed.draws_on_tpu},
        {"cuda": _by_conversion(hashed.draws_on_cuda), "tpu": hashed.noise_on_tpu},
        hashed.schedule,
    ),
    "threefry_23_bits": Row(threefry.bits, noise.from_23_bits),
    "threefry_16_bits": Row(lambda *of: threefry.bits(*of) & jnp.uint32(0xFFFF), noise.from_16_bits),
    "hardware": None,
}

PLAIN: tuple[Generator, ...] = tuple(name for name, row in TABLE.items() if row is not None)

IN_16_BITS: tuple[Generator, ...] = tuple(
    name for name, row in TABLE.items() if row is not None and row.noise is noise.from_16_bits
)


def drawn(draw: Draw, seed: jax.Array, platform: str | None = None) -> jax.Array:
    """The noise of a draw in plain jnp: what a kernel that draws the noise itself must give, bit for bit.

    Args:
        draw: The generator, and the elements that are drawn for.
        seed: uint32 (*batch, 4), as `spec.Draw` describes.
        platform: The platform whose form is used, as JAX names it; the bits do not depend on it.

    Returns:
        float32 of (*batch, *draw.shape).

    Raises:
        NotImplementedError: The generator has no plain form.
    """
    row = _plain(draw)
    cheapest = row.drawn_by_platform.get(platform or "")
    return row.noise(_bits(row, platform)(draw, seed)) if cheapest is None else cheapest(draw, seed)


def drawn_bits(draw: Draw, seed: jax.Array, platform: str | None = None) -> jax.Array:
    """The uint32 bits that `drawn` makes noise of: for the generators `IN_16_BITS` draws below 65536."""
    return _bits(_plain(draw), platform)(draw, seed)


def _plain(draw: Draw) -> Row:
    row = TABLE[draw.generator]
    if row is None:
        raise NotImplementedError(f"noise of the generator {draw.generator!r} is drawn by kernels only")
    return row


def _bits(row: Row, platform: str | None) -> Bits:
    return row.by_platform.get(platform or "", row.bits)


def kernel_words(draw: Draw, seed: jax.Array) -> jax.Array:
    """What a kernel that draws takes in place of a seed: uint32 of (*batch, n), the seed itself for most generators."""
    row = TABLE[draw.generator]
    return seed if row is None or row.words_of_kernel is None else row.words_of_kernel(seed)
