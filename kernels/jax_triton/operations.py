"""The operations in Triton's language, called through jax-triton: each is one pass over the flattened arrays.

`kernels.py` has the kernels. It, Triton and jax-triton are imported only when a program is lowered that uses this
implementation, so nobody else needs them. Nothing here uses Pallas.
"""

import dataclasses
import importlib
import os
from collections.abc import Sequence
from typing import Any

import jax

from ..generators import Generator, hashed
from ..gpu import flattened, tuning
from ..gpu.shapes import Sharing, index_dtype
from ..spec import FloatRounding, QuantSpec, Rounding, strides_of
from . import versions

CACHE = "TRITON_CACHE_DIR"
GENERATORS: tuple[Generator, ...] = ("philox", "hash")  # those that `drawn` in `noise.py` can draw from


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a kernel is compiled for."""

    n: int  # elements of an example
    size: int  # elements of a block
    warps: int  # that handle a block
    examples: int = 1  # one after another in the arrays
    in_rows: bool = False  # whether elements are arranged in rows of eight, one per thread
    width: int = 8  # columns of such rows in a tile
    bound: float = 0.0  # in the dtype of the clip
    clip: bool = False  # as in `QuantSpec`
    rounding: Rounding | None = None  # as in `QuantSpec`
    to_float: FloatRounding | None = None  # as in `QuantSpec`
    keeps_cast: bool = False  # whether the sum with the noise is rounded to the dtype of x
    reads_noise: bool = False  # whether there is an array of noise
    shares_noise: Sharing | None = None  # how x shares the array of noise; None if the two have the same shape
    shares_seeds: Sharing | None = None  # how the examples share the seeds; None if no noise is drawn
    generator: Generator | None = None  # that noise is drawn from
    words: int = 0  # that an example has in place of a seed
    # How each eight elements share the blocks of eight of the whole array; None if their numbers are consecutive.
    shares_blocks: Sharing | None = None
    carries: bool = False  # whether there may be a carry, after which `hashed.word` takes the second pair of subkeys
    straddles: bool = False  # whether eight elements may begin at any number, and so have draws of five hashes

    @property
    def rows(self) -> int:
        """How many rows of eight are handled at a time: one per thread."""
        return self.warps * tuning.WARP

    @property
    def blocks(self) -> int:
        """How many blocks an example has."""
        return -(-self.n // self.size)

    @property
    def draws_noise(self) -> bool:
        """Whether noise is drawn from seeds."""
        return self.generator is not None

    @property
    def is_wide(self) -> bool:
        """Whether indices take 64 bits."""
        return index_dtype(self.n * self.examples).itemsize == 8


def quantize(x: jax.Array, noise: jax.Array | None, spec: QuantSpec) -> jax.Array | tuple[jax.Array, jax.Array]:
    """See `reference.quantize`."""

    def run_kernel(
        x: jax.Array, noise: jax.Array | None, spec: QuantSpec, results: flattened.Results
    ) -> list[jax.Array]:
        plan = _plan(x, noise, spec, *flattened.examples_of(x, noise, spec))
        inputs = [x.reshape(-1), (x if noise is None else noise).reshape(-1)]
        return run("quantize_with_mask" if spec.with_mask else "quantize", inputs, results, plan)

    return flattened.quantize(x, noise, spec, GENERATORS, run_kernel)


def _plan(x: jax.Array, noise: jax.Array | None, spec: QuantSpec, n: int, examples: int) -> Plan:
    """The plan of a quantization."""
    chosen = _division(x, tuning.quantization(spec, noise is not None), n, examples)
    plan = Plan(
        n=n,
        size=chosen.block,
        warps=chosen.warps,
        examples=examples,
        in_rows=spec.with_mask or spec.draw is not None,
        width=_width(x.dtype.itemsize, spec.result_dtype(x.dtype).itemsize),
        bound=spec.bound_in(x.dtype),
        clip=spec.clip,
        rounding=spec.rounding,
        to_float=spec.to_float,
        keeps_cast=spec.compute_dtype(x.dtype) == x.dtype,
    )
    if noise is None:
        return plan
    if spec.draw is None:
        sharing = None if noise.shape == x.shape else Sharing.of(x.shape, strides_of(noise.shape))
        return dataclasses.replace(plan, reads_noise=True, shares_noise=sharing)
    draw, (*seed_batch, words) = spec.draw, noise.shape
    return dataclasses.replace(
        plan,
        shares_seeds=Sharing.of(x.shape[: len(seed_batch)], strides_of(tuple(seed_batch))),
        generator=draw.generator,
        words=words,
        shares_blocks=None if draw.is_contiguous else Sharing.of_blocks(draw),
        carries=not hashed.is_of_one_pair(draw),
        straddles=not draw.aligned,
    )


def _division(x: jax.Array, operation: str, n: int, examples: int = 1) -> tuning.Configuration:
    """The default division into blocks: these kernels were not tuned."""
    return tuning.configuration("jax_triton", None, x.dtype.name, operation, n, examples)


def _width(*itemsizes: int) -> int:
    """How many columns of a row of eight a tile has, so that a thread moves at most 128 bits at once."""
    return 16 // max(2, *itemsizes)


def clip_gradient_from_mask(g: jax.Array, packed: jax.Array) -> jax.Array:
    """See `reference.clip_gradient_from_mask`."""

    def run_kernel(g: jax.Array, packed: jax.Array, results: flattened.Results) -> list[jax.Array]:
        chosen = _division(g, tuning.FROM_MASK, g.size)
        plan = Plan(g.size, chosen.block, chosen.warps, in_rows=True, width=_width(g.dtype.itemsize))
        return run("clip_gradient_from_mask", [g.reshape(-1), packed.reshape(-1)], results, plan)

    return flattened.clip_gradient(g, packed, run_kernel)


def clip_gradient_from_x(g: jax.Array, x: jax.Array, spec: QuantSpec) -> jax.Array:
    """See `reference.clip_gradient_from_x`."""

    def run_kernel(g: jax.Array, x: jax.Array, results: flattened.Results) -> list[jax.Array]:
        # If a thread has 32 comparisons, all made before g is loaded, the compiler packs their results, at twice the
        # cost. So blocks are halved for 32-bit floats.
        halves = 2 if 4 in (g.dtype.itemsize, x.dtype.itemsize) else 1
        chosen = _division(g, tuning.FROM_X, g.size)
        plan = Plan(g.size, chosen.block // halves, chosen.warps, bound=spec.bound_in(x.dtype))
        return run("clip_gradient_from_x", [g.reshape(-1), x.reshape(-1)], results, plan)

    return flattened.clip_gradient(g, x, run_kernel)


def run(kernel: str, inputs: Sequence[jax.Array], results: Sequence[jax.ShapeDtypeStruct], plan: Plan) -> list[Any]:
    """Runs a kernel of `kernels.py` for every block."""
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
        **{names_results: list(results)},
    )


def import_jax_triton() -> Any:
    """Imports jax-triton, and restores the environment variable that its import sets to nothing.

    The variable names the folder of Triton's cache. Without the folder Triton fails, and so does `torch.compile`.
    """
    before = os.environ.get(CACHE)
    module = importlib.import_module("jax_triton")
    if before is None:
        os.environ.pop(CACHE, None)
    else:
        os.environ[CACHE] = before
    return module


def _compute_capability() -> int:
    """The compute capability of the GPU; that of an H100 if there is none, as in Pallas' ahead-of-time compilation."""
    try:
        device: Any = jax.local_devices(backend="gpu")[0]
    except RuntimeError:
        return 90
    return int(device.compute_capability.replace(".", ""))
