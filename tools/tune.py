"""Finds the fastest block size and number of warps for each kernel on this machine's NVIDIA GPU.

    python -m tools.tune                        # every kernel of Pallas, within 8 minutes; writes nothing
    python -m tools.tune --store                # also writes the rows of kernels/gpu/tuning.py
    python -m tools.tune --store FILE           # writes them into a copy
    python -m tools.tune --only mosaic bfloat16 # kernels by words in their names: "pallas_mosaic_gpu: quantize, ..."

Not every combination is tried. First the elements per thread vary, with the warps of the default; then the warps, with
the elements that were best. What is tried has at least eight elements per thread, in blocks of 1,024 to 16,384. With
Triton a thread has at most 64, as many as registers hold; with Mosaic GPU a block always has four warps. Each must give
the bits of the reference. The best is compared with the default again, alone, and is kept if it takes 2% less time in
every comparison.
"""

import argparse
import datetime
import json
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # read when JAX is imported

import jax

from bench import device_time, machine
from bench.results import time_text, write
from bench.runner import SHARE_OF_MEMORY
from bench.timing import Jitted, Patience, Sweep, alternate
from intnumerics.kernels import KERNEL_DTYPES
from intnumerics.kernels.gpu import tuning
from intnumerics.kernels.gpu.tuning import Row
from tools.tune_search import PER_THREAD, Case, Found, cases, search

SIZE = 1 << 26
BYTES = 48  # per element: inputs, twice, and results of the default, of what is compared with it and to spare
COMPARISONS, COMPILERS = 3, 8
FIRST = ("quantize to int8, noise drawn", "quantize to int8", "clip gradient from mask")  # the most valuable kernels
REHEARSED, REHEARSAL_SIZE = "clip gradient from mask, bfloat16", 1 << 11  # by each implementation
PATIENCE = Patience(least=5, most=15, seconds=0.5)
PATH = pathlib.Path(tuning.__file__).resolve()
BEGIN, END = "\n# fmt: off\n", "# fmt: on\n"  # the marks between which the rows are
WIDTH = 120


# --- the rows of kernels/gpu/tuning.py --------------------------------------------------------------------------------


def row_of(found: Found, device: str, where: str, clock: str) -> Row | None:
    """The row of the table for what was found, if it is to have one."""
    if found.gain is None:
        return None
    measured = f"{where}: {found.gain:.1%} less {clock}"
    return Row(found.case.implementation, device, found.case.dtype, found.case.operation, found.best, measured)


def merged(rows: Iterable[Row], key: tuple[str, str, str, str], found: Row | None) -> tuple[Row, ...]:
    """The rows with that of a key put in the place of the one before, or taken out."""
    together = [*(row for row in rows if tuning.key_of(row) != key), *([] if found is None else [found])]
    place: dict[str, int] = {name: i for i, name in enumerate((*PER_THREAD, *KERNEL_DTYPES))}
    order = lambda row: (row.device, place[row.implementation], place[row.dtype], row.operation)  # noqa: E731
    return tuple(sorted(together, key=order))


def text_of(row: Row) -> str:
    """A row as Python, in lines of the project's width."""
    c = row.configuration
    first, *rest = (json.dumps(text) for text in tuning.key_of(row))
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
        marks = f"{BEGIN.strip()!r} and {END.strip()!r}"
        raise ValueError(f"kernels/gpu/tuning.py has lost its marks, {marks}: restore them")
    lines = [text_of(row) for row in rows] or ["    # None yet: no device has been measured."]
    table = "\n".join(["TABLE: tuple[Row, ...] = (", *lines, ")\n"])
    return f"{before}{begin}{table}{end}{after}"


# --- a clock, and the command line ------------------------------------------------------------------------------------


class Clock:
    """The time of programs that take turns: the device's own if it is known of all, or else the wall's."""

    kind = "device time"

    def __init__(self) -> None:
        self.sweep = Sweep(machine.last_level_cache())

    def __call__(self, programs: Sequence[Jitted]) -> list[float]:
        by_wall = alternate([one.call for one in programs], PATIENCE, self.sweep)
        by_device, _ = device_time.of(programs)
        ways = {by_device.get(one.name, {}).get("device_by") for one in programs}
        kinds = {device_time.PROFILER: "device time", device_time.QUEUE: "time in a queue"}
        self.kind = kinds.get(ways.pop() or "", "wall time") if len(ways) == 1 else "wall time"
        if self.kind == "wall time":
            return [statistics.median(seconds) for seconds in by_wall]
        return [by_device[one.name]["device_s"] for one in programs]


def size_that_fits(most: int, free: int) -> int:
    """Elements of the arrays: a power of 2."""
    while BYTES * most > SHARE_OF_MEMORY * free:
        most //= 2
    return most


def stamp(size: int) -> str:
    """When something was measured, with which versions and on how many elements."""
    driver = machine.description()["clocks"].get("driver_version", "unknown")
    exponent = size.bit_length() - 1
    return f"{datetime.date.today().isoformat()}, JAX {jax.__version__}, driver {driver}, 2**{exponent} elements"


def lines_of(found: Found, clock: str) -> list[str]:
    """What was measured, for a person."""
    lines = [f"{found.case.name}: {clock}"]
    for group in found.groups:
        for c, seconds in group.items():
            more = "the default" if c == found.default else f"{seconds / group[found.default] - 1:+.1%}"
            lines.append(f"  block {c.block:>5}, {c.warps:>2} warps  {time_text(seconds):>8}  {more}")
    lines += [f"  block {c.block:>5}, {c.warps:>2} warps  {why}" for c, why in (found.failed | found.wrong).items()]
    if found.gain is None:
        return [*lines, "  the default stays"]
    return [*lines, f"  kept: block {found.best.block}, {found.best.warps} warps, {found.gain:.1%} less time"]


def in_order(size: int) -> list[Case]:
    """Every kernel, those of the most valuable operations first, in bfloat16; what is `"pallas"` before the other."""
    dtypes = ("bfloat16", "float32", *(d for d in KERNEL_DTYPES if d not in ("bfloat16", "float32")))
    place = {name: i for i, name in enumerate(FIRST)}
    return sorted(cases(size, dtypes), key=lambda c: (dtypes.index(c.dtype), place.get(c.operation, len(place))))


def tune(options: argparse.Namespace, device: str) -> dict[str, Any]:
    """Searches for every kernel; returns what was wrong in which."""
    begin, rehearsal = time.perf_counter(), options.rehearsal
    size = REHEARSAL_SIZE if rehearsal else size_that_fits(SIZE, machine.free_memory())
    where, clock, rows, wrong = "a rehearsal" if rehearsal else stamp(size), Clock(), tuning.TABLE, {}
    how: dict[str, Any] = {"interpret": rehearsal, "compilers": min(COMPILERS, machine.cores())}
    print(f"{device}; {where}")
    todo = [case for case in in_order(size) if all(word in case.name for word in options.only)]
    todo = [case for case in todo if case.name.endswith(REHEARSED)] if rehearsal else todo
    for i, case in enumerate(todo):
        if time.perf_counter() - begin > 60 * options.minutes:
            print("no time was left for:", *(case.name for case in todo[i:]), sep="\n  ")
            break
        found = search(case, size, clock, 1 if rehearsal else COMPARISONS, **how)
        print(*lines_of(found, clock.kind), sep="\n", flush=True)
        key = (case.implementation, device, case.dtype, case.operation)
        rows = merged(rows, key, row_of(found, device, where, clock.kind))
        wrong |= {case.name: found.wrong} if found.wrong else {}
        if options.store:
            write(options.store, rewritten(PATH.read_text(), rows))
    print(f"\nrows of kernels/gpu/tuning.py, written to {options.store or 'no file'}:")
    print(*map(text_of, rows), sep="\n")
    return wrong


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.tune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    # fmt: off
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD",
                        help="kernels that have all these words in their names")
    parser.add_argument("--store", nargs="?", type=pathlib.Path, const=PATH, metavar="FILE",
                        help="write kernels/gpu/tuning.py with the new rows, there or to a file, after each kernel")
    parser.add_argument("--minutes", type=float, default=8.0, metavar="M",
                        help="begin no kernel after this time (default: %(default)s)")
    parser.add_argument("--rehearsal", action="store_true", help="one tiny operation, interpreted, on a CPU")
    # fmt: on
    return parser.parse_args()


def main() -> None:
    """Runs the command line; ends with status 1 without a GPU, or if a result is wrong."""
    options = arguments()
    device = tuning.device_kind() or (machine.device_name() if options.rehearsal else None)
    if device is None:
        sys.exit(
            f"python -m tools.tune needs an NVIDIA GPU, and JAX found {jax.default_backend()} only: run it where there "
            "is one, after pip install '.[cuda13]'. Nothing was measured, and nothing was written."
        )
    if wrong := tune(options, device):
        sys.exit("wrong results:\n" + "\n".join(f"{name}: {found}" for name, found in wrong.items()))


if __name__ == "__main__":
    main()
