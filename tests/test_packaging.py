"""What is in the distributions, and that the wheel works where nothing else of the project is."""

import email
import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
MADE_HERE = shutil.ignore_patterns(
    ".git", ".venv*", "build", "dist", "out", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", ".benchmarks"
)
QUANTIZE = """
import jax.numpy as jnp
import intnumerics
numerics = intnumerics.IntNumerics(
    bits=8, preserve_zero=True, preserve_max_val=False, clip=True, clip_gradient=True, round=True, noise_fn=None
)
print(intnumerics.__file__, intnumerics.kernels.__file__, intnumerics.quantize(jnp.array([0.4, 1.5, 999.0]), numerics))
"""

pytestmark = [pytest.mark.packaging, pytest.mark.xdist_group("packaging"), pytest.mark.tools]


class Distributions(NamedTuple):
    sdist: Path
    wheel: Path


def run(*command: str | Path, cwd: Path) -> str:
    """Runs a command with this interpreter and returns what it printed; its errors are in the failure's message."""
    done = subprocess.run([sys.executable, *command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(kind: str, tree: Path, out: Path) -> Path:
    """Builds a distribution of a source tree with the setuptools that is installed here: nothing is downloaded."""
    run("-m", "build", f"--{kind}", "--no-isolation", "--outdir", out, tree, cwd=tree)
    (made,) = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


def files_of_wheel(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def files_of_sdist(sdist: Path) -> set[str]:
    """The names in an sdist, less the folder that all of them are in."""
    with tarfile.open(sdist) as archive:
        return {member.name.partition("/")[2] for member in archive if not member.isdir()}


LINK = ROOT / "intnumerics" / "kernels"


def sources(folder: str) -> set[str]:
    """The modules in a folder and, but for those behind the link, in the folders in it."""
    return {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*.py") if LINK not in path.parents}


def copy_of_tree(folder: Path) -> Path:
    return Path(shutil.copytree(ROOT, folder / "tree", symlinks=True, ignore=MADE_HERE))


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """Both distributions, built from a copy of this tree, so that what is left of other builds has no part in it."""
    pytest.importorskip("build", reason="needs build, of the dependency group test")
    version = importlib.metadata.version("setuptools") if importlib.util.find_spec("setuptools") else "0"
    if int(version.partition(".")[0]) < 77:
        pytest.skip(f"needs setuptools 77 or newer, of the dependency group test; found {version}")
    tree, out = copy_of_tree(tmp_path_factory.mktemp("source")), tmp_path_factory.mktemp("dist")
    return Distributions(build("sdist", tree, out), build("wheel", tree, out))


@pytest.fixture(scope="session")
def wheel(distributions: Distributions) -> dict[str, bytes]:
    return files_of_wheel(distributions.wheel)


def test_wheel_holds_the_package_with_its_kernels_and_nothing_else(wheel: dict[str, bytes]) -> None:
    expected = (
        sources("intnumerics") | {f"intnumerics/{name}" for name in sources("kernels")} | {"intnumerics/py.typed"}
    )
    assert "intnumerics/kernels/__init__.py" in expected
    assert {name for name in wheel if ".dist-info/" not in name} == expected


def test_wheel_carries_the_licence(wheel: dict[str, bytes]) -> None:
    (licence,) = (content for name, content in wheel.items() if name.endswith("/licenses/LICENSE"))
    assert licence == (ROOT / "LICENSE").read_bytes()


def test_wheel_asks_for_jax_jaxlib_and_numpy_only(wheel: dict[str, bytes]) -> None:
    (content,) = (content for name, content in wheel.items() if name.endswith("/METADATA"))
    metadata = email.message_from_bytes(content)
    requirements = metadata.get_all("Requires-Dist", [])
    assert {r for r in requirements if "extra ==" not in r} == {"jax>=0.10.2", "jaxlib", "numpy"}
    assert set(metadata.get_all("Provides-Extra", [])) == {"cuda12", "cuda13", "tpu", "triton", "bench", "demo"}
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"


def test_sdist_holds_what_it_takes_to_build_and_test(distributions: Distributions) -> None:
    files = files_of_sdist(distributions.sdist)
    named = {"pyproject.toml", "Makefile", "README.md", "CHANGELOG.md", "LICENSE", "MANIFEST.in", ".ci/run"}
    expected = named | {"intnumerics/py.typed"} | sources("intnumerics") | sources("kernels") | sources("tests")
    assert expected - files == set()
    assert not [name for name in files if name.startswith("intnumerics/kernels")], "the link is not for an sdist"


def test_wheel_of_the_sdist_is_the_wheel_of_the_tree(
    distributions: Distributions, wheel: dict[str, bytes], tmp_path: Path
) -> None:
    with tarfile.open(distributions.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    assert files_of_wheel(build("wheel", tree, tmp_path / "dist")) == wheel


def test_a_clone_without_symbolic_links_builds_the_same_wheel(wheel: dict[str, bytes], tmp_path: Path) -> None:
    tree = copy_of_tree(tmp_path)
    link = tree / "intnumerics" / "kernels"
    link.unlink(missing_ok=True)
    link.write_text("../kernels")  # what git leaves where it may not make a link
    assert files_of_wheel(build("wheel", tree, tmp_path / "dist")) == wheel


def test_installed_wheel_works_in_an_empty_environment_from_another_folder(
    distributions: Distributions, tmp_path: Path
) -> None:
    environment, elsewhere = tmp_path / "environment", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run("-m", "venv", "--without-pip", environment, cwd=elsewhere)
    python = environment / "bin" / "python"
    run("-m", "pip", "--python", python, "install", "--no-index", "--no-deps", distributions.wheel, cwd=elsewhere)
    (packages,) = environment.glob("lib/python*/site-packages")
    # Its dependencies are borrowed from here: a line of a .pth file adds a folder but runs no .pth file that is in it,
    # so an editable installation of this tree stays out.
    borrowed = {str(Path(found).parent.parent) for found in map(origin, ("jax", "jaxlib", "numpy", "scipy"))}
    (packages / "borrowed.pth").write_text("\n".join(sorted(borrowed)))
    done = subprocess.run(
        [python, "-I", "-c", QUANTIZE], cwd=elsewhere, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    file, kernels_file, values = done.stdout.split(maxsplit=2)
    assert Path(file) == packages / "intnumerics" / "__init__.py"
    assert Path(kernels_file) == packages / "intnumerics" / "kernels" / "__init__.py"
    assert re.findall(r"[\d.]+", values) == ["0.", "2.", "127."]


def origin(module: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    return spec.origin


def test_importing_the_folder_as_kernels_says_what_to_import_instead() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import kernels"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: ")
    assert "intnumerics" in done.stderr.splitlines()[-1]
