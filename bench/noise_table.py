"""What noise costs, from stored results, as the Markdown table that the README shows.

    make bench ARGS='bench/test_noise.py --benchmark-json=bench/results/cpu/noise-jax-0.12.0.1.json' JAX=0.12.0.1
    python -m bench.noise_table

The times on a CPU are those of `bench/test_noise.py`; the counts of instructions are those of `bench/aot`.
"""

import json
import pathlib

from bench import RATIO
from bench.aot.table import cell, counts

RESULTS = pathlib.Path(__file__).parent / "results" / "cpu"
SHOWN = "0.12.0.1"  # of the stored versions of JAX; the newest
INT8 = "quantize bfloat16 -> int8"

# What the row is called, the noise function in bench/test_noise.py, and the cases of bench/aot for CUDA and for TPU.
ROWS = (
    ("none", "none", f"pallas: {INT8}", f"pallas: {INT8}"),
    ("`PhiloxUniform`, in a kernel", None, f"pallas: {INT8} with Philox", f"pallas: {INT8} with Philox"),
    ("`PhiloxUniform`, fused by XLA", "PhiloxUniform", f"xla: {INT8} with Philox", f"xla: {INT8} with Philox"),
    ("`HardwareUniform`, in a kernel", None, None, f"pallas: {INT8} with hardware noise"),
    ("`RandomCenteredUniform`", "RandomCenteredUniform", None, None),
    ("`JaxUniform`", "JaxUniform", f"xla: {INT8} with JaxUniform", f"xla: {INT8} with JaxUniform"),
    (
        "FJFormer's formula with `jax.random.uniform`",
        "formula",
        f"formula: {INT8} with threefry",
        f"formula: {INT8} with threefry",
    ),
    ("the same with a hash of the index", None, f"formula: {INT8} with hash", f"formula: {INT8} with hash"),
)


def ratios(jax_version: str) -> dict[tuple[str, str], float]:
    """How many times the formula's speed each noise function has on a CPU, by its name and the dtype of x."""
    stored = json.loads((RESULTS / f"noise-jax-{jax_version}.json").read_text())
    found = {("formula", dtype): 1.0 for dtype in ("float32", "bfloat16")}
    for row in stored["benchmarks"]:
        noise, dtype = row["name"].removeprefix("test_noise[").removesuffix("]").split("-")
        found[noise, dtype] = row["extra_info"][RATIO]
    return found


def table() -> str:
    """The table."""
    static, speed = counts(), ratios(SHOWN)
    lines = [
        "| noise | CPU, float32 | CPU, bfloat16 | H100 | v5e | v6e |",
        "|---|---|---|---|---|---|",
    ]
    for name, on_cpu, on_gpu, on_tpu in ROWS:
        times = [f"{speed[on_cpu, dtype]:.1f}x" if on_cpu else "" for dtype in ("float32", "bfloat16")]
        chips = (("h100", on_gpu), ("v5e", on_tpu), ("v6e", on_tpu))
        cells = [cell(static.get((case, chip))) if case else "" for chip, case in chips]
        lines.append(f"| {name} | {' | '.join(times + cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
