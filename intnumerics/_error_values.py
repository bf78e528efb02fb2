"""How an error message shows a value: briefly, and an array by its type, shape and dtype, never by its numbers.

To write the numbers of an array out is to fetch them from a device; and there may be a billion of them.
"""

import functools
import itertools
from collections.abc import Iterable
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

_LENGTH = 120  # characters of one value
_ITEMS = 4  # of a container
_DEPTH = 3  # of containers within containers

_NAMED = (type, FunctionType, BuiltinFunctionType, MethodType)
_SCALARS = (str, bytes, bool, int, float, complex, type(None), np.generic, np.dtype, *_NAMED)


def shown(value: Any, depth: int = _DEPTH) -> str:
    """A value in a few words.

    Example:
        >>> shown(8.5), shown({"w": np.zeros(3)}), shown(np.float32)
        ('8.5', "{'w': <numpy.ndarray, shape (3,), dtype float64>}", "<class 'numpy.float32'>")
    """
    if isinstance(value, _SCALARS):
        return _cut(repr(value))
    if is_array(value):
        return _array(value)
    if isinstance(value, dict):
        return f"{{{_items((f'{shown(k, 0)}: {shown(v, depth - 1)}' for k, v in value.items()), depth)}}}"
    if isinstance(value, list | tuple):
        items = _items((shown(item, depth - 1) for item in value), depth)
        comma = "," if len(value) == 1 else ""
        return f"[{items}]" if isinstance(value, list) else f"({items}{comma})"
    if isinstance(value, functools.partial):
        named = [f"{name}={shown(v, depth - 1)}" for name, v in value.keywords.items()]
        parts = [shown(value.func, depth - 1), *(shown(v, depth - 1) for v in value.args), *named]
        return f"functools.partial({', '.join(parts)})"
    return f"<{type(value).__module__}.{type(value).__qualname__} object>"


def is_array(value: Any) -> bool:
    """Whether a value has a shape and a dtype, as arrays of JAX, NumPy and others do."""
    return not isinstance(value, _SCALARS) and hasattr(value, "shape") and hasattr(value, "dtype")


def _array(value: Any) -> str:
    if isinstance(value, Tracer):
        kind = "traced"
    elif isinstance(value, jax.Array):
        kind = "jax.Array"  # its class has a private name
    else:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return f"<{kind}, shape {_cut(str(value.shape))}, dtype {value.dtype}>"


def _items(items: Iterable[str], depth: int) -> str:
    if depth <= 0:
        return "..."
    found = list(itertools.islice(items, _ITEMS + 1))
    return ", ".join(found if len(found) <= _ITEMS else [*found[:_ITEMS], "..."])


def _cut(text: str) -> str:
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH - 3]}..."
