"""`xla.py` for a TPU, where Philox runs in words of 32 bits, and nothing is emulated."""

import jax

from ..generators import philox
from ..spec import QuantSpec
from . import operations as xla
from .operations import clip_gradient_from_mask as clip_gradient_from_mask
from .operations import clip_gradient_from_x as clip_gradient_from_x


def quantize(x: jax.Array, noise: jax.Array | None, spec: QuantSpec) -> jax.Array | tuple[jax.Array, jax.Array]:
    """`reference.quantize`, in float32."""
    return xla.quantize(x, noise, spec, draws=philox.draws_on_tpu)
