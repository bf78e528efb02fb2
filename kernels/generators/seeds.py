"""Seeds of noise: uint32 (*batch, 4), as `spec.Draw` describes them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .counters import product

Steps = Sequence[tuple[Any, Sequence[int]]]


def advance(seed: jax.Array, steps: Steps) -> jax.Array:
    """A seed whose first element comes later in the stream, by a sum of products, taken in 64 bits.

    The steps are integers below 2**31, each with the sizes whose product it is multiplied by.
    """
    if not steps:
        return seed
    with jax.enable_x64(True):

        def word(value: Any) -> jax.Array:
            return jnp.asarray(value).astype(jnp.uint64)

        number = word(seed[..., 2]) | word(seed[..., 3]) << word(32)
        for count, sizes in steps:
            number = number + word(count) * product(sizes, np.dtype(np.uint64))
        first = [(number >> word(shift)).astype(jnp.uint32)[..., None] for shift in (0, 32)]
    return jnp.concatenate([seed[..., :2], *first], axis=-1)
