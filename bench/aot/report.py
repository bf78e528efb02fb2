"""docs/static-report.md, from the stored counts; `make static-report` stores them first.

python -m bench.aot.report
"""

import pathlib
from typing import Any

from bench.aot.cases import ROW_FEATURES
from bench.aot.chips import CHIPS, Chip, count, counts, reports
from bench.baselines import GENERATORS
from bench.results import markdown

PAGE = pathlib.Path(__file__).parent.parent.parent / "docs" / "static-report.md"
TEXT = pathlib.Path(__file__).with_suffix(".md").read_text()  # before the tables of the chips

CASES = (
    "quantize float32",
    "quantize bfloat16",
    "quantize bfloat16 -> int8",
    "quantize float32 with mask",
    "quantize bfloat16 with mask",
    "clip gradient from mask, bfloat16",
    "clip gradient from x, bfloat16",
)
KERNELS = {
    "kernel": "pallas",
    "kernel, Triton": "pallas_triton",
    "kernel, Mosaic GPU": "pallas_mosaic_gpu",
    "kernel, jax-triton": "jax_triton",
}
NOISES = {"Philox": "Philox", "hash": "HashUniform"}  # by the names in the cases; the formula's hash is another
FORMS = {form: f"{who}: {{}}" for form, who in (KERNELS | {"XLA's fusion": "xla", "formula": "formula"}).items()}
NOISY_FORMS = {
    **{
        f"{form}, {title}": f"{who}: {{}} with {noise}"
        for noise, title in NOISES.items()
        for form, who in (KERNELS | {"XLA's fusion": "xla"}).items()
    },
    "kernel, the chip's generator": "pallas: {} with hardware noise",
    **{f"formula, {name}": f"formula: {{}} with {name}" for name in GENERATORS},
}
INT8 = "quantize bfloat16 -> int8"
ROWS = f"{INT8} by absmax"  # in the cases of the section on rows; its last columns are of rows of so many elements
SHOWN_ROWS = 4096
# Cases and their forms. Each case without noise is in the README as well.
OPERATIONS = (*((case, FORMS) for case in CASES), ("quantize float32", NOISY_FORMS), (INT8, NOISY_FORMS))


def assumed() -> str:
    heads = ("chip", "memory, GB/s", "clock, GHz", "issued per cycle", "room at memory speed")
    rows = []
    for name, chip in CHIPS.items():
        rates = f"{chip.bandwidth / 1e9:,.0f}", f"{chip.clock / 1e9:.3g}", f"{chip.units} {chip.issued}"
        rows.append((chip.title, *rates, f"{allows(name):.1f} {chip.counted}"))
    return markdown(heads, rows)


def allows(chip: str) -> float:
    """The count that takes as long as memory for bfloat16 to int8."""
    return CHIPS[chip].allows(counts()[f"xla: {INT8}", chip]["least_bytes_per_element"])


def share(chip: Chip, row: dict[str, Any]) -> float:
    """The time that memory takes for the least bytes, as a part of that for all bytes or for the instructions."""
    longer = max(chip.memory(row["bytes_per_element"]), chip.arithmetic(row))
    return chip.memory(row["least_bytes_per_element"]) / longer


def section(name: str) -> str:
    """The table of a chip; under it, why some forms have no count."""
    chip, rows, reasons = CHIPS[name], [], []
    alu = ("ALU",) if chip.alu < 1 else ()
    for case, forms in OPERATIONS:
        title = case.replace("->", "to") + (" with noise" if forms is NOISY_FORMS else "")
        for form, row in ((form, counts().get((pattern.format(case), name))) for form, pattern in forms.items()):
            if row is None:
                continue
            cells = ["-"] * (3 + len(alu))
            if "error" in row:
                reasons.append(f"- {title}, {form}: {row['error']}.\n")
            else:
                ratio = f"{share(chip, row):.0%}"
                cells = [count(row), *(row["alu_per_element"] for _ in alu), f"{row['bytes_per_element']:g}", ratio]
            rows.append((title, form, *map(str, cells)))
    table = markdown(("operation", "form", chip.counted, *alu, "bytes per element", "of memory speed"), rows)
    return f"## {chip.title}\n\n{table}" + ("\n" if reasons else "") + "".join(reasons)


def rows_table() -> str:
    """What makes integers and scales of rows, with a count for each length of a row; under it, why some have none."""
    lines, reasons = [], []
    for name, chip in CHIPS.items():
        for form, pattern in (FORMS | NOISY_FORMS).items():
            stored = (counts().get((f"{pattern.format(ROWS)}, rows of {n}", name)) for n in ROW_FEATURES)
            found = {n: row for n, row in zip(ROW_FEATURES, stored, strict=True) if row}
            right = {n: row for n, row in found.items() if "error" not in row}
            reasons += sorted(
                {f"- {chip.title}, {form}: {row['error']}.\n" for row in found.values() if "error" in row}
            )
            if right:
                last = right.get(SHOWN_ROWS, next(iter(right.values())))
                numbers = (str(count(right[n])) if n in right else "-" for n in ROW_FEATURES)
                moved = f"{last['bytes_per_element']:g}"
                lines.append((chip.title, form, *numbers, moved, f"{share(chip, last):.0%}"))
    lengths = (f"rows of {n:,}" for n in ROW_FEATURES)
    heads = ("chip", "form", *lengths, "bytes per element", "of memory speed")
    return markdown(heads, lines) + ("\n" if reasons else "") + "".join(reasons)


def page() -> str:
    compilers = "; ".join(f"{stored['compiler']} with JAX {stored['jax']}" for stored in reports().values())
    sources = "\n".join(f"- {chip.title}: {chip.source}." for chip in CHIPS.values())
    least = counts()[f"xla: {INT8}", "h100"]["least_bytes_per_element"]
    tables = {"chips": assumed(), "rows": rows_table()}
    head = TEXT.format(compilers=compilers, sources=sources, least=f"{least:g}", shown=f"{SHOWN_ROWS:,}", **tables)
    return "\n".join([head, *map(section, CHIPS)])


if __name__ == "__main__":
    PAGE.write_text(page())
