"""Registers classes without arrays: with JAX as static values, and with Flax as objects without state."""

import contextlib
import functools
import sys
from collections.abc import Callable
from typing import Any

import jax


def make_known(cls: type[Any]) -> None:
    """Registers a class whose objects are hashable and hold no arrays, unless its author has registered it.

    It is called when an object is made, and not when the class is: by then its decorators have run, one of which may
    register it. It is called again when the object is used. Flax is never imported here.
    """
    _make_static(cls)
    make_known_to_flax(cls, lambda _: {}, lambda target, _: target)


def make_known_to_flax(cls: type[Any], state: Callable[[Any], Any], restored: Callable[[Any, Any], Any]) -> None:
    """Registers a class with Flax if that was imported.

    Args:
        cls: The class.
        state: The state of an object, as a dictionary.
        restored: The object that another one, the target, is with such a state.
    """
    if (flax := sys.modules.get("flax.serialization")) and not flax.is_serializable(cls):
        flax.register_serialization_state(
            cls, state, lambda target, read: restored(target, flax.from_state_dict(state(target), read))
        )


@functools.cache
def _make_static(cls: type[Any]) -> None:
    with contextlib.suppress(ValueError):  # JAX raises it for a class that is registered already
        jax.tree_util.register_static(cls)
