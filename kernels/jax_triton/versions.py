"""Which versions of JAX, jax-triton and Triton work together: pip cannot tell, as jax-triton has no upper bounds."""

import dataclasses
import re
from importlib import metadata

Version = tuple[int, ...]
PACKAGES = ("jax", "jax-triton", "triton")
INSTALL = "pip install 'intnumerics[triton]'"


@dataclasses.dataclass(frozen=True)
class Combination:
    """Versions that work together: from the first version, and below the second one if there are two."""

    jax_triton: tuple[Version, Version]
    jax: tuple[Version, Version]
    triton: Version

    def has(self, jax: Version, jax_triton: Version, triton: Version) -> bool:
        """Whether the combination includes these versions."""
        ranges = ((jax_triton, self.jax_triton), (jax, self.jax))
        return all(first <= version < end for version, (first, end) in ranges) and triton >= self.triton

    def __str__(self) -> str:
        (jax_triton, before_jax_triton), (jax, before_jax) = self.jax_triton, self.jax
        return (
            f"jax-triton {_text(jax_triton)} (before {_text(before_jax_triton)}) with "
            f"JAX {_text(jax)} (before {_text(before_jax)}) and triton {_text(self.triton)} or newer"
        )


# Since 0.4, jax-triton has a rule for dead code, which JAX 0.12 calls with one more argument. Under `jit` the public
# functions do not reach this rule, but every direct call of a kernel fails.
SUPPORTED = (
    Combination(jax_triton=((0, 3, 1), (0, 4)), jax=((0, 10, 2), (0, 13)), triton=(3, 6)),
    Combination(jax_triton=((0, 4), (0, 5)), jax=((0, 11), (0, 12)), triton=(3, 7)),
)


def check() -> Version:
    """The installed version of jax-triton."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            raise ImportError(
                f"implementation='jax_triton' needs {package}, which is not installed: {INSTALL}"
            ) from None
    jax, jax_triton, triton = (_numbers(found[package]) for package in PACKAGES)
    if not any(combination.has(jax, jax_triton, triton) for combination in SUPPORTED):
        raise ImportError(
            f"implementation='jax_triton' found JAX {found['jax']}, jax-triton {found['jax-triton']} and triton "
            f"{found['triton']}, which do not work together: it wants {', or '.join(map(str, SUPPORTED))}; {INSTALL}"
        )
    return jax_triton


def _numbers(version: str) -> Version:
    """The numbers at the beginning of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", re.split(r"[^\d.]", version, maxsplit=1)[0]))


def _text(version: Version) -> str:
    return ".".join(map(str, version))
