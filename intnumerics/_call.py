"""A call: what is done to which arrays, as far as it is known before they are; and how a module's operation does it."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import numpy as np

from ._mask_packing import Packing
from .kernels import Draw, Operation, QuantSpec, clip_mask, packed_shape

Operations = Callable[[str], Operation | None]


@dataclasses.dataclass(frozen=True)
class Call:
    """The static part of a call: what is done, and by whom.

    Attributes:
        operation: Name of the function in an implementation's module.
        static: The arguments after the arrays.
        without_noise: Whether the operation takes noise and is given none.
        implementation: Name of an implementation, or None for the fastest known.
        interpret: None, or the platform whose kernel runs in interpret mode.
        packing: How the mask that is made or read is packed; None where there is no mask.
    """

    operation: str
    static: tuple[Any, ...] = ()
    without_noise: bool = False
    implementation: str | None = None
    interpret: str | None = None
    packing: Packing | None = None

    @property
    def draw(self) -> Draw | None:
        """What noise is drawn in the pass, if any."""
        return self.static[0].draw if self.operation == "quantize" else None

    @property
    def makes_mask(self) -> bool:
        """Whether the second result is a packed mask."""
        return self.operation == "quantize" and self.packing is not None

    @property
    def reads_mask(self) -> bool:
        """Whether the second array is a packed mask."""
        return self.operation == "clip_gradient_from_mask"

    def with_spec(self, **changes: Any) -> "Call":
        """The call with fields of its `QuantSpec` changed."""
        return dataclasses.replace(self, static=(dataclasses.replace(self.static[0], **changes),))

    def without_mask(self) -> "Call":
        """The quantization alone."""
        return dataclasses.replace(self.with_spec(with_mask=False), packing=None)

    def results(self, x: Any) -> list[tuple[tuple[int, ...], np.dtype]]:
        """Shape and dtype of each result, from those of the first array."""
        dtype = self.static[0].result_dtype(x.dtype) if self.operation == "quantize" else x.dtype
        found = [(tuple(x.shape), np.dtype(dtype))]
        if self.makes_mask and self.packing:
            found.append((self.packing.shape(x.shape), np.dtype(np.uint8)))
        return found

    def rows(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in which an implementation is given x."""
        return self.packing.rows(shape) if self.packing else shape

    def of(self, operations: Operations) -> Callable[..., list[jax.Array]]:
        """The operation of a module as a function of arrays alone."""
        if self.makes_mask:
            return functools.partial(_quantize_with_mask, operations, self)
        if self.reads_mask:
            return functools.partial(_clip_gradient_from_mask, operations, self)
        function = cast(Operation, operations(self.operation))
        after = ((None,) if self.without_noise else ()) + self.static
        return lambda *arrays: [function(*arrays, *after)]


def _quantize_with_mask(
    operations: Operations, call: Call, x: jax.Array, noise: jax.Array | None = None
) -> list[jax.Array]:
    packing, rows = cast(Packing, call.packing), call.rows(x.shape)
    spec = call.static[0] if rows == x.shape else _spec_in_rows(call, packing, x, noise)
    if spec is None:
        return [*call.without_mask().of(operations)(x, noise), packing.pack(clip_mask.inside(x, call.static[0]))]
    if noise is not None and spec.draw is None:
        noise = noise if rows == x.shape else noise.reshape(rows)
    y, packed = cast(Operation, operations("quantize"))(x.reshape(rows), noise, spec)
    return [y.reshape(x.shape), packed.reshape(packing.shape(x.shape))]


def _spec_in_rows(call: Call, packing: Packing, x: jax.Array, noise: jax.Array | None) -> QuantSpec | None:
    """What is done to x in the shape in which it is packed; None where the noise ties it to its own shape."""
    spec: QuantSpec = call.static[0]
    if spec.draw is None:
        return spec if noise is None or noise.shape == x.shape else None
    draw = packing.draw_in_rows(spec.draw)
    is_shared = spec.draw.shape != x.shape[x.ndim - len(spec.draw.shape) :]
    return None if draw is None or is_shared else dataclasses.replace(spec, draw=draw)


def _clip_gradient_from_mask(operations: Operations, call: Call, g: jax.Array, packed: jax.Array) -> list[jax.Array]:
    rows = call.rows(g.shape)
    clip = cast(Operation, operations("clip_gradient_from_mask"))
    return [clip(g.reshape(rows), packed.reshape(packed_shape(rows))).reshape(g.shape)]
