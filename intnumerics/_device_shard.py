"""How the arrays of a call are split over the devices of a mesh, and what each device then does.

Every operation is elementwise, so a device quantizes its shard of x and no one else's. It needs to know where the shard
sits for two things only: the noise of an element depends on its index in the whole array, and a shard of the packed
mask must be whole bytes.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._call import Call
from ._mask_packing import Packing
from .kernels import Draw, clip_mask
from .kernels.generators.counters import product

Shape = tuple[int, ...]
Split = tuple[tuple[str, ...], ...]  # for each axis of an array, the mesh axes that it is split over, major first
Leaf = Callable[..., list[jax.Array]]  # runs a call on arrays that are on one device


@dataclasses.dataclass(frozen=True)
class Shards:
    """A call on arrays that are split over a mesh.

    Attributes:
        call: What is done, as to whole arrays.
        shapes: The shapes of the whole arrays.
        split: How the first of them is split, and with it all others.
        mesh: The size of each mesh axis.
    """

    call: Call
    shapes: tuple[Shape, ...]
    split: Split
    mesh: Mapping[str, int]

    @property
    def _packing(self) -> Packing:
        return cast(Packing, self.call.packing)

    @property
    def _lead(self) -> int:
        """How many axes are before those that are packed together."""
        return len(self.split) - self._packing.axes

    # --- how all arrays are split ---

    def operands(self) -> list[Split]:
        """How each operand is split: as x, but along axes that it shares."""
        return [self._like_x(i, shape) for i, shape in enumerate(self.shapes)]

    def results(self) -> list[Split]:
        """How each result is split."""
        return [self.split, self._of_packed()] if self.call.makes_mask else [self.split]

    def _like_x(self, i: int, shape: Shape) -> Split:
        if i == 1 and self.call.reads_mask:
            return self._of_packed()
        places = along_x(self.call, i, shape, self.shapes[0])
        return tuple(() if place is None else self.split[place] for place in places)

    def _of_packed(self) -> Split:
        """As x, but not split where a device would have parts of groups."""
        return (*self.split[: self._lead], () if self.is_cut() else self.split[self._lead])

    def is_cut(self) -> bool:
        """Whether a device has parts of groups of the mask, or of axes that are packed together."""
        if any(self.split[self._lead + 1 :]):
            return True
        n = self.shard(self.shapes[0], self.split)[self._lead] * math.prod(self.shapes[0][self._lead + 1 :])
        return self.parts(self.split[self._lead]) > 1 and n % self._packing.group != 0

    def parts(self, axes: tuple[str, ...]) -> int:
        """Into how many parts mesh axes split an axis."""
        return math.prod(self.mesh[name] for name in axes)

    def shard(self, shape: Shape, split: Split) -> Shape:
        """The shape of one device's shard; of an axis that does not divide, the last shards are padded."""
        return tuple(-(-n // self.parts(axes)) for n, axes in zip(shape, split, strict=True))

    # --- what a device does ---

    def run(self, leaf: Leaf, *shards: jax.Array) -> list[jax.Array]:
        """The results for one device's shards; `lax.axis_index` must be at hand for the mesh axes."""
        call, operands = self.call, list(shards)
        if call.draw is not None:
            call, operands[1] = self._drawing(shards[1])
        if call.packing is None or not self.is_cut():
            return leaf(call, *operands)
        if call.reads_mask:
            g, packed = operands
            return [jnp.where(self._cut(call.packing.unpack(packed, self._gathered())), g, jnp.zeros_like(g))]
        mask = self._gather(clip_mask.inside(operands[0], call.static[0]))
        return [*leaf(call.without_mask(), *operands), call.packing.pack(mask)]

    def _drawing(self, seed: jax.Array) -> tuple[Call, jax.Array]:
        """The call that draws the noise of this shard, and its seed."""
        draw = cast(Draw, self.call.draw)
        batch = len(self.split) - len(draw.shape)
        split = tuple(() if n in (0, 1) else axes for n, axes in zip(draw.shape, self.split[batch:], strict=True))
        shape = self.shard(draw.shape, split)
        steps = [
            (self._index(axes), (n, *draw.sizes_within(axis)))
            for axis, (axes, n) in enumerate(zip(split, shape, strict=True))
            if self.parts(axes) > 1
        ]
        aligned = draw.aligned and all(math.prod(sizes) % 8 == 0 for _, sizes in steps)
        return self.call.with_spec(draw=dataclasses.replace(draw, shape=shape, aligned=aligned)), advance(seed, steps)

    def _index(self, axes: tuple[str, ...]) -> jax.Array:
        """Which part of an axis this device has."""
        index = jnp.int32(0)
        for name in axes:
            index = index * self.mesh[name] + lax.axis_index(name)
        return index

    # --- where the groups of a packed mask lie on several devices ---

    def _split_last(self) -> list[tuple[int, tuple[str, ...]]]:
        """The axes that are packed together and split, with the mesh axes."""
        return [(axis, axes) for axis, axes in enumerate(self.split) if axis >= self._lead and axes]

    def _gathered(self) -> Shape:
        """The shape of x with the axes that are packed together whole."""
        return (*self.shard(self.shapes[0], self.split)[: self._lead], *self.shapes[0][self._lead :])

    def _gather(self, mask: jax.Array) -> jax.Array:
        """A shard of the mask, made whole along the axes that are packed together: a byte per element is sent."""
        for axis, axes in self._split_last():
            mask = lax.all_gather(mask, axes, axis=axis, tiled=True)
        return mask[tuple(slice(n) for n in self._gathered())]

    def _cut(self, mask: jax.Array) -> jax.Array:
        """The part of a mask that is this device's."""
        for axis, axes in self._split_last():
            n = self.shard(self.shapes[0], self.split)[axis]
            padding = [(0, n * self.parts(axes) - mask.shape[axis] if i == axis else 0) for i in range(mask.ndim)]
            mask = lax.dynamic_slice_in_dim(jnp.pad(mask, padding), self._index(axes) * n, n, axis)
        return mask


def along_x(call: Call, i: int, shape: Shape, x: Shape) -> list[int | None]:
    """The axis of x that goes with each axis of operand i, which has `shape`; None along axes that it shares."""
    if i == 1 and call.reads_mask:
        return list(range(len(shape)))
    places = [axis if axis < len(x) and n == x[axis] else None for axis, n in enumerate(shape)]
    if i == 1 and call.draw is not None:  # a seed has its four words where x goes on
        places[-1] = None
    return places


def agreed(*splits: Split) -> Split:
    """The first split, completed by the others along axes that it leaves whole."""
    chosen: list[tuple[str, ...]] = [()] * len(splits[0])
    used = set[str]()
    for split in splits:
        for axis, axes in enumerate(split):
            if not chosen[axis] and used.isdisjoint(axes):
                chosen[axis] = axes
                used.update(axes)
    return tuple(chosen)


def advance(seed: jax.Array, steps: Sequence[tuple[Any, Sequence[int]]]) -> jax.Array:
    """A seed whose first element is later by the sum of products, taken in 64 bits.

    Args:
        seed: uint32 (*batch, 4), as `kernels.Draw` describes it.
        steps: Integers below 2**31, each with the sizes whose product it is multiplied with.
    """
    if not steps:
        return seed
    with jax.enable_x64(True):

        def word(value: Any) -> jax.Array:
            return jnp.asarray(value).astype(jnp.uint64)

        number = word(seed[..., 2]) | word(seed[..., 3]) << word(32)
        for count, sizes in steps:
            number = number + word(count) * product(sizes, np.dtype(np.uint64))
        first = [(number >> word(shift)).astype(jnp.uint32)[..., None] for shift in (0, 32)]
    return jnp.concatenate([seed[..., :2], *first], axis=-1)
