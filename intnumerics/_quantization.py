"""The operations of the package, described: a quantization, and the two ways to clip its gradient."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from . import _fastest
from ._layout import Layout
from ._mask_packing import Packing
from ._operation import Arrays, Axes, Groups, Operand, Operation, Result, Run, Shape, Typed, every_axis
from .kernels import Draw, QuantSpec, clip_mask, packed_shape, reference
from .kernels.generators.seeds import Steps, advance


def packed_axes(packing: Packing, shape: Shape) -> Axes:
    """The axes of the packed mask of an array: one in the place of those that are packed together."""
    first = len(shape) - packing.axes
    return (*range(first), Groups(first, packing.group))


Derivative = Literal["formula", "straight", "clipped"]


class InReference(Operation):
    """An operation whose formula is the function of its name in `kernels/reference.py`."""

    def formula(self, *operands: jax.Array) -> Arrays:
        return self.call(getattr(reference, self.name), *operands)


@dataclasses.dataclass(frozen=True)
class Quantize(InReference):
    """Adds noise, clips and rounds.

    Attributes:
        spec: What to do with each element.
        noise: Whether there is an array of noise, a seed from which noise is drawn in the pass (`spec.draw`), or none.
        packing: How the clip mask, a second result, is packed; None without a mask.
        derivative: "formula" is zero through the rounding, "straight" is 1, and "clipped" is 1 within the bound and 0
            beyond it. JAX before 0.12 would drop a `custom_jvp` around the operation from a loop that is
            differentiated twice.
    """

    name: ClassVar[str] = "quantize"

    spec: QuantSpec
    noise: Literal["noise", "seed"] | None = None
    packing: Packing | None = None
    derivative: Derivative = "formula"

    @property
    def is_elementwise(self) -> bool:
        return self.noise != "seed" and self.packing is None

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (Operand("x"), *([] if self.noise is None else [Operand(self.noise, broadcasts=True)]))

    def operand_axes(self, shapes: Sequence[Shape]) -> list[Axes]:
        axes = super().operand_axes(shapes)
        if self.noise == "seed":  # whose last axis is the four words of a seed
            axes[1] = (*axes[1][:-1], None)
        return axes

    def results(self, *operands: Typed) -> tuple[Result, ...]:
        x = operands[0]
        y = Result(tuple(x.shape), self.spec.result_dtype(x.dtype), every_axis(x.shape))
        if self.packing is None:
            return (y,)
        return y, Result(self.packing.shape(x.shape), np.dtype(np.uint8), packed_axes(self.packing, x.shape))

    def call(self, function: Callable[..., Any], *operands: jax.Array) -> Arrays:
        x, noise = operands if self.noise else (*operands, None)
        if self.packing is None:
            return [function(x, noise, self.spec)]
        spec, rows = self._spec_in_rows(x.shape, noise), self.packing.rows(x.shape)
        if spec is None:
            return [*self._without_mask().call(function, *operands), self.packing.pack(self.inside(*operands))]
        if self.noise == "noise" and rows != x.shape:
            noise = operands[1].reshape(rows)
        y, packed = function(x.reshape(rows), noise, dataclasses.replace(spec, with_mask=True))
        return [y.reshape(x.shape), packed.reshape(self.packing.shape(x.shape))]

    def inside(self, *operands: jax.Array) -> jax.Array:
        """The clip mask, from the operands."""
        return clip_mask.inside(operands[0], self.spec)

    def _without_mask(self) -> "Quantize":
        return dataclasses.replace(self, packing=None)

    def _spec_in_rows(self, shape: Shape, noise: jax.Array | None) -> QuantSpec | None:
        """What is done to x in the shape of the rows that are packed; None if its noise depends on its own shape."""
        packing, draw = cast(Packing, self.packing), self.spec.draw
        if packing.rows(shape) == shape:
            return self.spec
        if draw is None:
            return self.spec if noise is None or noise.shape == shape else None
        in_rows, is_shared = packing.draw_in_rows(draw), draw.shape != shape[len(shape) - len(draw.shape) :]
        return None if in_rows is None or is_shared else dataclasses.replace(self.spec, draw=in_rows)

    def jvp(
        self, run: Run, operands: Sequence[jax.Array], results: Arrays, tangents: Mapping[int, jax.Array]
    ) -> Arrays:
        x = operands[0]
        if self.derivative != "formula":
            tangent = tangents[0] if 0 in tangents else lax.full_like(x, 0)
            if self.derivative == "clipped" and self.packing is not None:
                [tangent] = run(ClipGradientFromMask(self.packing), tangent, results[1])
            elif self.derivative == "clipped":
                [tangent] = run(ClipGradientFromX(self.spec), tangent, x)
            return [tangent.astype(results[0].dtype)] * len(results)
        if self.spec.draw is None:
            return super().jvp(run, operands, results, tangents)
        seed = operands[1]
        [noise] = run(noise_alone(self.spec.draw), lax.full_like(x, 0, jnp.float32), seed)
        read = dataclasses.replace(self, spec=dataclasses.replace(self.spec, draw=None), noise="noise")
        return read.jvp(run, [x, noise], results, tangents)

    def on_shard(self, layout: Layout, run: Run, *shards: jax.Array) -> Arrays:
        operation, operands = self, list(shards)
        if self.spec.draw is not None:
            spec, operands[1] = drawing_on_shard(layout, self.spec, self.spec.draw, shards[1])
            operation = dataclasses.replace(self, spec=spec)
        if self.packing is None:
            return run(operation, *operands)
        first = len(layout.shape) - self.packing.axes
        if not layout.cuts(Groups(first, self.packing.group)):
            return run(operation, *operands)
        mask = layout.gather_from(first, self.inside(*operands))
        return [*run(operation._without_mask(), *operands), self.packing.pack(mask)]

    @property
    def generator(self) -> str | None:
        return None if self.spec.draw is None else self.spec.draw.generator

    def sizes(self, *operands: Typed) -> list[Shape]:
        draw = self.spec.draw
        return [*super().sizes(*operands), *([] if draw is None else [draw.shape, draw.whole])]

    def fastest(self, platform: str | None, operands: Sequence[Typed], allows_kernels: bool) -> str:
        packed_rows = None if self.packing is None else self.packing.rows(operands[0].shape)
        return _fastest.of_quantization(self.spec, packed_rows, platform, operands, allows_kernels)


def drawing_on_shard(layout: Layout, spec: QuantSpec, draw: Draw, seed: jax.Array) -> tuple[QuantSpec, jax.Array]:
    """The description that draws the noise of this device's shard, and its seed."""
    split_of_x = layout.split[len(layout.split) - len(draw.shape) :]
    split = tuple(() if n in (0, 1) else axes for n, axes in zip(draw.shape, split_of_x, strict=True))
    shape = layout.shard(draw.shape, split)
    steps: Steps = [
        (layout.index(axes), (n, *draw.sizes_within(axis)))
        for axis, (axes, n) in enumerate(zip(split, shape, strict=True))
        if layout.parts(axes) > 1
    ]
    aligned = draw.aligned and all(math.prod(sizes) % 8 == 0 for _, sizes in steps)
    return dataclasses.replace(spec, draw=dataclasses.replace(draw, shape=shape, aligned=aligned)), advance(seed, steps)


def noise_alone(draw: Draw) -> Quantize:
    """The operation that adds the noise of a draw, and does nothing else."""
    return Quantize(QuantSpec(math.inf, clip=False, rounding=None, draw=draw), "seed")


@dataclasses.dataclass(frozen=True)
class ClipGradientFromMask(InReference):
    """`where(mask, g, 0)`, with a mask that is packed as `packing` says."""

    name: ClassVar[str] = "clip_gradient_from_mask"
    is_linear: ClassVar[bool] = True

    packing: Packing

    @property
    def operands(self) -> tuple[Operand, ...]:
        return Operand("cotangent"), Operand("mask")

    def operand_axes(self, shapes: Sequence[Shape]) -> list[Axes]:
        return [every_axis(shapes[0]), packed_axes(self.packing, shapes[0])]

    def call(self, function: Callable[..., Any], *operands: jax.Array) -> Arrays:
        g, packed = operands
        rows = self.packing.rows(g.shape)
        return [function(g.reshape(rows), packed.reshape(packed_shape(rows))).reshape(g.shape)]

    def on_shard(self, layout: Layout, run: Run, *shards: jax.Array) -> Arrays:
        g, packed = shards
        first = len(layout.shape) - self.packing.axes
        if not layout.cuts(Groups(first, self.packing.group)):
            return run(self, g, packed)
        mask = layout.cut_from(first, self.packing.unpack(packed, layout.whole_from(first)))
        return [jnp.where(mask, g, jnp.zeros_like(g))]

    def fastest(self, platform: str | None, operands: Sequence[Typed], allows_kernels: bool) -> str:
        return _fastest.with_mask(self.packing.rows(operands[0].shape), platform, operands, allows_kernels)


@dataclasses.dataclass(frozen=True)
class ClipGradientFromX(InReference):
    """`where(|x| <= bound, g, 0)`, with the bound of `spec`."""

    name: ClassVar[str] = "clip_gradient_from_x"
    is_linear: ClassVar[bool] = True

    spec: QuantSpec

    @property
    def is_elementwise(self) -> bool:
        return True

    @property
    def operands(self) -> tuple[Operand, ...]:
        return Operand("cotangent"), Operand("x")

    def call(self, function: Callable[..., Any], *operands: jax.Array) -> Arrays:
        return [function(*operands, self.spec)]

    def fastest(self, platform: str | None, operands: Sequence[Typed], allows_kernels: bool) -> str:
        return _fastest.of_clip_from_x(platform, operands)
