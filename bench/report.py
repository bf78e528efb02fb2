"""Turns stored results into a Markdown page and its plots; the same results give the same bytes.

python -m bench.report                              # bench/results -> docs/benchmarks.md
python -m bench.report --results out/bench --docs out/bench
"""

import argparse
import pathlib
import sys

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench import overhead, results
from bench.names import EAGER, FORMULA, OURS, SEED
from bench.results import COPIES, Measured, Report, markdown

DOCS = pathlib.Path(__file__).parent.parent / "docs"
PAGE = "benchmarks.md"
HEAD = """# Benchmarks

What `python -m bench` measured, written by `make bench-report` from [`bench/results`](../bench/results); no number here
is typed in. Calls of all variants of a case take turns in one process. Inputs are random and take turns, so that none
is in the cache; results go to donated memory, and the first ones are checked against NumPy. Times are medians of at
least {least} rounds, by the device's own clock if a profiler reads it. *GB/s* are the least bytes that an operation
must move, divided by the time. *Of copy* is the speed as a share of that of a copy of as many bytes in the same case,
the quicker of two. A *ratio* above 1 means that ours is faster.

*FJFormer's formula, hash* is a few lines of jnp that hash the index of an element. It is quick, and its noise is worth
less than the others': the keys `key(0)` to `key(255)` differ in the low 8 bits of a hash alone, and the noise is the
upper 24 bits, so all of these keys give the same noise.
"""
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
WIDTH = 9.5


def series(report: Report, operation: str, dtype: str) -> list[Measured]:
    """The cases of an operation, by size: with one axis, or with three if it has no other."""
    found = [c for c in report["cases"] if (c["operation"], c["dtype"]) == (operation, dtype)]
    flat = [c for c in found if len(c["shape"]) == 1]
    return sorted(flat or found, key=results.elements)


def largest(report: Report) -> list[Measured]:
    """The largest case of each operation and dtype in which ours and the baseline were measured, by name."""
    keys = sorted({(case["operation"], case["dtype"]) for case in report["cases"]})
    found = ([c for c in series(report, *key) if results.ratio(c, OURS)] for key in keys)
    return [cases[-1] for cases in found if cases]


# --- tables -----------------------------------------------------------------------------------------------------------


def by_size(report: Report) -> str:
    """Ratios to FJFormer's formula, a column for each size."""
    rows = {
        (case["operation"], case["dtype"]): {
            results.elements(c): f"{value:.2f}"
            for c in series(report, case["operation"], case["dtype"])
            if (value := results.ratio(c, OURS))
        }
        for case in report["cases"]
    }
    sizes = sorted({size for row in rows.values() for size in row})
    heads = ("operation", "dtype", *(f"2^{n.bit_length() - 1}" for n in sizes))
    return markdown(heads, ((*key, *(rows[key].get(n, "") for n in sizes)) for key in sorted(rows)))


def by_implementation(report: Report) -> str:
    """The time of each of ours beside a copy, at the largest size."""
    cases = largest(report)
    names = dict.fromkeys(n for case in cases for n in case["results"] if n.startswith(f"{OURS}, ") and EAGER not in n)
    heads = ("operation", "dtype", "elements", "a copy", *(name.removeprefix(f"{OURS}, ") for name in names))
    return markdown(heads, (
        (*results.row(case)[:3], *(results.time_text(results.best_seconds(case, n)) for n in (COPIES[0], *names)))
        for case in cases
    ))  # fmt: skip


# --- plots ------------------------------------------------------------------------------------------------------------


def save(figure: Figure, path: pathlib.Path, title: str) -> None:
    """Writes a figure under a title; the same results give the same bytes of SVG."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    with mpl.rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def tidy(axes: Axes, title: str, **labels: str) -> None:
    axes.set_title(title, loc="left", fontsize=10)
    axes.set(**labels)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def against_size(report: Report, path: pathlib.Path, dtype: str = "bfloat16") -> None:
    """GB/s against elements: a panel for each of a few operations, a line for each way to do it."""
    figure = Figure(figsize=(WIDTH, 7), layout="constrained")
    labels: dict[str, object] = {}
    for axes, operation in zip(figure.subplots(2, 2, sharex=True).flat, SHOWN, strict=True):
        cases = [c for c in series(report, operation, dtype) if results.seconds(c, COPIES[0])]
        for name, style in STYLES.items():
            points = [(results.elements(c), s) for c in cases if (s := results.gb_per_s(c, name))]
            if points:
                labels[name.removesuffix(", threefry")] = axes.plot(*zip(*points, strict=True), **style)[0]
        if copies := [(results.elements(c), max(results.gb_per_s(c, n) or 0.0 for n in COPIES)) for c in cases]:
            labels["a copy"] = axes.plot(*zip(*copies, strict=True), color=GREY, linestyle="--")[0]
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.grid(color="#DDDDDD", linewidth=0.8)
        tidy(axes, operation, xlabel="elements", ylabel="GB/s of the least bytes")
    names = [f"{name}, threefry where there is noise" if name == FORMULA else name for name in labels]
    figure.legend(list(labels.values()), names, loc="outside lower center", ncols=3, frameon=False)
    save(figure, path, f"Speed against size: {report['device']}, {dtype}")


def roofline(report: Report, path: pathlib.Path) -> None:
    """A panel for each dtype, a row for each operation: the share of the speed of a copy, ours and the formula's."""
    cases = largest(report)
    dtypes = sorted({case["dtype"] for case in cases})
    names = sorted({case["operation"] for case in cases}, key=kind)
    figure = Figure(figsize=(WIDTH, 0.36 * len(names) + 1.5), layout="constrained")
    panels = figure.subplots(1, len(dtypes), sharey=True, sharex=True, squeeze=False)[0]
    for axes, dtype in zip(panels, dtypes, strict=True):
        found = {case["operation"]: case for case in cases if case["dtype"] == dtype}
        y = np.asarray([i for i, name in enumerate(names) if name in found])
        for offset, who in ((-0.2, OURS), (0.2, FORMULA)):
            by_row = (found[name] for name in names if name in found)
            shares = [100 * (results.of_copy(c, OURS if who == OURS else c["baseline"]) or 0.0) for c in by_row]
            axes.barh(y + offset, shares, 0.38, color=STYLES[who]["color"], label=who)
        for i in set(range(len(names))) - set(y):
            axes.text(1, i, "not measured", va="center", fontsize=8, color=GREY)
        axes.axvline(100, color=GREY, linestyle="--", label="a copy of as many bytes")
        axes.grid(axis="x", color="#DDDDDD", linewidth=0.8)
        tidy(axes, dtype, xlabel="% of the speed of a copy")
    panels[0].set_yticks(np.arange(len(names)), names, fontsize=9)
    panels[0].invert_yaxis()
    panels[0].margins(y=0.01)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    save(figure, path, f"How near to the speed of memory, each under jit: {report['device']}")


def kind(operation: str) -> tuple[bool, bool, bool, str]:
    """Sorts forwards without noise, forwards with noise, chains, and backwards."""
    return "backward" in operation, "," in operation.split("quantize")[0], " with " in operation, operation


# --- the page ---------------------------------------------------------------------------------------------------------


def section(path: pathlib.Path, report: Report, docs: pathlib.Path) -> str:
    """What one run found, and its plots beside the page."""
    folder, stem = docs / "benchmarks", f"{path.parent.name}-{path.stem}"
    folder.mkdir(parents=True, exist_ok=True)
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    clocks = ", ".join(f"{name} {value}" for name, value in report["clocks"].items())
    texts = [
        f"## {report['device']}, {path.stem}, JAX {report['versions']['jax']}\n",
        f"{report['system']}; {clocks or 'clocks unknown'}; {versions}; commit {report['commit']}; every time is in "
        f"`{path.parent.name}/{path.name}`.\n",
    ]  # fmt: skip
    if cases := largest(report):
        roofline(report, folder / f"{stem}-roofline.svg")
        texts += [
            "### At the largest size\n",
            f"{results.TITLE}\n",
            markdown(results.SUMMARY, map(results.row, cases)),
            f"![The share of the speed of a copy](benchmarks/{stem}-roofline.svg)\n",
        ]
        if report["platform"] != "cpu":
            texts += ["### Each implementation\n", by_implementation(report)]
        if len({results.elements(case) for case in report["cases"]}) > 2:
            against_size(report, folder / f"{stem}-size.svg")
            texts += [f"![Speed against size](benchmarks/{stem}-size.svg)\n"]
        texts += ["### How many times the speed of FJFormer's formula under jit\n", by_size(report)]
    if "overhead" in report:
        texts += ["### Overhead\n", overhead.tables(report["overhead"])]
    return "\n".join(texts)


def page(folder: pathlib.Path, docs: pathlib.Path) -> str:
    """The page; its plots are written beside it."""
    stored = list(results.load(folder))
    if not stored:
        sys.exit(f"no results in {folder}: `python -m bench --out {folder}` makes some")
    least = min(report["settings"]["least"] for _, report in stored)
    return "\n".join([HEAD.format(least=least), *(section(path, report, docs) for path, report in stored[::-1])])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=pathlib.Path, default=results.STORED, metavar="FOLDER")
    parser.add_argument("--docs", type=pathlib.Path, default=DOCS, metavar="FOLDER")
    options = parser.parse_args()
    text = page(options.results, options.docs)
    (options.docs / PAGE).write_text(text)
    print(f"{options.docs / PAGE} and its plots in {options.docs / 'benchmarks'}")


if __name__ == "__main__":
    main()
