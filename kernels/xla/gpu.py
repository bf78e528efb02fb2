"""`xla.py` for a CUDA GPU, which rounds to bfloat16 in one instruction."""

import jax
import jax.numpy as jnp
import numpy as np

from .. import elementwise
from ..spec import QuantSpec
from . import operations as xla
from .operations import clip_gradient_from_mask as clip_gradient_from_mask
from .operations import clip_gradient_from_x as clip_gradient_from_x


def quantize(x: jax.Array, noise: jax.Array | None, spec: QuantSpec) -> jax.Array | tuple[jax.Array, jax.Array]:
    """`reference.quantize`, in float32."""
    return xla.quantize(x, noise, spec, rounded_sum=_rounded_sum)


def _rounded_sum(y: jax.Array, noise: jax.Array, dtype: np.dtype) -> jax.Array:
    """`xla.rounded_sum`; XLA does not drop a cast whose bits `widen` takes, as it may drop one that is cast back."""
    if dtype == jnp.bfloat16:
        return elementwise.widen((y + noise).astype(dtype))
    return xla.rounded_sum(y, noise, dtype)
