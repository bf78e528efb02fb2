"""Trains a network with weights in bfloat16, rounded to nearest and stochastically, beside weights in float32.

A bfloat16 has 8 bits, so a weight of 0.1 and its neighbour differ by 0.0005. An update of less than half of that is
lost if the sum is rounded to nearest, and training stalls. Rounded stochastically, the update is there on average.

Prints a table of the loss on the training images, and plots it. Needs the extra `demo`; downloads nothing. Run with
--help for the options.

Exit status: 0 if stochastic rounding trained as float32 does, 1 if not, 2 for a bad argument.
"""

import argparse
import functools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import digits_net
import jax
import jax.numpy as jnp
import numpy as np
import optax
from digits import output_file, save, whole_number
from jax import lax
from matplotlib.figure import Figure

from intnumerics import stochastic_cast

Weights = Literal["float32", "bfloat16, to nearest", "bfloat16, stochastic"]
# Colour-blind eyes tell the colours apart (Okabe and Ito's palette), and the styles do so in grey.
STYLES: dict[Weights, tuple[str, str]] = {
    "float32": ("#000000", "-"),
    "bfloat16, to nearest": ("#D55E00", "-."),
    "bfloat16, stochastic": ("#0072B2", "--"),
}
SIZES = (64, 128, 128, 10)  # of the layers
BATCH = 64  # images in a step
EVERY = 25  # steps between two points of a curve
ALLOWED = 1.1  # times the loss of float32, for a run that trained as it does: 20 seeds end from 0.98 to 1.03 times

Tree = Any


def apply_updates(weights: Tree, updates: Tree, key: jax.Array, how: Weights) -> Tree:
    """The sums of weights and updates in float32, rounded to the dtype of the weights: `optax.apply_updates` and more.

    This is the recipe. A key for each array, and another one at each step.
    """
    leaves, structure = jax.tree.flatten(weights)
    sums = [w.astype(jnp.float32) + u for w, u in zip(leaves, jax.tree.leaves(updates), strict=True)]
    if how == "bfloat16, stochastic":
        keys = jax.random.split(key, len(leaves))
        new = [stochastic_cast(total, jnp.bfloat16, key=k) for total, k in zip(sums, keys, strict=True)]
    else:
        new = [total.astype(w.dtype) for total, w in zip(sums, leaves, strict=True)]
    return structure.unflatten(new)


def widened(weights: Tree) -> Tree:
    """The weights in float32, in which the layers compute and the optimizer keeps its state: storage alone differs."""
    return jax.tree.map(lambda w: w.astype(jnp.float32), weights)


def first_weights(key: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """Weights and biases of each layer, float32, with He's variance."""
    keys = jax.random.split(key, len(SIZES) - 1)
    return [
        (jax.random.normal(k, (n, m)) * np.sqrt(2 / n).astype(np.float32), jnp.zeros(m))
        for k, n, m in zip(keys, SIZES, SIZES[1:], strict=False)
    ]


@functools.partial(jax.jit, static_argnums=(0, 1))
def start(seeds: int, steps: int) -> tuple[Tree, jax.Array]:
    """For each seed, the first weights, and a key for each step."""

    def of_seed(seed: jax.Array) -> tuple[Tree, jax.Array]:
        for_weights, for_steps = jax.random.split(jax.random.key(seed))
        return first_weights(for_weights), jax.random.split(for_steps, (steps // EVERY, EVERY))

    return jax.vmap(of_seed)(jnp.arange(seeds))


def loss(weights: list[tuple[jax.Array, jax.Array]], images: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean cross-entropy, of weights in float32."""
    x = images
    for w, b in weights[:-1]:
        x = jax.nn.relu(jnp.dot(x, w) + b[None])
    w, b = weights[-1]
    return optax.softmax_cross_entropy_with_integer_labels(jnp.dot(x, w) + b[None], labels).mean()


def train(how: Weights, images: jax.Array, labels: jax.Array, steps: int, rate: float, seeds: int) -> np.ndarray:
    """For each seed, the loss on all images after each `EVERY` steps."""
    optimizer, dtype = optax.adam(rate), jnp.float32 if how == "float32" else jnp.bfloat16
    weights, keys = start(seeds, steps)
    weights = jax.tree.map(lambda w: w.astype(dtype), weights)

    def step(state: Tree, key: jax.Array) -> tuple[Tree, None]:
        weights, of_optimizer = state
        for_batch, for_rounding = jax.random.split(key)
        batch = jax.random.randint(for_batch, (BATCH,), 0, len(images))
        wide = widened(weights)
        gradient = jax.grad(loss)(wide, images[batch], labels[batch])
        updates, of_optimizer = optimizer.update(gradient, of_optimizer, wide)
        return (apply_updates(weights, updates, for_rounding, how), of_optimizer), None

    def some_steps(state: Tree, keys: jax.Array) -> tuple[Tree, jax.Array]:
        state, _ = lax.scan(step, state, keys)
        return state, loss(widened(state[0]), images, labels)

    def run(weights: Tree, keys: jax.Array) -> jax.Array:
        return lax.scan(some_steps, (weights, optimizer.init(widened(weights))), keys)[1]

    return np.asarray(jax.jit(jax.vmap(run))(weights, keys))


def table(curves: dict[Weights, np.ndarray]) -> str:
    """One line for each kind of weights: the loss after some steps, mean and range over the seeds."""
    points = len(curves["float32"][0])
    marked = [max(part * points // 4, 1) - 1 for part in (1, 2, 4)]
    lines = [f"{'loss after':22}" + "".join(f"{(i + 1) * EVERY:>8} steps{'':10}" for i in marked)]
    for how, of_seeds in curves.items():
        at = (of_seeds[:, i] for i in marked)
        cells = (f"{losses.mean():>8.4f} ({losses.min():.4f}-{losses.max():.4f})" for losses in at)
        lines.append(f"{how:22}" + " ".join(cells))
    return "\n".join(lines)


def plot(curves: dict[Weights, np.ndarray], rate: float, output: Path) -> None:
    """Writes the curves to output: the mean over the seeds, and the range as a band."""
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for how, of_seeds in curves.items():
        colour, style = STYLES[how]
        steps = np.arange(1, of_seeds.shape[1] + 1) * EVERY
        axes.fill_between(steps, of_seeds.min(axis=0), of_seeds.max(axis=0), color=colour, alpha=0.15, linewidth=0)
        axes.plot(steps, of_seeds.mean(axis=0), style, color=colour, label=how)
    axes.set(xlabel="Step", ylabel="Loss on the training images", yscale="log", xlim=(0, steps[-1]))
    axes.set_title(f"Weights stored in three ways, Adam at a rate of {rate:g}")
    axes.legend(frameon=False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, output)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a small network with weights in float32, and in bfloat16 rounded in two ways.",
        epilog="Exit status: 0 if stochastic rounding trains as float32 does, 1 if not, 2 for a bad argument.",
    )
    add = parser.add_argument
    # fmt: off
    add("--steps", type=whole_number(EVERY, 100_000), metavar="N", default=1500,
        help=f"steps of training, in whole times {EVERY} (default: %(default)s)")
    add("--seeds", type=whole_number(1, 100), metavar="N", default=3,
        help="runs of each kind, with other first weights, batches and noise (default: %(default)s)")
    add("--rate", type=float, metavar="RATE", default=3e-4, help="the learning rate of Adam (default: %(default)s)")
    add("--output", type=output_file, metavar="FILE", default="bfloat16_weights.svg",
        help="file for the plot, ending in .png, .svg or .pdf (default: %(default)s)")
    # fmt: on
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the job; returns the exit status."""
    options = parse(arguments)
    started, steps = time.perf_counter(), options.steps // EVERY * EVERY
    digits = digits_net.load()
    images = jnp.asarray(digits.train_images.reshape(len(digits.train_images), -1))
    labels = jnp.asarray(digits.train_labels)
    curves = {how: train(how, images, labels, steps, options.rate, options.seeds) for how in STYLES}
    print(table(curves))
    plot(curves, options.rate, options.output)
    print(f"wrote {options.output} after {time.perf_counter() - started:.0f} s")
    ratio = curves["bfloat16, stochastic"][:, -1].mean() / curves["float32"][:, -1].mean()
    if not ratio <= ALLOWED:
        print(f"stochastic rounding ended at {ratio:.2f} times the loss of float32", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
