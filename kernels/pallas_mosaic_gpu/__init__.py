"""Kernels for CUDA GPUs, written in Pallas and compiled by Mosaic GPU; imported only when they are used."""

import importlib.util

import jax

if jax.__version_info__ < (0, 11) and importlib.util.find_spec("absl") is None:
    raise ImportError(
        f"implementation='pallas_mosaic_gpu' on JAX {jax.__version__} needs absl-py, which this JAX imports and does "
        "not install: pip install absl-py, or use JAX 0.11 or newer, or implementation='pallas' or None"
    )

from .operations import clip_gradient_from_mask as clip_gradient_from_mask
from .operations import clip_gradient_from_x as clip_gradient_from_x
from .operations import quantize as quantize
from .rows import quantize_by_absmax as quantize_by_absmax
