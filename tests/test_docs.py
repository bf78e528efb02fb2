"""What the pages in docs/ show runs as it stands, and the tests that they name are there."""

import ast
import importlib
import os
import pathlib
import re
import subprocess
import sys

import pytest

from bench.aot import report
from bench.aot.chips import CHIPS, Chip
from bench.baselines import GENERATORS
from bench.results import STORED

ROOT = pathlib.Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "sharding.md").read_text()
STATIC = (ROOT / "docs" / "static-report.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def rows() -> list[list[str]]:
    """The rows of the table of transforms, a cell each."""
    lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def functions_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_the_examples_run_one_after_the_other_and_print_what_the_page_says(tmp_path: pathlib.Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks("python"))],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [done.stdout] == blocks("text")


def test_the_table_names_every_transform_once() -> None:
    transforms = [row[0] for row in rows()]
    assert len(transforms) > 15
    assert len(set(transforms)) == len(transforms)
    assert all(len(row) == 6 for row in rows())


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_each_row_of_the_table_is_held_by_tests_that_are_there(row: list[str]) -> None:
    named = re.findall(r"\[`(test_\w+)`\]\(\.\./(tests/\w+\.py)\)", row[-1])
    assert named
    for name, path in named:
        assert name in functions_in(path)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGE + STATIC))))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / "docs" / link).exists()


def test_the_static_report_is_of_the_stored_counts() -> None:
    assert report.page() == STATIC, "`python -m bench.aot.report` writes it"


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.title)
def test_the_static_report_has_kernels_beside_every_baseline_for_each_chip(chip: Chip) -> None:
    [section] = re.findall(rf"^## {chip.title}\n(.*?)(?=^## |\Z)", STATIC, re.DOTALL | re.MULTILINE)
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    forms = {title: [row[1] for row in table if row[0] == title] for title in dict.fromkeys(r[0] for r in table[2:])}
    assert len(forms) == 9
    for title, found in forms.items():
        assert found[0].startswith("kernel")
        assert any(form.startswith("XLA") for form in found)
        if title.endswith("noise"):
            assert found[-len(GENERATORS) :] == [f"formula, {name}" for name in GENERATORS]
    for row in table[2:]:
        assert row[-1].endswith("%") or f"- {row[0]}, {row[1]}: " in section, "neither counted nor explained"


# --- docs/benchmarks.md -----------------------------------------------------------------------------------------------


@pytest.mark.tools
def test_the_page_of_benchmarks_is_what_the_stored_results_give(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("matplotlib", reason="the report draws plots: pip install 'intnumerics[bench]'")
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    assert importlib.import_module("bench.report").page(STORED, tmp_path) == page
    images = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.svg")}
    assert images == {pathlib.Path(link) for link in re.findall(r"!\[[^]]+\]\((\S+)\)", page)}
    assert images == {path.relative_to(ROOT / "docs") for path in (ROOT / "docs" / "benchmarks").iterdir()}
