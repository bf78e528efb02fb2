"""Noise that turns rounding into stochastic rounding."""

from typing import Protocol

import jax


class NoiseFn(Protocol):
    """A function that draws noise: any callable with two positional arguments.

    It is called as `noise_fn(shape, key)` with the shape of x, and returns real numbers, in buckets, whose shape
    broadcasts to that of x (a dimension of 1 shares one draw along that axis). Uniform noise in [-0.5, 0.5) makes
    rounding unbiased.

    Example:
        >>> import jax
        >>> def noise_fn(shape, key):
        ...     return jax.random.uniform(key, shape) - 0.5
    """

    def __call__(self, shape: tuple[int, ...], key: jax.Array, /) -> jax.Array:
        """Draws noise for an array of `shape`."""
        ...
