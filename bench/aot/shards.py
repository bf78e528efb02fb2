"""Programs on sharded arrays, compiled for the devices of a mesh from shapes alone."""

import dataclasses
import functools
import pathlib
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import mesh_utils, topologies
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from intnumerics import IntNumerics, quantize, quantize_to_int
from intnumerics.stochastic_rounding import PhiloxUniform

COLLECTIVE = re.compile(
    r"all-gather|all-reduce|all-to-all|collective-broadcast|collective-permute|ragged-all-to-all|reduce-scatter"
)
KERNEL = re.compile(r'custom_call_target="(?:tpu_custom_call|__gpu\$xla\.gpu\.triton)"')
INT8 = IntNumerics(8, True, True, True, True, True, None)
SHAPE, LARGE = (64, 128, 1024), (4096, 2048, 1024)  # the large one has 2**33 elements
SPECS = (P("rows"), P("rows", "lanes"), P(None, ("rows", "lanes")), P(None, None, "lanes"), P())
DEVICES = {  # the topology, as each compiler names it, and the mesh of its devices
    "8 H100": ("cuda", "1x8x1", (4, 2)),
    "8 v6e": ("tpu", "v6e:2x4", (4, 2)),
    "512 v5p": ("tpu", "v5p:8x8x8", (64, 8)),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A program on an array that is sharded.

    Attributes:
        devices: For which devices, a key of `DEVICES`.
        what: `"forward"`; `"forward to int8"`; `"backward"`, a program of its own that is given what the forward kept;
            or `"both"` in one.
        spec: How x is sharded, and with it what comes in and out beside it.
        noise: Whether Philox noise is drawn.
        implementation: As `quantize` takes it.
        axes: The type of the axes of the mesh.
        shape: The shape of x, which is bfloat16.
    """

    devices: str
    what: str
    spec: P
    noise: bool = True
    implementation: str | None = None
    axes: AxisType = AxisType.Auto
    shape: tuple[int, ...] = SHAPE


def cases(platform: str) -> Iterator[Case]:
    """Every way to shard, beside every program; then what is very large."""
    if platform == "cuda":
        for implementation in (None, "pallas"):
            for spec in SPECS:
                yield Case("8 H100", "forward", spec, False, implementation)
                for what in ("forward", "backward", "both"):
                    yield Case("8 H100", what, spec, True, implementation)
            yield Case("8 H100", "both", P("rows", "lanes"), True, implementation, AxisType.Explicit)
            yield from _large("8 H100", implementation, AxisType.Auto)
        return
    for spec in SPECS:
        yield Case("8 v6e", "both", spec, False)
        yield Case("8 v6e", "both", spec, True, None, AxisType.Explicit)
    for what in ("forward", "backward"):
        yield Case("8 v6e", what, P("rows", "lanes"))
        yield Case("8 v6e", what, P("rows", "lanes"), True, "pallas", AxisType.Explicit)
    yield Case("8 v6e", "both", P(None, None, "lanes"))
    yield Case("8 v6e", "forward", P("rows"), False, "pallas")
    yield from _large("512 v5p", None, AxisType.Auto)
    yield from _large("512 v5p", None, AxisType.Explicit)


def _large(devices: str, implementation: str | None, axes: AxisType) -> Iterator[Case]:
    for spec in (P(("rows", "lanes")), P("rows", None, "lanes")):
        for what in ("forward to int8", "both"):
            yield Case(devices, what, spec, True, implementation, axes, LARGE)


@functools.cache
def mesh(devices: str, kind: AxisType) -> jax.sharding.Mesh:
    """A mesh of devices that need not be there."""
    platform, name, shape = DEVICES[devices]
    if platform == "cuda":
        target = (pathlib.Path(__file__).parent / "h100.txtpb").read_text()
        topology = topologies.get_topology_desc(platform=platform, topology=name, target_config=target)
    else:
        topology = topologies.get_topology_desc(platform=platform, topology_name=name)
    found = mesh_utils.create_device_mesh(shape, list(topology.devices))
    return jax.sharding.Mesh(found, ("rows", "lanes"), axis_types=(kind, kind))


def compile_case(case: Case) -> Any:
    """Compiles a case; the mesh is set because Pallas reads the device from it."""
    numerics = INT8.replace(noise_fn=PhiloxUniform()) if case.noise else INT8
    devices = mesh(case.devices, case.axes)
    x = jax.ShapeDtypeStruct(case.shape, jnp.bfloat16, sharding=NamedSharding(devices, case.spec))
    words = jax.ShapeDtypeStruct((2,), jnp.uint32, sharding=NamedSharding(devices, P()))

    def forward(x: jax.Array, words: jax.Array, function: Any = quantize) -> jax.Array:
        key = jax.random.wrap_key_data(words, impl="threefry2x32") if case.noise else None
        return function(x, numerics, key=key, implementation=case.implementation)

    def kept(x: jax.Array, words: jax.Array) -> Any:
        return jax.vjp(lambda x: forward(x, words), x)

    def both(x: jax.Array, words: jax.Array, g: jax.Array) -> Any:
        y, vjp = kept(x, words)
        return y, vjp(g)[0]

    def build(function: Any, *avals: Any) -> Any:
        return jax.jit(function).trace(*avals).lower().compile()

    with jax.set_mesh(devices):
        if case.what == "forward":
            return build(forward, x, words)
        if case.what == "forward to int8":
            return build(functools.partial(forward, function=quantize_to_int), x, words)
        if case.what == "both":
            return build(both, x, words, x)
        before = build(kept, x, words)
        vjp = jax.tree.map(
            lambda a, sharding: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding),
            jax.eval_shape(kept, x, words)[1],
            before.output_shardings[1],
        )
        return build(lambda vjp, g: vjp(g)[0], vjp, x)


def measure(case: Case) -> dict[str, Any]:
    """Compiles a case, and says what the program of a device has in it; or why there is none."""
    row: dict[str, Any] = {
        "case": case.what + (" with Philox" if case.noise else ""),
        "devices": case.devices,
        "shape": case.shape,
        "axes": case.axes.name,
        "spec": str(case.spec),
        "implementation": case.implementation,
    }
    begin = time.perf_counter()
    try:
        compiled = compile_case(case)
    except ValueError as error:
        return row | {"error": str(error).splitlines()[0]}
    text, memory = compiled.as_text(), compiled.memory_analysis()
    given = NamedSharding(mesh(case.devices, case.axes), case.spec)
    results = jax.tree.leaves(compiled.output_shardings)
    return row | {
        "collectives": sorted(set(COLLECTIVE.findall(text))),
        "results": [str(result.spec) for result in results],
        "as_given": all(result.is_equivalent_to(given, len(case.shape)) for result in results),
        "kernels": len(KERNEL.findall(text)),
        "temporary_bytes": memory.temp_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "seconds": round(time.perf_counter() - begin, 1),
    }


def report(platform: str) -> dict[str, Any]:
    """What was compiled for a platform."""
    rows = []
    for case in cases(platform):
        rows.append(measure(case))
        print(rows[-1], file=sys.stderr)
    return {"jax": jax.__version__, "cases": rows}
