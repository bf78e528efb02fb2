"""Small kernels of Pallas' Mosaic GPU backend, and arrays for them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from tools import ptx

RNG = np.random.default_rng(11)
LANE = plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Lane, unsafe_no_auto_barriers=True)


def launch(kernel: Callable[..., None], results: Any, blocks: int, *arrays: Any, **options: Any) -> Any:
    """Calls a kernel, in as many blocks of 128 threads, whose results are like the arrays `results`."""
    results = jax.tree.map(lambda one: jax.ShapeDtypeStruct(one.shape, one.dtype), results)
    grid = {"grid": (blocks,), "grid_names": ("block",), "compiler_params": LANE}
    return plgpu.kernel(kernel, out_type=results, **grid, **options)(*arrays)


def strided(vector: int = 8) -> tuple[int, Any]:
    """The elements of a part of an array, and how the threads of a block hold it: each has `vector` neighbours."""
    return 128 * vector, plgpu.Layout.WG_STRIDED((128 * vector,), vec_size=vector)


def call(formula: Callable[..., Sequence[Any]], *arrays: Any, dtypes: Sequence[Any], vector: int = 8) -> Any:
    """The results of a formula of arrays, computed by a kernel in parts."""
    size, layout = strided(vector)

    def kernel(*refs: Any) -> None:
        at = pl.ds(lax.axis_index("block") * size, size)
        results = formula(*(plgpu.layout_cast(ref[at], layout) for ref in refs[: len(arrays)]))
        for ref, result in zip(refs[len(arrays) :], results, strict=True):
            ref[at] = result

    results = tuple(jax.ShapeDtypeStruct(arrays[0].shape, dtype) for dtype in dtypes)
    return launch(kernel, results, arrays[0].size // size, *arrays)


def compiled(formula: Callable[..., Sequence[Any]], *arrays: Any, **options: Any) -> ptx.Program:
    return ptx.compile(lambda *given: call(formula, *given, **options), *arrays)


def in_64_bits(function: Callable[..., Any]) -> Callable[..., Any]:
    def with_x64(*arrays: Any) -> Any:
        with jax.enable_x64(True):
            return function(*arrays)

    return with_x64


def bits(dtype: Any, count: int = 2048) -> np.ndarray:
    """Numbers with any bits: of floats NaN, infinities and subnormals among them."""
    return RNG.integers(0, 256, count * np.dtype(dtype).itemsize).astype(np.uint8).view(dtype)


def numbers(dtype: Any, count: int = 2048) -> np.ndarray:
    return (RNG.normal(size=count) * 100).astype(dtype)
