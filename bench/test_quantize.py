"""How long a quantization takes: each implementation beside FJFormer's formula under jit, the baseline of its group.

Calls alternate between the two within one round, and what is reported as `ratio` is the median over rounds of the
baseline's time by the implementation's: the machine may be busy, but it is equally so for both. Arrays fit where the
allocator does not have to ask the system for fresh pages, or the benchmark would measure that.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from intnumerics import IntNumerics, quantize, quantize_to_int

SIZE = 1 << 22
ROUNDS = 31
NUMERICS = IntNumerics(8, True, True, True, True, True, None)
HALVES = NUMERICS.replace(preserve_zero=False)
DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)


def fjformer_nearest(x: jax.Array) -> jax.Array:
    return lax.round(jnp.clip(x, -127.0, 127.0), lax.RoundingMethod.TO_NEAREST_EVEN)


def fjformer_halves(x: jax.Array) -> jax.Array:
    return jnp.floor(jnp.clip(x, -127.5, 127.5)) + 0.5


def fjformer_backward(x: jax.Array, g: jax.Array) -> jax.Array:
    return g * ((x >= -127.0) * (x <= 127.0))


def seconds(function: Callable[..., Any], *arrays: jax.Array) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(function(*arrays))
    return time.perf_counter() - begin


Compare = Callable[..., None]


@pytest.fixture
def compare(benchmark: Any, ratios: list[str]) -> Compare:
    """Measures a function beside the baseline, on the same arrays."""

    def run(ours: Callable[..., Any], baseline: Callable[..., Any], *arrays: jax.Array) -> None:
        ours, baseline = jax.jit(ours), jax.jit(baseline)
        pairs = [(seconds(baseline, *arrays), seconds(ours, *arrays)) for _ in range(ROUNDS + 2)][2:]
        ratio = statistics.median(a / b for a, b in pairs)
        benchmark.extra_info |= {"ratio to FJFormer's formula under jit": round(ratio, 2), "jax": jax.__version__}
        benchmark.extra_info["device"] = jax.devices()[0].device_kind
        ratios.append(f"{ratio:6.2f}  {benchmark.name}")
        benchmark.pedantic(seconds, (ours, *arrays), rounds=ROUNDS, warmup_rounds=2)

    return run


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
