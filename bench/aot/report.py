"""docs/static-report.md, from the stored counts; `make static-report` stores them first.

python -m bench.aot.report
"""

import pathlib
from typing import Any

from bench.aot.chips import CHIPS, Chip, count
from bench.aot.table import compilers, counts
from bench.baselines import GENERATORS

PAGE = pathlib.Path(__file__).parent.parent.parent / "docs" / "static-report.md"

CASES = (
    "quantize float32",
    "quantize bfloat16",
    "quantize bfloat16 -> int8",
    "quantize float32 with mask",
    "quantize bfloat16 with mask",
    "clip gradient from mask, bfloat16",
    "clip gradient from x, bfloat16",
)
FORMS = {
    "kernel": "pallas: {}",
    "kernel, jax-triton": "jax_triton: {}",
    "XLA's fusion": "xla: {}",
    "formula": "formula: {}",
}
NOISY_FORMS = {
    "kernel, Philox": "pallas: {} with Philox",
    "kernel, jax-triton, Philox": "jax_triton: {} with Philox",
    "kernel, the chip's generator": "pallas: {} with hardware noise",
    "XLA's fusion, Philox": "xla: {} with Philox",
    **{f"formula, {name}": f"formula: {{}} with {name}" for name in GENERATORS},
}
INT8 = "quantize bfloat16 -> int8"
# Cases and their forms. Each case without noise is in the README as well.
OPERATIONS = (*((case, FORMS) for case in CASES), ("quantize float32", NOISY_FORMS), (INT8, NOISY_FORMS))

INTRODUCTION = """# Static report

The machine code that the real compilers make of each kernel, and of what it is compared with, for five chips. No chip
was used. The counts are exact and reproducible. **The times are lower bounds, not measurements**, which are in
[benchmarks](benchmarks.md). `make static-report` compiles everything and writes this page; `make test-aot` holds the
kernels to ceilings.

Compilers: {compilers}. Arrays have 2^24 elements, and 2^28 where XLA compiles plain jnp for a TPU.

- **kernel**: ours, in Pallas. **kernel, jax-triton**: that of `implementation="jax_triton"`. **XLA's fusion**:
  `implementation="xla"`. **formula**: FJFormer's under `jit`, as in [`bench/baselines.py`](../bench/baselines.py), with
  noise of `jax.random.uniform` from three kinds of keys, and with noise of a cheap hash of the index. It has no packed
  mask.
- **Instructions per element**: machine instructions of one thread, divided by the elements that it handles. Both sides
  of a branch count. **ALU**: those for integers, bits, comparisons and selections, of which a scheduler issues one
  every other cycle.
- **Bundles per 1,024 elements**: VLIW bundles. The two cores of a chip share them.
- **Bytes per element**: each kernel reads and writes each of its arrays once.
- **Of memory speed**: the time to read x and write the result, divided by the time for all bytes of the form or by that
  for its instructions, the longer one.

## Assumptions

The last column is the count that takes as long as memory takes for bfloat16 to int8, {least} bytes per element.

{chips}

{sources}
"""


def assumed() -> str:
    """The assumptions as a table."""
    lines = ["| chip | memory, GB/s | clock, GHz | issued per cycle | room at memory speed |", "|---" * 5 + "|"]
    for name, chip in CHIPS.items():
        on_gpu = name == "h100"
        rate = f"{chip.units} {'warp instructions' if on_gpu else 'bundle' + 's' * (chip.units > 1)}"
        room = f"{allows(name):.1f} {'instructions per element' if on_gpu else 'bundles per 1,024 elements'}"
        lines.append(f"| {chip.title} | {chip.bandwidth / 1e9:,.0f} | {chip.clock / 1e9:.3g} | {rate} | {room} |")
    return "\n".join(lines)


def allows(chip: str) -> float:
    """The count that takes as long as memory for bfloat16 to int8."""
    return CHIPS[chip].allows(counts()[f"pallas: {INT8}", chip]["least_bytes_per_element"])


def share(chip: Chip, row: dict[str, Any]) -> float:
    """The time that memory takes for the least bytes, as a part of that for all bytes or for the instructions."""
    longer = max(chip.memory(row["bytes_per_element"]), chip.arithmetic(row))
    return chip.memory(row["least_bytes_per_element"]) / longer


def section(name: str) -> str:
    """The table of a chip; under it, why some forms have no count."""
    chip, on_gpu, reasons = CHIPS[name], name == "h100", []
    heads = ["instructions per element", "ALU"] if on_gpu else ["bundles per 1,024 elements"]
    heads = ["operation", "form", *heads, "bytes per element", "of memory speed"]
    lines = [f"## {chip.title}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for case, forms in OPERATIONS:
        title = case.replace("->", "to") + (" with noise" if forms is NOISY_FORMS else "")
        for form, row in ((form, counts().get((pattern.format(case), name))) for form, pattern in forms.items()):
            if row is None:
                continue
            cells = ["-"] * (len(heads) - 2)
            if "error" in row:
                reasons.append(f"- {title}, {form}: {row['error']}.")
            else:
                cells = [count(row), *([row["alu_per_element"]] if on_gpu else [])]
                cells += [f"{row['bytes_per_element']:g}", f"{share(chip, row):.0%}"]
            lines.append(f"| {title} | {form} | {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, *([""] if reasons else []), *reasons]) + "\n"


def page() -> str:
    """The page."""
    sources = "\n".join(f"- {chip.title}: {chip.source}." for chip in CHIPS.values())
    least = counts()[f"pallas: {INT8}", "h100"]["least_bytes_per_element"]
    head = INTRODUCTION.format(compilers=compilers(), chips=assumed(), sources=sources, least=f"{least:g}")
    return "\n".join([head, *map(section, CHIPS)])


if __name__ == "__main__":
    PAGE.write_text(page())
