"""How the arrays of an operation are split over the devices of a mesh, and where one device's shards lie in them."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from ._operation import Axes, Groups, Operation, Shape, Typed

Split = tuple[tuple[str, ...], ...]  # for each axis of an array, the mesh axes that it is split over, major first


@dataclasses.dataclass(frozen=True)
class Layout:
    """The arrays of an operation, split over a mesh."""

    operation: Operation  # as of whole arrays
    operands: tuple[Typed, ...]  # the types of the whole operands
    split: Split  # how the first operand is split; all other arrays follow from it
    mesh: Mapping[str, int]  # the size of each mesh axis

    def __post_init__(self) -> None:
        whole = {axis % len(self.split) for axis in self.operation.whole_axes}
        split = tuple(() if axis in whole else axes for axis, axes in enumerate(self.split))
        object.__setattr__(self, "split", split)

    @property
    def shape(self) -> Shape:
        """The shape of the whole first operand."""
        return tuple(self.operands[0].shape)

    def of_operands(self) -> list[Split]:
        """How each operand is split."""
        return [self._of(axes) for axes in self.operation.operand_axes([tuple(a.shape) for a in self.operands])]

    def of_results(self) -> list[Split]:
        """How each result is split."""
        return [self._of(result.axes) for result in self.operation.results(*self.operands)]

    def _of(self, axes: Axes) -> Split:
        return tuple(
            () if axis is None or (isinstance(axis, Groups) and self.cuts(axis)) else self.split[first_of(axis)]
            for axis in axes
        )

    def cuts(self, groups: Groups) -> bool:
        """Whether a device has parts of groups."""
        if any(self.split[groups.first + 1 :]):
            return True
        n = self.shard(self.shape, self.split)[groups.first] * math.prod(self.shape[groups.first + 1 :])
        return self.parts(self.split[groups.first]) > 1 and n % groups.size != 0

    def parts(self, axes: Sequence[str]) -> int:
        """Into how many parts mesh axes split an axis."""
        return math.prod(self.mesh[name] for name in axes)

    def shard(self, shape: Shape, split: Split) -> Shape:
        """The shape of one device's shard; of an axis that does not divide, the last shards are padded."""
        return tuple(-(-n // self.parts(axes)) for n, axes in zip(shape, split, strict=True))

    # --- on one device, where `lax.axis_index` has the mesh axes ---

    def index(self, axes: Sequence[str]) -> jax.Array:
        """Which part of an axis that is split over mesh axes this device has."""
        index = jnp.int32(0)
        for name in axes:
            index = index * self.mesh[name] + lax.axis_index(name)
        return index

    def whole_from(self, first: int) -> Shape:
        """The shape of this device's shard of the first operand, made whole along its axes from `first` on."""
        return (*self.shard(self.shape, self.split)[:first], *self.shape[first:])

    def gather_from(self, first: int, shard: jax.Array) -> jax.Array:
        """A shard that is split as the first operand, made whole along its axes from `first` on."""
        for axis, axes in self._split_from(first):
            shard = lax.all_gather(shard, axes, axis=axis, tiled=True)
        return shard[tuple(slice(n) for n in self.whole_from(first))]

    def cut_from(self, first: int, array: jax.Array) -> jax.Array:
        """This device's shard of what `gather_from` gave."""
        for axis, axes in self._split_from(first):
            n = self.shard(self.shape, self.split)[axis]
            padding = [(0, n * self.parts(axes) - array.shape[axis] if i == axis else 0) for i in range(array.ndim)]
            array = lax.dynamic_slice_in_dim(jnp.pad(array, padding), self.index(axes) * n, n, axis)
        return array

    def without_padding(self, axis: int, shard: jax.Array) -> jax.Array:
        """A shard of the first operand, with 0 for the elements that pad the last shards along an axis."""
        n, parts = self.shape[axis], self.parts(self.split[axis])
        if n % parts == 0:
            return shard
        size = shard.shape[axis]
        place = lax.broadcasted_iota(jnp.int32, shard.shape, axis) + self.index(self.split[axis]) * size
        return jnp.where(place < n, shard, jnp.zeros_like(shard))

    def _split_from(self, first: int) -> list[tuple[int, tuple[str, ...]]]:
        """The axes from `first` on that are split, with the mesh axes."""
        return [(axis, axes) for axis, axes in enumerate(self.split) if axis >= first and axes]


def first_of(axis: int | Groups) -> int:
    """The axis of the first operand that an axis is split with."""
    return axis.first if isinstance(axis, Groups) else axis


def split_of_first(operation: Operation, shapes: Sequence[Shape], splits: Sequence[Split]) -> Split:
    """How the first operand is split if, as of a sum in jnp, it is split as any of the operands is."""
    of_first: list[Split] = []
    for axes, split in zip(operation.operand_axes(shapes), splits, strict=True):
        found: list[tuple[str, ...]] = [()] * len(shapes[0])
        for axis, names in zip(axes, split, strict=True):
            if axis is not None:
                found[first_of(axis)] = names
        of_first.append(tuple(found))
    return agreed(*of_first)


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
