"""How far off stochastic rounding is on average: exactly, over all 65,536 draws, for every bfloat16 of 8 bits.

    python -m tools.bias            # computes, stores tools/results/bias.json and draws docs/bias.svg
    python -m tools.bias --table    # prints what is stored as the table of docs/noise.md

The error is in buckets: the mean of the results less x. It is odd in x, so what holds for x >= 0 holds for all.
"""

import argparse
import fractions
import functools
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from intnumerics.kernels import QuantSpec, xla
from intnumerics.kernels.generators import noise

RESULTS = pathlib.Path(__file__).parent / "results" / "bias.json"
PLOT = pathlib.Path(__file__).parent.parent / "docs" / "bias.svg"
DRAWS = 1 << 16
BOUND = 127.0  # of 8 bits, with zero kept
LOWEST, HIGHEST = -10, 6  # exponents of the binades that are stored value by value
LOWEST_DRAWN = -3  # below this there is nothing to see
# Okabe and Ito's palette: colour-blind eyes tell these two apart.
COLOURS = {"cast_kept": "#D55E00", "float32": "#0072B2"}
SPECS = {
    "cast_kept": QuantSpec(BOUND, clip=True, rounding="half_to_even"),
    "float32": QuantSpec(BOUND, clip=True, rounding="half_to_even", noise_dtype=np.dtype(np.float32)),
}


def values() -> np.ndarray:
    """Every finite bfloat16 from the smallest normal number to the bound."""
    last = int(np.asarray(BOUND, ml_dtypes.bfloat16).view(np.uint16))
    bits = np.arange(0x0080, last + 1, dtype=np.uint16)
    return bits.view(ml_dtypes.bfloat16)


def binade(exponent: int) -> np.ndarray:
    """The values from `2**exponent` to `2**(exponent + 1)`."""
    x = values()
    wide = x.astype(np.float64)
    return x[(wide >= 2.0**exponent) & (wide < 2.0 ** (exponent + 1))]


@functools.partial(jax.jit, static_argnames="spec")
def totals(x: jax.Array, spec: QuantSpec) -> jax.Array:
    """The sums of the results over all draws: whole numbers that float32 holds."""
    every = noise.from_16_bits(jnp.arange(DRAWS, dtype=jnp.uint32))
    y = xla.quantize(x[:, None], every[None, :], spec)
    return y.astype(jnp.float32).sum(axis=1)


def mean_errors(x: np.ndarray, spec: QuantSpec) -> np.ndarray:
    """The mean error of each value, in buckets, float64; 128 values at a time, to stay in the cache of a CPU."""
    padded = np.concatenate([x, np.zeros(-len(x) % 128, x.dtype)]).reshape(-1, 128)
    sums = np.concatenate([np.asarray(totals(jnp.asarray(part), spec)) for part in padded])[: len(x)]
    return sums.astype(np.float64) / DRAWS - x.astype(np.float64)


def measured() -> dict[str, Any]:
    """The document that is stored: errors of every value of the upper binades, and the largest of all those below."""
    x = values()
    below = x[x.astype(np.float64) < 2.0**LOWEST]
    largest = {name: float(np.abs(mean_errors(below, spec)).max()) for name, spec in SPECS.items()}
    rows = [
        {"exponent": k, **{name: mean_errors(binade(k), spec).tolist() for name, spec in SPECS.items()}}
        for k in range(LOWEST, HIGHEST + 1)
    ]
    return {"bound": BOUND, "draws": DRAWS, "jax": jax.__version__, "below": largest, "binades": rows}


def as_text(report: dict[str, Any]) -> str:
    """The document as JSON, a line a binade."""
    head = {key: value for key, value in report.items() if key != "binades"}
    rows = ",\n".join(f"  {json.dumps(row)}" for row in report["binades"])
    return f'{json.dumps(head)[:-1]}, "binades": [\n{rows}\n]}}\n'


def stored() -> dict[str, Any]:
    """The document in tools/results."""
    return json.loads(RESULTS.read_text())


def table(report: dict[str, Any]) -> str:
    """The largest mean error by binade, in Markdown; binades below 1/2 are one row, for little happens there."""
    lines = ["| magnitude of x, in buckets | cast kept | `noise_dtype=jnp.float32` |", "|---|---|---|"]
    groups = [(f"{2**k} to {2 ** (k + 1)}" if k >= 0 else "1/2 to 1", [k]) for k in range(HIGHEST, -2, -1)]
    groups[0] = (f"{2**HIGHEST} to {BOUND:.0f}", [HIGHEST])
    groups.append(("below 1/2", list(range(LOWEST, -1))))
    rows = {row["exponent"]: row for row in report["binades"]}
    for name, exponents in groups:
        errors = {spec: max(abs(e) for k in exponents for e in rows[k][spec]) for spec in SPECS}
        if LOWEST in exponents:
            errors = {spec: max(errors[spec], report["below"][spec]) for spec in SPECS}
        lines.append(f"| {name} | {number(errors['cast_kept'])} | {number(errors['float32'])} |")
    return "\n".join(lines)


def points(report: dict[str, Any]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The values to draw, and their errors by spec."""
    rows = [row for row in report["binades"] if row["exponent"] >= LOWEST_DRAWN]
    x = np.concatenate([binade(row["exponent"]) for row in rows]).astype(np.float64)
    return x, {name: np.concatenate([row[name] for row in rows]) for name in SPECS}


def number(error: float) -> str:
    """An error as the fraction that it is, or with four decimals."""
    fraction = fractions.Fraction(error)
    if fraction.numerator == 1:
        return f"1/{fraction.denominator:,}"
    return "0" if error == 0 else f"{error:.4f}"


def plot(x: np.ndarray, errors: dict[str, np.ndarray], output: pathlib.Path) -> None:
    """Writes the plot of the mean errors of each spec at x to output; the same results give the same bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    draw(figure.subplots(), x, errors)
    with mpl.rc_context({"svg.hashsalt": "bias"}):
        figure.savefig(output, dpi=150, metadata={"Date": None} if output.suffix == ".svg" else None)


def draw(axes: Any, x: np.ndarray, errors: dict[str, np.ndarray]) -> None:
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


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.bias", description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the table of the stored results, and do no more")
    if not parser.parse_args().table:
        RESULTS.write_text(as_text(measured()))
        plot(*points(stored()), PLOT)
    print(table(stored()))


if __name__ == "__main__":
    main()
