"""Programs on sharded arrays, compiled for the devices of a mesh that need not be there.

    python tests/sharded_programs.py cuda

Prints what each device would do as JSON; compilers.py runs it.
"""

import dataclasses
import functools
import json
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.experimental import mesh_utils, topologies
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from intnumerics import IntNumerics, quantize, quantize_tensor, quantize_to_int
from intnumerics.stochastic_rounding import PhiloxUniform

COLLECTIVE = re.compile(
    r"all-gather|all-reduce|all-to-all|collective-broadcast|collective-permute|ragged-all-to-all|reduce-scatter"
)
KERNEL = re.compile(r'custom_call_target="(?:tpu_custom_call|__gpu\$xla\.gpu\.triton|mosaic_gpu\w*)"')
INT8 = IntNumerics(8, True, True, True, True, True, None)
SHAPE, LARGE = (64, 128, 1024), (4096, 2048, 1024)  # the large one has 2**33 elements
BOTH_AXES = P("rows", "lanes")
OTHERS = (P("rows"), P(None, ("rows", "lanes")), P(None, None, "lanes"), P())
DEVICES = {  # the platform, the topology as its compiler names it, and the mesh
    "8 H100": ("cuda", "1x8x1", (4, 2)),
    "8 v6e": ("tpu", "v6e:2x4", (4, 2)),
    "512 v5p": ("tpu", "v5p:8x8x8", (64, 8)),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A program on a sharded array of bfloat16."""

    devices: str  # a key of `DEVICES`
    # The backward is given what the forward kept; "scales" is `quantize_tensor` with one scale for each row.
    what: Literal["forward", "forward to int8", "scales", "backward", "both"]
    implementation: str | None = None
    axes: AxisType = AxisType.Auto  # of the mesh
    spec: P = BOTH_AXES  # how x is sharded
    noise: bool = True  # whether Philox noise is drawn
    shape: tuple[int, ...] = SHAPE


def cases(platform: str) -> Iterator[Case]:
    """Every program with x sharded along two axes, both passes in one with every other way to shard, and large arrays.

    On a TPU kernels need `Explicit` axes, as libtpu has no `custom_partitioning`.
    """
    explicit = AxisType.Explicit
    many, most, chosen = "8 v6e", "512 v5p", (None,)
    if platform == "cuda":
        many, most, chosen = "8 H100", "8 H100", (None, "pallas_triton", "pallas_mosaic_gpu")
    for implementation in chosen:
        axes = AxisType.Auto if platform == "cuda" else explicit
        yield Case(many, "forward", implementation, axes, noise=False)
        for what in ("forward", "backward", "both"):
            yield Case(many, what, implementation, axes)
        yield Case(many, "scales", implementation, axes)
        for spec in OTHERS:
            yield Case(many, "both", implementation, axes, spec)
        for kind in (AxisType.Auto,) if platform == "cuda" else (AxisType.Auto, explicit):
            yield Case(most, "forward to int8", implementation, kind, P(("rows", "lanes")), shape=LARGE)
            yield Case(most, "both", implementation, kind, P("rows", None, "lanes"), shape=LARGE)
    yield Case(most, "scales", None, axes, P("rows", None, "lanes"))  # which shares rows between devices
    if platform == "cuda":
        yield from (
            Case(many, what, implementation, explicit) for implementation in chosen for what in ("both", "scales")
        )
        return
    yield from (Case(many, what, "pallas", explicit) for what in ("forward", "backward"))
    yield from (Case(many, "both", noise=noise) for noise in (False, True))
    yield Case(many, "forward", "pallas", spec=P("rows"), noise=False)  # which is refused


@functools.cache
def mesh(devices: str, kind: AxisType) -> jax.sharding.Mesh:
    """A mesh of devices that need not be there."""
    platform, name, shape = DEVICES[devices]
    if platform == "cuda":
        target = (pathlib.Path(__file__).parent.parent / "bench" / "aot" / "h100.txtpb").read_text()
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

    def forward(x: jax.Array, words: jax.Array) -> Any:
        key = jax.random.wrap_key_data(words, impl="threefry2x32") if case.noise else None
        if case.what == "scales":
            return quantize_tensor(x, numerics, key=key, implementation=case.implementation)
        function = quantize_to_int if case.what.endswith("int8") else quantize
        return function(x, numerics, key=key, implementation=case.implementation)

    def kept(x: jax.Array, words: jax.Array) -> Any:
        return jax.vjp(lambda x: forward(x, words), x)

    def both(x: jax.Array, words: jax.Array, g: jax.Array) -> Any:
        y, vjp = kept(x, words)
        return y, vjp(g)[0]

    def build(function: Any, *avals: Any) -> Any:
        return jax.jit(function).trace(*avals).lower().compile()

    with jax.set_mesh(devices):
        if case.what.startswith("forward") or case.what == "scales":
            return build(forward, x, words)
        if case.what == "both":
            return build(both, x, words, x)
        shardings = build(kept, x, words).output_shardings[1]
        typed = lambda a, sharding: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding)  # noqa: E731
        vjp = jax.tree.map(typed, jax.eval_shape(kept, x, words)[1], shardings)
        return build(lambda vjp, g: vjp(g)[0], vjp, x)


def measure(case: Case) -> dict[str, Any]:
    """Compiles a case, and says what the program of a device has in it; or why there is none."""
    row = {**vars(case), "axes": case.axes.name, "spec": str(case.spec)}
    try:
        compiled = compile_case(case)
    except ValueError as error:
        return row | {"error": str(error).splitlines()[0]}
    given, memory = NamedSharding(mesh(case.devices, case.axes), case.spec), compiled.memory_analysis()
    results = jax.tree.leaves(compiled.output_shardings)
    if case.what == "scales":
        results = results[:1]  # without the scales, which have one element for each row
    return row | {
        "collectives": sorted(set(COLLECTIVE.findall(compiled.as_text()))),
        "as_given": all(result.is_equivalent_to(given, len(case.shape)) for result in results),
        "kernels": len(KERNEL.findall(compiled.as_text())),
        "temporary_bytes": memory.temp_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
    }


if __name__ == "__main__":
    print(json.dumps({"cases": [measure(case) for case in cases(sys.argv[1])]}))
