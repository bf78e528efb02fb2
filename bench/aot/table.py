"""The stored counts, and the Markdown tables of docs/implementations.md.

python -m bench.aot.table
"""

import functools
import json
import pathlib
from typing import Any

from bench.aot.chips import count

COUNTS = pathlib.Path(__file__).parent / "counts"
PLATFORMS = ("cuda", "jax_triton", "tpu")
CASES = (
    "quantize float32",
    "quantize bfloat16",
    "quantize bfloat16 -> int8",
    "quantize float32 with mask",
    "quantize bfloat16 with mask",
    "clip gradient from mask, bfloat16",
    "clip gradient from x, bfloat16",
)
H100 = {"`pallas`": ("pallas", "h100"), "`jax_triton`": ("jax_triton", "h100"), "`xla`": ("xla", "h100")}
TPUS = {chip: ("pallas", chip) for chip in ("v4", "v5e", "v5p", "v6e")}


@functools.cache
def reports() -> dict[str, dict[str, Any]]:
    """What is stored, by platform."""
    return {platform: json.loads((COUNTS / f"{platform}.json").read_text()) for platform in PLATFORMS}


def counts() -> dict[tuple[str, str], dict[str, Any]]:
    """Every stored row by its case and chip."""
    return {(row["case"], row["chip"]): row for report in reports().values() for row in report["cases"]}


def compilers() -> str:
    """What the counts are of."""
    return "; ".join(f"{report['compiler']} with JAX {report['jax']}" for report in reports().values())


def cell(row: dict[str, Any] | None) -> str:
    """A count, or a dash if there is none for the chip."""
    return str(count(row)) if row and "error" not in row else "-"


def table() -> str:
    """Two tables: of an H100 and of TPUs."""
    found = []
    for head, columns in (("H100, instructions per element", H100), ("`pallas`, bundles per 1,024 elements", TPUS)):
        found += [f"| {head} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        for case in CASES:
            cells = [cell(counts().get((f"{form}: {case}", chip))) for form, chip in columns.values()]
            found.append(f"| {case} | {' | '.join(cells)} |")
        found.append("")
    return "\n".join(found).strip()


if __name__ == "__main__":
    print(table())
