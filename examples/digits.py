"""Trains a network on handwritten digits with weights and activations at 8, 4, 2 and 1 bits, beside float.

Each width is trained twice: rounding to nearest, and stochastically with noise from `PhiloxUniform`.

Prints a table of test accuracy and of the memory that the quantizers hold for the backward, and plots the learning
curves. Needs the extra `demo`; downloads nothing. Run with --help for the options.

Exit status: 0 if every run learned, 1 if the test accuracy of one ended below its floor, 2 for a bad argument.
"""

import argparse
import dataclasses
import itertools
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import digits_net
import jax.numpy as jnp
from digits_residual import Residuals, measure, plain_quantize
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from tqdm import tqdm

from intnumerics import quantize


class Width(NamedTuple):
    """How to train at a bit width, what to expect of it, and how to draw it; bits is None for float."""

    bits: int | None
    floor: float
    colour: str
    marker: str

    @property
    def label(self) -> str:
        return "float" if self.bits is None else "1 bit" if self.bits == 1 else f"{self.bits} bits"


# A floor is what the test accuracy must end at. Six seeds stay above by at least two points, and by four at 1 bit, in
# each of their last ten epochs, rounding to nearest; stochastically six at the default widths, and two at the others.
# Colour-blind eyes tell the colours of the default widths apart (Okabe and Ito's palette); markers do so in grey.
WIDTHS = {
    "float": Width(None, 0.95, "#000000", "o"),
    "8": Width(8, 0.95, "#0072B2", "s"),
    "7": Width(7, 0.95, "#56B4E9", "<"),
    "6": Width(6, 0.95, "#E69F00", ">"),
    "5": Width(5, 0.95, "#882255", "P"),
    "4": Width(4, 0.95, "#009E73", "^"),
    "3": Width(3, 0.95, "#666666", "X"),
    "2": Width(2, 0.94, "#CC79A7", "D"),
    "1": Width(1, 0.90, "#D55E00", "v"),
}
ROUNDING = ["nearest", "stochastic"]
DEFAULT_WIDTHS = [WIDTHS[name] for name in ("float", "8", "4", "2", "1")]


@dataclasses.dataclass(frozen=True)
class Run:
    """What one bit width gave.

    Attributes:
        width: What was trained.
        rounding: "nearest" or "stochastic"; "-" in float.
        curve: Test accuracy after each epoch.
        plain: What a training step holds for the backward with the plain formula; None in float, which has none.
        ours: The same with `intnumerics.quantize`.
    """

    width: Width
    rounding: str
    curve: list[float]
    plain: Residuals | None = None
    ours: Residuals | None = None

    @property
    def final(self) -> float:
        return self.curve[-1]

    @property
    def label(self) -> str:
        return self.width.label if self.rounding == "-" else f"{self.width.label}, {self.rounding}"

    @property
    def learned(self) -> bool:
        return self.final >= self.width.floor


def train_width(
    width: Width, rounding: str, epochs: int, seed: int, digits: digits_net.Digits, progress: "tqdm[Any]"
) -> Run:
    """Trains at one width, then measures what a step with the trained parameters holds for the backward."""
    numerics = None if width.bits is None else digits_net.make_numerics(width.bits, rounding == "stochastic")
    config = digits_net.Config(numerics, epochs, seed)
    progress.set_description(f"{width.label:>6} {rounding:<10}")
    curve: list[float] = []
    trained: digits_net.Params = {}
    for params, test_accuracy in digits_net.train(config, digits):
        trained = params
        curve.append(test_accuracy)
        progress.set_postfix(accuracy=f"{test_accuracy:.3f}")
        progress.update()
    if numerics is None:
        return Run(width, "-", curve)
    batch = jnp.asarray(digits.train_images[: config.batch_size])
    plain, ours = (measure(trained, batch, numerics, how) for how in (plain_quantize, quantize))
    return Run(width, rounding, curve, plain, ours)


def table(runs: Sequence[Run]) -> str:
    """One line a run: bits, rounding, final test accuracy, and KiB held for the backward of a training step."""
    lines = [
        "                     test      held for backward by the quantizers      by the whole network ",
        " bits  rounding    accuracy   plain jnp  intnumerics   ratio         plain jnp  intnumerics",
    ]
    for run in runs:
        line = f"{run.width.bits or 'float':>5}  {run.rounding:<10}  {run.final:>8.1%}"
        if run.plain is None or run.ours is None:
            lines.append(f"{line}  {'-':>10}  {'-':>11}  {'-':>6}        {'-':>10}  {'-':>11}")
            continue
        ratio = run.plain.quantizers / run.ours.quantizers
        quantizers = f"{kib(run.plain.quantizers):>10}  {kib(run.ours.quantizers):>11}  {ratio:>5.1f}x"
        lines.append(f"{line}  {quantizers}        {kib(run.plain.network):>10}  {kib(run.ours.network):>11}")
    return "\n".join(lines)


def kib(count: int) -> str:
    return f"{count / 1024:.1f} KiB"


def plot(runs: Sequence[Run], output: Path) -> None:
    """Writes the learning curves to output, a panel for each way of rounding."""
    ways = [way for way in ROUNDING if any(run.rounding == way for run in runs)] or ["-"]
    figure = Figure(figsize=(2.5 + 5 * len(ways), 4.5), layout="constrained")
    panels = figure.subplots(1, len(ways), sharey=True, squeeze=False)[0]
    figure.suptitle("Handwritten digits, with weights and activations quantized")
    panels[0].set_ylabel(f"Accuracy on {digits_net.TEST_IMAGES} test images")
    # The first epochs may start far below and say little: a curve comes in from below where it matters.
    bottom = max(0.0, min(accuracy for run in runs for accuracy in run.curve[len(run.curve) // 4 :]) - 0.02)
    for axes, way in zip(panels, ways, strict=True):
        draw(axes, [run for run in runs if run.rounding in (way, "-")], bottom)
        axes.set_title({"-": "In float", "nearest": "Rounded to nearest", "stochastic": "Rounded stochastically"}[way])
    save(figure, output)


def save(figure: Figure, output: Path) -> None:
    """Writes a plot, or nothing at all if that fails; the same one is the same bytes."""
    partial, kind = partial_path(output), output.suffix[1:].lower()
    try:
        with rc_context({"svg.hashsalt": "intnumerics"}):
            figure.savefig(partial, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)


def draw(axes: Axes, runs: Sequence[Run], bottom: float) -> None:
    """Test accuracy against epoch, each curve named at its end rather than in a box elsewhere."""
    last = len(runs[0].curve)
    for run, height in zip(runs, spread([run.final for run in runs], gap=0.055 * (1 - bottom)), strict=True):
        every = math.ceil(last / 8)
        # Marked backwards from the end, so that the last point, which the label is about, always has a marker.
        axes.plot(range(1, last + 1), run.curve, color=run.width.colour, marker=run.width.marker,
                  markevery=((last - 1) % every, every))  # fmt: skip
        axes.annotate(
            f"{run.width.label}  {run.final:.1%}", (last, run.final), (1.04, (height - bottom) / (1 - bottom)),
            textcoords="axes fraction", color=run.width.colour, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": run.width.colour, "linewidth": 0.8, "relpos": (0, 0.5)},
        )  # fmt: skip
    axes.set(xlabel="Epoch", xlim=(0, last * 1.015), ylim=(bottom, 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Pushes neighbours apart until they are about gap from each other; of equals the first goes on top."""
    order = sorted(range(len(heights)), key=lambda i: (heights[i], -i))
    placed = list(heights)
    for _ in range(200):
        for below, above in itertools.pairwise(order):
            push = max(0.0, gap - (placed[above] - placed[below])) / 2
            placed[below] -= push
            placed[above] += push
    return placed


def partial_path(output: Path) -> Path:
    """Where the plot is written before it takes the name of output, in one step."""
    return output.with_name(f".{output.name}.partial")


def width(text: str) -> Width:
    if text not in WIDTHS:
        raise argparse.ArgumentTypeError(f"{text!r} is not known: use float, or a number of bits from 1 to 8")
    return WIDTHS[text]


def whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not lowest <= int(text) <= highest:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {lowest} to {highest}")
        return int(text)

    return parse


def output_file(text: str) -> Path:
    output = Path(text)
    if output.suffix.lower() not in {".png", ".svg", ".pdf"}:
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .png, .svg or .pdf")
    if output.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder: add a file name")
    try:  # only a try tells whether a folder can be written to, and now is better than after the training
        partial_path(output).touch()
        partial_path(output).unlink()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written: {error.strerror}") from error
    return output


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a small convolutional network on handwritten digits, quantized at several bit widths.",
        epilog="Exit status: 0 if every run learns, 1 if one does not, 2 for a bad argument.",
    )
    add = parser.add_argument
    # fmt: off
    add("--bits", nargs="+", type=width, metavar="WIDTH", default=DEFAULT_WIDTHS,
        help="widths to train at: float, or a number of bits from 1 to 8 (default: float 8 4 2 1)")
    add("--rounding", nargs="+", choices=ROUNDING, default=ROUNDING,
        help="how to round at each width but float: nearest, stochastic, or both (default: both)")
    add("--epochs", type=whole_number(1, 1000), metavar="N", default=40,
        help="passes over the training images; fewer may not be enough to learn (default: %(default)s)")
    add("--seed", type=whole_number(0, 2**31 - 1), metavar="N", default=0,
        help="for initial weights and the order of images; the test images stay the same (default: %(default)s)")
    add("--output", type=output_file, metavar="FILE", default="digits.png",
        help="file for the plot, ending in .png, .svg or .pdf (default: %(default)s)")
    # fmt: on
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the job; returns the exit status."""
    options = parse(arguments)
    started = time.perf_counter()
    digits = digits_net.load()
    pairs = itertools.product(dict.fromkeys(options.bits), dict.fromkeys(options.rounding))
    jobs = list(dict.fromkeys((width, "-" if width.bits is None else rounding) for width, rounding in pairs))
    with tqdm(total=len(jobs) * options.epochs, unit="epoch", disable=None) as progress:  # None: no bar in a log
        runs = [train_width(*job, options.epochs, options.seed, digits, progress) for job in jobs]
    print(table(runs))
    plot(runs, options.output)
    print(f"wrote {options.output} after {time.perf_counter() - started:.0f} s")
    failed = [run for run in runs if not run.learned]
    for run in failed:
        reason = f"test accuracy {run.final:.1%}, floor {run.width.floor:.0%}"
        print(f"{run.label} did not learn: {reason}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
