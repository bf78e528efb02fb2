"""`xla.py` for a CPU, where Philox runs in lanes of 64 bits."""

import dataclasses

import jax

from . import philox, xla
from .noise import from_16_bits
from .spec import QuantSpec
from .xla import clip_gradient_from_mask as clip_gradient_from_mask
from .xla import clip_gradient_from_x as clip_gradient_from_x


def quantize(x: jax.Array, noise: jax.Array | None, spec: QuantSpec) -> jax.Array | tuple[jax.Array, jax.Array]:
    """`reference.quantize`, in float32."""
    if noise is not None and spec.draw is not None and spec.draw.generator == "philox":
        noise = from_16_bits(philox.draws_on_cpu(spec.draw.shape, noise))
        spec = dataclasses.replace(spec, draw=None)
    return xla.quantize(x, noise, spec)
