"""What the README and docs/implementations.md say of times on a GPU is so in the stored results."""

import re

import prose
from implementations import COMPILED, PARAMETERS
from test_readme import CHOICE, IMPLEMENTATIONS, README

from bench import results
from intnumerics import kernels
from tools import readme_tables

H200 = "NVIDIA H200"


def test_what_it_says_of_noise_on_a_gpu_is_so_in_the_stored_times() -> None:
    seconds, drawn, pallas = readme_tables.gpu_seconds, readme_tables.DRAWN, readme_tables.PALLAS
    times = (seconds(drawn, "copy"), seconds(drawn, "copy", device=H200), seconds(drawn, pallas, device=H200))
    assert prose.says(README, "Stochastic rounding", *(round(1e6 * t) for t in times))
    assert seconds(drawn, pallas) < 1.01 * seconds(drawn, "copy")
    none, philox = (seconds(operation, pallas, device=H200) for operation in (readme_tables.TO_INT8, drawn))
    assert 1.2 < philox / none < 1.3


def share(operation: str, dtype: str = "bfloat16", device: str = readme_tables.GPU) -> float:
    """The time of the Pallas kernel divided by that of XLA's form."""
    names = (readme_tables.PALLAS, "intnumerics, xla")
    pallas, xla = (readme_tables.gpu_seconds(operation, name, dtype, device) for name in names)
    return pallas / xla


def test_what_it_says_of_the_choice_on_a_gpu_is_so_in_the_stored_times() -> None:
    drawn, philox = readme_tables.DRAWN, readme_tables.PHILOX
    gelu, norm = (f"gelu, {readme_tables.TO_INT8}, dot with PhiloxUniform", f"layer norm, {drawn}")
    alone = [share(operation, device=device) for operation in (drawn, philox) for device in (readme_tables.GPU, H200)]
    masked = [share(f"{philox}, keeping the mask", device=device) for device in (readme_tables.GPU, H200)]
    of_float32 = [share(case, "float32", device) for case in (drawn, gelu) for device in (readme_tables.GPU, H200)]
    for shares in ((min(alone), max(alone), masked[1], share(gelu), share(norm)), of_float32):
        assert prose.says(IMPLEMENTATIONS, CHOICE, *(round(one, 2) for one in shares))
    assert 0.97 < masked[0] < 1.03


def test_the_tests_that_passed_on_a_gpu_are_counted_as_stored() -> None:
    tables = (path.with_suffix(".txt").read_text() for path, run in results.load() if run["platform"] == "cuda")
    passed = [int(n) for text in tables for n in re.findall(r"\| (\d+) of \d+ tests", text)]
    assert prose.says(IMPLEMENTATIONS, "How each implementation was verified", *passed, "H200", "H100")


def test_every_row_for_cuda_says_that_its_compiled_code_was_run_and_tests_run_it() -> None:
    table = prose.section(IMPLEMENTATIONS, "How each implementation was verified")
    rows = re.findall(r'^\| `"(\w+)"` \| CUDA \|.*\| (.*) \|$', table, re.MULTILINE)
    assert [name for name, how in rows if "its compiled code was run, with NumPy's bits" in how] == [n for n, _ in rows]
    assert sorted(name for name, _ in rows) == sorted(row.name for row in kernels.TABLE if row.platform == "cuda")
    assert {where.name for where in COMPILED.values()} == {name for name, _ in rows}
    assert set(COMPILED) <= {parameter.id for parameter in PARAMETERS}
