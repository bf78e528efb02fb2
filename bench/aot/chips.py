"""The stored counts, and what is assumed of each chip if a count is turned into a time.

A count is exact, and the time that it implies is a bound: nothing here knows of latencies, of what a compiler cannot
overlap, or of a clock that sinks under load.
"""

import dataclasses
import functools
import json
import pathlib
from typing import Any

COUNTS = pathlib.Path(__file__).parent / "counts"


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip, as its vendor describes it."""

    title: str
    bandwidth: float  # bytes per second of its memory, at best
    clock: float  # cycles per second
    units: int  # how many warp schedulers, or cores of a TPU, begin one instruction or bundle each in a cycle
    batch: int  # for how many elements at once: the threads of a warp, or the elements that a bundle is counted for
    issued: str  # what they begin
    counted: str  # what a count is of
    source: str  # where these numbers come from
    alu: float = 1.0  # in which part of the cycles a GPU's ALU takes an instruction; integers and comparisons go there
    pallas: str = "pallas"  # the kernels that `implementation="pallas"` is, unless JAX has removed them

    def memory(self, bytes_per_element: float) -> float:
        """Picoseconds per element that memory takes for so many bytes."""
        return bytes_per_element / self.bandwidth * 1e12

    def arithmetic(self, row: dict[str, Any]) -> float:
        """Picoseconds per element that the instructions of a stored row take."""
        slots = max(count(row), row.get("alu_per_element", 0) / self.alu)
        return slots / (self.units * self.batch * self.clock) * 1e12

    def allows(self, bytes_per_element: float) -> float:
        """The count, of `count`, that takes as long as memory takes for so many bytes."""
        return bytes_per_element / self.bandwidth * self.clock * self.units * self.batch


def count(row: dict[str, Any]) -> float:
    """The count of a stored row: instructions per element, or bundles per 1,024 elements."""
    return row["instructions_per_element"] if "instructions_per_element" in row else row["bundles_per_1024"]


@functools.cache
def reports() -> dict[str, dict[str, Any]]:
    return {name: json.loads((COUNTS / f"{name}.json").read_text()) for name in ("cuda", "jax_triton", "tpu")}


def counts() -> dict[tuple[str, str], dict[str, Any]]:
    """Every stored row by its case and chip."""
    return {(row["case"], row["chip"]): row for report in reports().values() for row in report["cases"]}


def _tpu(name: str, gb_per_s: float, cores: int, tflops: float, units: int, size: int, more: str = "") -> Chip:
    """A TPU whose clock follows from the peak of its matrix units, which each multiply and add size**2 numbers."""
    source = f"Google Cloud's page of the {name}; the clock follows from the peak, {tflops} TFLOP/s, of {units} units "
    clock = tflops * 1e12 / (2 * units * size**2)
    issued, counted = "bundle" if cores == 1 else "bundles", "bundles per 1,024 elements"
    return Chip(f"TPU {name}", gb_per_s * 1e9, clock, cores, 1024, issued, counted, f"{source}of {size} x {size}{more}")


CHIPS = {
    "h100": Chip(
        "H100",
        3352e9,
        1.98e9,
        132 * 4,
        32,
        "warp instructions",
        "instructions per element",
        "NVIDIA's data sheet and Hopper white paper, of the H100 SXM with 80 GB: 132 SMs, each of 4 schedulers for a "
        "warp of 32; boost clock. The ALU of a scheduler has 16 lanes, so it takes an instruction every other cycle",
        alu=0.5,
        pallas="pallas_triton",
    ),
    "v4": _tpu("v4", 1200, 2, 275, 8, 128),
    "v5e": _tpu("v5e", 819, 1, 197, 4, 128),
    "v5p": _tpu("v5p", 2765, 2, 459, 8, 128),
    # A unit takes two products a cycle. With one the clock would be 3.5 GHz, at which the cycles that libtpu gives a
    # large matrix product would be faster than the peak.
    "v6e": _tpu("v6e", 1638, 1, 918, 2 * 2, 256, ": two that take two products per cycle each"),
}
