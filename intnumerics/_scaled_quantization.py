"""The operations with scales, described: quantizations by a scale that is given, or that of each slice's maximum."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from . import _fastest
from ._layout import Layout
from ._operation import Arrays, Axes, Groups, Operand, Result, Run, Shape, Typed, every_axis
from ._quantization import InReference, Quantize, drawing_on_shard
from .kernels import QuantSpec, Scaling, clip_mask, scaling
from .kernels.spec import wider


def scale_axes(shape: Shape, scale: Shape) -> Axes:
    """What is split with each axis of a scale of an array of `shape`: with blocks, the last axis counts them."""
    pairs = enumerate(zip(shape, scale, strict=True))
    axes: list[int | Groups | None] = [axis if n == size and n != 1 else None for axis, (n, size) in pairs]
    if scale[-1] not in (1, shape[-1]):
        axes[-1] = Groups(len(shape) - 1, shape[-1] // scale[-1])
    return tuple(axes)


def _scale_on_shard(layout: Layout, scale: jax.Array) -> jax.Array:
    """A device's shard of a scale; a scale for each of its elements if it has parts of blocks."""
    axis = scale_axes(layout.shape, tuple(layout.operands[-1].shape))[-1]
    return _cut_to_shard(layout, axis, scale)


def _cut_to_shard(layout: Layout, axis: Any, scale: jax.Array) -> jax.Array:
    if not isinstance(axis, Groups) or not layout.cuts(axis):
        return scale
    return layout.cut_from(len(layout.shape) - 1, scaling.expanded(scale, layout.shape))


@dataclasses.dataclass(frozen=True)
class QuantizeByScale(Quantize):
    """`Quantize` of x in buckets, whose size is the last operand."""

    name: ClassVar[str] = "quantize_by_scale"

    @property
    def is_elementwise(self) -> bool:
        return False

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (*super().operands, Operand("scale", broadcasts=True))

    def operand_axes(self, shapes: Sequence[Shape]) -> list[Axes]:
        return [*super().operand_axes(shapes[:-1]), scale_axes(shapes[0], shapes[-1])]

    def call(self, function: Callable[..., Any], *operands: jax.Array) -> Arrays:
        x, *noise, scale = operands
        y = function(x, scale, noise[0] if noise else None, self.spec)
        return [y] if self.packing is None else [y, self.packing.pack(self.inside(*operands))]

    def inside(self, *operands: jax.Array) -> jax.Array:
        x, *_, scale = operands
        return clip_mask.inside(scaling.in_buckets(x, scale), self.spec)

    def jvp(
        self, run: Run, operands: Sequence[jax.Array], results: Arrays, tangents: Mapping[int, jax.Array]
    ) -> Arrays:
        if self.derivative != "clipped" or self.packing is not None or 0 not in tangents:
            return super().jvp(run, operands, results, tangents)
        [tangent] = run(ClipGradientByScale(self.spec), tangents[0], operands[0], operands[-1])
        return [tangent]

    def on_shard(self, layout: Layout, run: Run, *shards: jax.Array) -> Arrays:
        *others, scale = shards
        return super().on_shard(layout, run, *others, _scale_on_shard(layout, scale))

    def fastest(self, platform: str | None, operands: Sequence[Typed], allows_kernels: bool) -> str:
        return "xla"


@dataclasses.dataclass(frozen=True)
class ClipGradientByScale(InReference):
    """`where(|y| <= bound, g, 0)`, where y is x in buckets, with the bound of `spec`."""

    name: ClassVar[str] = "clip_gradient_by_scale"
    is_linear: ClassVar[bool] = True

    spec: QuantSpec

    @property
    def operands(self) -> tuple[Operand, ...]:
        return Operand("cotangent"), Operand("x"), Operand("scale", broadcasts=True)

    def operand_axes(self, shapes: Sequence[Shape]) -> list[Axes]:
        return [*super().operand_axes(shapes[:-1]), scale_axes(shapes[0], shapes[-1])]

    def call(self, function: Callable[..., Any], *operands: jax.Array) -> Arrays:
        return [function(*operands, self.spec)]

    def on_shard(self, layout: Layout, run: Run, *shards: jax.Array) -> Arrays:
        g, x, scale = shards
        return run(self, g, x, _scale_on_shard(layout, scale))


@dataclasses.dataclass(frozen=True)
class AbsMax(InReference):
    """The largest finite magnitude of each slice, in the dtype of a scale; 0 if there is none.

    Attributes:
        axes: The axes of a slice, counted from the last, which are kept with size 1.
        block: How many elements of the last axis, the only one of `axes`, are a slice; None if the whole axis is one.
    """

    name: ClassVar[str] = "absmax"

    axes: tuple[int, ...]
    block: int | None = None

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (Operand("x"),)

    def results(self, *operands: Typed) -> tuple[Result, ...]:
        x = operands[0]
        rank = len(x.shape)
        shape, axes = list(x.shape), list(every_axis(x.shape))
        for axis in self.axes:
            shape[axis], axes[axis] = 1, None
        if self.block is not None:
            shape[-1], axes[-1] = x.shape[-1] // self.block, Groups(rank - 1, self.block)
        return (Result(tuple(shape), wider(x.dtype, np.dtype(np.float32)), tuple(axes)),)

    def call(self, function: Callable[..., Any], *operands: jax.Array) -> Arrays:
        return [function(*operands, self.axes, self.block)]

    def jvp(
        self, run: Run, operands: Sequence[jax.Array], results: Arrays, tangents: Mapping[int, jax.Array]
    ) -> Arrays:
        return [jnp.zeros_like(result) for result in results]

    def on_shard(self, layout: Layout, run: Run, *shards: jax.Array) -> Arrays:
        [x] = shards
        last = len(layout.shape) - 1
        if self.block is not None:
            cuts = layout.cuts(Groups(last, self.block))
            return self._of_parts(self.block, layout, run, x) if cuts else run(self, x)
        split = [axis % len(layout.shape) for axis in self.axes if layout.split[axis]]
        for axis in split:
            x = layout.without_padding(axis, x)
        [largest] = run(self, x)
        names = tuple(name for axis in split for name in layout.split[axis])
        return [lax.pmax(largest, names)] if names else [largest]

    def _of_parts(self, block: int, layout: Layout, run: Run, x: jax.Array) -> Arrays:
        """The maxima of all blocks of the last axis, of which devices have parts."""
        last = len(layout.shape) - 1
        names, n = layout.split[last], layout.shape[last]
        size = math.gcd(x.shape[last], block)  # so that blocks and shards begin where a part of this size does
        [parts] = run(dataclasses.replace(self, block=size), layout.without_padding(last, x))
        here, count = layout.index(names) * parts.shape[last], parts.shape[last] * layout.parts(names)
        whole = jnp.zeros((*parts.shape[:last], count), parts.dtype)
        whole = lax.dynamic_update_slice_in_dim(whole, parts, here, last)[..., : n // size]
        largest = whole.reshape(*parts.shape[:last], n // block, block // size).max(axis=-1)
        return [lax.pmax(largest, names)]


@dataclasses.dataclass(frozen=True)
class QuantizeByAbsMax(InReference):
    """`QuantizeByScale` with the scale of each slice's largest magnitude, which is the second result.

    The gradient of the first result goes straight through, and is never clipped: no element is beyond the maximum.

    Attributes:
        spec: What to do with each element, in buckets.
        noise: As in `Quantize`.
        how: How the largest magnitude of a slice becomes its scale.
        block: How many elements of the last axis are a slice; None if the whole axis is one.
    """

    name: ClassVar[str] = "quantize_by_absmax"

    spec: QuantSpec
    noise: Literal["noise", "seed"] | None
    how: Scaling
    block: int | None = None

    @property
    def _quantize(self) -> Quantize:
        return Quantize(self.spec, self.noise)

    @property
    def _absmax(self) -> AbsMax:
        return AbsMax((-1,), self.block)

    @property
    def operands(self) -> tuple[Operand, ...]:
        return self._quantize.operands

    def operand_axes(self, shapes: Sequence[Shape]) -> list[Axes]:
        return self._quantize.operand_axes(shapes)

    def results(self, *operands: Typed) -> tuple[Result, ...]:
        return *self._quantize.results(*operands), *self._absmax.results(operands[0])

    def call(self, function: Callable[..., Any], *operands: jax.Array) -> Arrays:
        x, noise = operands if self.noise else (*operands, None)
        return list(function(x, noise, self.spec, self.how, self.block))

    def jvp(
        self, run: Run, operands: Sequence[jax.Array], results: Arrays, tangents: Mapping[int, jax.Array]
    ) -> Arrays:
        tangent = tangents[0] if 0 in tangents else jnp.zeros_like(operands[0])
        return [tangent, jnp.zeros_like(results[1])]

    def on_shard(self, layout: Layout, run: Run, *shards: jax.Array) -> Arrays:
        last = len(layout.shape) - 1
        groups = None if self.block is None else Groups(last, self.block)
        is_split = bool(layout.split[last]) if groups is None else layout.cuts(groups)
        operation, operands = self, list(shards)
        if self.spec.draw is not None:
            spec, operands[1] = drawing_on_shard(layout, self.spec, self.spec.draw, shards[1])
            operation = dataclasses.replace(self, spec=spec)
        if not is_split:
            return run(operation, *operands)
        [largest] = self._absmax.on_shard(layout, run, shards[0])
        scale = scaling.scale_of(largest, self.how)
        by_scale = QuantizeByScale(operation.spec, self.noise)
        return [*run(by_scale, *operands, _cut_to_shard(layout, groups, scale)), scale]

    @property
    def generator(self) -> str | None:
        return self._quantize.generator

    def sizes(self, *operands: Typed) -> list[Shape]:
        return self._quantize.sizes(*operands)

    def fastest(self, platform: str | None, operands: Sequence[Typed], allows_kernels: bool) -> str:
        return _fastest.of_absmax(self.block, platform, operands, allows_kernels)
