"""With our numerics AQT's operations, layers and training give the numbers that they give with AQT's, bit for bit."""

import functools
from collections.abc import Callable
from typing import Any

import aqt_pairs
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from aqt_pairs import (
    CONFIGS,
    aqt_conv_general,
    aqt_flax,
    array,
    assert_equal,
    calibration,
    config,
)
from flax import nnx

from intnumerics.aqt import replace_numerics

pytestmark = aqt_pairs.MARKS
settings = aqt_pairs.settings_of_aqt
KEY = jax.random.key(7)
DIMENSIONS = (((1,), (0,)), ((), ()))

Function = Callable[..., jax.Array]


def gradients_of(function: Function, *operands: jax.Array, transform: Any = jax.jit) -> Any:
    """The value of a function, and its gradients under a cotangent that is not the same everywhere."""

    def run(*operands: jax.Array) -> Any:
        y, backward = jax.vjp(function, *operands)
        return y, backward(jnp.sin(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape).astype(y.dtype))

    return transform(run)(*operands)


def assert_alike(make: Callable[[Any], Function], theirs: Any, *operands: jax.Array, transform: Any = jax.jit) -> None:
    """Expects the same of what is made of a config, and of the config with our numerics."""
    ours, expected = (
        gradients_of(make(cfg), *operands, transform=transform) for cfg in (replace_numerics(theirs), theirs)
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(expected))
    assert np.count_nonzero(expected[0])
    assert_equal(ours, expected)


def dot(cfg: Any) -> Function:
    keyed = config.set_context(cfg, KEY, 0)
    return lambda a, b: keyed(a, b, DIMENSIONS)


def test_ours_is_what_runs() -> None:
    a, b = array(16, 24), array(24, 8, seed=1)
    programs = [
        str(jax.make_jaxpr(dot(cfg))(a, b)) for cfg in (replace_numerics(config.config_v4()), config.config_v4())
    ]
    assert ["intnumerics_quantize" in program for program in programs] == [True, False]
    assert all("i32[16,8]" in program for program in programs)  # an int8 product: AQT refuses it of anything else


@pytest.mark.parametrize("make", CONFIGS.values(), ids=CONFIGS)
def test_dot_general_and_its_gradients(make: Any) -> None:
    assert_alike(dot, make(), array(16, 24), array(24, 8, seed=1))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dot_general_of_floats_of_16_bits_outside_jit(dtype: str) -> None:
    """Under `jit` XLA leaves out the rounding of AQT's quotient where it sees both, the quotient and the quantizer."""
    a, b = array(16, 24).astype(dtype), array(24, 8, seed=1).astype(dtype)
    assert_alike(dot, config.config_v4(), a, b, transform=lambda f: f)


@pytest.mark.parametrize(
    "transform",
    [jax.checkpoint, lambda f: jax.vmap(f, (0, None)), lambda f: lambda a, b: jax.lax.map(lambda a: f(a, b), a)],
    ids=["checkpoint", "vmap", "map"],
)
def test_dot_general_under_a_transform(transform: Any) -> None:
    a = array(16, 24) if transform is jax.checkpoint else array(3, 16, 24)
    assert_alike(lambda cfg: transform(dot(cfg)), config.config_v4(drhs_bits=8), a, array(24, 8, seed=1))


def test_the_search_for_a_scale_quantizes_with_ours() -> None:
    cfg = config.config_v4()
    quantizer = cfg.fwd.dg_quantizer.rhs
    quantizer.calibration = functools.partial(
        calibration.SnrBasedAutoCalibration, auto_clip_search_config=(0.5, 0.8, 1.0)
    )
    assert_alike(dot, cfg, array(16, 24), array(24, 8, seed=1))


def test_the_einsum_layer_and_its_gradients() -> None:
    def make(cfg: Any) -> Function:
        layer = aqt_flax.AqtEinsum(cfg)
        return lambda a, b: layer.apply({}, "bqd,dk->bqk", a, b, rngs={"params": KEY})

    assert_alike(make, config.fully_quantized(), array(2, 8, 16), array(16, 12, seed=1))


@pytest.mark.parametrize("bits", [8, 1])
def test_a_convolution(bits: int) -> None:
    def make(cfg: Any) -> Function:
        convolve = aqt_conv_general.make_conv_general_dilated(cfg)
        layer = nn.Conv(6, (3, 3), conv_general_dilated=convolve, use_bias=False)
        return lambda x, kernel: layer.apply({"params": {"kernel": kernel}}, x)

    cfg = aqt_conv_general.conv_general_dilated_make(2, bits, bits)
    assert_alike(make, cfg, array(2, 8, 8, 4), array(3, 3, 4, 6, seed=1))


# --- training ---------------------------------------------------------------------------------------------------------


class Network(nn.Module):
    """Two layers and an einsum between them, all of AQT."""

    cfg: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        general = functools.partial(aqt_flax.AqtDotGeneral, self.cfg)
        x = jax.nn.gelu(nn.Dense(32, dot_general_cls=general)(x))
        x = x + jax.nn.gelu(
            aqt_flax.AqtEinsum(self.cfg)("bi,ij->bj", x, self.param("w", nn.initializers.lecun_normal(), (32, 32)))
        )
        return nn.Dense(1, dot_general_cls=general)(x)


def data(steps: int) -> tuple[jax.Array, jax.Array]:
    x = array(steps, 64, 16)
    return x, jnp.sin(x.sum(-1, keepdims=True))


def trained(loss: Callable[..., jax.Array], parameters: Any, steps: int) -> tuple[np.ndarray, Any]:
    """The losses of some steps of gradient descent, each with noise of its own, and the parameters after them."""

    @jax.jit
    def step(parameters: Any, key: jax.Array, x: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
        value, gradient = jax.value_and_grad(loss)(parameters, key, x, y)
        return jax.tree.map(lambda p, g: p - 0.05 * g, parameters, gradient), value

    losses = []
    for x, y, key in zip(*data(steps), jax.random.split(KEY, steps), strict=True):
        parameters, value = step(parameters, key, x, y)
        losses.append(value)
    return np.asarray(losses), parameters


def trained_in_linen(cfg: Any) -> tuple[np.ndarray, Any]:
    network = Network(cfg)

    def loss(parameters: Any, key: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean((network.apply(parameters, x, rngs={"params": key}) - y) ** 2)

    return trained(loss, network.init(jax.random.key(0), data(1)[0][0]), 12)


def trained_in_nnx(cfg: Any) -> tuple[np.ndarray, Any]:
    def network(rngs: nnx.Rngs, general: Any) -> Any:
        layers = [nnx.Linear(16, 32, dot_general=general, rngs=rngs), nnx.Linear(32, 1, dot_general=general, rngs=rngs)]
        return nnx.Sequential(layers[0], jax.nn.gelu, layers[1])

    def loss(parameters: Any, key: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        keyed = config.set_context(cfg, key, 0)

        def general(a: jax.Array, b: jax.Array, dimensions: Any, **_: Any) -> jax.Array:
            return keyed(a, b, dimensions)  # AQT knows no out_sharding

        model = network(nnx.Rngs(0), general)
        nnx.update(model, parameters)
        return jnp.mean((model(x) - y) ** 2)

    return trained(loss, nnx.state(network(nnx.Rngs(0), jax.lax.dot_general), nnx.Param), 12)


@pytest.mark.parametrize(
    ("train", "make"),
    [
        pytest.param(trained_in_linen, config.fully_quantized, id="linen"),
        pytest.param(trained_in_nnx, functools.partial(config.config_v4, rng_type="custom-1"), id="nnx"),
    ],
)
def test_a_network_trains_after_one_call_with_the_losses_of_aqt(train: Any, make: Any) -> None:
    theirs = make()
    losses, parameters = train(replace_numerics(theirs))
    expected, expected_parameters = train(theirs)
    np.testing.assert_array_equal(losses, expected)
    assert_equal(parameters, expected_parameters)
    assert losses[-3:].mean() < 0.9 * losses[:3].mean()
