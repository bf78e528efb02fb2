"""H100: XLA or Triton writes PTX, `ptxas` makes machine code of it, and `nvdisasm` lists that.

A kernel's instructions are divided by the elements of the result that one thread sees to, which what it stores tells;
there are no loops in them, and both ways of a branch count. What XLA does once, in a kernel of one warp, such as work
on a key, is counted as a kernel and not in that quotient. `h100.txtpb` describes an H100 SXM to XLA.
"""

import collections
import functools
import math
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import topologies

from bench.aot import mosaic
from bench.aot.cases import Case

WARP = 32
INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")
ENTRY = re.compile(r"\.entry (\w+)")
WIDTH = re.compile(r"^(?:LDG|STG)\.E(?:\.[SU]?(\d+))?")
# What does not go through the ALU: floats and products, conversions, memory, the datapath that a warp shares, control.
NOT_ALU = re.compile(
    r"[FH](?:ADD|MUL|FMA)|IMAD|IDP|MUFU|F2F\b|F2I\b|I2F\b|FRND|LD|ST|U[A-Z]|R2UR|S2U?R|CS2R|EXIT|BAR|ACQBULK|DEPBAR"
)
IN_HLO = re.compile(r"^\s+(?:ROOT )?%([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*?)\)", re.MULTILINE)
ARRAY = re.compile(r"([a-z]+)(\d*)\w*\[([\d,]*)\]")
OURS = "intnumerics"  # for the machine code of our kernels, which has no name in the program
FREE = {"parameter", "constant", "bitcast", "get-tuple-element", "tuple"}  # move nothing


@functools.cache
def h100() -> jax.sharding.Mesh:
    mosaic.folder()  # before Mosaic compiles anything
    target = (pathlib.Path(__file__).parent / "h100.txtpb").read_text()
    topology = topologies.get_topology_desc(platform="cuda", target_config=target, topology="1x1x1")
    return topologies.make_mesh(topology, (1,), ("x",))


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs one of NVIDIA's tools: the one that pip installed, or the one on PATH."""
    found = pathlib.Path(sys.prefix).glob(f"lib/python3*/site-packages/nvidia/*/bin/{name}")
    if (path := next(map(str, found), None) or shutil.which(name)) is None:
        sys.exit(
            f"{name} is not there: `make test-aot` installs it, or pip install nvidia-cuda-nvcc nvidia-cuda-nvdisasm"
        )
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=True)


def kernels_in(dump: pathlib.Path) -> Iterator[dict[str, Any]]:
    """What the machine code of each dumped kernel does."""
    for ptx in sorted(dump.rglob("*.ptx")):
        text = ptx.read_text()
        if not ENTRY.search(text):
            continue
        cubin, threads = str(ptx.with_suffix(".cubin")), re.search(r"\.(?:req|max)ntid (\d+)", text)
        log = run("ptxas", "-arch=sm_90a", "-v", "-O3", str(ptx), "-o", cubin).stderr
        listing = run("nvdisasm", "-c", cubin).stdout.splitlines()
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


def size_of(kind: str) -> int:
    """The bytes of an array, or of all arrays of a tuple, from its type as HLO writes it."""
    total = 0
    for _, bits, shape in ARRAY.findall(kind):  # a pred, which names no bits, takes a byte
        total += math.prod(map(int, filter(None, shape.split(",")))) * max(int(bits or 8), 8) // 8
    return total


def traffic(program: str) -> dict[str, tuple[int, int]]:
    """The bytes that each kernel reads and writes, by the name of its machine code: `OURS` for the one of ours.

    Each of a kernel's arrays is counted once: what it reads twice is in a cache.
    """
    instructions = IN_HLO.findall(program[program.index("\nENTRY ") :])
    sizes = {name: size_of(kind) for name, kind, _, _ in instructions}
    found = {}
    for name, kind, operation, operands in instructions:
        if operation not in FREE:
            read = sum(sizes[operand] for operand in set(re.findall(r"%([\w.-]+)", operands)))
            found[OURS if operation == "custom-call" else re.sub(r"[.-]", "_", name)] = (read, size_of(kind))
    return found


def measure(case: Case, chip: str, dump: pathlib.Path) -> dict[str, Any]:
    compiled = case.compiled(h100())
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


def version() -> str:
    return f"ptxas {run('ptxas', '--version').stdout.split()[-1]}"
