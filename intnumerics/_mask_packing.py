"""How the clip mask of an array is packed to one bit per element, so that a sharded array has a sharded mask.

The last axes of the array, as few as possible, are cut into groups of elements, and each group is packed into bytes of
its own. A device can pack its shard of the mask alone if the shard has whole groups, so groups are small: their number
is the largest power of two that divides the axis where they begin. It is smaller if padding each group to whole bytes
would cost more than a sixteenth. If the type of an array says that its shards do not have whole groups, the mask takes
a byte per element.

In a program that `jax.export` traces for many shapes, a size may be a symbol. Then groups are cut from the known axes
after the last symbol, or are all of these axes if they cannot be cut: `"b, 128"` takes one bit per element, `"b, 12"`
two bytes per row. If the last axis is a symbol, a group has 8 elements if the size is known to be a multiple of 8, as
`"8*n"` is, and one element otherwise. So the packing follows from the symbolic shape, and two exported programs agree
on it, one with `vjp_fwd` and one with `vjp_bwd`. An array of known sizes has the same packing, or one whose packed mask
has another shape, so a mask is never misread.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

from .kernels import Draw, clip_mask
from .kernels.spec import is_static

BITS_FOR_ONE_OF_PADDING = 16  # a group has at least so many bits for each bit that pads it to whole bytes


@dataclasses.dataclass(frozen=True)
class Packing:
    """How a mask is packed. Leading axes, as `vmap` adds them, do not change."""

    axes: int  # how many of the last axes are packed together
    group: int  # how many elements are packed into bytes of their own, low bit first

    @property
    def group_bytes(self) -> int:
        """Bytes of a group."""
        return -(-self.group // 8)

    @property
    def in_whole_bytes(self) -> bool:
        """Whether no group is padded."""
        return self.group % 8 == 0

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the packed mask of an array: one axis replaces those that are packed together."""
        lead, last = shape[: -self.axes], shape[-self.axes :]
        return (*lead, math.prod(last) // self.group * self.group_bytes)

    def rows(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in which an array is packed along its last axis, which is `shape` itself if possible."""
        lead, n = shape[: -self.axes], math.prod(shape[-self.axes :])
        return (*lead, n) if self.in_whole_bytes or self.group == n else (*lead, n // self.group, self.group)

    def draw_in_rows(self, draw: Draw) -> Draw | None:
        """The draw for the `rows` of an array; None if they are not rows of the whole array."""
        rows, inner = self.rows(draw.shape), len(draw.shape) - self.axes + 1
        if draw.generator == "hardware" or draw.whole[inner:] != draw.shape[inner:]:
            return None
        n = math.prod(draw.whole[inner - 1 :])
        if len(rows) > inner and n % self.group:
            return None
        last = (n,) if len(rows) == inner else (n // self.group, self.group)
        return dataclasses.replace(draw, shape=rows, whole=(*draw.whole[: inner - 1], *last))

    def pack(self, mask: jax.Array) -> jax.Array:
        """Packs a mask."""
        return clip_mask.pack(mask.reshape(self.rows(mask.shape))).reshape(self.shape(mask.shape))

    def unpack(self, packed: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The mask, of `shape`."""
        if not packed.size:
            return jnp.zeros(shape, bool)
        if self.in_whole_bytes:  # without groups: JAX does not know that a symbolic size n is n // 8 * 8
            count, groups = math.prod(shape[-self.axes :]), packed
        else:
            count, groups = self.group, packed.reshape(*packed.shape[:-1], -1, self.group_bytes)
        return clip_mask.unpack(groups, count).reshape(shape)


BY_THE_BYTE = Packing(1, 1)  # every shard has whole groups of one element


@functools.cache
def packing(shape: tuple[int, ...]) -> Packing:
    """How the mask of an array is packed.

    Example:
        >>> from jax import export
        >>> packing((32, 4096)), packing((32, 1000)), packing((32, 768, 3))
        (Packing(axes=1, group=8), Packing(axes=1, group=125), Packing(axes=2, group=24))
        >>> packing(export.symbolic_shape("b, 4096")), packing(export.symbolic_shape("32, n"))
        (Packing(axes=1, group=8), Packing(axes=1, group=1))
    """
    known = _known_axes(shape)
    if known == 0 and shape[-1] % 8 == 0:
        return Packing(1, 8)
    for axes in range(1, known + 1):
        size, inner = shape[-axes], math.prod(shape[len(shape) - axes + 1 :])
        parts = size & -size  # the largest power of two that divides it
        while parts:
            group = size // parts * inner
            padding = -group % 8
            if group and padding * BITS_FOR_ONE_OF_PADDING <= group:
                return Packing(axes, math.lcm(8, inner) if padding == 0 else group)
            parts //= 2
    return Packing(known, max(1, math.prod(shape[-known:]))) if known else BY_THE_BYTE


def _known_axes(shape: tuple[int, ...]) -> int:
    """How many of the last axes have known sizes."""
    return next((i for i, size in enumerate(reversed(shape)) if not is_static((size,))), len(shape))


def packing_of(packed: tuple[int, ...], shape: tuple[int, ...]) -> Packing:
    """How the mask of an array of `shape` was packed, from the shape of the packed mask."""
    for how in (packing(shape), BY_THE_BYTE):
        if how.shape(shape) == packed:
            return how
    raise ValueError(
        f"the packed mask has shape {packed}, and that of an array of shape {shape} has {packing(shape).shape(shape)}: "
        "give the cotangent of the result that came with the mask, in its shape"
    )
