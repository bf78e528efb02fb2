"""Kernels for CUDA GPUs, written in Pallas and compiled by Mosaic GPU; imported only when they are used."""

from .operations import clip_gradient_from_mask as clip_gradient_from_mask
from .operations import clip_gradient_from_x as clip_gradient_from_x
from .operations import quantize as quantize
