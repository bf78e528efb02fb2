"""The seed of a key, from which a pass draws its noise: see `kernels.Draw`."""

import functools
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from . import _checks


def impl_of(key: jax.Array) -> Hashable:
    """A key's generator: its name, or what `jax.random.key_impl` has for one without."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return jax.random.key_impl(key) if typed else _checks.SETTINGS.jax_default_prng_impl


def of_key(key: jax.Array) -> jax.Array:
    """The seed of a key, uint32 [4], for a whole array: the two words of the key, and the number of the first block."""
    return _seed_of(key, impl_of(key))


@functools.partial(jax.jit, static_argnums=1)
def _seed_of(key: jax.Array, impl: Hashable) -> jax.Array:
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    data = jax.random.key_data(key) if typed else key
    words = data if data.size == 2 else _two_words(impl)(data)
    if typed and _checks.SETTINGS.jax_debug_key_reuse:
        # To the checker only a draw is a use. This one draws nothing, and its sum, 0, keeps it in the program.
        words = words + jnp.sum(jax.random.bits(key, (0,), jnp.uint32), dtype=jnp.uint32)
    return jnp.pad(words, (0, 2))  # not concatenate, which under vmap needs a mesh in context if the keys are sharded


@functools.cache
def _two_words(impl: Any) -> custom_vmap:
    """`jax.random.bits(key, (2,))` from a key's data; key by key under `vmap`, where jax's rbg gives other bits."""

    @custom_vmap
    def words(data: jax.Array) -> jax.Array:
        return jax.random.bits(jax.random.wrap_key_data(data, impl=impl), (2,), jnp.uint32)

    @words.def_vmap
    def _(size: int, batched: list[bool], data: jax.Array) -> tuple[jax.Array, bool]:
        return jax.lax.map(words, data), True

    return words
