"""docs/static-report.md and its plot, from the stored counts; `make static-report` stores them first.

python -m bench.aot.report
"""

import pathlib
from typing import Any

from bench.aot.chips import CHIPS, Chip, count
from bench.aot.table import compilers, counts
from bench.baselines import GENERATORS

PAGE = pathlib.Path(__file__).parent.parent.parent / "docs" / "static-report.md"
PLOT = PAGE.with_suffix(".svg")

PLAIN = (
    ("kernel", "pallas: {}"),
    ("kernel, jax-triton", "triton: {}"),
    ("XLA's fusion", "xla: {}"),
    ("formula", "formula: {}"),
)
NOISY = (
    ("kernel, Philox", "pallas: {} with Philox"),
    ("kernel, jax-triton, Philox", "triton: {} with Philox"),
    ("kernel, the chip's generator", "pallas: {} with hardware noise"),
    ("XLA's fusion, Philox", "xla: {} with Philox"),
    *((f"formula, {name}", f"formula: {{}} with {name}") for name in GENERATORS),
)
INT8 = "quantize bfloat16 -> int8"
DRAWN = (("kernel, no noise", "pallas: {}"), *NOISY)

# What is done, what the case is called, and in which forms it is compiled.
OPERATIONS = (
    ("quantize float32", "quantize float32", PLAIN),
    ("quantize bfloat16", "quantize bfloat16", PLAIN),
    ("quantize bfloat16 to int8", INT8, PLAIN),
    ("quantize float32 with mask", "quantize float32 with mask", PLAIN),
    ("quantize bfloat16 with mask", "quantize bfloat16 with mask", PLAIN),
    ("clip gradient from mask, bfloat16", "clip gradient from mask, bfloat16", PLAIN),
    ("clip gradient from x, bfloat16", "clip gradient from x, bfloat16", PLAIN),
    ("quantize float32 with noise", "quantize float32", NOISY),
    ("quantize bfloat16 to int8 with noise", INT8, NOISY),
)

INTRODUCTION = """# Static report

What the real compilers make of each kernel, and of what it is compared with, for five chips; none was there. The counts
are exact and the same each time. **The times are bounds, not measurements**: [benchmarks](benchmarks.md) has those.
`make static-report` compiles all of it and writes this page; `make test-aot` holds the kernels to ceilings.

Compiled by {compilers}, for arrays of 2^24 elements, and of 2^28 where XLA for a TPU compiled plain jnp.

- **kernel**: ours, in Pallas; **kernel, jax-triton**: that of `implementation="jax_triton"`. **XLA's fusion**: our
  plain form, `implementation="xla"`. **formula**: FJFormer's under `jit`, as [`bench/baselines.py`](../bench/baselines.py)
  writes it, with noise of `jax.random.uniform` from keys of three kinds and with that of a cheap hash of the index,
  which is the same for `key(0)` to `key(255)`. It has no packed mask.
- **Instructions an element**: machine instructions of one thread, divided by the elements that it sees to; both ways of
  a branch count. **ALU**: those of them for integers, bits, comparisons and selections, of which a scheduler begins one
  every other cycle. **Bundles**: VLIW bundles for 1,024 elements; two cores of a chip share them.
- **Bytes an element**: each kernel reads and writes each of its arrays once.
- **By memory, by arithmetic**: picoseconds an element that the bytes, and that the instructions or bundles, take at
  least; the longer of the two is the bound.
- **Of memory speed**: how near the bound comes to the time of the bytes that any form must move, x read and the result
  written.

## What is assumed

The last column is the count of a pass over bfloat16 to int8, {least} bytes an element, that takes as long as memory.

{chips}

{sources}

![Share of memory speed that the count of each form allows, by chip](static-report.svg)
"""


def assumed() -> str:
    """The assumptions as a table."""
    lines = [
        "| chip | memory, GB/s | clock, GHz | instructions or bundles a cycle | memory speed allows |",
        "|---|---|---|---|---|",
    ]
    for name, chip in CHIPS.items():
        rate = f"{chip.units} warps" if name == "h100" else f"{chip.units} bundle{'s'[: chip.units - 1]}"
        allowed = f"{allows(name):.1f} {'instructions an element' if name == 'h100' else 'bundles for 1,024'}"
        lines.append(f"| {chip.title} | {chip.bandwidth / 1e9:,.0f} | {chip.clock / 1e9:g} | {rate} | {allowed} |")
    return "\n".join(lines)


def allows(chip: str) -> float:
    """The count that takes as long as memory for bfloat16 to int8."""
    return CHIPS[chip].allows(counts()[f"pallas: {INT8}", chip]["least_bytes_per_element"])


def bound(chip: Chip, row: dict[str, Any]) -> tuple[float, float]:
    """Picoseconds an element, by memory and by arithmetic."""
    return chip.memory(row["bytes_per_element"]), chip.arithmetic(row)


def share(chip: Chip, row: dict[str, Any]) -> float:
    """The time that memory takes for the least bytes, as a part of the bound."""
    return chip.memory(row["least_bytes_per_element"]) / max(bound(chip, row))


def section(name: str) -> str:
    """The table of a chip, and what is not in it and why."""
    chip, rows, on_gpu, reasons = CHIPS[name], counts(), name == "h100", []
    heads = ["instructions", "ALU", "registers"] if on_gpu else ["bundles"]
    heads = ["operation", "form", *heads, "bytes", "by memory, ps", "by arithmetic, ps", "bound by", "of memory speed"]
    lines = [f"## {chip.title}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for title, case, forms in OPERATIONS:
        for form, pattern in forms:
            row = rows.get((pattern.format(case), name))
            if row is None:
                continue
            if "error" in row:
                reasons.append(f"{title}, {form}: {row['error']}.")
                lines.append(f"| {title} | {form} |{' - |' * (len(heads) - 2)}")
                continue
            memory, arithmetic = bound(chip, row)
            cells = [count(row), *([row["alu_per_element"], row["registers"]] if on_gpu else [])]
            cells += [f"{row['bytes_per_element']:g}", f"{memory:.2f}", f"{arithmetic:.2f}"]
            cells += ["memory" if memory >= arithmetic else "arithmetic", f"{share(chip, row):.0%}"]
            lines.append(f"| {title} | {form} | {' | '.join(map(str, cells))} |")
    notes = ["", *(f"- {reason}" for reason in reasons)] if reasons else []
    return "\n".join([*lines, *notes]) + "\n"


def page() -> str:
    """The page."""
    sources = "\n".join(f"- {chip.title}: {chip.source}." for chip in CHIPS.values())
    least = counts()[f"pallas: {INT8}", "h100"]["least_bytes_per_element"]
    head = INTRODUCTION.format(compilers=compilers(), chips=assumed(), sources=sources, least=f"{least:g}")
    return "\n".join([head, *map(section, CHIPS)])


def shares() -> dict[str, dict[str, float]]:
    """What the plot shows: by chip and by form, the share of memory speed in bfloat16 to int8."""
    rows = counts()
    found: dict[str, dict[str, float]] = {}
    for name, chip in CHIPS.items():
        kept = ((form, rows.get((pattern.format(INT8), name))) for form, pattern in DRAWN)
        found[chip.title] = {form: round(share(chip, row), 3) for form, row in kept if row and "error" not in row}
    return found


def main() -> None:
    """Writes the page and its plot."""
    from bench.aot.report_plot import plot

    PAGE.write_text(page())
    plot(shares(), [form for form, _ in DRAWN], PLOT)


if __name__ == "__main__":
    main()
