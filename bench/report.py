"""Turns stored results into a Markdown page and its plots; the same results give the same bytes.

python -m bench.report                              # bench/results -> docs/benchmarks.md
python -m bench.report --results out/bench --docs out/bench
"""

import argparse
import pathlib
import sys

import matplotlib.style
from matplotlib.figure import Figure

from bench import overhead, results
from bench.names import EAGER, FORMULA, OURS, SEED
from bench.results import COPIES, Measured, Report, markdown

DOCS = pathlib.Path(__file__).parent.parent / "docs"
PAGE = "benchmarks.md"
HEAD = pathlib.Path(__file__).with_suffix(".md").read_text()  # before the sections of the runs
COLOURS = {OURS: "C0", FORMULA: "C2", SEED: "C2", f"{FORMULA}, philox4x32": "C3", f"{FORMULA}, hash": "C1"}
SHOWN = (
    "quantize to int8",
    "quantize to int8 with PhiloxUniform",
    "backward from the mask",
    "gelu, quantize to int8, dot with PhiloxUniform",
)
WIDTH = 9.5
STYLE = ["seaborn-v0_8-whitegrid", "seaborn-v0_8-colorblind", {
    "figure.constrained_layout.use": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "bench",  # so that the same results give the same bytes
}]  # fmt: skip


def largest(report: Report) -> list[Measured]:
    """The largest case of each operation and dtype in which ours and the baseline were measured, by name."""
    found = {(c["operation"], c["dtype"]): c for c in sorted(report["cases"], key=size) if results.ratio(c, OURS)}
    return [found[key] for key in sorted(found)]


def size(case: Measured) -> tuple[int, int]:
    """The order of cases by size; of two of one size, that with one axis is the last."""
    return results.elements(case), -len(case["shape"])


def by_implementation(cases: list[Measured]) -> str:
    """The time of each of ours beside a copy."""
    names = dict.fromkeys(n for case in cases for n in case["results"] if n.startswith(f"{OURS}, ") and EAGER not in n)
    heads = ("operation", "dtype", "elements", "a copy", *(name.removeprefix(f"{OURS}, ") for name in names))
    times = ([results.time_text(results.best_seconds(case, n)) for n in (COPIES[0], *names)] for case in cases)
    return markdown(heads, ((*results.row(case)[:3], *cells) for case, cells in zip(cases, times, strict=True)))


def save(figure: Figure, path: pathlib.Path, title: str) -> None:
    """Writes a figure under a title, with one legend for all panels below."""
    figure.suptitle(title, x=0.01, ha="left")
    labels = {label: h for axes in figure.axes for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(labels.values(), labels, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, metadata={"Date": None})


def against_size(report: Report, path: pathlib.Path) -> None:
    """GB/s against elements of bfloat16: a panel for each of a few operations, a line for each way to do it."""
    figure = Figure(figsize=(WIDTH, 7))
    for axes, operation in zip(figure.subplots(2, 2, sharex=True).flat, SHOWN, strict=True):
        found = (c for c in report["cases"] if (c["operation"], c["dtype"]) == (operation, "bfloat16"))
        cases = {results.elements(c): c for c in sorted(found, key=size) if results.seconds(c, COPIES[0])}
        for name, colour in COLOURS.items():
            speeds = {n: speed for n, c in cases.items() if (speed := results.gb_per_s(c, name))}
            label = f"{FORMULA}, threefry where there is noise" if name in (FORMULA, SEED) else name
            if speeds:
                axes.plot(list(speeds), list(speeds.values()), "o-", color=colour, label=label)
        copies = [max(results.gb_per_s(c, name) or 0.0 for name in COPIES) for c in cases.values()]
        axes.plot(list(cases), copies, "--", color="grey", label="a copy")
        axes.set_xscale("log", base=2)
        axes.set(title=operation, xlabel="elements", ylabel="GB/s of the least bytes", yscale="log")
    save(figure, path, f"Speed against size: {report['device']}, bfloat16")


def roofline(report: Report, path: pathlib.Path) -> None:
    """A panel for each dtype, a row for each operation: the share of the speed of a copy, ours and the formula's."""
    cases = largest(report)
    dtypes, names = (sorted({case[key] for case in cases}) for key in ("dtype", "operation"))
    figure = Figure(figsize=(WIDTH, 0.36 * len(names) + 1.5))
    panels = figure.subplots(1, len(dtypes), sharey=True, sharex=True, squeeze=False)[0]
    for axes, dtype in zip(panels, dtypes, strict=True):
        found = [case for case in cases if case["dtype"] == dtype]
        for offset, who in ((-0.2, OURS), (0.2, FORMULA)):
            shares = [100 * (results.of_copy(c, who if who == OURS else c["baseline"]) or 0.0) for c in found]
            places = [names.index(c["operation"]) + offset for c in found]
            axes.barh(places, shares, 0.38, color=COLOURS[who], label=who)
        axes.axvline(100, color="grey", linestyle="--", label="a copy of as many bytes")
        axes.set(title=dtype, xlabel="% of the speed of a copy")
        axes.yaxis.grid(visible=False)
    panels[0].set_yticks(range(len(names)), names, fontsize=9)
    panels[0].invert_yaxis()
    panels[0].margins(y=0.01)
    save(figure, path, f"How near to the speed of memory, each under jit: {report['device']}")


def section(path: pathlib.Path, report: Report, docs: pathlib.Path) -> str:
    """What one run found, and its plots beside the page."""
    folder, stem = docs / "benchmarks", f"{path.parent.name}-{path.stem}"
    folder.mkdir(parents=True, exist_ok=True)
    clocks, versions = (", ".join(f"{name} {v}" for name, v in report[key].items()) for key in ("clocks", "versions"))
    where = f"every time is in `{path.parent.name}/{path.name}`."
    texts = [
        f"## {report['device']}, {path.stem}, JAX {report['versions']['jax']}\n",
        f"{report['system']}; {clocks or 'clocks unknown'}; {versions}; commit {report['commit']}; {where}\n",
        *([f"{report['remark']}\n"] if "remark" in report else []),
    ]
    if cases := largest(report):
        roofline(report, folder / f"{stem}-roofline.svg")
        texts += [
            "### At the largest size\n",
            results.table(cases),
            f"![The share of the speed of a copy](benchmarks/{stem}-roofline.svg)\n",
        ]
        if report["platform"] != "cpu":
            texts += ["### Each implementation\n", by_implementation(cases)]
        if len({results.elements(case) for case in report["cases"]}) > 2:
            against_size(report, folder / f"{stem}-size.svg")
            texts += [f"![Speed against size](benchmarks/{stem}-size.svg)\n"]
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
    parser = argparse.ArgumentParser(prog="python -m bench.report")
    parser.add_argument("--results", type=pathlib.Path, default=results.STORED, metavar="FOLDER")
    parser.add_argument("--docs", type=pathlib.Path, default=DOCS, metavar="FOLDER")
    options = parser.parse_args()
    with matplotlib.style.context(STYLE):
        text = page(options.results, options.docs)
    (options.docs / PAGE).write_text(text)
    print(f"{options.docs / PAGE} and its plots in {options.docs / 'benchmarks'}")


if __name__ == "__main__":
    main()
