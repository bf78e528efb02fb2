"""Compiles the kernels for TPUs that need not be there, and counts the VLIW bundles of each, about one a clock cycle.

    pip install 'jax[tpu]'
    python -m bench.aot.tpu > counts.json

A count is of one grid step, all of it, times the steps: blocks that reach over an array's edge and the few dozen
bundles around a block are in it. There are no loops in a step. Two of these at once fail on libtpu's lock.
"""

import os
import tempfile

DUMP = tempfile.mkdtemp(prefix="llo_")
if __name__ == "__main__":  # read by libtpu and JAX when they are first used
    os.environ |= {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "LIBTPU_INIT_ARGS": f"--xla_jf_dump_to={DUMP} --xla_jf_dump_llo_text=true",
    }

import dataclasses
import functools
import importlib.metadata
import importlib.util
import json
import math
import pathlib
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from intnumerics.kernels import QuantSpec, packed_shape, tpu

TOPOLOGIES = {"v4": "v4:2x2x1", "v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}
CHIPS, BOTH_KINDS = tuple(TOPOLOGIES), ("v5e", "v6e")  # without bfloat16 arithmetic, and with it
SHAPE = (128 * 128, 1024)
BFLOAT16, FLOAT16, FLOAT32 = jnp.bfloat16, jnp.float16, jnp.float32
NEAREST = QuantSpec(127.0, clip=True, rounding="half_to_even")
NEAREST_MASKED = dataclasses.replace(NEAREST, with_mask=True)
HALVES = QuantSpec(127.5, clip=True, rounding="floor_plus_half")
SCHEDULED = re.compile(r"total scheduled bundles:\s+(\d+)")


@dataclasses.dataclass(frozen=True)
class Case:
    """A kernel on arrays of some types, compiled for some chips."""

    name: str
    function: Callable[..., Any]
    avals: tuple[jax.ShapeDtypeStruct, ...]
    chips: tuple[str, ...] = BOTH_KINDS


def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
    """The type of an array of `SHAPE`, or of `shape`."""
    return jax.ShapeDtypeStruct(shape or SHAPE, dtype)


def quantize(spec: QuantSpec, integer: str | None = None) -> Callable[..., Any]:
    """The quantization of x, and noise if there is any."""
    spec = dataclasses.replace(spec, integer_dtype=integer and jnp.dtype(integer))
    return lambda x, noise=None: tpu.quantize(x, noise, spec)


def clip_gradient_from_x(g: jax.Array, x: jax.Array) -> jax.Array:
    return tpu.clip_gradient_from_x(g, x, NEAREST)


def cases() -> Iterator[Case]:
    """Every kernel on a large array, then shapes that do not divide."""
    for dtype in (FLOAT32, BFLOAT16, FLOAT16):
        d, x, chips = jnp.dtype(dtype).name, array(dtype), BOTH_KINDS if dtype == FLOAT16 else CHIPS
        yield Case(f"pallas: quantize {d}", quantize(NEAREST), (x,), chips)
        yield Case(f"pallas: quantize {d} -> int8", quantize(NEAREST, "int8"), (x,), chips)
        yield Case(f"pallas: quantize {d}, floor + 0.5", quantize(HALVES), (x,))
        yield Case(f"pallas: quantize {d} with mask", quantize(NEAREST_MASKED), (x,))
        yield Case(f"pallas: quantize {d} with noise array", quantize(NEAREST), (x, array(FLOAT32)))
        packed = array(jnp.uint8, *packed_shape(SHAPE))
        yield Case(f"pallas: clip gradient from mask, {d}", tpu.clip_gradient_from_mask, (x, packed))
        yield Case(f"pallas: clip gradient from x, {d}", clip_gradient_from_x, (x, x))
    x = array(BFLOAT16)
    yield Case("pallas: quantize bfloat16 -> int8 with mask", quantize(NEAREST_MASKED, "int8"), (x,))
    yield Case("pallas: quantize bfloat16 -> int16", quantize(NEAREST, "int16"), (x,))
    yield Case("pallas: quantize bfloat16 -> int32", quantize(NEAREST, "int32"), (x,))
    yield Case("pallas: quantize bfloat16 with shared noise", quantize(NEAREST), (x, array(FLOAT32, 1, SHAPE[1])))
    for dtype in (BFLOAT16, FLOAT16):  # larger than the memory of a chip's core, where XLA could put a temporary array
        x = array(dtype, 1 << 18, 1024)
        yield Case(f"pallas: quantize {jnp.dtype(dtype).name}, 262144x1024", quantize(NEAREST), (x,))
    for shape in ((1 << 24,), (10_000_019,), (1,), (8192, 50257), (3, 50257), (512, 197, 768), (7, 5, 130)):
        name = "x".join(map(str, shape))
        x, packed = array(BFLOAT16, *shape), array(jnp.uint8, *packed_shape(shape))
        yield Case(f"pallas: quantize bfloat16 -> int8 with mask, {name}", quantize(NEAREST_MASKED, "int8"), (x,))
        yield Case(f"pallas: clip gradient from mask, bfloat16, {name}", tpu.clip_gradient_from_mask, (x, packed))


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


def measure(chip: str, case: Case) -> dict[str, Any]:
    """Compiles one case and counts."""
    for old in pathlib.Path(DUMP).iterdir():
        old.unlink()
    analysis = compile_for(chip, case).memory_analysis()
    [report] = pathlib.Path(DUMP).glob("*-intnumerics_*schedule-analysis_final_bundles.txt")
    bundles = int(SCHEDULED.search(report.read_text()).group(1))
    return {
        "case": case.name,
        "chip": chip,
        "bundles_per_1024": round(bundles * steps(case) / (case.avals[0].size / 1024), 2),
        "temporary_bytes": analysis.temp_size_in_bytes,
    }


def main() -> None:
    """Prints the counts as one JSON document."""
    if importlib.util.find_spec("libtpu") is None:
        sys.exit("libtpu, the compiler for TPUs, is not there: pip install 'jax[tpu]'")
    rows = []
    for case in cases():
        for chip in case.chips:
            rows.append(measure(chip, case))
            print(rows[-1], file=sys.stderr)
    version = importlib.metadata.version("libtpu")
    print(json.dumps({"jax": jax.__version__, "libtpu": version, "cases": rows}, indent=1))


if __name__ == "__main__":
    try:
        main()
    finally:
        shutil.rmtree(DUMP)
