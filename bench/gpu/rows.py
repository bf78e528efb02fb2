"""The rows of a copy of kernels/tuning.py."""

import importlib.util
import pathlib
import sys

from intnumerics.kernels import tuning


def load(path: pathlib.Path) -> tuple[tuning.Row, ...]:
    """The rows of the table that a file has, in the classes of the module."""
    spec = importlib.util.spec_from_file_location("intnumerics.kernels.tuning_of_a_run", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for themselves
    spec.loader.exec_module(module)
    rows = []
    for row in module.TABLE:
        c = row.configuration
        rows.append(
            tuning.Row(row.device, row.dtype, row.operation, tuning.Configuration(c.block, c.warps), row.measured)
        )
    return tuple(rows)
