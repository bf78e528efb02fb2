"""The generators of noise: a row of `TABLE` for each.

To add a generator, write a module with its plain form, add its name to `Generator` and a row to `TABLE`. Every
implementation can then use its noise, drawn before the pass. For a kernel that draws the noise in its pass, add a
function to the room of the kernel, and the name to `in_pass` of the room's row in the table of implementations.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

import jax

from ..spec import Draw
from . import philox, threefry

Generator = Literal["philox", "threefry_23_bits", "threefry_16_bits", "hardware"]
Noise = Callable[[Draw, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Row:
    """How a generator is drawn from in plain jnp.

    Attributes:
        plain: A function of a draw and its seed, as `drawn` takes them; None for a generator that only kernels reach.
        by_platform: Functions that return the same bits, for the platforms on which another form is faster.
    """

    plain: Noise | None
    by_platform: Mapping[str, Noise] = dataclasses.field(default_factory=dict[str, Noise])


TABLE: Mapping[Generator, Row] = {
    "philox": Row(philox.noise, {"cpu": philox.noise_on_cpu, "tpu": philox.noise_on_tpu}),
    "threefry_23_bits": Row(threefry.noise_of_23_bits),
    "threefry_16_bits": Row(threefry.noise_of_16_bits),
    "hardware": Row(None),  # a TPU's own generator
}

PLAIN: tuple[Generator, ...] = tuple(name for name, row in TABLE.items() if row.plain is not None)


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
    row = TABLE[draw.generator]
    plain = row.plain if platform is None else row.by_platform.get(platform, row.plain)
    if plain is None:
        raise NotImplementedError(f"noise of the generator {draw.generator!r} is drawn by kernels only")
    return plain(draw, seed)
