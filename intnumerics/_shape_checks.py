"""Checks of shapes and axes, whose sizes may be symbols."""

import operator
from typing import Any

import numpy as np
from jax import export

from ._error_values import shown


def sequence_of_integers(name: str, value: Any, remedy: str, symbols: bool = False) -> tuple[int, ...]:
    """A sequence of integers as a tuple; with `symbols` it may have symbolic sizes of `jax.export`."""
    try:
        return tuple(item if symbols and _is_symbol(item) else operator.index(item) for item in value)
    except TypeError:
        raise TypeError(f"{name}={shown(value)} is not a sequence of integers: {remedy}") from None


def _is_symbol(size: Any) -> bool:
    return export.is_symbolic_dim(size)  # its type is private, and counts as an integer here


def shape(value: Any) -> tuple[int, ...]:
    """The shape of an array, as a tuple; its sizes may be symbols."""
    sizes = sequence_of_integers("shape", value, "give the shape of x, as in x.shape", symbols=True)
    if any(size < 0 for size in sizes if not _is_symbol(size)):
        raise ValueError(f"shape={shown(value)} has a negative dimension: give the shape of x, as in x.shape")
    return sizes


def shared_shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` with 1 for the axes."""
    for axis in axes:
        if not -len(shape) <= axis < len(shape):
            raise ValueError(
                f"noise_sharing_axes={axes} has axis {axis}, which an array of shape {tuple(shape)} does not have: "
                f"use axes from {-len(shape)} to {len(shape) - 1}"
            )
    shared = {axis % len(shape) for axis in axes}
    return tuple(1 if axis in shared else size for axis, size in enumerate(shape))


def reduced_axes(value: Any, rank: int) -> tuple[int, ...]:
    """The axes that are reduced of an array of `rank` axes, as numbers from 0 on; None means all of them."""
    if value is None:
        return tuple(range(rank))
    axes = value if isinstance(value, tuple | list) else (value,)
    try:
        given = [operator.index(axis) for axis in axes]
    except TypeError:
        given = []
    if len(given) < len(axes) or any(isinstance(axis, bool | np.bool_) for axis in axes):
        raise TypeError(
            f"axis={shown(value)} is neither an integer, a tuple of integers nor None: give an axis of x, a tuple of "
            "its axes, or None for all"
        )
    for axis in given:
        if not -rank <= axis < rank:
            have = f"use axes from {-rank} to {rank - 1}" if rank else "use None"
            raise ValueError(f"axis={shown(value)} has axis {axis}, and x has {rank} axes: {have}")
    found = {axis % rank for axis in given}
    if len(found) < len(given):
        raise ValueError(f"axis={shown(value)} names an axis of x twice: give each axis once")
    return tuple(sorted(found))
