"""The plain form in jnp, which XLA fuses with the operations around it."""

from .operations import absmax as absmax
from .operations import clip_gradient_by_scale as clip_gradient_by_scale
from .operations import clip_gradient_from_mask as clip_gradient_from_mask
from .operations import clip_gradient_from_x as clip_gradient_from_x
from .operations import quantize as quantize
from .operations import quantize_by_absmax as quantize_by_absmax
from .operations import quantize_by_scale as quantize_by_scale
