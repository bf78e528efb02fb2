"""Turns stored results into a Markdown page and its plots; the same results give the same bytes.

python -m bench.report                              # bench/results -> docs/benchmarks.md
python -m bench.report --results out/bench --docs out/bench
"""

import argparse
import pathlib
import sys

from bench import plots, results
from bench.names import EAGER
from bench.operations import OURS
from bench.results import COPIES, Report
from bench.summary import best_other, shape_text

DOCS = pathlib.Path(__file__).parent.parent / "docs"
PAGE = "benchmarks.md"
SLOWER = 0.95  # of the speed of another: more than times differ by chance
DRAWN = {"size": plots.against_size, "roofline": plots.roofline, "scaling": plots.scaling}
TEXTS = {
    "size": "Speed against size",
    "roofline": "The share of the speed of a copy",
    "scaling": "Time against size, with slopes",
}
HEAD = """# Benchmarks

What `python -m bench` measured, written by `make bench-report` from [`bench/results`](../bench/results); no number here
is typed in. Calls of all variants of a case take turns in one process. Inputs are random and go round so that none is
in the cache, results go to donated memory, and the first ones are checked against NumPy. Times are medians of at least
{least} rounds. *GB/s* are the least bytes that an operation must move by the time. *Of copy* is the speed as a share of
that of a copy of as many bytes in the same case, the quicker of two. A *ratio* is how many times the speed of
FJFormer's formula under `jit`, with threefry where there is noise. Where a profiler tells the device's own time, all of
these are of that. *FJFormer's formula, hash* is a few lines of jnp that hash the index of an element: quick, and no
match in quality. The keys `key(0)` to `key(255)` differ in no more than the low 8 bits of a hash, which its noise of 24
bits leaves out: they all give the same noise.
"""


def summary(report: Report) -> str:
    """A row for each operation and dtype, at the largest size."""
    lines = [
        "| operation | dtype | elements | time | GB/s | of copy | ratio | quickest other | its speed, ours being 1 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in plots.largest(report):
        other = best_other(case)
        cells = (
            case["operation"],
            case["dtype"],
            shape_text(case),
            results.time_text(results.best_seconds(case, OURS)),
            f"{results.gb_per_s(case, OURS):.1f}",
            f"{results.of_copy(case, OURS):.0%}",
            f"{results.ratio(case, OURS):.2f}",
            other or "-",
            f"{results.ratio(case, other, OURS):.2f}" if other else "-",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def by_size(report: Report) -> str:
    """Ratios to FJFormer's formula, a column for each size; the shapes with three axes apart."""
    texts = []
    for rank, title in ((1, "One axis"), (3, "[batch, sequence, features]")):
        cases = [c for c in report["cases"] if len(c["shape"]) == rank]
        sizes = sorted({results.elements(c) for c in cases})
        rows: dict[tuple[str, str], dict[int, str]] = {}
        for case in cases:
            value = results.ratio(case, OURS)
            row = rows.setdefault((case["operation"], case["dtype"]), {})
            row[results.elements(case)] = f"{value:.2f}" if value else "-"
        if not rows:
            continue
        texts += [
            f"{title}; the elements are powers of 2:\n",
            f"| operation | dtype | {' | '.join(f'2^{n.bit_length() - 1}' for n in sizes)} |",
            f"|---|---|{'---|' * len(sizes)}",
            *(f"| {op} | {d} | {' | '.join(row.get(n, '') for n in sizes)} |" for (op, d), row in rows.items()),
            "",
        ]
    return "\n".join(texts)


def by_implementation(report: Report) -> str:
    """The time of each of ours beside a copy, at the largest size, on a GPU, where kernels are among them."""
    if report["platform"] == "cpu":
        return ""
    cases = plots.largest(report)
    names = dict.fromkeys(n for case in cases for n in case["results"] if n.startswith(f"{OURS}, ") and EAGER not in n)
    heads = ("operation", "dtype", "elements", "a copy", *(name.removeprefix(f"{OURS}, ") for name in names))
    lines = [
        "### Each implementation\n",
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
    ]
    for case in cases:
        times = (results.time_text(results.best_seconds(case, name)) for name in (COPIES[0], *names))
        lines.append(f"| {' | '.join((case['operation'], case['dtype'], shape_text(case), *times))} |")
    return "\n".join([*lines, ""])


def drawn(report: Report) -> list[str]:
    """The plots of a run: those against the size where there are three sizes or more."""
    sizes = {results.elements(case) for case in report["cases"]}
    return [name for name in DRAWN if name == "roofline" or len(sizes) > 2]


def slower(report: Report) -> str:
    """Where something else was quicker by more than chance, by name."""
    lines = []
    for case in plots.largest(report):
        quicker = {
            name: times
            for name in case["results"]
            if not name.startswith(OURS) and name not in COPIES
            if (times := results.ratio(case, name, OURS)) and times > 1 / SLOWER
        }
        named = ", ".join(f"{name} ({times:.2f}x)" for name, times in sorted(quicker.items(), key=lambda q: -q[1]))
        if named:
            lines.append(f"- {case['operation']}, {case['dtype']}: {named}")
    return "\n".join(lines) or "Nowhere."


def section(path: pathlib.Path, report: Report, docs: pathlib.Path) -> str:
    """What one run found, and its plots beside the page."""
    folder, stem = docs / "benchmarks", f"{path.parent.name}-{path.stem}"
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for name in drawn(report):
        DRAWN[name](report, folder / f"{stem}-{name}.svg")
        images.append(f"![{TEXTS[name]}](benchmarks/{stem}-{name}.svg)\n")
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    clocks = ", ".join(f"{name} {value}" for name, value in report["clocks"].items())
    return "\n".join([
        f"## {report['device']}, {path.stem}, JAX {report['versions']['jax']}\n",
        f"{report['system']}; {clocks or 'clocks unknown'}; {versions}; commit {report['commit']}; every time in "
        f"`{path.parent.name}/{path.name}`.\n",
        "### At the largest size\n",
        summary(report),
        "",
        "**Where something else is quicker**, at these sizes:\n",
        slower(report),
        "",
        *images,
        by_implementation(report),
        "### Ratio to FJFormer's formula under jit\n",
        by_size(report),
    ])  # fmt: skip


def page(folder: pathlib.Path, docs: pathlib.Path) -> str:
    """The page; its plots are written beside it."""
    stored = list(results.load(folder))
    if not stored:
        sys.exit(f"no results in {folder}: `python -m bench --out {folder}` makes some")
    least = min(report["settings"]["least"] for _, report in stored)
    newest_first = stored[::-1]
    return "\n".join([HEAD.format(least=least), *(section(path, report, docs) for path, report in newest_first)])


def main() -> None:
    """Runs the command line."""
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
