"""docs/contributing.md, followed to the letter in a copy of this tree."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "contributing.md").read_text()

pytestmark = pytest.mark.tools


def follow(section: str, tree: pathlib.Path) -> str:
    """Writes the files and makes the edits of a section; what its last program prints."""
    text = re.split(r"^## ", PAGE.partition(f"## {section}\n")[2], flags=re.MULTILINE)[0]
    for language, name, body in re.findall(r"```(python|diff)\n# (\S+)\n(.*?)```", text, re.DOTALL):
        path = tree / name
        if language == "python":
            assert not path.exists()
            path.write_text(body)
            continue
        lines, source = body.splitlines(), path.read_text()
        before = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
        assert source.count(before) == 1, f"{name} does not have what the page says, or has it twice"
        path.write_text(source.replace(before, "".join(f"{line[1:]}\n" for line in lines if not line.startswith("-"))))
    environment = os.environ | {"PYTHONPATH": str(tree), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, name], cwd=tree, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    for package in ("intnumerics", "kernels"):
        shutil.copytree(ROOT / package, tmp_path / package, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_a_generator_is_added_as_the_page_says(tree: pathlib.Path) -> None:
    assert follow("Add a generator", tree) == "the pass adds the noise of the function\n"


def test_an_implementation_is_added_as_the_page_says(tree: pathlib.Path) -> None:
    printed = follow("Add an implementation", tree)
    assert f"prints\n\n```text\n{printed}```" in PAGE


def test_every_file_that_the_page_names_is_there() -> None:
    added = {"kernels/generators/product.py", "kernels/numpy_callback.py"}
    named = set(re.findall(r"`((?:intnumerics|kernels|tests)/[\w/.]+)`", PAGE)) - added
    assert len(named) > 15
    assert [name for name in named if not (ROOT / name).exists()] == []
