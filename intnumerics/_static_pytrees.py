"""Registers classes without arrays: with JAX as static values, and with Flax as objects without state."""

import contextlib
import functools
import sys
from typing import Any

import jax


def make_known(cls: type[Any]) -> None:
    """Registers a class whose objects are hashable and hold no arrays, unless its author has registered it.

    It is called when an object is made, and not when the class is: by then its decorators have run, one of which may
    register it. It is called again when the object is used. Flax is never imported here.
    """
    _make_static(cls)
    if (flax := sys.modules.get("flax.serialization")) and not flax.is_serializable(cls):
        flax.register_serialization_state(cls, lambda _: {}, lambda target, _: target)


@functools.cache
def _make_static(cls: type[Any]) -> None:
    with contextlib.suppress(ValueError):  # JAX raises it for a class that is registered already
        jax.tree_util.register_static(cls)
