"""What noise costs: each noise function beside FJFormer's formula with `jax.random.uniform`, both under jit.

x is donated, so a result takes its place: memory that is fresh to the process costs more in page faults than all the
arithmetic of a quantization, and the benchmark would measure that.
"""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from bench.conftest import Compare
from intnumerics import IntNumerics, quantize
from intnumerics.stochastic_rounding import JaxUniform, PhiloxUniform, RandomCenteredUniform

SIZE = 1 << 24
NOISE = {
    "none": None,
    "PhiloxUniform": PhiloxUniform(),
    "JaxUniform": JaxUniform(),
    "RandomCenteredUniform": RandomCenteredUniform(),
}
NUMERICS = IntNumerics(8, True, True, True, True, True, None)


def fjformer(x: jax.Array, key: jax.Array) -> jax.Array:
    y = (x + (jax.random.uniform(key, x.shape) - 0.5)).astype(x.dtype)
    return lax.round(jnp.clip(y, -127.0, 127.0), lax.RoundingMethod.TO_NEAREST_EVEN)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("noise", NOISE)
def test_noise(compare: Compare, noise: str, dtype: str) -> None:
    x = (jax.random.normal(jax.random.key(0), (SIZE,)) * 40).astype(dtype)
    numerics = NUMERICS.replace(noise_fn=NOISE[noise])
    compare(lambda x, key: quantize(x, numerics, key=key), fjformer, x, jax.random.key(1), donate=True)
