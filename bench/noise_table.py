"""What noise costs, from stored results, as the Markdown table that the README shows.

    python -m bench.noise_table

The times on a CPU and a GPU are those of `python -m bench`; the counts of instructions are those of `bench/aot`.
"""

from bench import results
from bench.aot.table import cell, counts
from bench.operations import FORMULA, OURS, SEED
from bench.results import Measured, Report

INT8 = "quantize bfloat16 -> int8"
DTYPES = ("float32", "bfloat16")
ELEMENTS = 1 << 24
GPU, GPU_ELEMENTS = "NVIDIA H200", 1 << 28

# What the row is called; the operation and who does it on a CPU, and on a GPU, as `python -m bench` names them; and the
# cases of bench/aot for CUDA and for TPU.
TO_INT8 = "quantize to int8"
DRAWN = f"{TO_INT8} with PhiloxUniform"
Variant = tuple[str, str]
PHILOX = "quantize with PhiloxUniform"
ROWS: tuple[tuple[str, Variant | None, Variant | None, str | None, str | None], ...] = (
    ("none", ("quantize", OURS), (TO_INT8, f"{OURS}, pallas"), f"pallas: {INT8}", f"pallas: {INT8}"),
    (
        "`PhiloxUniform`, in a kernel",
        None,
        (DRAWN, f"{OURS}, pallas"),
        f"pallas: {INT8} with Philox",
        f"pallas: {INT8} with Philox",
    ),
    (
        "`PhiloxUniform`, fused by XLA",
        (PHILOX, OURS),
        (DRAWN, f"{OURS}, xla"),
        f"xla: {INT8} with Philox",
        f"xla: {INT8} with Philox",
    ),
    ("`HardwareUniform`, in a kernel", None, None, None, f"pallas: {INT8} with hardware noise"),
    (
        "`RandomCenteredUniform`",
        ("quantize with RandomCenteredUniform", OURS),
        (f"{TO_INT8} with RandomCenteredUniform", OURS),
        None,
        None,
    ),
    (
        "`JaxUniform`",
        ("quantize with JaxUniform", OURS),
        None,
        f"xla: {INT8} with JaxUniform",
        f"xla: {INT8} with JaxUniform",
    ),
    (
        "the formula, `jax.random.uniform` with threefry",
        (PHILOX, SEED),
        (DRAWN, SEED),
        f"formula: {INT8} with threefry",
        f"formula: {INT8} with threefry",
    ),
    (
        "the formula, `jax.random.uniform` with rbg",
        (PHILOX, f"{FORMULA}, rbg"),
        (DRAWN, f"{FORMULA}, rbg"),
        f"formula: {INT8} with rbg",
        f"formula: {INT8} with rbg",
    ),
    (
        "the formula, `jax.random.uniform` with philox4x32",
        (PHILOX, f"{FORMULA}, philox4x32"),
        (DRAWN, f"{FORMULA}, philox4x32"),
        f"formula: {INT8} with philox4x32",
        f"formula: {INT8} with philox4x32",
    ),
    (
        "the formula, a hash of the index in four lines",
        (PHILOX, f"{FORMULA}, hash"),
        (DRAWN, f"{FORMULA}, hash"),
        f"formula: {INT8} with hash",
        f"formula: {INT8} with hash",
    ),
)


def shown() -> Report:
    """Of the stored runs on a CPU, the newest of the newest JAX."""
    newest_first = [report for _, report in results.load() if report["platform"] == "cpu"][::-1]
    return max(newest_first, key=lambda report: [int(n) for n in report["versions"]["jax"].split(".")])


def on_gpu() -> Report:
    """The newest stored run on the GPU."""
    return [report for _, report in results.load() if report["device"] == GPU][-1]


def gpu_seconds(operation: str, name: str, dtype: str = DTYPES[1]) -> float:
    """The device's time for an operation on the largest array, with any number of axes."""
    wanted = (operation, dtype, GPU_ELEMENTS)
    [found] = [c for c in on_gpu()["cases"] if (c["operation"], c["dtype"], results.elements(c)) == wanted]
    seconds = results.device_seconds(found, name)
    assert seconds is not None
    return seconds


def case(report: Report, operation: str, dtype: str) -> Measured:
    """The case of an operation, with `ELEMENTS` along one axis."""
    [found] = [c for c in report["cases"] if (c["operation"], c["dtype"], c["shape"]) == (operation, dtype, [ELEMENTS])]
    return found


def speed(report: Report, operation: str, name: str, dtype: str) -> float:
    """How many times the speed of the formula with threefry; without noise that is of another case of the same run."""
    noisy = case(report, operation if operation != "quantize" else PHILOX, dtype)
    theirs, ours = results.seconds(noisy, SEED), results.seconds(case(report, operation, dtype), name)
    assert theirs is not None
    assert ours is not None
    return theirs / ours


def table() -> str:
    """The table."""
    static, report = counts(), shown()
    lines = ["| noise | CPU, float32 | CPU, bfloat16 | H200 | H100 | v5e | v6e |", "|---|---|---|---|---|---|---|"]
    for title, on_cpu, timed, cuda, tpu in ROWS:
        times = [f"{speed(report, *on_cpu, dtype):.1f}x" if on_cpu else "" for dtype in DTYPES]
        times.append(results.time_text(gpu_seconds(*timed)) if timed else "")
        chips = (("h100", cuda), ("v5e", tpu), ("v6e", tpu))
        cells = [cell(static.get((case, chip))) if case else "" for chip, case in chips]
        lines.append(f"| {title} | {' | '.join(times + cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
