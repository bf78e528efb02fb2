"""TPU: libtpu schedules VLIW bundles, about one a clock cycle, and says how many.

A count is of one grid step, all of it, times the steps: blocks that reach over an array's edge and the few dozen
bundles around a block are in it. There are no loops in a step. The count of an XLA program is the sum over its fusions,
each with the steps that the compiled program names, and over the numbers that the chip's own generator draws outside of
them. A chip of two cores shares the bundles between them. Two of these at once fail on libtpu's lock.
"""

import functools
import importlib.metadata
import math
import pathlib
import re
from typing import Any

import jax
from jax.experimental import topologies

from bench.aot.case import Case

TOPOLOGIES = {"v4": "v4:2x2x1", "v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}
FUSION = re.compile(r'%?([\w.-]+) = .* fusion\(.*"iteration_bounds":\[([^\]]*)\]')
DRAWING = re.compile(r"%(rng-bit-generator[\w.-]*) = u32\[([\d,]+)\]")
SCHEDULED = re.compile(r"total scheduled bundles:\s+(\d+)")
IN_LOOP = re.compile(r"^\s*0x[0-9a-f]+\s+\w*\s*: >")


@functools.cache
def chip_mesh(chip: str) -> jax.sharding.Mesh:
    topology = topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGIES[chip])
    return jax.sharding.Mesh(topology.devices[:1], ("x",))


def steps(case: Case) -> int:
    """In how many grid steps the kernel goes over its arrays."""
    equations = jax.make_jaxpr(case.function)(*case.avals).eqns
    [call] = [e for e in equations if e.primitive.name == "pallas_call"]
    return math.prod(call.params["grid_mapping"].grid)


def scheduled(dump: pathlib.Path, name: str) -> int:
    """The bundles of one step of what the compiler dumped under a name."""
    schedules = list(dump.glob(f"*-{name}*schedule-analysis_final_bundles.txt"))
    if len(schedules) != 1:
        raise NotImplementedError(f"not counted: the compiler cut {name.rstrip('-')} into {len(schedules)} programs")
    return int(SCHEDULED.search(schedules[0].read_text()).group(1))


def drawn(dump: pathlib.Path, name: str) -> float:
    """The bundles for 1,024 numbers of the chip's own generator, outside of fusions: a loop around it, one for each."""
    [listing] = [p for p in dump.glob(f"*-{name}-*final_bundles.txt") if "schedule" not in p.name]
    loop = [line for line in listing.read_text().splitlines() if IN_LOOP.match(line)]
    return len(loop) / sum(line.count("= vrng") for line in loop)


def bundles(compiled: Any, case: Case, dump: pathlib.Path) -> float:
    """The bundles of all steps of a kernel, or of all that XLA made of a program."""
    if case.is_kernel:
        return steps(case) * scheduled(dump, "intnumerics_")
    text, total = compiled.as_text(), 0.0
    for fusion, grid in FUSION.findall(text):
        total += math.prod(int(n.strip('"')) for n in grid.split(",")) * scheduled(dump, f"{fusion}-")
    for generator, shape in DRAWING.findall(text):
        total += math.prod(map(int, shape.split(","))) / 1024 * drawn(dump, generator)
    return total


def measure(case: Case, chip: str, dump: pathlib.Path) -> dict[str, Any]:
    compiled = case.compiled(chip_mesh(chip))
    return {
        "bundles_per_1024": round(bundles(compiled, case, dump) / (case.elements / 1024), 2),
        "bytes_per_element": round(compiled.cost_analysis()["bytes accessed"] / case.elements, 2),
        "least_bytes_per_element": round(case.least_bytes_per_element, 2),
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
    }


def version() -> str:
    return f"libtpu {importlib.metadata.version('libtpu')}"
