"""Integers with their scales."""

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax import tree_util
from jax.typing import DTypeLike

from . import _checks, _scale_shapes
from ._error_values import is_array, shown
from ._integer_dtypes import INTEGERS
from ._static_pytrees import make_known_to_flax
from .int_numerics import IntNumerics, check_numerics
from .kernels import scaling
from .kernels.rounding import round_to
from .kernels.spec import wider

_Static = tuple[IntNumerics, np.dtype]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class QTensor:
    """Integers and their scales: what an array of floats was quantized to.

    A pytree with two leaves, `.qvalue` and `.scale`, that goes through every transform. A transform may put anything
    in their place: shardings, axes, booleans. To make such a tree with two different leaves, use
    `jax.tree.unflatten(jax.tree.structure(q), [of_qvalue, of_scale])`.

    It is not an array: what takes arrays refuses it, and `q.dequantize()` is one. `==` is identity, and there is no
    hash. Flax serializes a state that holds a QTensor if one is made, or used, after Flax was imported; what is static
    is then that of the target.

    Attributes:
        qvalue: Bucket numbers, int2, int4, int8, int16 or int32, in the shape of x, as `quantize_to_int` returns them.
        scale: The size of a bucket, float32, or float64 for float64 x. It has the rank of x. Each size is that of x, or
            1 where an axis shares a scale. The last size may also be the number of equal blocks of the last axis.
        numerics: What x was rounded with; static.
        dtype: The dtype of x, which `dequantize` returns; static.

    Raises:
        TypeError: qvalue is not made of such integers, scale is not float32 or float64, numerics is not an IntNumerics,
            or dtype is not a float dtype.
        ValueError: The shape of the scale does not fit.

    Source: the names are those of AQT's `QTensor` and of Qwix's `QArray`.

    Example:
        >>> import jax.numpy as jnp
        >>> q = QTensor(
        ...     jnp.array([[127, -3], [0, 64]], jnp.int8),
        ...     jnp.array([[0.5], [2.0]]),
        ...     IntNumerics.symmetric(8),
        ...     jnp.bfloat16,
        ... )
        >>> q
        QTensor(int8[2,2], scale=float32[2,1], bits=8, dtype=bfloat16)
        >>> q.dequantize()
        Array([[63.5, -1.5],
               [0, 128]], dtype=bfloat16)
        >>> q.nbytes, q[0], q.reshape(2, 2, 1).scale.shape
        (12, QTensor(int8[2], scale=float32[1], bits=8, dtype=bfloat16), (2, 1, 1))
    """

    qvalue: jax.Array
    scale: jax.Array
    numerics: IntNumerics
    dtype: np.dtype

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # as arrays have none

    def __post_init__(self) -> None:
        check_numerics(self.numerics, self.qvalue)
        qvalue, scale = _checks.integers("qvalue", self.qvalue), _checks.floats("scale", self.scale)
        if qvalue.dtype not in INTEGERS:
            names = ", ".join(known.name for known in INTEGERS)
            raise TypeError(
                f"qvalue has dtype {qvalue.dtype.name}, and only {names} are taken: cast it, as in "
                "qvalue.astype(jnp.int8)"
            )
        if scale.dtype.name not in ("float32", "float64"):
            raise TypeError(
                f"scale has dtype {scale.dtype.name}, and a scale is float32 or float64 whatever the dtype of x: cast "
                "it, as in scale.astype(jnp.float32)"
            )
        _fill(self, qvalue, scale, (self.numerics, _checks.float_dtype("dtype", self.dtype)))
        if not _scale_shapes.fits(self.shape, scale.shape):
            raise ValueError(
                f"scale has shape {scale.shape}, which does not fit the shape {self.shape} of qvalue: give it as many "
                "axes, each of the size of qvalue's, or of 1 where a scale is shared; the last size may also be a "
                "number of equal blocks"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of x."""
        return tuple(self.qvalue.shape)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes that the integers and the scales hold, with 4 bits for an int4, and 2 for an int2."""
        return sum(-(-math.prod(leaf.shape) * _bits(leaf.dtype) // 8) for leaf in (self.qvalue, self.scale))

    @property
    def block(self) -> int | None:
        """How many elements of the last axis share a scale if that axis is in blocks, else None."""
        return _scale_shapes.block_of(self.shape, self.scale.shape)

    def dequantize(self, dtype: DTypeLike | None = None) -> jax.Array:
        """The values: the integers, with `preserve_zero=False` plus 0.5, times the scale.

        The product is taken in the dtype of the scale and rounded once. It is differentiable in the scale.

        Args:
            dtype: A float dtype for the result, or None for that of x.

        Returns:
            What `quantize` with this scale returns for x, bit for bit, except that -0.0 and NaN became integer 0.

        Raises:
            TypeError: dtype is not a float dtype.
        """
        make_known_to_flax(QTensor, _state, _restored)
        dtype = self.dtype if dtype is None else _checks.float_dtype("dtype", dtype)
        return _values(self.qvalue, self.scale, 0.0 if self.numerics.preserve_zero else 0.5, dtype)

    def reshape(self, *shape: Any) -> "QTensor":
        """The same elements in another shape, if as many neighbours share each scale.

        Axes that share a scale can be split and joined, and axes that do not; with blocks the last axis counts as two,
        of blocks and of the elements of a block.

        Args:
            *shape: The new shape, as integers or as a tuple, one of which may be -1.

        Raises:
            ValueError: The scales do not fit the new shape.
        """
        new = self._with(self.qvalue.reshape(*shape), self.scale)  # whose scale does not fit yet
        of_scale = _scale_shapes.reshaped(self.shape, self.scale.shape, new.shape)
        if of_scale is None:
            raise ValueError(
                f"shape={shown(new.shape)} joins or splits elements with different scales: a QTensor of shape "
                f"{self.shape} has scales of shape {self.scale.shape}; keep the axes that share a scale apart from "
                "those that do not, or use dequantize().reshape(...)"
            )
        return self._with(new.qvalue, self.scale.reshape(of_scale))

    def transpose(self, *axes: Any) -> "QTensor":
        """The same elements with the axes in another order: integers or a tuple, or reversed without an argument.

        Raises:
            ValueError: The last axis is in blocks and would not stay the last.
        """
        given = axes[0] if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], tuple | list)) else axes or None
        order = tuple(reversed(range(self.ndim))) if given is None else tuple(given)
        if self.block and order[-1:] not in ((-1,), (self.ndim - 1,)):
            raise ValueError(
                f"axes={shown(order)} do not end in the last axis, which has a scale for each {self.block} elements: "
                f"keep {self.ndim - 1} at the end, or use dequantize().transpose(...)"
            )
        return self._with(self.qvalue.transpose(order), self.scale.transpose(order))

    @property
    def T(self) -> "QTensor":  # noqa: N802
        """The same elements with the axes in reverse order."""
        return self.transpose()

    def __getitem__(self, index: Any) -> "QTensor":
        of_scale = _scale_shapes.index_of_scales(index, self.shape, self.scale.shape)
        return self._with(self.qvalue[index], self.scale[of_scale])

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a QTensor of shape () has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator["QTensor"]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return (
            f"QTensor({_briefly(self.qvalue)}, scale={_briefly(self.scale)}, bits={self.numerics.bits}, "
            f"dtype={self.dtype.name})"
        )

    def _with(self, qvalue: Any, scale: Any) -> "QTensor":
        return _unflatten((self.numerics, self.dtype), (qvalue, scale))

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(f"{self} is not an array: use its dequantize(), or its qvalue and scale")

    # What takes arrays asks for one in these ways, and would otherwise fail without a remedy, or take a pytree as one.
    __array__ = __jax_array__ = __array_ufunc__ = __bool__ = __contains__ = _refuse
    __add__ = __sub__ = __mul__ = __truediv__ = __floordiv__ = __mod__ = __pow__ = __matmul__ = _refuse
    __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rfloordiv__ = __rmod__ = __rpow__ = __rmatmul__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __neg__ = __pos__ = __abs__ = _refuse


def _briefly(leaf: Any) -> str:
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]" if is_array(leaf) else shown(leaf)


def _bits(dtype: np.dtype) -> int:
    return (jnp.iinfo if jnp.issubdtype(dtype, jnp.integer) else jnp.finfo)(dtype).bits


@functools.partial(jax.jit, static_argnums=(2, 3))  # one program, with 0.5 in it
def _values(qvalue: jax.Array, scale: jax.Array, offset: float, dtype: np.dtype) -> jax.Array:
    y = qvalue.astype(wider(scale.dtype, np.dtype(np.float32)))
    y = y + jnp.asarray(offset, y.dtype) if offset else y
    return round_to(scaling.in_units(y, scale), dtype)


def _fill(q: QTensor, qvalue: Any, scale: Any, static: _Static) -> None:
    make_known_to_flax(QTensor, _state, _restored)
    for name, value in zip(("qvalue", "scale", "numerics", "dtype"), (qvalue, scale, *static), strict=True):
        object.__setattr__(q, name, value)


def _flatten(q: QTensor) -> tuple[tuple[Any, Any], _Static]:
    return (q.qvalue, q.scale), (q.numerics, q.dtype)


def _flatten_with_keys(q: QTensor) -> tuple[list[tuple[Any, Any]], _Static]:
    leaves, static = _flatten(q)
    return [*zip(map(tree_util.GetAttrKey, ("qvalue", "scale")), leaves, strict=True)], static


def _unflatten(static: _Static, leaves: Iterable[Any]) -> QTensor:
    """A QTensor of any leaves, unchecked: transforms put what they like in the place of arrays."""
    qvalue, scale = leaves
    q = object.__new__(QTensor)
    _fill(q, qvalue, scale, static)
    return q


tree_util.register_pytree_with_keys(QTensor, _flatten_with_keys, _unflatten, _flatten)


def _state(q: QTensor) -> dict[str, Any]:
    return {"qvalue": q.qvalue, "scale": q.scale}


def _restored(target: QTensor, state: dict[str, Any]) -> QTensor:
    return _unflatten((target.numerics, target.dtype), (state["qvalue"], state["scale"]))
