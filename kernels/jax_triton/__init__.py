"""Kernels for CUDA GPUs, written in Triton's language and called through jax-triton; Triton is imported on use."""

from .operations import clip_gradient_from_mask as clip_gradient_from_mask
from .operations import clip_gradient_from_x as clip_gradient_from_x
from .operations import quantize as quantize
