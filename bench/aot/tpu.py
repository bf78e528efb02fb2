"""TPU: libtpu schedules VLIW bundles, about one a clock cycle, and says how many.

A count is of one grid step, all of it, times the steps: blocks that reach over an array's edge and the few dozen
bundles around a block are in it. There are no loops in a step. The count of an XLA program is the sum over its fusions,
each with the steps that the compiled program names, and over the numbers that the chip's own generator draws outside of
them. A chip of two cores shares the bundles between them. Two of these at once fail on libtpu's lock.
"""

import dataclasses
import functools
import importlib.metadata
import math
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from bench.aot.cases import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    MASKED,
    NEAREST,
    Case,
    NotCountedError,
    array,
    drawing,
    formulas,
    operations,
    plain,
    quantize,
)
from intnumerics.kernels import QuantSpec, packed_shape
from intnumerics.kernels.pallas_tpu import operations as pallas_tpu

TOPOLOGIES = {"v4": "v4:2x2x1", "v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}
BOTH_KINDS = ("v5e", "v6e")  # without bfloat16 arithmetic, and with it
SHAPE = (128 * 128, 1024)
LARGE = (1 << 18, 1024)  # larger than the memory of a chip's core, where XLA could put a temporary array
FUSION = re.compile(r'%?([\w.-]+) = .* fusion\(.*"iteration_bounds":\[([^\]]*)\]')
DRAWING = re.compile(r"%(rng-bit-generator[\w.-]*) = u32\[([\d,]+)\]")
SCHEDULED = re.compile(r"total scheduled bundles:\s+(\d+)")
IN_LOOP = re.compile(r"^\s*0x[0-9a-f]+\s+\w*\s*: >")


def cases() -> Iterator[Case]:
    """Every kernel on a large array, then shapes and dtypes that take another way."""
    yield from operations(pallas_tpu, "pallas", SHAPE)
    x = array(BFLOAT16, *SHAPE)
    yield Case("pallas: quantize bfloat16 -> int8 with mask", quantize(pallas_tpu, MASKED, "int8"), (x,))
    yield Case("pallas: quantize bfloat16 -> int16", quantize(pallas_tpu, NEAREST, "int16"), (x,))
    yield Case("pallas: quantize bfloat16 -> int32", quantize(pallas_tpu, NEAREST, "int32"), (x,))
    shared = array(FLOAT32, 1, SHAPE[1])
    yield Case("pallas: quantize bfloat16 with shared noise", quantize(pallas_tpu, NEAREST), (x, shared))
    for dtype in (BFLOAT16, FLOAT16):
        name = f"pallas: quantize {jnp.dtype(dtype).name}, 262144x1024"
        yield Case(name, quantize(pallas_tpu, NEAREST), (array(dtype, *LARGE),))
    for shape in ((1 << 24,), (10_000_019,), (1,), (3, 50257), (512, 197, 768), (7, 5, 130)):
        name = "x".join(map(str, shape))
        x, packed = array(BFLOAT16, *shape), array(jnp.uint8, *packed_shape(shape))
        yield Case(f"pallas: quantize bfloat16 -> int8 with mask, {name}", quantize(pallas_tpu, MASKED, "int8"), (x,))
        yield Case(
            f"pallas: clip gradient from mask, bfloat16, {name}", pallas_tpu.clip_gradient_from_mask, (x, packed)
        )
    yield from drawing_cases()
    tested = ("quantize bfloat16", "quantize bfloat16 with mask", "clip gradient from mask, bfloat16")
    for case in operations(plain("tpu"), "xla", LARGE, (FLOAT32, BFLOAT16)):
        yield dataclasses.replace(case, tested=case.name.removeprefix("xla: ") in tested)
    yield from formulas(LARGE, tested=("threefry", "hash"))


def jobs(everything: bool) -> list[tuple[Case, str]]:
    """What to compile for which chip: what is tested, or all that is reported."""
    return [
        (case, chip)
        for case in cases()
        for chip in (TOPOLOGIES if case.everywhere and (everything or case.is_kernel) else BOTH_KINDS)
        if everything or case.tested
    ]


def drawing_cases() -> Iterator[Case]:
    """Kernels that draw noise themselves, and what XLA makes of noise from a key."""
    generators = (("philox", "with Philox"), ("hardware", "with hardware noise"))
    for generator, name in generators:
        for dtype, integer in ((FLOAT32, None), (BFLOAT16, None), (BFLOAT16, "int8")):
            to = f" -> {integer}" if integer else ""
            title = f"{jnp.dtype(dtype).name}{to} {name}"
            yield drawing_case(pallas_tpu, generator, dtype, integer, SHAPE, title, everywhere=True)
    for generator, name in generators:
        for shape, batch in (((1 << 24,), 0), ((20_000, 1003), 0), ((8, 2048, 1024), 1)):
            title = f"bfloat16 -> int8 with mask {name}, {'batched ' if batch else ''}{'x'.join(map(str, shape))}"
            yield drawing_case(pallas_tpu, generator, BFLOAT16, "int8", shape, title, batch, MASKED)
    xla = plain("tpu")
    yield drawing_case(xla, "philox", FLOAT32, None, LARGE, "float32 with Philox", everywhere=True, tested=False)
    for generator, name in (("philox", "Philox"), ("threefry_23_bits", "JaxUniform")):
        yield drawing_case(xla, generator, BFLOAT16, "int8", LARGE, f"bfloat16 -> int8 with {name}", everywhere=True)
    part, whole = (SHAPE[0] // 4, SHAPE[1]), (SHAPE[0] // 2, 8 * SHAPE[1])
    for name, module in (("pallas", pallas_tpu), ("xla", xla)):
        of_part = drawing(module, NEAREST, part, "int8", whole=whole)
        avals = (array(BFLOAT16, *part), array(jnp.uint32, 4))
        yield Case(f"{name}: quantize bfloat16 -> int8 with Philox, a part", of_part, avals)


def drawing_case(
    module: Any,
    generator: Any,
    dtype: Any,
    integer: str | None,
    shape: tuple[int, ...],
    title: str,
    batch: int = 0,
    spec: QuantSpec = NEAREST,
    **when: bool,
) -> Case:
    """A quantization with a seed, one for each example of a batch."""
    name = "pallas" if module is pallas_tpu else "xla"
    avals = (array(dtype, *shape), array(jnp.uint32, *shape[:batch], 4))
    return Case(f"{name}: quantize {title}", drawing(module, spec, shape[batch:], integer, generator), avals, **when)


@functools.cache
def chip_mesh(chip: str) -> jax.sharding.Mesh:
    """A mesh of one chip."""
    topology = topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGIES[chip])
    return jax.sharding.Mesh(topology.devices[:1], ("x",))


def compile_for(chip: str, case: Case) -> Any:
    """Compiles a case; the mesh is set because Pallas reads the device from it."""
    sharding = jax.sharding.NamedSharding(chip_mesh(chip), jax.sharding.PartitionSpec())
    avals = [jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding) for a in case.avals]
    with jax.set_mesh(chip_mesh(chip)):
        return jax.jit(case.function).trace(*avals).lower().compile()


def steps(case: Case) -> int:
    """In how many grid steps the kernel goes over its arrays."""
    equations = jax.make_jaxpr(case.function)(*case.avals).eqns
    [call] = [e for e in equations if e.primitive.name == "pallas_call"]
    return math.prod(call.params["grid_mapping"].grid)


def scheduled(dump: pathlib.Path, name: str) -> int:
    """The bundles of one step of what the compiler dumped under a name."""
    schedules = list(dump.glob(f"*-{name}*schedule-analysis_final_bundles.txt"))
    if len(schedules) != 1:
        raise NotCountedError(f"not counted: the compiler cut {name.rstrip('-')} into {len(schedules)} programs")
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
    """Compiles one case and counts its bundles."""
    compiled = compile_for(chip, case)
    return {
        "case": case.name,
        "chip": chip,
        "bundles_per_1024": round(bundles(compiled, case, dump) / (case.elements / 1024), 2),
        "bytes_per_element": round(compiled.cost_analysis()["bytes accessed"] / case.elements, 2),
        "least_bytes_per_element": round(case.least_bytes_per_element, 2),
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
    }


def compiler() -> str:
    """The compiler and its version."""
    return f"libtpu {importlib.metadata.version('libtpu')}"
