"""Draws what was measured: speed against size, the share of copy speed, and how time grows."""

import pathlib
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench import results
from bench.operations import FORMULA, OURS, SEED
from bench.results import COPIES, Measured, Report

# Okabe and Ito's palette, which colour-blind eyes tell apart, and a mark of each.
STYLES = {
    OURS: {"color": "#0072B2", "marker": "o", "linewidth": 2.2},
    FORMULA: {"color": "#D55E00", "marker": "s"},
    SEED: {"color": "#D55E00", "marker": "s"},
    f"{FORMULA}, philox4x32": {"color": "#CC79A7", "marker": "^"},
    f"{FORMULA}, hash": {"color": "#009E73", "marker": "v"},
}
GREY = "#888888"
SHOWN = (
    "quantize to int8",
    "quantize to int8 with PhiloxUniform",
    "backward from the mask",
    "gelu, quantize to int8, dot with PhiloxUniform",
)
LINEAR_FROM = 1 << 20  # elements from which a slope is fitted: below, starting a program takes the time
WIDTH = 9.5


def save(figure: Figure, path: pathlib.Path) -> None:
    """Writes a figure; the same results give the same bytes of SVG."""
    with mpl.rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


def series(report: Report, operation: str, dtype: str) -> list[Measured]:
    """The cases of an operation, by size: with one axis, or with three where it has no other."""
    found = [c for c in report["cases"] if (c["operation"], c["dtype"]) == (operation, dtype)]
    flat = [c for c in found if len(c["shape"]) == 1]
    return sorted(flat or found, key=results.elements)


def tidy(axes: Axes) -> None:
    """The same plain look for all."""
    axes.grid(color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def against_size(report: Report, path: pathlib.Path, dtype: str = "bfloat16") -> None:
    """GB/s against elements: a panel for each of a few operations, a line for each way to do it."""
    figure = Figure(figsize=(WIDTH, 7), layout="constrained")
    labels: dict[str, object] = {}
    for axes, operation in zip(figure.subplots(2, 2, sharex=True).flat, SHOWN, strict=True):
        cases = [c for c in series(report, operation, dtype) if results.seconds(c, COPIES[0])]
        if not cases:
            continue
        for name, style in STYLES.items():
            points = [(results.elements(c), s) for c in cases if (s := results.gb_per_s(c, name))]
            if points:
                labels[name.removesuffix(", threefry")] = axes.plot(*zip(*points, strict=True), **style)[0]
        copies = [(results.elements(c), max(results.gb_per_s(c, name) or 0.0 for name in COPIES)) for c in cases]
        labels["a copy"] = axes.plot(*zip(*copies, strict=True), color=GREY, linestyle="--")[0]
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_title(operation, loc="left", fontsize=10)
        axes.set(xlabel="elements", ylabel="GB/s of the least bytes")
        tidy(axes)
    names = [f"{name}, threefry where there is noise" if name == FORMULA else name for name in labels]
    figure.legend(list(labels.values()), names, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(f"Speed against size: {report['device']}, {dtype}", x=0.01, ha="left", fontsize=12)
    save(figure, path)


def largest(report: Report) -> list[Measured]:
    """Of each operation and dtype the case with the most elements in which ours and the baseline were measured."""
    order = dict.fromkeys((case["operation"], case["dtype"]) for case in report["cases"])
    found = ([c for c in series(report, *key) if results.ratio(c, OURS)] for key in order)
    return [cases[-1] for cases in found if cases]


def roofline(report: Report, path: pathlib.Path) -> None:
    """A bar for each operation: its speed as a share of that of a copy of as many bytes, at the largest size."""
    cases = largest(report)
    figure = Figure(figsize=(WIDTH, 0.28 * len(cases) + 1.6), layout="constrained")
    axes = figure.subplots()
    y = np.arange(len(cases))
    for offset, kind in ((-0.2, "ours"), (0.2, "baseline")):
        names = [OURS if kind == "ours" else c["baseline"] for c in cases]
        shares = [100 * (results.of_copy(c, name) or 0.0) for c, name in zip(cases, names, strict=True)]
        colour = STYLES[OURS if kind == "ours" else FORMULA]["color"]
        axes.barh(y + offset, shares, 0.38, color=colour, label=OURS if kind == "ours" else f"{FORMULA} under jit")
    axes.axvline(100, color=GREY, linestyle="--", label="a copy of as many bytes")
    axes.set_yticks(y, [f"{c['operation']}, {c['dtype']}" for c in cases], fontsize=8)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set(xlabel="% of the speed of a copy")
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.03 - 1.2 / len(cases)), ncols=3, frameon=False)
    tidy(axes)
    axes.grid(axis="y", visible=False)
    figure.suptitle(f"How near to the speed of memory: {report['device']}", x=0.01, ha="left", fontsize=12)
    save(figure, path)


def slope(sizes: Sequence[int], seconds: Sequence[float]) -> float | None:
    """The exponent by which time grows with size, from `LINEAR_FROM` elements on; 1 is proportional."""
    points = [(n, t) for n, t in zip(sizes, seconds, strict=True) if n >= LINEAR_FROM]
    if len(points) < 2:
        return None
    return float(np.polyfit(*np.log(list(zip(*points, strict=True))), 1)[0])


def scaling(report: Report, path: pathlib.Path, dtype: str = "bfloat16") -> None:
    """Time against elements, with the slope of each line."""
    figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
    axes = figure.subplots()
    colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
    for operation, colour, marker in zip(SHOWN, colours, "osv^", strict=True):
        cases = [c for c in series(report, operation, dtype) if results.best_seconds(c, OURS)]
        if not cases:
            continue
        sizes = [results.elements(c) for c in cases]
        seconds = [results.best_seconds(c, OURS) or 0.0 for c in cases]
        steep = slope(sizes, seconds)
        label = f"{operation}: slope {steep:.2f}" if steep is not None else operation
        axes.plot(sizes, seconds, color=colour, marker=marker, label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set(xlabel="elements", ylabel="seconds")
    axes.legend(frameon=False)
    tidy(axes)
    axes.set_title(f"Time against size: {report['device']}, {dtype}; slopes from 2^20 elements on", loc="left")
    save(figure, path)
