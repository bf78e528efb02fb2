"""Triton for CUDA, through jax-triton: one pass over the flattened arrays, and no part of Pallas in it.

`triton_body.py` has the kernels. That module, Triton and jax-triton are imported when a program is lowered that names
this implementation, so that nobody else needs them.
"""

import dataclasses
import importlib
import math
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..generators.philox_blocks import DRAWS
from ..generators import drawn as draw_array
from ..gpu import tuning
from ..gpu.shapes import draws_in_kernel, index_dtype, kept_groups, pad_rows, padded_for_mask, ragged
from ..spec import Draw, QuantSpec, packed_shape, strides_of
from . import versions

CACHE = "TRITON_CACHE_DIR"


@dataclasses.dataclass(frozen=True)
class Sharing:
    """Where the elements of a flattened array, n of them, stand in another that it shares along some axes."""

    n: int
    groups: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, shape: tuple[int, ...], strides: tuple[int, ...]) -> "Sharing":
        """That of an array of `shape` with another one, which has `strides` along its axes."""
        return cls(math.prod(shape), tuple(kept_groups(shape, strides)))

    @property
    def is_wide(self) -> bool:
        """Whether indices of the other array take 64 bits."""
        return index_dtype(1 + sum((size - 1) * step for _, size, step in self.groups)).itemsize == 8


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a kernel is compiled for.

    Attributes:
        n: How many elements an example has.
        size: How many elements a block has.
        warps: How many warps handle a block.
        examples: How many examples the arrays have, one after another.
        rows: How many rows of eight are handled at a time; 0 for blocks that are a row of elements.
        width: How many columns of such a row a tile has.
        bound: The bound, in the dtype of the clip.
        clip: As in `QuantSpec`.
        rounding: As in `QuantSpec`.
        keeps_cast: Whether the sum with the noise is rounded to the dtype of x.
        noise: `"array"`, `"seed"`, or None.
        shares_noise: Of the array with that of its noise; None where they have one shape.
        shares_seeds: Of the examples with the seeds.
        shares_blocks: Of eight elements each, with the Philox blocks of a larger array; None where they are in a row.
    """

    n: int
    size: int
    warps: int
    examples: int = 1
    rows: int = 0
    width: int = 8
    bound: float = 0.0
    clip: bool = False
    rounding: str | None = None
    keeps_cast: bool = False
    noise: str | None = None
    shares_noise: Sharing | None = None
    shares_seeds: Sharing | None = None
    shares_blocks: Sharing | None = None

    @property
    def blocks(self) -> int:
        """How many blocks an example has."""
        return -(-self.n // self.size)

    @property
    def is_wide(self) -> bool:
        """Whether indices take 64 bits."""
        return index_dtype(self.n * self.examples).itemsize == 8


def quantize(x: jax.Array, noise: jax.Array | None, spec: QuantSpec) -> jax.Array | tuple[jax.Array, jax.Array]:
    """`reference.quantize` in one pass."""
    shape, dtype = x.shape, spec.result_dtype(x.dtype)
    if not x.size:
        empty = jnp.zeros(shape, dtype)
        return (empty, jnp.zeros(packed_shape(shape), jnp.uint8)) if spec.with_mask else empty
    fields: dict[str, Any] = {}
    if noise is not None and spec.draw is not None:
        if draws_in_kernel(x, noise, spec):
            fields = _of_draw(x, noise, spec.draw)
        else:
            noise, spec = draw_array(spec.draw, noise), dataclasses.replace(spec, draw=None)
    if spec.draw is None:
        if spec.with_mask:
            x, noise = padded_for_mask(x, noise)
        fields = _of_array(x, noise)
    n, examples = fields["n"], fields.get("examples", 1)
    chosen = _division(x, tuning.quantization(spec, noise is not None), n, examples)
    plan = Plan(
        size=chosen.block,
        warps=chosen.warps,
        rows=chosen.threads if spec.draw or spec.with_mask else 0,
        width=_width(x, dtype),
        clip=spec.clip,
        rounding=spec.rounding,
        bound=spec.bound_in(x.dtype),
        keeps_cast=spec.compute_dtype(x.dtype) == x.dtype,
        **fields,
    )
    outputs = [jax.ShapeDtypeStruct((x.size,), dtype)]
    if spec.with_mask:
        outputs.append(jax.ShapeDtypeStruct((plan.examples * -(-n // 8),), jnp.uint8))
    inputs = [x.reshape(-1), (x if noise is None else noise).reshape(-1)]
    name = "quantize_with_mask" if spec.with_mask else "quantize"
    y, *packed = run(name, inputs, outputs, plan)
    y = y.reshape(x.shape)[..., : shape[-1]]
    return (y, packed[0].reshape(packed_shape(shape))) if spec.with_mask else y


def _division(x: jax.Array, operation: str, n: int, examples: int = 1) -> tuning.Configuration:
    """The heuristic division into blocks: what `tuning.TABLE` has was measured of Pallas' kernels."""
    return tuning.configuration(None, x.dtype.name, operation, n, examples)


def _of_array(x: jax.Array, noise: jax.Array | None) -> dict[str, Any]:
    """What a plan says of an array of noise, or of none."""
    if noise is None:
        return {"n": x.size}
    sharing = None if noise.shape == x.shape else Sharing.of(x.shape, strides_of(noise.shape))
    return {"n": x.size, "noise": "array", "shares_noise": sharing}


def _of_draw(x: jax.Array, seed: jax.Array, draw: Draw) -> dict[str, Any]:
    """What a plan says of noise that is drawn in the kernel."""
    rank, blocks = seed.ndim - 1, None
    if not draw.is_contiguous:
        strides = (*(stride // DRAWS for stride in draw.strides[:-1]), 1)
        blocks = Sharing.of((*draw.shape[:-1], draw.shape[-1] // DRAWS), strides)
    return {
        "n": math.prod(x.shape[rank:]),
        "examples": math.prod(x.shape[:rank]),
        "noise": "seed",
        "shares_seeds": Sharing.of(x.shape[:rank], strides_of(seed.shape[:-1])),
        "shares_blocks": blocks,
    }


def _width(*arrays: Any) -> int:
    """How many columns of a row of eight a tile has, so that a thread moves no more than 128 bits at once."""
    return 16 // max(2, *(jnp.dtype(getattr(array, "dtype", array)).itemsize for array in arrays))


def clip_gradient_from_mask(g: jax.Array, packed: jax.Array) -> jax.Array:
    """`reference.clip_gradient_from_mask` in one pass."""
    shape = g.shape
    if not g.size:
        return g
    g = pad_rows(g, ragged(shape), 0.0)
    chosen = _division(g, tuning.FROM_MASK, g.size)
    plan = Plan(n=g.size, size=chosen.block, warps=chosen.warps, rows=chosen.threads, width=_width(g))
    inputs, outputs = [g.reshape(-1), packed.reshape(-1)], [jax.ShapeDtypeStruct((g.size,), g.dtype)]
    [result] = run("clip_gradient_from_mask", inputs, outputs, plan)
    return result.reshape(g.shape)[..., : shape[-1]]


def clip_gradient_from_x(g: jax.Array, x: jax.Array, spec: QuantSpec) -> jax.Array:
    """`reference.clip_gradient_from_x` in one pass."""
    if not g.size:
        return g
    # Of 32 comparisons a thread, made before g is there, the compiler keeps the results packed, at twice the cost.
    halves = 2 if 4 in (g.dtype.itemsize, x.dtype.itemsize) else 1
    chosen = _division(g, tuning.FROM_X, g.size)
    plan = Plan(n=g.size, size=chosen.block // halves, warps=chosen.warps, bound=spec.bound_in(x.dtype))
    inputs, outputs = [g.reshape(-1), x.reshape(-1)], [jax.ShapeDtypeStruct((g.size,), g.dtype)]
    [result] = run("clip_gradient_from_x", inputs, outputs, plan)
    return result.reshape(g.shape)


def run(kernel: str, inputs: Sequence[jax.Array], outputs: Sequence[jax.ShapeDtypeStruct], plan: Plan) -> list[Any]:
    """Runs a kernel of `triton_body.py` for every block.

    Raises:
        ImportError: jax-triton is not installed, or not in a version that works here.
    """
    names_results = "out_type" if versions.check() >= (0, 4) else "out_shape"
    jax_triton = import_jax_triton()
    body = importlib.import_module(".kernels", __package__)
    return jax_triton.triton_call(
        *inputs,
        kernel=getattr(body, kernel),
        name=f"intnumerics_{kernel}",
        grid=(plan.examples * plan.blocks,),
        num_warps=plan.warps,
        num_stages=1,
        compute_capability=_compute_capability(),
        plan=plan,
        **{names_results: list(outputs)},
    )


def import_jax_triton() -> Any:
    """jax-triton, without what its import does to the process: it sets the folder of Triton's cache to nothing.

    Triton itself, and `torch.compile` with it, fails where there is no such folder.
    """
    before = os.environ.get(CACHE)
    module = importlib.import_module("jax_triton")
    if before is None:
        os.environ.pop(CACHE, None)
    else:
        os.environ[CACHE] = before
    return module


def _compute_capability() -> int:
    """That of the GPU here; without one that of an H100, as Pallas does when it compiles ahead of time."""
    try:
        device: Any = jax.local_devices(backend="gpu")[0]
    except RuntimeError:
        return 90
    return int(device.compute_capability.replace(".", ""))
