"""Products with the multipliers of the hash, for a chip that has no product of 32-bit integers: a TPU v4.

Its compiler makes a sum of a shift for each digit of a multiplier that is not 0, 13 of them. These sums are of 7 and 6.
"""

from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from ..devices import device_kind

CHIPS = ("TPU v4",)  # as JAX's `device_kind` names them

Step = tuple[int, Literal["plus", "minus", "below"], int, int]  # "below": what is shifted, minus the other

# Each step makes one more multiple of x, from the one whose index is first, and the one whose index is third, shifted
# by the last number; index 0 is x, and the last multiple is the product. Found by a search.
STEPS: Mapping[int, tuple[Step, ...]] = {
    0xED5AD4BB: (
        (0, "plus", 0, 2),
        (1, "minus", 1, 10),
        (1, "minus", 2, 17),
        (0, "minus", 0, 6),
        (4, "minus", 4, 9),
        (3, "plus", 5, 6),
        (6, "below", 6, 8),
    ),
    0xAC4C1B51: (
        (0, "minus", 0, 6),
        (1, "plus", 1, 17),
        (1, "minus", 2, 7),
        (1, "plus", 0, 15),
        (3, "plus", 4, 4),
        (5, "plus", 5, 18),
    ),
    0x31848BAB: (
        (0, "minus", 0, 10),
        (1, "plus", 1, 12),
        (1, "minus", 2, 2),
        (0, "plus", 0, 10),
        (0, "minus", 4, 18),
        (3, "minus", 5, 1),
        (6, "plus", 6, 4),
    ),
}


def product_by_shifts(multiplier: int, word: jax.Array) -> jax.Array:
    """The low 32 bits of a product, uint32; the multiplier is a key of `STEPS`.

    Example:
        >>> hex(product_by_shifts(0xAC4C1B51, jnp.uint32(1)))
        '0xac4c1b51'
    """
    multiples = [word]
    for one, how, other, by in STEPS[multiplier]:
        unshifted, shifted = multiples[one], multiples[other] << jnp.uint32(by)
        if how == "plus":
            multiples.append(unshifted + shifted)
        else:
            multiples.append(unshifted - shifted if how == "minus" else shifted - unshifted)
    return multiples[-1]


def product_on_tpu(multiplier: int, word: jax.Array) -> jax.Array:
    """The low 32 bits of a product, uint32, in the form for the TPU to compile for."""
    return product_by_shifts(multiplier, word) if device_kind("tpu") in CHIPS else word * jnp.uint32(multiplier)
