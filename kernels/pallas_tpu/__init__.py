"""Kernels for TPUs, written in Pallas and compiled by Mosaic."""

from .operations import clip_gradient_from_mask as clip_gradient_from_mask
from .operations import clip_gradient_from_x as clip_gradient_from_x
from .operations import quantize as quantize
from .rows import quantize_by_absmax as quantize_by_absmax
