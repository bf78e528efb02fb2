"""The rows of a copy of kernels/gpu/tuning.py."""

import pathlib
import sys
import types

from intnumerics.kernels.gpu import tuning


def load(path: pathlib.Path) -> tuple[tuning.Row, ...]:
    """The rows of the table that a file has, in the classes of the module."""
    module = types.ModuleType(f"{tuning.__name__}_of_a_run")
    module.__package__ = tuning.__package__
    sys.modules[module.__name__] = module  # where its dataclasses look for themselves
    exec(compile(path.read_text(), str(path), "exec"), module.__dict__)  # an import would leave its bytecode there
    rows = []
    for row in module.TABLE:
        c = row.configuration
        rows.append(
            tuning.Row(row.device, row.dtype, row.operation, tuning.Configuration(c.block, c.warps), row.measured)
        )
    return tuple(rows)
