"""The rows of `kernels/gpu/tuning.py` as its text: what `python -m bench.tune --store` writes between the two marks."""

import json
import pathlib
from collections.abc import Iterable

from intnumerics.kernels import KERNEL_DTYPES
from intnumerics.kernels.gpu.tuning import Row

PATH = pathlib.Path(__file__).parent.parent / "kernels" / "gpu" / "tuning.py"
BEGIN, END = "\n# fmt: off\n", "# fmt: on\n"
WIDTH = 120
NONE = "    # None yet: no device has been measured."


def merged(rows: Iterable[Row], key: tuple[str, str, str], found: Row | None) -> tuple[Row, ...]:
    """The rows with that of a device, dtype and operation put in the place of the one before, or taken out."""
    others = [row for row in rows if (row.device, row.dtype, row.operation) != key]
    together = [*others, *([] if found is None else [found])]
    return tuple(sorted(together, key=lambda row: (row.device, KERNEL_DTYPES.index(row.dtype), row.operation)))


def text_of(row: Row) -> str:
    """A row as Python, in lines of the project's width."""
    c = row.configuration
    first, *rest = (json.dumps(text) for text in (row.device, row.dtype, row.operation))
    lines = [f"    Row({first}"]
    for part in (*rest, f"Configuration({c.block}, {c.warps})", json.dumps(row.measured)):
        if len(f"{lines[-1]}, {part}),") <= WIDTH:
            lines[-1] += f", {part}"
        else:
            lines[-1] += ","
            lines.append(f"        {part}")
    return "\n".join(lines) + "),"


def rewritten(source: str, rows: Iterable[Row]) -> str:
    """The text of the module with other rows."""
    before, begin, rest = source.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(
            f"kernels/gpu/tuning.py has lost its marks, {BEGIN.strip()!r} and {END.strip()!r}: restore them"
        )
    lines = [text_of(row) for row in rows] or [NONE]
    table = "\n".join(["TABLE: tuple[Row, ...] = (", *lines, ")\n"])
    return f"{before}{begin}{table}{end}{after}"


def store(rows: Iterable[Row], path: pathlib.Path = PATH) -> None:
    """Writes the rows into the module."""
    path.write_text(rewritten(path.read_text(), rows))
