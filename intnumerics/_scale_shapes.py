"""Which elements of an array share a scale, and what becomes of the scales when the array is reshaped or indexed.

A scale has the rank of its array, each size is that of the array or 1, where an axis shares a scale; the last size may
also be the number of equal blocks of the last axis that have a scale each.
"""

import operator
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ._error_values import is_array, shown

_Shape = tuple[int, ...]
_Run = tuple[bool, int]  # whether each element of some axes has a scale of its own, and how many elements they have


def block_of(shape: _Shape, scale: _Shape) -> int | None:
    """How many elements of the last axis share a scale if that axis is in blocks, else None.

    Example:
        >>> block_of((8, 64), (8, 4)), block_of((8, 64), (8, 1)), block_of((8, 64), (1, 64))
        (16, None, None)
    """
    return None if not shape or scale[-1] in (1, shape[-1]) else shape[-1] // scale[-1]


def fits(shape: _Shape, scale: _Shape) -> bool:
    """Whether an array of `shape` can have scales of a shape."""
    if len(scale) != len(shape):
        return False
    whole = [n in (1, size) for n, size in zip(scale, shape, strict=True)]
    return all(whole) or (all(whole[:-1]) and scale[-1] != 0 and shape[-1] % scale[-1] == 0)


def reshaped(shape: _Shape, scale: _Shape, new: _Shape) -> _Shape | None:
    """The shape of the scales of an array of `shape` once that has the shape `new`; None if they would not fit.

    The axes of an array are runs of axes that share a scale and of axes that do not, with the blocks of the last axis
    and the elements of a block as two axes. They have to be the same runs afterwards.

    Example:
        >>> reshaped((6, 64), (6, 1), (2, 3, 64)), reshaped((6, 64), (6, 1), (384,)), reshaped((6, 64), (6, 1), (64, 6))
        ((2, 3, 1), (6,), None)
    """
    runs = _runs(shape, scale)
    if (own := _split(new, runs)) is not None:
        return _with_one(new, own)
    if not new or not runs:
        return None
    shares, block = not runs[-1][0], runs[-1][1]
    if not shares or block == 0 or new[-1] % block != 0:
        return None
    in_blocks = (*new[:-1], new[-1] // block, block)
    own = _split(in_blocks, runs)
    return None if own is None else _with_one(in_blocks, own)[:-1]


def _with_one(shape: _Shape, own: Sequence[bool]) -> _Shape:
    return tuple(n if has_own else 1 for n, has_own in zip(shape, own, strict=True))


def _runs(shape: _Shape, scale: _Shape) -> list[_Run]:
    axes = [(n != 1, size) for n, size in zip(scale, shape, strict=True)]
    if block := block_of(shape, scale):
        axes[-1:] = [(True, scale[-1]), (False, block)]
    found = list[_Run]()
    for own, size in axes:
        if size == 1:  # which is in both kinds of runs
            continue
        if found and found[-1][0] == own:
            size *= found.pop()[1]
        found.append((own, size))
    return found


def _split(shape: _Shape, runs: Sequence[_Run], done: int = 1) -> list[bool] | None:
    """Whether each axis is of a run with scales of their own, if axes of these sizes can be the runs; else None.

    Args:
        shape: The sizes of the axes.
        runs: The runs that they have to be.
        done: How many elements the axes before these have in the first of the runs.
    """
    if not runs:
        return [False] * len(shape) if all(size == 1 for size in shape) else None
    own, size = runs[0]
    if done == size and (found := _split(shape, runs[1:])) is not None:
        return found
    if not shape or (found := _split(shape[1:], runs, done * shape[0])) is None:
        return None
    return [own, *found]


def index_of_scales(index: Any, shape: _Shape, scale: _Shape) -> tuple[Any, ...]:
    """The index of the scales of `array[index]`, for an array of `shape`.

    Along an axis that shares a scale it takes the one that is there, in an array of one element for an array, so that
    as many axes are left, and that they are where those of the array are.

    Raises:
        TypeError: A part of the index is neither an integer, a slice, an array of integers, Ellipsis nor None.
        IndexError: There are more parts than axes, or two Ellipsis.
        ValueError: The index divides a block, or the axis in blocks is not the last one afterwards.
    """
    entries = list(index) if isinstance(index, tuple) else [index]
    ellipses = sum(entry is Ellipsis for entry in entries)
    if ellipses > 1:
        raise IndexError("index has two Ellipsis: only one of them says which axes the other parts index")
    missing = len(shape) - sum(entry is not Ellipsis and entry is not None for entry in entries)
    if missing < 0:
        raise IndexError(f"index has {len(shape) - missing} parts for axes, and the QTensor has {len(shape)} axes")
    if missing and not ellipses:
        entries.append(Ellipsis)
    if entries and entries[-1] is None and (block := block_of(shape, scale)):
        raise ValueError(
            f"index ends in None, and the last axis, which has a scale for each {block} elements, has to stay the "
            "last: put None before it, or use dequantize() first"
        )
    return tuple(_entries_of_scales(entries, missing, shape, scale))


def _entries_of_scales(entries: Sequence[Any], missing: int, shape: _Shape, scale: _Shape) -> Iterator[Any]:
    axis, block = 0, block_of(shape, scale)
    for entry in entries:
        if entry is None or entry is Ellipsis:
            axis += 0 if entry is None else missing
            yield entry
            continue
        is_last, shares = axis == len(shape) - 1, scale[axis] == 1
        axis += 1
        if isinstance(entry, slice):
            yield _of_blocks(entry, shape[-1], block) if is_last and block else slice(None) if shares else entry
            continue
        rank = _rank(entry)
        if is_last and block:
            raise ValueError(
                f"index {shown(entry)} takes elements out of the last axis, which has a scale for each {block} of "
                "them: use a slice of whole blocks, or dequantize() first"
            )
        if shares:
            entry = 0 if rank is None else np.zeros((1,) * rank, entry.dtype)
        yield entry


def _rank(entry: Any) -> int | None:
    """The rank of an array of integers, or None for an integer."""
    if is_array(entry) and jnp.issubdtype(entry.dtype, jnp.integer):
        return len(entry.shape)
    try:
        if not is_array(entry) and not isinstance(entry, bool | np.bool_):
            operator.index(entry)
            return None
    except TypeError:
        pass
    raise TypeError(
        f"index {shown(entry)} is neither an integer, a slice, an array of integers, Ellipsis nor None: use "
        "jnp.asarray(...) for a list, and jnp.flatnonzero(mask) for a mask"
    )


def _of_blocks(part: slice, n: int, block: int) -> slice:
    """The slice of blocks that a slice of elements is."""
    if part == slice(None):
        return part
    start, stop, step = part.indices(n)
    if step != 1 or start % block or stop % block:
        raise ValueError(
            f"index {part} is not a slice of whole blocks of the last axis, which has a scale for each {block} "
            f"elements: begin and end at multiples of {block}, with step 1, or use dequantize() first"
        )
    return slice(start // block, stop // block)
