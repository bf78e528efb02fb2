"""H100: XLA writes PTX, `ptxas` makes machine code of it, and `nvdisasm` lists that.

A kernel's instructions are divided by the elements of the result that one thread sees to, which what it stores tells;
there are no loops in them, and both ways of a branch count. What XLA does once, in a kernel of one warp, such as work
on a key, is counted as a kernel and not in that quotient. `h100.txtpb` describes an H100 SXM to XLA.
"""

import collections
import functools
import pathlib
import re
import shutil
import subprocess
import sys
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
    array,
    drawing,
    formulas,
    operations,
    plain,
    quantize,
)
from bench.aot.hlo import OURS, traffic
from bench.baselines import GENERATORS
from intnumerics.kernels import pallas_triton

SIZE, WARP = 1 << 24, 32
INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")
ENTRY = re.compile(r"\.entry (\w+)")
WIDTH = re.compile(r"^(?:LDG|STG)\.E(?:\.[SU]?(\d+))?")
# What does not go through the ALU: floats and products, conversions, memory, the datapath that a warp shares, control.
NOT_ALU = re.compile(
    r"[FH](?:ADD|MUL|FMA)|IMAD|IDP|MUFU|F2F\b|F2I\b|I2F\b|FRND|LD|ST|U[A-Z]|R2UR|S2U?R|CS2R|EXIT|BAR|ACQBULK|DEPBAR"
)


def cases() -> Iterator[Case]:
    """Every kernel, XLA's own fusion of the same operations, and the formula."""
    yield from kernel_cases("pallas", pallas_triton)
    xla_gpu = plain("cuda")
    yield from operations(xla_gpu, "xla", (SIZE,))
    yield from stochastic_cases("xla", xla_gpu)
    seed, shape, x = array(jnp.uint32, 4), (SIZE,), array(BFLOAT16, SIZE)
    jax_uniform = drawing(xla_gpu, NEAREST, shape, "int8", "threefry_23_bits")
    yield Case("xla: quantize bfloat16 -> int8 with JaxUniform", jax_uniform, (x, seed))
    to_int8 = drawing(xla_gpu, NEAREST, shape, "int8")
    chain = lambda x, seed: to_int8(jax.nn.gelu(x) * 16, seed)  # noqa: E731
    yield Case("xla: chain of gelu and quantize bfloat16 -> int8 with Philox", chain, (x, seed))
    yield from formulas((SIZE,), tested=GENERATORS)


def jobs(everything: bool) -> list[tuple[Case, str]]:
    """What to compile for which chip: what is tested, or all that is reported."""
    return [(case, "h100") for case in cases() if everything or case.tested]


def kernel_cases(name: str, module: Any) -> Iterator[Case]:
    """Every operation of a module of kernels, then shapes and dtypes that take another way."""
    yield from operations(module, name, (SIZE,))
    x = array(BFLOAT16, SIZE)
    yield Case(f"{name}: quantize bfloat16 -> int16", quantize(module, NEAREST, "int16"), (x,))
    yield Case(f"{name}: quantize bfloat16 -> int32", quantize(module, NEAREST, "int32"), (x,))
    rows, shared = array(BFLOAT16, SIZE // 4096, 4096), array(FLOAT32, 1, 4096)
    yield Case(f"{name}: quantize bfloat16 with shared noise", quantize(module, NEAREST), (rows, shared))
    large, wide = array(BFLOAT16, (1 << 31) + 5), array(BFLOAT16, (1 << 20) + 1, 4096)
    packed, from_mask = array(jnp.uint8, (1 << 28) + 1), module.clip_gradient_from_mask
    yield Case(f"{name}: quantize bfloat16 with mask, 2**31 + 5", quantize(module, MASKED), (large,))
    yield Case(f"{name}: clip gradient from mask, bfloat16, 2**31 + 5", from_mask, (large, packed))
    yield Case(f"{name}: quantize bfloat16 with shared noise, 2**32 + 4096", quantize(module, NEAREST), (wide, shared))
    for shape in ((1,), (10_000_019,), (3, 50257)):
        of_shape = f"{name}: quantize float32 with mask, {'x'.join(map(str, shape))}"
        yield Case(of_shape, quantize(module, MASKED), (array(FLOAT32, *shape),))
    yield from stochastic_cases(name, module)
    seed, shape = array(jnp.uint32, 4), (SIZE,)
    yield Case(f"{name}: quantize bfloat16 with Philox and mask", drawing(module, MASKED, shape), (x, seed))
    yield Case(f"{name}: quantize bfloat16 -> int32 with Philox", drawing(module, NEAREST, shape, "int32"), (x, seed))
    batch, inner = 64, SIZE // 64
    seeds, examples = array(jnp.uint32, batch, 4), array(BFLOAT16, batch, inner)
    of_batch = drawing(module, NEAREST, (inner,))
    yield Case(f"{name}: quantize bfloat16 with Philox, 64 seeds", of_batch, (examples, seeds))
    of_large = drawing(module, NEAREST, large.shape)
    yield Case(f"{name}: quantize bfloat16 with Philox, 2**31 + 5", of_large, (large, seed))


def stochastic_cases(name: str, module: Any) -> Iterator[Case]:
    """Noise drawn in the pass, by a kernel or by XLA in its own fusion."""
    seed = array(jnp.uint32, 4)
    for dtype in (FLOAT32, BFLOAT16, FLOAT16):
        for to, integer in (("", None), (" -> int8", "int8")):
            of_dtype = f"{name}: quantize {jnp.dtype(dtype).name}{to} with Philox"
            yield Case(of_dtype, drawing(module, NEAREST, (SIZE,), integer), (array(dtype, SIZE), seed))
    part, whole = (4096, SIZE // 4096), (8192, SIZE // 2048)
    of_part = drawing(module, NEAREST, part, "int8", whole=whole)
    yield Case(f"{name}: quantize bfloat16 -> int8 with Philox, a part", of_part, (array(BFLOAT16, *part), seed))


@functools.cache
def h100() -> jax.sharding.Mesh:
    """A mesh of one H100."""
    target = (pathlib.Path(__file__).parent / "h100.txtpb").read_text()
    topology = topologies.get_topology_desc(platform="cuda", target_config=target, topology="1x1x1")
    return topologies.make_mesh(topology, (1,), ("x",))


def compile_for_h100(case: Case) -> Any:
    """Compiles a case; the mesh is set because Pallas reads the device from it."""
    sharding = jax.sharding.NamedSharding(h100(), jax.sharding.PartitionSpec())
    avals = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding) for a in case.avals)
    with jax.set_mesh(h100()):
        return jax.jit(case.function).trace(*avals).lower().compile()


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


def kernels_in(dump: pathlib.Path) -> Iterator[dict[str, Any]]:
    """What the machine code of each dumped kernel does."""
    for ptx in sorted(dump.rglob("*.ptx")):
        text = ptx.read_text()
        if not ENTRY.search(text):
            continue
        cubin, threads = str(ptx.with_suffix(".cubin")), re.search(r"\.(?:req|max)ntid (\d+)", text)
        log = run(tool("ptxas"), "-arch=sm_90a", "-v", "-O3", str(ptx), "-o", cubin).stderr
        listing = run(tool("nvdisasm"), "-c", cubin).stdout.splitlines()
        found = [m.group(1) for m in map(INSTRUCTION.match, listing) if m]
        code = [name for name in found if name not in ("NOP", "BRA")]
        yield {
            "name": ENTRY.search(text).group(1),
            "instructions": len(code),
            "alu": sum(not NOT_ALU.match(name) for name in code),
            "threads": int(threads.group(1)),
            "registers": int(re.search(r"Used (\d+) registers", log).group(1)),
            "spill_bytes": sum(map(int, re.findall(r"(\d+) bytes spill", log))),
            "memory": dict(collections.Counter(n for n in code if n.startswith(("LDG", "STG", "LDS", "STS")))),
        }


def bits(memory: dict[str, int], kind: str) -> int:
    """How many bits a thread moves with the instructions of a kind."""
    return sum(int(WIDTH.match(name).group(1) or 32) * n for name, n in memory.items() if name.startswith(kind))


def measure(case: Case, chip: str, dump: pathlib.Path) -> dict[str, Any]:
    """Compiles one case and counts."""
    compiled = compile_for_h100(case)
    moved = traffic(compiled.as_text())
    kernels = list(kernels_in(dump))
    totals = {"instructions": 0.0, "alu": 0.0}
    for kernel in kernels:
        if kernel["threads"] > WARP:
            name = kernel["name"] if kernel["name"] in moved else OURS
            threads = 8 * moved[name][1] / bits(kernel["memory"], "STG")
            for what in totals:
                totals[what] += kernel[what] * threads / case.elements
    return {
        "case": case.name,
        "chip": chip,
        "instructions_per_element": round(totals["instructions"], 2),
        "alu_per_element": round(totals["alu"], 2),
        "bytes_per_element": round(sum(map(sum, moved.values())) / case.elements, 2),
        "least_bytes_per_element": round(case.least_bytes_per_element, 2),
        "kernels": len(kernels),
        "kernels_of_one_warp": sum(k["threads"] <= WARP for k in kernels),
        "registers": max(k["registers"] for k in kernels),
        "spill_bytes": sum(k["spill_bytes"] for k in kernels),
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "memory": dict(sorted(sum((collections.Counter(k["memory"]) for k in kernels), collections.Counter()).items())),
    }


def compiler() -> str:
    """The compiler and its version."""
    return f"ptxas {run(tool('ptxas'), '--version').stdout.split()[-1]}"
