"""The stored counts as the Markdown table that the README shows.

python -m bench.aot.table
"""

import functools
import json
import pathlib
from typing import Any

from bench.aot.chips import count

COUNTS = pathlib.Path(__file__).parent / "counts"
CHIPS = ("h100", "v5e", "v6e", "v5p")
CASES = (
    "quantize float32",
    "quantize bfloat16",
    "quantize bfloat16 -> int8",
    "quantize float32 with mask",
    "quantize bfloat16 with mask",
    "clip gradient from mask, bfloat16",
    "clip gradient from x, bfloat16",
)


@functools.cache
def reports() -> tuple[dict[str, Any], ...]:
    """What is stored: for a GPU, for one through jax-triton, and for TPUs."""
    return tuple(json.loads((COUNTS / f"{platform}.json").read_text()) for platform in ("cuda", "triton", "tpu"))


def counts() -> dict[tuple[str, str], dict[str, Any]]:
    """Every stored row by its case and chip."""
    return {(row["case"], row["chip"]): row for report in reports() for row in report["cases"]}


def compilers() -> str:
    """What the counts are of."""
    return " and ".join(f"{report['compiler']} with JAX {report['jax']}" for report in reports())


def cell(row: dict[str, Any] | None) -> str:
    """A count, or a dash where there is none for the chip."""
    return str(count(row)) if row and "error" not in row else "-"


def table() -> str:
    """The table."""
    rows = counts()
    lines = [
        "| kernel | H100, instructions | v5e, bundles | v6e, bundles | v5p, bundles "
        "| jax-triton, H100 | XLA's fusion, H100 |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        cells = [cell(rows.get((f"pallas: {case}", chip))) for chip in CHIPS]
        cells += [cell(rows.get((f"{name}: {case}", "h100"))) for name in ("triton", "xla")]
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
