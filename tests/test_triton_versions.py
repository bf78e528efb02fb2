"""Which versions of JAX, jax-triton and Triton work together, and what the extra `triton` installs."""

import itertools
import pathlib
import tomllib
from importlib import metadata

import jax
import jax.numpy as jnp
import pytest
from packaging.requirements import Requirement  # of pytest

from intnumerics import IntNumerics, quantize
from intnumerics.kernels.jax_triton import versions as supported_versions

FOUND = {"jax": "0.11.2", "jax-triton": "0.3.1", "triton": "3.6.0"}


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The versions that seem to be installed."""
    versions = dict(FOUND)

    def version(package: str) -> str:
        if package not in versions:
            raise metadata.PackageNotFoundError(package)
        return versions[package]

    monkeypatch.setattr(supported_versions.metadata, "version", version)
    return versions


def by_name(x: jax.Array) -> jax.Array:
    numerics = IntNumerics(8, True, True, True, True, True, None)
    return quantize(x, numerics, implementation="jax_triton")


WORKING = [
    ("0.10.2", "0.3.1", "3.6.0"),
    ("0.11.2", "0.3.1", "3.6.0"),
    ("0.12.0.1", "0.3.1", "3.6.0"),
    ("0.11.2", "0.4.1", "3.7.0"),
    ("0.11.2", "0.4.1", "3.10.0"),
    ("0.11.3.dev20260101+abc", "0.4.1", "3.9.0+git1"),
]


@pytest.mark.parametrize("versions", WORKING, ids=" ".join)
def test_versions_that_work_together_are_taken(found: dict[str, str], versions: tuple[str, ...]) -> None:
    found.update(zip(FOUND, versions, strict=True))
    assert supported_versions.check()[:2] == tuple(map(int, versions[1].split(".")[:2]))


BROKEN = [
    ("0.12.0.1", "0.4.1", "3.9.0"),
    ("0.10.2", "0.4.1", "3.9.0"),
    ("0.11.2", "0.4.1", "3.6.0"),
    ("0.11.2", "0.3.0", "3.6.0"),
    ("0.11.2", "0.3.1", "3.5.1"),
    ("0.13.0", "0.3.1", "3.6.0"),
    ("0.11.2", "0.5.0", "3.9.0"),
]


@pytest.mark.parametrize("versions", BROKEN, ids=" ".join)
def test_others_are_refused_with_those_found_and_wanted_before_anything_is_compiled(
    found: dict[str, str], versions: tuple[str, ...]
) -> None:
    found.update(zip(FOUND, versions, strict=True))
    words = [*versions, "jax-triton 0.3.1", "JAX 0.10.2", "triton 3.6 or newer", "jax-triton 0.4", "JAX 0.11", "3.7"]
    with pytest.raises(ImportError, match="do not work together") as error:
        jax.jit(by_name).trace(jax.ShapeDtypeStruct((16,), jnp.float32)).lower(lowering_platforms=("cuda",))
    assert all(word in str(error.value) for word in [*words, "pip install 'intnumerics[triton]'"])


@pytest.mark.parametrize("package", ["jax-triton", "triton"])
def test_a_missing_package_is_named_with_how_to_install_it(found: dict[str, str], package: str) -> None:
    del found[package]
    with pytest.raises(ImportError, match=rf"needs {package}, which is not installed: pip install 'intnumerics\["):
        jax.jit(by_name).trace(jax.ShapeDtypeStruct((16,), jnp.float32)).lower(lowering_platforms=("cuda",))


RELEASES = {"jax-triton": ("0.3.0", "0.3.1", "0.4.0", "0.4.1"), "triton": ("3.5.1", "3.6.0", "3.7.0", "3.7.1", "3.9.0")}


@pytest.mark.parametrize("jax_version", ["0.10.2", "0.11.2", "0.12.0.1"])
def test_what_the_extra_installs_works_with_every_line_of_jax_that_is_tested(
    found: dict[str, str], jax_version: str
) -> None:
    project = tomllib.loads((pathlib.Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    extra = [Requirement(requirement) for requirement in project["optional-dependencies"]["triton"]]
    installed = [[v for v in RELEASES[package.name] if v in package.specifier] for package in extra]
    assert [package.name for package in extra] == ["jax-triton", "triton"]
    assert all(installed)
    for jax_triton_version, triton_version in itertools.product(*installed):
        found.update({"jax": jax_version, "jax-triton": jax_triton_version, "triton": triton_version})
        supported_versions.check()
