"""A small convolutional network on handwritten digits, with weights and activations quantized while it trains.

The layers, with the shape of one image on the right. What is in brackets goes through `quantize`:

    8x8 pixels                                        (8, 8, 1)
    conv 3x3, relu, norm                              (8, 8, 16)
    conv [x] * [weights] 3x3 stride 2, relu, norm     (4, 4, 32)
    conv [x] * [weights] 3x3, relu, norm              (4, 4, 32)
    dense                                             (10,)

The first and the last layer stay in float, as is usual from 4 bits down: they hold few of the weights and do little of
the work, and rounding the pixels or the logits would cost more accuracy than all the rest.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from intnumerics import IntNumerics, PhiloxUniform, quantize

TEST_IMAGES = 360  # so one image is 0.3 points of accuracy: a smaller difference between two runs means nothing

Params = dict[str, jax.Array]
Quantizer = Callable[[jax.Array], jax.Array]
Rounding = Callable[..., jax.Array]  # of x, the numerics, and the key of its noise

# The width of a bucket, in standard deviations, that rounds a Gaussian to 2**bits levels with the least squared error.
# Source: J. Max, "Quantizing for minimum distortion", IRE Transactions on Information Theory 6(1), 1960, table II.
BUCKET_WIDTH = {1: 1.596, 2: 0.9957, 3: 0.5860, 4: 0.3352, 5: 0.1881, 6: 0.1041, 7: 0.0569, 8: 0.0308}


@dataclasses.dataclass(frozen=True)
class Config:
    """One training run; hashable, so that `jit` takes it as a static argument.

    Attributes:
        numerics: How to round weights and activations, or None to train in float.
        epochs: Passes over the training images.
        seed: Decides the initial weights, the order of the images, and the noise of stochastic rounding.
        batch_size: Images a step; what is left over at the end of an epoch waits for the next one.
        learning_rate: Adam's, at the start; it falls to zero along half a cosine.
    """

    numerics: IntNumerics | None
    epochs: int
    seed: int = 0
    batch_size: int = 64
    learning_rate: float = 5e-3


@dataclasses.dataclass(frozen=True)
class Digits:
    """Images, float32 (count, 8, 8, 1) from 0 to 1, and labels, int32 (count,), for training and for testing."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load() -> Digits:
    """The 1,797 digits that scikit-learn ships, 360 of them for testing: the same ones whatever the seed of a run."""
    digits: Any = load_digits()
    images = digits.images[..., None].astype(np.float32) / 16
    labels = digits.target.astype(np.int32)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=TEST_IMAGES, random_state=0, stratify=labels
    )
    return Digits(train_x, train_y, test_x, test_y)


def make_numerics(bits: int, stochastic: bool) -> IntNumerics:
    """The numerics for a number of bits from 1 to 8, rounding to nearest or at random."""
    return IntNumerics.symmetric(
        bits,
        # A bucket centred on zero keeps zeros exact for one level of 2**bits. That is cheap at 8 bits, a quarter of all
        # levels at 2, and at 1 bit it would leave zero alone; there, an even number of levels: -1.5 ... 1.5, or +-0.5.
        preserve_zero=bits > 2,
        preserve_max_val=True,
        # `scaled_quantize` clips on purpose: a value out there cannot change the output, so it must not get a gradient.
        clip_gradient=True,
        noise_fn=PhiloxUniform() if stochastic else None,
    )


def scaled_quantize(
    x: jax.Array, numerics: IntNumerics, key: jax.Array | None, rounding: Rounding = quantize
) -> jax.Array:
    """Rounds x, of any shape, to the grid that fits its spread; `quantize` itself works in units of buckets.

    With many bits one would divide by `absmax_scale`, which leaves nothing beyond the last bucket. With few bits the
    largest of thousands of values is a bad guide: most of x would land in the innermost buckets. So the scale follows
    the root mean square instead, and the tails are clipped.
    """
    # The scale is a setting, not a path for gradients: stopped at x, so that backward needs nothing of its computation.
    rms = jnp.sqrt(jnp.mean(jnp.square(jax.lax.stop_gradient(x))))
    scale = 1 / (BUCKET_WIDTH[numerics.bits] * rms + 1e-12)  # the tiny number guards an x that is all zeros
    return rounding(x * scale, numerics, key=key) / scale


def make_quantizer(numerics: IntNumerics | None, key: jax.Array, rounding: Rounding = quantize) -> Quantizer:
    """What the network applies to its weights and activations, each with noise of its own; nothing without numerics."""
    if numerics is None:
        return lambda x: x
    calls = itertools.count()
    return lambda x: scaled_quantize(x, numerics, jax.random.fold_in(key, next(calls)), rounding)


def init(random: np.random.Generator) -> Params:
    """Initial parameters: He's normal weights, gains of one and biases of zero, all float32."""
    shapes = {"conv1": (3, 3, 1, 16), "conv2": (3, 3, 16, 32), "conv3": (3, 3, 32, 32), "dense": (4 * 4 * 32, 10)}
    params: Params = {}
    for name, shape in shapes.items():
        deviation = np.sqrt(2 / np.prod(shape[:-1]))
        params[name] = jnp.asarray(random.normal(0, deviation, shape), jnp.float32)
        params[f"{name}_bias"] = jnp.zeros(shape[-1])
        if name != "dense":
            params[f"{name}_gain"] = jnp.ones(shape[-1])
    return params


def conv(x: jax.Array, weights: jax.Array, stride: int = 1) -> jax.Array:
    """(batch, height, width, in) and (3, 3, in, out) -> (batch, height / stride, width / stride, out)."""
    return jax.lax.conv_general_dilated(
        x, weights, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def relu_norm(x: jax.Array, gain: jax.Array, bias: jax.Array) -> jax.Array:
    """ReLU, then each image of (batch, height, width, channels) to mean 0 and variance 1, then gain and bias a channel.

    In this order because the quantizer comes next: straight after a ReLU nothing is negative, and 1 bit, which keeps
    the sign alone, would say the same for every pixel. The bias lets training move each channel's threshold.
    """
    x = jax.nn.relu(x)
    mean = jnp.mean(x, axis=(1, 2, 3), keepdims=True)
    variance = jnp.var(x, axis=(1, 2, 3), keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * gain[None, None, None] + bias[None, None, None]


def forward(params: Params, images: jax.Array, quantizer: Quantizer) -> jax.Array:
    """(batch, 8, 8, 1) -> logits of shape (batch, 10)."""
    x = conv(images, params["conv1"])
    x = relu_norm(x, params["conv1_gain"], params["conv1_bias"])
    x = conv(quantizer(x), quantizer(params["conv2"]), stride=2)
    x = relu_norm(x, params["conv2_gain"], params["conv2_bias"])
    x = conv(quantizer(x), quantizer(params["conv3"]))
    x = relu_norm(x, params["conv3_gain"], params["conv3_bias"])
    return x.reshape(x.shape[0], -1) @ params["dense"] + params["dense_bias"][None]


@dataclasses.dataclass(frozen=True)
class State:
    """Adam's: the parameters, the running means of gradient and squared gradient, and the steps done so far."""

    params: Params
    mean: Params
    square: Params
    steps: jax.Array


jax.tree_util.register_dataclass(State, ["params", "mean", "square", "steps"], [])


def adam(state: State, grads: Params, learning_rate: jax.Array) -> State:
    """One step of Adam (Kingma and Ba, 2015)."""
    steps = state.steps + 1
    mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state.mean, grads)
    square = jax.tree.map(lambda s, g: 0.99 * s + 0.01 * g * g, state.square, grads)

    def move(param: jax.Array, m: jax.Array, s: jax.Array) -> jax.Array:
        return param - learning_rate * (m / (1 - 0.9**steps)) / (jnp.sqrt(s / (1 - 0.99**steps)) + 1e-8)

    return State(jax.tree.map(move, state.params, mean, square), mean, square, steps)


@functools.partial(jax.jit, static_argnames=("config", "total_steps"))
def train_step(state: State, images: jax.Array, labels: jax.Array, config: Config, total_steps: int) -> State:
    """One step on images (batch, 8, 8, 1) with labels (batch,)."""
    key = jax.random.fold_in(jax.random.key(config.seed), state.steps.astype(jnp.uint32))

    def loss(params: Params) -> jax.Array:
        log_probabilities = jax.nn.log_softmax(forward(params, images, make_quantizer(config.numerics, key)))
        return -jnp.mean(jnp.take_along_axis(log_probabilities, labels[:, None], axis=1))

    # The weights in `state` stay float: small gradients add up there until a weight moves to another bucket.
    grads = jax.grad(loss)(state.params)
    learning_rate = config.learning_rate * 0.5 * (1 + jnp.cos(jnp.pi * state.steps / total_steps))
    return adam(state, grads, learning_rate)


@functools.partial(jax.jit, static_argnames="numerics")
def accuracy(params: Params, images: jax.Array, labels: jax.Array, numerics: IntNumerics | None) -> jax.Array:
    """The share of images (count, 8, 8, 1) whose largest logit is that of their label (count,)."""
    # Noise is for training, where it makes the rounding right on average; one answer is best rounded to nearest.
    nearest = numerics and numerics.replace(noise_fn=None)
    logits = forward(params, images, make_quantizer(nearest, jax.random.key(0)))
    return jnp.mean((jnp.argmax(logits, axis=1) == labels).astype(jnp.float32))


def train(config: Config, digits: Digits) -> Iterator[tuple[Params, float]]:
    """Trains from scratch; after each epoch yields the parameters and the accuracy on the test images."""
    random = np.random.default_rng(config.seed)
    params = init(random)
    zeros = jax.tree.map(jnp.zeros_like, params)
    state = State(params, zeros, zeros, jnp.float32(0))
    steps = len(digits.train_labels) // config.batch_size
    # A Python loop over steps: XLA for CPU runs a convolution inside `lax.scan` about ten times slower.
    for _ in range(config.epochs):
        shuffled = random.permutation(len(digits.train_labels))[: steps * config.batch_size]
        for batch in shuffled.reshape(steps, config.batch_size):
            images, labels = digits.train_images[batch], digits.train_labels[batch]
            state = train_step(state, images, labels, config, steps * config.epochs)
        yield state.params, float(accuracy(state.params, digits.test_images, digits.test_labels, config.numerics))
