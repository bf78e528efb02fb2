"""`HardwareUniform`: a value, drawn by kernels for a TPU alone, and refused everywhere else."""

import pickle

import jax
import jax.numpy as jnp
import pytest
from original import numerics
from test_stochastic_rounding import array, key

from intnumerics import Context, HardwareUniform, quantize


def test_hardware_uniform_is_a_value_without_axes_to_share() -> None:
    assert HardwareUniform() == pickle.loads(pickle.dumps(HardwareUniform()))
    with pytest.raises(TypeError):
        HardwareUniform(noise_sharing_axes=(0,))  # pyright: ignore[reportCallIssue]


def test_the_hardware_draws_for_the_shape_of_x_with_a_mask_and_without_and_alone() -> None:
    n, x = numerics(8, noise_fn=HardwareUniform()), jnp.zeros((16, 100))  # whose rows are no whole bytes of mask
    for function in (
        lambda x: n.fwd(x, Context(key=key())),
        lambda x: n.vjp_fwd(x, Context(key=key()))[0],
        lambda x: HardwareUniform()(x.shape, key()),
    ):
        assert "Draw(generator='hardware', shape=(16, 100), " in str(jax.make_jaxpr(function)(x))


@pytest.mark.parametrize("platform", ["cpu", "cuda", "rocm"])
def test_the_hardware_generator_is_refused_where_there_is_none(platform: str) -> None:
    n, x = numerics(8, noise_fn=HardwareUniform()), jax.ShapeDtypeStruct((64, 1024), jnp.float32)
    message = f"HardwareUniform.* needs a TPU, and the platform '{platform}' has no such generator: use HashUniform"
    for function in (lambda x: quantize(x, n, key=key()), lambda x: x + HardwareUniform()(x.shape, key())):
        with pytest.raises(ValueError, match=message):
            jax.jit(function).trace(x).lower(lowering_platforms=(platform,))


def test_the_hardware_generator_is_refused_by_what_cannot_draw_from_it() -> None:
    n, x = numerics(8, noise_fn=HardwareUniform()), array(8)
    with pytest.raises(ValueError, match=r"HardwareUniform.* is not drawn by implementation='xla'"):
        quantize(x, n, key=key(), implementation="xla")
    with pytest.raises(ValueError, match="Pallas' interpret mode has no such generator: use HashUniform"):
        quantize(x, n, key=key(), implementation="pallas", interpret="tpu")
