"""What is assumed of each chip where a count is turned into a time.

A count is exact, and the time that it implies is a bound: nothing here knows of latencies, of what a compiler cannot
overlap, or of a clock that sinks under load.
"""

import dataclasses
from typing import Any

GIGA = 1e9


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip, as its vendor describes it.

    Attributes:
        title: What the report calls it.
        bandwidth: Bytes a second of its memory, at best.
        clock: Clock cycles a second.
        units: How many warp schedulers, or cores of a TPU, begin one instruction or bundle each in a cycle.
        batch: For how many elements at once they do: the threads of a warp, or the elements that a bundle is counted
            for.
        alu: Which part of the cycles the ALU of a GPU takes an instruction in; integers and comparisons go there.
        peak: Floating-point operations a second that the vendor states: float32 of a GPU, matrix products of a TPU.
        multipliers: How many units for a product and a sum that peak is of; with the clock they give it.
        source: Where these numbers come from.
    """

    title: str
    bandwidth: float
    clock: float
    units: int
    batch: int
    peak: float
    multipliers: int
    source: str
    alu: float = 1.0

    def memory(self, bytes_per_element: float) -> float:
        """Picoseconds an element that memory takes for so many bytes."""
        return bytes_per_element / self.bandwidth * 1e12

    def arithmetic(self, row: dict[str, Any]) -> float:
        """Picoseconds an element that the instructions of a stored row take."""
        slots = max(count(row), row.get("alu_per_element", 0) / self.alu)
        return slots / (self.units * self.batch * self.clock) * 1e12

    def allows(self, bytes_per_element: float) -> float:
        """The count, of `count`, that takes as long as memory takes for so many bytes."""
        return bytes_per_element / self.bandwidth * self.clock * self.units * self.batch


def count(row: dict[str, Any]) -> float:
    """The count of a stored row: instructions per element, or bundles per 1,024 elements."""
    return row["instructions_per_element"] if "instructions_per_element" in row else row["bundles_per_1024"]


CLOUD = "Google Cloud's page of the {}; the clock follows from the peak, {} TFLOP/s, of {} units of {size} x {size}"

CHIPS = {
    "h100": Chip(
        "H100",
        3352 * GIGA,
        1.98 * GIGA,
        132 * 4,
        32,
        67e12,
        132 * 128,
        "NVIDIA's data sheet and Hopper white paper, of the H100 SXM with 80 GB: 132 SMs, each of 4 schedulers for a "
        "warp of 32; boost clock. The ALU of a scheduler has 16 lanes, so it takes an instruction every other cycle",
        alu=0.5,
    ),
    "v4": Chip("TPU v4", 1200 * GIGA, 1.05 * GIGA, 2, 1024, 275e12, 8 * 128**2, CLOUD.format("v4", 275, 8, size=128)),
    "v5e": Chip("TPU v5e", 819 * GIGA, 1.5 * GIGA, 1, 1024, 197e12, 4 * 128**2, CLOUD.format("v5e", 197, 4, size=128)),
    "v5p": Chip(
        "TPU v5p", 2765 * GIGA, 1.75 * GIGA, 2, 1024, 459e12, 8 * 128**2, CLOUD.format("v5p", 459, 8, size=128)
    ),
    "v6e": Chip(
        "TPU v6e",
        1638 * GIGA,
        1.75 * GIGA,
        1,
        1024,
        918e12,
        2 * 2 * 256**2,
        CLOUD.format("v6e", 918, 2, size=256) + " that take two products a cycle: with one it were 3.5 GHz, at which "
        "the cycles that libtpu gives a large matrix product would be faster than the peak",
    ),
}
