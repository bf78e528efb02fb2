"""What the README promises in code and numbers is so."""

import functools
import pathlib
import re
from collections.abc import Callable

import numpy as np
import pytest

from bench import bias, noise_table, results
from bench.aot import report
from bench.aot.chips import count
from bench.aot.table import counts, table
from bench.baselines import GENERATORS
from intnumerics import kernels

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TPUS = ("v5e", "v5p", "v6e")  # on a v4 the compiler cuts XLA's Philox into programs that cannot be counted


def quick_start() -> str:
    found = re.search(r"## Quick start\n\n```python\n(.*?)```", README, re.DOTALL)
    assert found
    return found.group(1)


def test_the_quick_start_runs_and_is_at_most_ten_lines() -> None:
    assert len([line for line in quick_start().splitlines() if line.strip()]) <= 10
    names: dict[str, np.ndarray] = {}
    exec(quick_start(), names)
    x, y, q, scale = (np.asarray(names[name]) for name in ("x", "y", "q", "scale"))
    assert q.dtype == np.int8
    assert np.abs(q.astype(int)).max() == 127
    np.testing.assert_array_equal(q, np.rint(np.clip(x * scale, -127, 127)))
    np.testing.assert_array_equal(y, q.astype(np.float32) / scale)


@pytest.mark.parametrize(
    "table", [table, noise_table.table, lambda: bias.table(bias.stored())], ids=["counts", "noise", "bias"]
)
def test_the_numbers_shown_are_those_stored(table: Callable[[], str]) -> None:
    assert table() in README


def test_the_machine_and_the_plot_that_it_shows_are_those_of_the_newest_run_on_a_cpu() -> None:
    run = noise_table.shown()
    [newest] = [path for path, report in results.load() if report == run]
    assert f"(docs/benchmarks/{newest.parent.name}-{newest.stem}-size.svg)" in README
    assert f"on {run['device']}, with JAX {run['versions']['jax']}" in " ".join(README.split())


@pytest.mark.parametrize("run", [pytest.param(r, id=r["device"]) for _, r in results.load() if r["platform"] == "cpu"])
def test_on_a_cpu_a_hash_is_the_quickest_noise_for_float32_and_not_by_much_if_at_all_for_bfloat16(
    run: results.Report,
) -> None:
    said = "on a CPU it is the quickest noise for float32, while for bfloat16 ours come near it or pass it"
    assert said in " ".join(README.split())
    rows = [on_cpu for _, on_cpu, _, _ in noise_table.ROWS if on_cpu and on_cpu[0] != "quantize"]
    ours = [row for row in rows if row[1] == noise_table.OURS]
    hashed = (noise_table.PHILOX, f"{noise_table.FORMULA}, hash")
    in_float32, in_bfloat16 = (functools.partial(noise_table.speed, run, dtype=d) for d in noise_table.DTYPES)
    assert max(rows, key=lambda row: in_float32(*row)) == hashed
    assert max(in_bfloat16(*row) for row in ours) > 0.75 * in_bfloat16(*hashed)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:|#)([^)#]+)", README))))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def test_what_it_says_of_dieharder_is_in_the_report() -> None:
    [path] = re.findall(r"\[report\]\((bench/results/dieharder-[\d-]+\.txt)\)", README)
    first, again = (ROOT / path).read_text().split("bytes (", 1)[0], (ROOT / path).read_text().split(" written", 1)[1]
    results = re.findall(r"\|(0\.\d+)\|\s+(\w+)$", first, re.MULTILINE)
    [weak] = [float(p) for p, assessment in results if assessment == "WEAK"]
    assert all(assessment in ("PASSED", "WEAK") for _, assessment in results)
    assert set(re.findall(r"\|\s+(\w+)$", again, re.MULTILINE)) == {"PASSED"}
    gib = int(re.findall(r"^(\d+) bytes", (ROOT / path).read_text(), re.MULTILINE)[0]) // 2**30
    text = " ".join(README.split())
    assert f"All of dieharder's tests were run on {gib} GiB of the stream" in text
    assert f"None failed; one of {len(results)} p-values was weak, {weak:.3f}, and passed on other words" in text


def counted(case: str, chip: str) -> float:
    return count(counts()[case, chip])


def moved(case: str, chip: str) -> float:
    return counts()[case, chip]["bytes_per_element"]


def test_what_memory_speed_allows_follows_from_the_chips() -> None:
    h100, v5e, v6e = (report.allows(chip) for chip in ("h100", "v5e", "v6e"))
    assert f"about {h100:.0f}, {v5e:.1f} and {v6e:.1f} of them" in " ".join(README.split())


def test_noise_of_rbg_keys_moves_the_bytes_it_says() -> None:
    for chip in ("h100", *TPUS):
        theirs, ours = (
            moved(f"formula: {report.INT8} with rbg", chip),
            moved(f"pallas: {report.INT8} with Philox", chip),
        )
        assert f"{theirs:g} bytes an element where a kernel moves {ours:g}." in " ".join(README.split()), chip


def test_noise_is_free_where_it_says_so() -> None:
    assert "noise is free on an H100, and on TPUs from v5e on the hardware's is" in " ".join(README.split())
    free = [("h100", "Philox"), *((chip, "hardware noise") for chip in TPUS)]
    for chip, noise in free:
        assert counted(f"pallas: {report.INT8} with {noise}", chip) < report.allows(chip), chip


@pytest.mark.parametrize(
    ("claim", "ratios", "low", "high"),
    [
        (
            "draws Philox noise in less than half of XLA's instructions",
            [
                counted(f"pallas: {case} with Philox", "h100") / counted(f"xla: {case} with Philox", "h100")
                for case in ("quantize float32", "quantize bfloat16", report.INT8)
            ],
            0.3,
            0.5,
        ),
        (
            "XLA takes several times the instructions for Philox",
            [
                counted(f"xla: {report.INT8} with Philox", chip) / counted(f"pallas: {report.INT8} with Philox", chip)
                for chip in TPUS
            ],
            3,
            10,
        ),
        (
            "and three to four times the bytes for the mask",
            [
                moved(f"xla: {case}", chip) / moved(f"pallas: {case}", chip)
                for case in ("quantize bfloat16 with mask", "clip gradient from mask, bfloat16")
                for chip in TPUS
            ],
            2.5,
            4.5,
        ),
        (
            "Philox noise takes it several times a kernel's instructions, twice those of threefry",
            [
                counted(f"xla: {report.INT8} with Philox", chip) / counted(f"xla: {report.INT8} with JaxUniform", chip)
                for chip in TPUS
            ],
            1.5,
            2.5,
        ),
        (
            "is no match for a kernel on an H100",
            [
                counted(f"formula: {report.INT8} with {generator}", "h100")
                / counted(f"pallas: {report.INT8} with Philox", "h100")
                for generator in GENERATORS
            ],
            1.5,
            10,
        ),
        (
            "on those TPUs it costs less than Philox",
            [
                counted(f"formula: {report.INT8} with hash", chip) / counted(f"pallas: {report.INT8} with Philox", chip)
                for chip in TPUS
            ],
            0.1,
            1,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_it_says_of_counts_is_so_in_those_stored(claim: str, ratios: list[float], low: float, high: float) -> None:
    assert claim in " ".join(README.split())
    assert low < min(ratios)
    assert max(ratios) < high


def test_the_example_of_stochastic_rounding_runs_after_the_quick_start_and_is_right_on_average() -> None:
    found = re.search(r"## Stochastic rounding\n.*?```python\n(.*?)```", README, re.DOTALL)
    assert found
    names: dict[str, np.ndarray] = {}
    exec(quick_start() + found.group(1), names)
    x, q, scale = (np.asarray(names[name]).astype(np.float64) for name in ("x", "q", "scale"))
    error = q - x * scale
    assert np.abs(error).max() < 1
    assert 0.4 < error.std() < 0.42  # of a uniform x between two buckets: sqrt(1 / 6)
    assert abs(error.mean()) < 5 * error.std() / np.sqrt(error.size)


def test_the_support_table_lists_every_implementation() -> None:
    rows = re.findall(r'^\| `"(\w+)"` \| (\w+) \| (\w+) \| (\w+) \|', README, re.MULTILINE)
    platforms = {None: "any", "cpu": "CPU", "cuda": "CUDA", "tpu": "TPU"}
    expected = [
        (row.name, platforms[row.platform], "yes", "yes" if "float64" in row.dtypes else "no") for row in kernels.TABLE
    ]
    assert rows == expected
    assert all(set(kernels.KERNEL_DTYPES) <= set(row.dtypes) for row in kernels.TABLE)


@pytest.mark.parametrize(
    "target", ["demo", "test", "test-aot", "test-triton", "test-gpu", "bench", "bench-report", "static-report"]
)
def test_the_make_targets_it_names_exist(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert f"make {target}" in README
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
