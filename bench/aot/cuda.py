"""Compiles the kernels for an H100 that need not be there, and counts the machine instructions of each.

    python -m bench.aot.cuda > counts.json

XLA writes PTX, `ptxas` makes machine code of it, and `nvdisasm` lists that. A kernel's instructions are divided by the
elements that one thread loads; there are no loops in them. `h100.txtpb` describes an H100 SXM to XLA.
"""

import os
import tempfile

DUMP = tempfile.mkdtemp(prefix="ptx_")
if __name__ == "__main__":  # read by XLA and JAX when they are first used
    os.environ["JAX_PLATFORMS"] = "cpu"
    flags = f"--xla_dump_to={DUMP} --xla_dump_hlo_as_text --xla_dump_emitter_re=.*"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"

import collections
import dataclasses
import functools
import json
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from intnumerics.kernels import QuantSpec, gpu, reference, xla

SIZE = 1 << 24
BFLOAT16, FLOAT16, FLOAT32 = jnp.bfloat16, jnp.float16, jnp.float32
NEAREST = QuantSpec(127.0, clip=True, rounding="half_to_even")
HALVES = QuantSpec(127.5, clip=True, rounding="floor_plus_half")
INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")
WIDTH = re.compile(r"^(?:LDG|STG)\.E(?:\.[SU]?(\d+))?")


def to_int(spec: QuantSpec, dtype: str) -> QuantSpec:
    """`spec` with an integer result."""
    return dataclasses.replace(spec, integer_dtype=jnp.dtype(dtype))


def shape(dtype: Any, *dims: int) -> jax.ShapeDtypeStruct:
    """The type of an array of `SIZE` elements, or of `dims`."""
    return jax.ShapeDtypeStruct(dims or (SIZE,), dtype)


Case = tuple[str, Callable[..., Any], tuple[jax.ShapeDtypeStruct, ...]]


def cases() -> Iterator[Case]:
    """Every kernel, and XLA's own fusion of the same operation: name, function and types of its arrays."""
    for module, name in ((gpu, "pallas"), (xla, "xla")):

        def quantize(spec: QuantSpec, module: Any = module) -> Callable[..., Any]:
            return lambda x, noise=None: module.quantize(x, noise, spec)

        for dtype in (FLOAT32, BFLOAT16, FLOAT16):
            d = jnp.dtype(dtype).name
            x, byte = shape(dtype), shape(jnp.uint8, SIZE // 8)
            masked = dataclasses.replace(NEAREST, with_mask=True)
            yield f"{name}: quantize {d}", quantize(NEAREST), (x,)
            yield f"{name}: quantize {d} -> int8", quantize(to_int(NEAREST, "int8")), (x,)
            yield f"{name}: quantize {d}, floor + 0.5", quantize(HALVES), (x,)
            yield f"{name}: quantize {d} with mask", quantize(masked), (x,)
            yield f"{name}: quantize {d} with noise array", quantize(NEAREST), (x, shape(FLOAT32))
            yield f"{name}: clip gradient from mask, {d}", module.clip_gradient_from_mask, (x, byte)
            yield (
                f"{name}: clip gradient from x, {d}",
                lambda g, x, module=module: module.clip_gradient_from_x(g, x, NEAREST),
                (x, x),
            )
    x = shape(BFLOAT16)
    for dtype in ("int16", "int32"):
        yield (
            f"pallas: quantize bfloat16 -> {dtype}",
            lambda x, d=dtype: gpu.quantize(x, None, to_int(NEAREST, d)),
            (x,),
        )
    shared = shape(FLOAT32, 1, 4096)
    rows = shape(BFLOAT16, SIZE // 4096, 4096)
    yield "pallas: quantize bfloat16 with shared noise", lambda x, n: gpu.quantize(x, n, NEAREST), (rows, shared)
    large = shape(BFLOAT16, (1 << 31) + 4096)
    yield "pallas: quantize bfloat16, over 2**31 elements", lambda x: gpu.quantize(x, None, NEAREST), (large,)
    ragged = shape(FLOAT32, 3, 50257)
    masked = dataclasses.replace(NEAREST, with_mask=True)
    yield "pallas: quantize float32 with mask, ragged", lambda x: gpu.quantize(x, None, masked), (ragged,)


@functools.cache
def h100() -> jax.sharding.Mesh:
    """A mesh of one H100."""
    target = (pathlib.Path(__file__).parent / "h100.txtpb").read_text()
    topology = topologies.get_topology_desc(platform="cuda", target_config=target, topology="1x1x1")
    return topologies.make_mesh(topology, (1,), ("x",))


def compile_for_h100(function: Callable[..., Any], avals: tuple[jax.ShapeDtypeStruct, ...]) -> Any:
    """Compiles a function; the mesh is set because Pallas reads the device from it."""
    sharding = jax.sharding.NamedSharding(h100(), jax.sharding.PartitionSpec())
    avals = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding) for a in avals)
    with jax.set_mesh(h100()):
        return jax.jit(function).trace(*avals).lower().compile()


def tool(name: str) -> str:
    """The path of one of NVIDIA's tools: the one that pip installed, or the one on PATH."""
    found = pathlib.Path(sys.prefix).glob(f"lib/python3*/site-packages/nvidia/*/bin/{name}")
    path = next(map(str, found), None) or shutil.which(name)
    return path or sys.exit(
        f"{name} is not there: `make test-aot` installs it, as does pip install nvidia-cuda-nvcc nvidia-cuda-nvdisasm"
    )


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Runs one of the tools."""
    return subprocess.run(command, capture_output=True, text=True, check=True)


def kernels_in_dump() -> Iterator[dict[str, Any]]:
    """What the machine code of each dumped kernel does."""
    for ptx in sorted(pathlib.Path(DUMP).glob("*.ptx")):
        if ".entry" not in ptx.read_text():
            continue
        cubin = str(ptx.with_suffix(".cubin"))
        log = run(tool("ptxas"), "-arch=sm_90a", "-v", "-O3", str(ptx), "-o", cubin).stderr
        listing = run(tool("nvdisasm"), "-c", cubin).stdout.splitlines()
        found = [m.group(1) for m in map(INSTRUCTION.match, listing) if m]
        code = [name for name in found if name not in ("NOP", "BRA")]
        yield {
            "instructions": len(code),
            "registers": int(re.search(r"Used (\d+) registers", log).group(1)),
            "spill_bytes": sum(map(int, re.findall(r"(\d+) bytes spill", log))),
            "memory": dict(collections.Counter(n for n in code if n.startswith(("LDG", "STG", "LDS", "STS")))),
        }


def bits(memory: dict[str, int], kind: str) -> int:
    """How many bits a thread moves with the instructions of a kind."""
    return sum(int(WIDTH.match(name).group(1) or 32) * n for name, n in memory.items() if name.startswith(kind))


def measure(case: Case) -> dict[str, Any]:
    """Compiles one case and counts."""
    name, function, avals = case
    for old in pathlib.Path(DUMP).iterdir():
        old.unlink()
    analysis = compile_for_h100(function, avals).memory_analysis()
    elements = max(a.size for a in avals)
    per_element = 8 * sum(a.size * a.dtype.itemsize for a in avals) / elements
    kernels = list(kernels_in_dump())
    loaded = [bits(k["memory"], "LDG") / per_element for k in kernels]
    counts = [k["instructions"] / n if n else 0.0 for k, n in zip(kernels, loaded, strict=True)]
    return {
        "case": name,
        "chip": "h100",
        "kernels": len(kernels),
        "instructions_per_element": round(sum(counts), 2),
        "registers": max(k["registers"] for k in kernels),
        "spill_bytes": sum(k["spill_bytes"] for k in kernels),
        "temporary_bytes": analysis.temp_size_in_bytes,
        "memory": kernels[0]["memory"] if len(kernels) == 1 else [k["memory"] for k in kernels],
    }


if __name__ == "__main__":
    rows = []
    for case in cases():
        rows.append(measure(case))
        print({k: v for k, v in rows[-1].items() if k != "chip"}, file=sys.stderr)
    shutil.rmtree(DUMP)
    version = run(tool("ptxas"), "--version").stdout.split()[-1]
    print(json.dumps({"jax": jax.__version__, "ptxas": version, "cases": rows}, indent=1))
