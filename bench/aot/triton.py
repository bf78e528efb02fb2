"""The kernels of jax-triton for an H100: Triton writes PTX, of which the rest is made and counted as in `cuda.py`."""

import pathlib
from importlib import metadata
from typing import Any

from bench.aot import cuda
from intnumerics.kernels import triton


def report(dump: pathlib.Path) -> dict[str, Any]:
    """The counts of every case; jax-triton and XLA dump to `dump`."""
    counted = cuda.report_of(cuda.kernel_cases("triton", triton), dump)
    return counted | {"compiler": f"triton {metadata.version('triton')}, {counted['compiler']}"}
