"""Kernels for CUDA GPUs, written in Pallas and compiled by its Triton lowering; imported only when they are used."""

import jax

from ..gpu.pallas import has_triton

if not has_triton():
    raise ImportError(
        f"implementation='pallas_triton' needs jax.experimental.pallas.triton, which JAX {jax.__version__} does not "
        "have: use implementation='pallas_mosaic_gpu', or 'pallas' or None, which choose it by themselves"
    )

from .operations import clip_gradient_from_mask as clip_gradient_from_mask
from .operations import clip_gradient_from_x as clip_gradient_from_x
from .operations import quantize as quantize
from .rows import quantize_by_absmax as quantize_by_absmax
