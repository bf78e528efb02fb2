"""What the README and docs/implementations.md say in numbers and tables is so.

Its sentences are not held: a number is looked for in the paragraphs of a section, and what has no number is a fact that
a test is named for. Whoever changes what a sentence says looks here for the fact.
"""

import functools
import pathlib
import re
from collections.abc import Callable
from typing import get_args

import prose
import pytest

from bench import results
from bench.aot import report
from bench.aot.chips import CHIPS, count, counts
from intnumerics import kernels
from tools import bias, readme_tables

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
IMPLEMENTATIONS = (ROOT / "docs" / "implementations.md").read_text()
NOISE = (ROOT / "docs" / "noise.md").read_text()
TPUS = ("v5e", "v5p", "v6e")  # on a v4 the compiler cuts XLA's Philox into programs that cannot be counted
CHOICE = "What `None` chooses"
NOISY = f"{report.INT8} with"  # a quantization to int8, with the noise that follows
PLATFORMS = {None: "any", "cpu": "CPU", "cuda": "CUDA", "tpu": "TPU"}
CHOICE_HEADS = ["| platform and case", "`None` picks", "why |"]
ON_V4 = (f"pallas: {NOISY} Philox", f"formula: {NOISY} threefry", f"formula: {NOISY} hash")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8.5 KiB of 1,024, or 12% of it.", {8.5, 1024, 12}),
        ("30, 5.6 and 3.3x", {30, 5.6, 3.3}),
        ("less than half of it, three to four times, twice", {0.5, 3, 4, 2}),
        ("int8 on v5e, 2^24 of 0.12.0.1, 2026-11-24, float32", set()),
    ],
)
def test_a_number_is_read_as_digits_or_as_a_word_but_not_out_of_a_name_or_a_version(
    text: str, expected: set[float]
) -> None:
    assert prose.numbers(text) == expected


def test_numbers_are_looked_for_in_one_paragraph_of_one_section() -> None:
    page = "# A\n\n## B\n\n5\n\n- 1 of 2\n- on\n  a V100\n\n| 6 |\n\n```\n7\n```\n\n## C\n\n8\n"
    assert prose.paragraphs(prose.section(page, "B")) == ["5", "- 1 of 2", "- on a V100"]
    assert prose.says(page, "B", 1, 2)
    assert prose.says(page, "B", "a V100")
    assert not prose.says(page, "B", "a V10")
    assert not prose.says(page, "B", 1, 5)
    assert not any(prose.says(page, "B", n) for n in (6, 7, 8, 100))


@pytest.mark.parametrize(
    ("page", "table"),
    [
        pytest.param(README, readme_tables.measured, id="noise measured"),
        pytest.param(README, readme_tables.counted, id="noise counted"),
        pytest.param(IMPLEMENTATIONS, readme_tables.instructions, id="counts"),
        pytest.param(IMPLEMENTATIONS, readme_tables.fusion, id="fusion"),
        pytest.param(NOISE, lambda: bias.table(bias.stored()), id="bias"),
    ],
)
def test_the_numbers_shown_are_those_stored(page: str, table: Callable[[], str]) -> None:
    assert table() in page


def test_the_machine_and_the_plot_that_it_shows_are_those_of_the_newest_run_on_a_cpu() -> None:
    run = readme_tables.shown()
    [newest] = [path for path, report in results.load() if report == run]
    assert f"(docs/benchmarks/{newest.parent.name}-{newest.stem}-size.svg)" in README
    assert prose.says(README, "Stochastic rounding", run["device"], run["versions"]["jax"])


@pytest.mark.parametrize(
    "run", [pytest.param(r, id=f"{r['device']}, JAX {r['versions']['jax']}") for r in readme_tables.on_cpu()]
)
def test_on_a_cpu_a_hash_is_the_quickest_noise_for_float32_and_not_by_much_if_at_all_for_bfloat16(
    run: results.Report,
) -> None:
    there = {case["operation"] for case in run["cases"]}
    rows = [on_cpu for _, on_cpu, _ in readme_tables.MEASURED if on_cpu and on_cpu[0] in there - {"quantize"}]
    ours = [row for row in rows if row[1] == readme_tables.OURS]
    hashed = (readme_tables.PHILOX, f"{readme_tables.FORMULA}, hash")
    in_float32, in_bfloat16 = (functools.partial(readme_tables.speed, run, dtype=d) for d in readme_tables.DTYPES)
    assert max(rows, key=lambda row: in_float32(*row)) == hashed
    assert max(in_bfloat16(*row) for row in ours) > 0.75 * in_bfloat16(*hashed)


def test_on_a_cpu_hash_uniform_is_nearly_as_fast_as_a_hash_of_your_own_in_float32_and_faster_in_bfloat16() -> None:
    run, name, times = readme_tables.shown(), "HashUniform", list[float]()
    for operation, dtype in (("quantize", "float32"), ("quantize", "bfloat16"), ("quantize to int8", "bfloat16")):
        case = readme_tables.case(run, f"{operation} with {name}", dtype)
        ours, theirs = (results.seconds(case, who) for who in (readme_tables.OURS, f"{readme_tables.FORMULA}, hash"))
        assert ours
        assert theirs
        times.append(theirs / ours)
    in_float32, *in_bfloat16 = times
    assert 0.7 < in_float32 < 0.8
    assert min(in_bfloat16) > 2


def links(page: pathlib.Path) -> list[tuple[pathlib.Path, str, str]]:
    """The links of a page to files: the folder of the page, the file if not the page itself, and the heading if any."""
    found = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text())
    return [(page, name, heading) for name, heading in sorted(set(found))]


PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


@pytest.mark.parametrize(("page", "name", "heading"), [link for page in PAGES for link in links(page)])
def test_links_lead_somewhere(page: pathlib.Path, name: str, heading: str) -> None:
    target = page.parent / name if name else page
    assert target.exists()
    if heading:
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
        assert heading in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in headings}


def test_what_it_says_of_dieharder_is_in_the_report() -> None:
    [path] = set(re.findall(r"\(\.\./(tools/results/dieharder-[\d-]+\.txt)\)", NOISE))
    first, again = (ROOT / path).read_text().split("bytes (", 1)[0], (ROOT / path).read_text().split(" written", 1)[1]
    results = re.findall(r"\|(0\.\d+)\|\s+(\w+)$", first, re.MULTILINE)
    [weak] = [float(p) for p, assessment in results if assessment == "WEAK"]
    assert all(assessment in ("PASSED", "WEAK") for _, assessment in results)
    assert set(re.findall(r"\|\s+(\w+)$", again, re.MULTILINE)) == {"PASSED"}
    gib = int(re.findall(r"^(\d+) bytes", (ROOT / path).read_text(), re.MULTILINE)[0]) // 2**30
    assert prose.says(NOISE, "Quality", path, gib, len(results), round(weak, 3))


def counted(case: str, chip: str) -> float:
    return count(counts()[case, chip])


def moved(case: str, chip: str) -> float:
    return counts()[case, chip]["bytes_per_element"]


def test_what_memory_speed_allows_follows_from_the_chips() -> None:
    h100, *tpus = (report.allows(chip) for chip in readme_tables.CHIPS)
    assert prose.says(README, "Stochastic rounding", round(h100), *(round(tpu, 1) for tpu in tpus))


def test_noise_of_rbg_keys_moves_the_bytes_it_says() -> None:
    for chip in ("h100", *TPUS):
        theirs, ours = (
            moved(f"formula: {report.INT8} with rbg", chip),
            moved(f"{CHIPS[chip].pallas}: {report.INT8} with Philox", chip),
        )
        assert prose.says(README, "Stochastic rounding", theirs, ours), chip


@pytest.mark.parametrize(("chip", "noise"), [("h100", "Philox"), *((chip, "hardware noise") for chip in TPUS)])
def test_a_kernels_noise_is_free_by_the_count_on_an_h100_and_the_hardwares_on_newer_tpus(chip: str, noise: str) -> None:
    assert counted(f"{CHIPS[chip].pallas}: {report.INT8} with {noise}", chip) < report.allows(chip)


def test_the_support_table_lists_every_implementation() -> None:
    rows = re.findall(r'^\| `"(\w+)"` \| (\w+) \| (\w+) \| (\w+) \|', IMPLEMENTATIONS, re.MULTILINE)
    expected = [
        (row.name, PLATFORMS[row.platform], "yes", "yes" if "float64" in row.dtypes else "no") for row in kernels.TABLE
    ]
    assert rows == expected
    assert all(set(kernels.KERNEL_DTYPES) <= set(row.dtypes) for row in kernels.TABLE)


def test_the_readme_names_every_implementation_and_its_platforms() -> None:
    shown = re.findall(r'^\| `"(\w+)"` \| ([\w, ]+) \| ', prose.section(README, "Implementations"), re.MULTILINE)
    platforms = {name: [PLATFORMS[row.platform] for row in kernels.rows_of(name)] for name in get_args(kernels.Name)}
    assert shown == [(name, "any" if "any" in on else ", ".join(on)) for name, on in platforms.items()]


def test_the_table_of_what_none_picks_has_the_stored_numbers() -> None:
    rows = [row.split(" | ") for row in prose.section(README, "Implementations").splitlines() if row.startswith("| ")]
    why = {case.strip("| "): text for case, *_, text in rows[rows.index(CHOICE_HEADS) + 1 :]}
    us = functools.partial(readme_tables.gpu_seconds, dtype="bfloat16")
    ours = [readme_tables.PALLAS, f"{readme_tables.OURS}, xla"]
    drawn, fused = (
        [round(1e6 * us(operation, name)) for name in ours]
        for operation in (readme_tables.DRAWN, readme_tables.CHAINS["after layer norm"])
    )
    on_cpu = readme_tables.speed(readme_tables.shown(), "quantize with HashUniform", readme_tables.OURS, "float32")
    on_v5e = [counted(f"{name}: {NOISY} {one}", "v5e") for name in ("pallas", "xla") for one in ("Philox", "hash")]
    on_v4 = [counted(case, "v4") for case in ON_V4 if "threefry" not in case]
    wanted = {
        "CPU": [round(on_cpu, 1)],
        "CUDA GPU, quantization with Philox": drawn,
        "CUDA GPU, other": [*fused, counted(f"xla: {NOISY} hash", "h100")],
        "TPU": on_v5e + on_v4,
    }
    cast = "xla: cast float32 -> bfloat16 with hash"
    room = CHIPS["h100"].allows(counts()[cast, "h100"]["least_bytes_per_element"])
    wanted["CUDA GPU and TPU, `stochastic_cast`"] = [counted(cast, "h100"), round(room, -1)]
    wanted["CUDA GPU and TPU, scales"] = [3, 5]  # test_readme_scales.py holds them
    assert len(why) == len(wanted)
    for case, numbers in wanted.items():
        [text] = [text for shown, text in why.items() if shown.startswith(case)]
        assert set(numbers) <= prose.numbers(text), case
    assert prose.says(README, "Implementations", *(round(1e6 * us(readme_tables.TO_INT8, name)) for name in ours))


@pytest.mark.parametrize(
    "target",
    [
        "demo",
        "test",
        "test-aot",
        "test-ptx",
        "test-aqt",
        "test-triton",
        "test-gpu",
        "bench",
        "bench-report",
        "static-report",
    ],
)
def test_the_make_targets_it_names_exist(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert f"make {target}" in README + IMPLEMENTATIONS
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
