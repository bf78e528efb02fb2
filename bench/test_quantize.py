"""How long a quantization takes: each implementation beside FJFormer's formula under jit, the baseline of its group.

Arrays fit where the allocator does not have to ask the system for fresh pages, or the benchmark would measure that.
"""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from bench.conftest import Compare
from intnumerics import IntNumerics, quantize, quantize_to_int

SIZE = 1 << 22
NUMERICS = IntNumerics(8, True, True, True, True, True, None)
HALVES = NUMERICS.replace(preserve_zero=False)
DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)


def fjformer_nearest(x: jax.Array) -> jax.Array:
    return lax.round(jnp.clip(x, -127.0, 127.0), lax.RoundingMethod.TO_NEAREST_EVEN)


def fjformer_halves(x: jax.Array) -> jax.Array:
    return jnp.floor(jnp.clip(x, -127.5, 127.5)) + 0.5


def fjformer_backward(x: jax.Array, g: jax.Array) -> jax.Array:
    return g * ((x >= -127.0) * (x <= 127.0))


@pytest.fixture(params=DTYPES, ids=lambda dtype: jnp.dtype(dtype).name)
def x(request: pytest.FixtureRequest) -> jax.Array:
    return (jax.random.normal(jax.random.key(0), (SIZE,)) * 90).astype(request.param)


def test_forward_nearest(compare: Compare, x: jax.Array) -> None:
    compare(lambda x: quantize(x, NUMERICS), fjformer_nearest, x)


def test_forward_floor_plus_half(compare: Compare, x: jax.Array) -> None:
    compare(lambda x: quantize(x, HALVES), fjformer_halves, x)


def test_forward_to_int8(compare: Compare, x: jax.Array) -> None:
    compare(lambda x: quantize_to_int(x, NUMERICS), lambda x: fjformer_nearest(x).astype(jnp.int8), x)


def test_forward_with_packed_mask(compare: Compare, x: jax.Array) -> None:
    compare(lambda x: NUMERICS.vjp_fwd(x, None), fjformer_nearest, x)


def test_backward(compare: Compare, x: jax.Array) -> None:
    _, residual = NUMERICS.vjp_fwd(x, None)
    backward = jax.jit(lambda residual, g: NUMERICS.vjp_bwd(residual, g)[0])
    compare(lambda g: backward(residual, g), lambda g: fjformer_backward(x, g), x)
