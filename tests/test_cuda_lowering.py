"""Every kernel for CUDA is lowered by the JAX that is installed, for a device that is described and not there."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from meshes import H100
from original import numerics

from intnumerics import PhiloxUniform, quantize, quantize_to_int

NOISY = numerics(8, noise_fn=PhiloxUniform())


def run(function: Any, *fields: Any, **how: Any) -> Any:
    return lambda x: function(x, *fields, key=jax.random.key(0), implementation="pallas", **how)


def gradient(residual: Any) -> Any:
    return jax.value_and_grad(lambda x: run(quantize, NOISY, residual=residual)(x).astype(jnp.float32).sum())


KERNELS: dict[str, tuple[Any, int]] = {  # a function, and how many kernels it has
    "forward": (run(quantize, numerics(8)), 1),
    "forward, noise": (run(quantize, NOISY), 1),
    "to int8, noise": (run(quantize_to_int, NOISY), 1),
    "forward with mask, backward from it": (gradient("mask"), 2),
    "forward, backward from x": (gradient("x"), 2),
}


@pytest.mark.parametrize(("function", "kernels"), KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_no_warning_of_jax_ends_what_lowers_a_kernel(dtype: str, function: Any, kernels: int) -> None:
    x = jax.ShapeDtypeStruct((64, 1024), dtype)
    with jax.sharding.use_abstract_mesh(H100):
        text = jax.jit(function).trace(x).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("__gpu$xla.gpu.triton") == kernels
