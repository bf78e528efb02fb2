"""The kernels of jax-triton for an H100: Triton writes PTX, of which the rest is made and counted as in `cuda.py`."""

from importlib import metadata

from bench.aot import cuda
from bench.aot.cases import Case
from bench.aot.cuda import measure as measure
from intnumerics.kernels import jax_triton


def jobs(everything: bool) -> list[tuple[Case, str]]:
    """What to compile for which chip: the same, whether it is tested or reported."""
    return [(case, "h100") for case in cuda.kernel_cases("triton", jax_triton)]


def compiler() -> str:
    """The compilers and their versions."""
    return f"triton {metadata.version('triton')}, {cuda.compiler()}"
