"""The noise of an array: a seed, if an implementation draws it in its pass, or an array."""

import jax

from . import _checks, _noise_functions
from ._global_position import Part
from .kernels import Draw
from .stochastic_rounding import DrawnInPass, NoiseFn


def noise_of(
    noise_fn: NoiseFn, x: jax.Array, key: jax.Array | None, part: Part | None, name: str = _checks.NOISE_FN
) -> tuple[jax.Array, Draw | None]:
    """The noise for x, and the draw if it is a seed.

    Args:
        noise_fn: The noise function.
        x: What is rounded.
        key: The user's key.
        part: Where x lies in a larger array, whose noise it is to have; or None.
        name: What errors call the noise function.

    Raises:
        TypeError, ValueError: The key is missing or is not a key, or the noise does not broadcast to x.
    """
    key = _checks.key(key, name)
    shape = x.shape if part is None else part.whole
    if isinstance(noise_fn, DrawnInPass) and (seeded := noise_fn.seeded(shape, key)):
        draw, seed = seeded if part is None else part.seeded(seeded, x.shape)
        return seed, draw
    noise = _checks.noise(_noise_functions.draw(noise_fn, shape, key, name), shape, x.dtype, name)
    return noise if part is None else part.cut(noise, x.shape), None
