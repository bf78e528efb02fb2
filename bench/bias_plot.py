"""Draws the bias of stochastic rounding."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette: colour-blind eyes tell these two apart.
COLOURS = {"cast_kept": "#D55E00", "float32": "#0072B2"}


def plot(x: np.ndarray, errors: dict[str, np.ndarray], output: Path) -> None:
    """Writes the plot of the mean errors of each spec at x to output; the same results give the same bytes."""
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    draw(figure.subplots(), x, errors)
    with mpl.rc_context({"svg.hashsalt": "bias"}):
        figure.savefig(output, dpi=150, metadata={"Date": None} if output.suffix == ".svg" else None)


def draw(axes: Axes, x: np.ndarray, errors: dict[str, np.ndarray]) -> None:
    """Mean error against x: where the cast is kept, a stem for each value, so that a binade shows as a band."""
    off = errors["cast_kept"] != 0
    stems = np.stack([np.zeros(off.sum()), errors["cast_kept"][off], np.full(off.sum(), np.nan)], axis=1)
    axes.plot(np.repeat(x[off], 3), stems.ravel(), color=COLOURS["cast_kept"], linewidth=0.8)
    axes.plot(x, errors["float32"], color=COLOURS["float32"], linewidth=2)
    axes.set_xscale("log", base=2)
    ticks = 2.0 ** np.arange(np.floor(np.log2(x[0])), np.floor(np.log2(x[-1])) + 2)
    axes.set_xticks(ticks, [f"1/{1 / t:.0f}" if t < 1 else f"{t:.0f}" for t in ticks])
    axes.set_yticks([-0.25, -0.125, 0, 0.125, 0.25], ["-1/4", "-1/8", "0", "1/8", "1/4"])
    axes.set(xlabel="bfloat16 value, in buckets", ylabel="Mean error, in buckets")
    axes.set(xlim=(ticks[0], ticks[-1]), ylim=(-0.3, 0.3))
    axes.set_title("Stochastic rounding of bfloat16 is off by up to a quarter of a bucket,\n"
                   "unless the noise is added in float32", loc="left")  # fmt: skip
    axes.annotate("x + noise is cast back to bfloat16", (8, 0.19), ha="center", color=COLOURS["cast_kept"])
    axes.annotate("noise_dtype=jnp.float32", (0.14, 0.018), color=COLOURS["float32"])
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
