"""The tables of the README and of docs/implementations.md that come from stored results, in Markdown.

    python -m tools.readme_tables

Times on a CPU and a GPU are those of `python -m bench`, and counts of instructions those of `bench/aot`.
"""

from bench import results
from bench.aot import chips
from bench.aot.report import CASES
from bench.names import FORMULA, OURS, SEED
from bench.results import Measured, Report, markdown
from intnumerics import kernels

DTYPES = ("float32", "bfloat16")
ELEMENTS = 1 << 24
GPU, GPU_ELEMENTS = "NVIDIA H100 80GB HBM3", 1 << 28
TO_INT8, PHILOX = "quantize to int8", "quantize with PhiloxUniform"
DRAWN = f"{TO_INT8} with PhiloxUniform"
COUNTED_CASE = "quantize bfloat16 -> int8"  # as bench/aot names it

FORMULAS = {
    **{name: f"the formula, `jax.random.uniform` with {name}" for name in ("threefry", "rbg", "philox4x32")},
    "hash": "the formula, a hash of the index in four lines",
}
Variant = tuple[str, str]  # an operation and who does it, as `python -m bench` names them
PALLAS = f"{OURS}, pallas_triton"  # what `"pallas"` is on `GPU`
MEASURED: tuple[tuple[str, Variant | None, Variant | None], ...] = (  # on a CPU and on a GPU
    ("none", ("quantize", OURS), (TO_INT8, PALLAS)),
    ("`HashUniform`", ("quantize with HashUniform", OURS), None),
    ("`PhiloxUniform`, in a kernel", None, (DRAWN, PALLAS)),
    ("`PhiloxUniform`, fused by XLA", (PHILOX, OURS), (DRAWN, f"{OURS}, xla")),
    *(
        (f"`{noise}`", (f"quantize with {noise}", OURS), (f"{TO_INT8} with {noise}", OURS))
        for noise in ("RandomCenteredUniform", "JaxUniform")
    ),
    *((title, (PHILOX, f"{FORMULA}, {name}"), (DRAWN, f"{FORMULA}, {name}")) for name, title in FORMULAS.items()),
)
COUNTED = {
    "none": f"{{pallas}}: {COUNTED_CASE}",
    "`HashUniform`, in a kernel": f"{{pallas}}: {COUNTED_CASE} with hash",
    "`HashUniform`, fused by XLA": f"xla: {COUNTED_CASE} with hash",
    "`PhiloxUniform`, in a kernel": f"{{pallas}}: {COUNTED_CASE} with Philox",
    "`PhiloxUniform`, fused by XLA": f"xla: {COUNTED_CASE} with Philox",
    "`HardwareUniform`, in a kernel": f"pallas: {COUNTED_CASE} with hardware noise",
    "`JaxUniform`": f"xla: {COUNTED_CASE} with JaxUniform",
    **{title: f"formula: {COUNTED_CASE} with {name}" for name, title in FORMULAS.items()},
}
H100 = {f"`{name}`": (name, "h100") for name in ("pallas_triton", "pallas_mosaic_gpu", "jax_triton", "xla")}
TPUS = {chip: ("pallas", chip) for chip in ("v4", "v5e", "v5p", "v6e")}
CHIPS = ("h100", "v4", "v5e", "v6e")
OPERATIONS = {  # as kernels/reference.py names them
    "quantize": "`quantize`, without a scale or with its mask",
    "clip_gradient_from_mask": "its backward, from the mask",
    "clip_gradient_from_x": "its backward, from x",
    "quantize_by_scale": "`quantize(scale=...)` with a scale that is given, with or without its mask",
    "clip_gradient_by_scale": "its backward, from x and the scale",
    "absmax": "the maxima of slices along any axes",
    "quantize_by_absmax": "`quantize_tensor` and `quantize(scale=AbsMax(...))` of rows and blocks",
}
CHAINS = {
    "by itself": TO_INT8,
    "after gelu, and before a dot": f"gelu, {TO_INT8}, dot",
    "after layer norm": f"layer norm, {TO_INT8}",
}


def on_cpu() -> list[Report]:
    """The stored runs on a CPU, the newest first."""
    return [run for _, run in results.load() if run["platform"] == "cpu" and run["cases"]][::-1]


def shown() -> Report:
    """The newest run on a CPU of the newest JAX."""
    return max(on_cpu(), key=lambda report: [int(n) for n in report["versions"]["jax"].split(".")])


def on_gpu(device: str = GPU) -> Report:
    """The newest stored run on a GPU."""
    return [report for _, report in results.load() if report["device"] == device][-1]


def gpu_seconds(operation: str, name: str, dtype: str = "bfloat16", device: str = GPU) -> float:
    """The device's time for an operation on the largest array, with any number of axes."""
    wanted = (operation, dtype, GPU_ELEMENTS)
    [found] = [c for c in on_gpu(device)["cases"] if (c["operation"], c["dtype"], results.elements(c)) == wanted]
    seconds = results.seconds(found, name, "device_s")
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


def measured() -> str:
    """What noise costs by the clock."""
    run = shown()
    heads = ("noise", *(f"CPU, {dtype}, times the formula's speed" for dtype in DTYPES), "H100, bfloat16 to int8, us")
    return markdown(heads, [
        (
            title,
            *(f"{speed(run, *on_cpu, dtype):.1f}" if on_cpu else "" for dtype in DTYPES),
            f"{1e6 * gpu_seconds(*timed):.0f}" if timed else "not timed",
        )
        for title, on_cpu, timed in MEASURED
    ])  # fmt: skip


def cell(case: str, chip: str) -> str:
    """A stored count, or a dash if there is none for the chip."""
    row = chips.counts().get((case.format(pallas=chips.CHIPS[chip].pallas), chip), {"error": "not compiled"})
    return "-" if "error" in row else str(chips.count(row))


def counted() -> str:
    """What noise costs by the count, for bfloat16 to int8."""
    heads = ("noise", "H100, instructions per element", *(f"{chip}, bundles per 1,024 elements" for chip in CHIPS[1:]))
    return markdown(heads, [
        (title, *(cell(name, chip) for chip in CHIPS)) for title, name in COUNTED.items()
    ])  # fmt: skip


def instructions() -> str:
    """What each operation costs by the count, on an H100 and on TPUs."""
    tables = []
    for head, columns in (("H100, instructions per element", H100), ("`pallas`, bundles per 1,024 elements", TPUS)):
        cells = ([cell(f"{form}: {case}", chip) for form, chip in columns.values()] for case in CASES)
        tables.append(markdown((head, *columns), ((case, *found) for case, found in zip(CASES, cells, strict=True))))
    return "\n".join(tables)


def operations() -> str:
    """Which implementation has which operation, for docs/implementations.md."""
    rows = {row.room: row for row in kernels.TABLE}.values()  # one for each room
    heads = (
        "operation",
        *(f"`{row.name}`{', TPU' if row.platform == 'tpu' and row.is_kernel else ''}" for row in rows),
    )
    return markdown(heads, [
        (OPERATIONS[name], *("no" if row.operation(name) is None else "yes" for row in rows)) for name in OPERATIONS
    ])  # fmt: skip


def fusion() -> str:
    """What fusion is worth on a GPU, for docs/implementations.md."""
    exponent, ours = GPU_ELEMENTS.bit_length() - 1, {"xla": f"{OURS}, xla", "pallas": PALLAS}
    heads = (f"H100, 2^{exponent} elements of bfloat16 to int8", *(f'`"{name}"`, us' for name in ours))
    return markdown(heads, [
        (title, *(f"{1e6 * gpu_seconds(operation, name):.0f}" for name in ours.values()))
        for title, operation in CHAINS.items()
    ])  # fmt: skip


if __name__ == "__main__":
    print(measured(), counted(), operations(), instructions(), fusion(), sep="\n")
