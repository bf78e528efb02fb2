"""H100: XLA, Triton or Mosaic writes PTX, `ptxas` makes machine code of it, and `nvdisasm` lists that.

The instructions of a kernel are those of one thread, times the threads that are launched, divided by the elements.
Those of a loop count once per turn, and both ways of a branch count. `h100.txtpb` describes an H100 SXM to XLA.
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
from jax.extend.core import jaxprs_in_params

from bench.aot import mosaic
from bench.aot.case import Case
from bench.aot.traffic import traffic

INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")
LABEL, JUMP = re.compile(r"^(\.L_x_\d+):"), re.compile(r"\bBRA\b.*`\((\.L_x_\d+)\)")
MERGED = re.compile(r"\bFFMA\b(?!.*\d\.\d)")  # a product and a sum of numbers that are not constants
ENTRY = re.compile(r"\.entry (\w+)")
LAUNCH = re.compile(r"(\S+) grid: \[([\d, ]+)\] threads: \[([\d, ]+)\]")  # in what XLA dumps of its thunks
MEMORY = re.compile(r"(?:LD|ST)[GS]?\.")  # not of constants; without a letter the space is found as the kernel runs
# What does not go through the ALU: floats and products, conversions, memory, the datapath that a warp shares, control.
NOT_ALU = re.compile(
    r"[FH](?:ADD|MUL|FMA)|IMAD|IDP|MUFU|F2F\b|F2I\b|I2F\b|FRND|LD|ST|U[A-Z]|R2UR|S2U?R|CS2R|EXIT|BAR|ACQBULK|DEPBAR"
)


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


def kernels_in(compiled: Any, case: Case, dump: pathlib.Path) -> Iterator[dict[str, Any]]:
    """What the machine code of each kernel does, and how many threads run it."""
    [thunks] = dump.glob("*thunk_sequence.txt")
    numbers = lambda sizes: math.prod(map(int, sizes.split(",")))  # noqa: E731
    threads = {name: numbers(grid) * numbers(block) for name, grid, block in LAUNCH.findall(thunks.read_text())}
    for launch in mosaic.launches(compiled.as_text()).values():
        (dump / f"{launch.name}.ptx").write_text(launch.text)
        threads[launch.name] = math.prod(launch.grid) * math.prod(launch.block)
    for ptx in sorted(dump.rglob("*.ptx")):
        text = ptx.read_text()
        if not (entry := ENTRY.search(text)):
            continue
        cubin, block = str(ptx.with_suffix(".cubin")), re.search(r"\.(?:req|max)ntid (\d+)", text)
        log = run("ptxas", "-arch=sm_90a", "-v", "-O3", str(ptx), "-o", cubin).stderr
        listing = run("nvdisasm", "-c", cubin).stdout.splitlines()
        is_of_xla = entry[1] in threads and "intnumerics" not in entry[1]
        executed = executions(listing, [] if is_of_xla else turns(jax.make_jaxpr(case.function)(*case.avals).jaxpr))
        found = [(m.group(1), times) for m, times in zip(map(INSTRUCTION.match, listing), executed, strict=True) if m]
        found = [(name, times) for name, times in found if name not in ("NOP", "BRA")]
        code = [name for name, _ in found]
        yield {
            "is_of_xla": is_of_xla,
            "instructions": sum(times for _, times in found),
            "alu": sum(times for name, times in found if not NOT_ALU.match(name)),
            "merged": sum(bool(MERGED.search(line)) for line in listing),
            "threads": threads[entry[1]] if entry[1] in threads else jax_triton_blocks(case) * int(block[1]),
            "registers": int(re.search(r"Used (\d+) registers", log).group(1)),
            "spill_bytes": sum(map(int, re.findall(r"(\d+) bytes spill", log))),
            "memory": dict(collections.Counter(filter(MEMORY.match, code))),
        }


def turns(jaxpr: Any) -> list[int]:
    """How many turns the loops in a program take, in the order in which they stand."""
    found = list[int]()
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            found.append(equation.params["length"])
        for inner in jaxprs_in_params(equation.params):
            found += turns(inner)
    return found


def executions(listing: list[str], lengths: list[int]) -> list[int]:
    """How often each line of machine code is executed; the loops in it take so many turns, in this order.

    Raises:
        ValueError: The machine code has another number of loops than the program.
    """
    times, labels, loops = [1] * len(listing), dict[str, int](), list[tuple[int, int]]()
    for i, line in enumerate(listing):
        if label := LABEL.match(line):
            labels[label[1]] = i
        elif (jump := JUMP.search(line)) and any(map(INSTRUCTION.match, listing[labels.get(jump[1], i) : i])):
            loops.append((labels[jump[1]], i))
    if not lengths:
        return times
    if len(loops) != len(lengths):
        raise ValueError(f"{len(loops)} loops in machine code, and {len(lengths)} in the program")
    for (start, end), length in zip(sorted(loops), lengths, strict=True):
        times[start : end + 1] = [length] * (end + 1 - start)
    return times


def jax_triton_blocks(case: Case) -> int:
    """How many blocks of threads jax-triton launches, which XLA's thunks do not say."""
    equations = jax.make_jaxpr(case.function)(*case.avals).eqns
    return math.prod(*(e.params["grid"] for e in equations if e.primitive.name == "triton_kernel_call"))


def measure(case: Case, chip: str, dump: pathlib.Path) -> dict[str, Any]:
    compiled = case.compiled(h100())
    kernels = list(kernels_in(compiled, case, dump))
    instructions, alu = (sum(k[what] * k["threads"] for k in kernels) for what in ("instructions", "alu"))
    return {
        "instructions_per_element": round(instructions / case.elements, 2),
        "alu_per_element": round(alu / case.elements, 2),
        "bytes_per_element": round(sum(map(sum, traffic(compiled.as_text()).values())) / case.elements, 2),
        "least_bytes_per_element": round(case.least_bytes_per_element, 2),
        "kernels": len(kernels),
        "kernels_of_xla": sum(k["is_of_xla"] for k in kernels),
        "registers": max(k["registers"] for k in kernels),
        "spill_bytes": sum(k["spill_bytes"] for k in kernels),
        "merged": sum(k["merged"] for k in kernels),
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "memory": dict(sorted(sum((collections.Counter(k["memory"]) for k in kernels), collections.Counter()).items())),
    }


def version() -> str:
    return f"ptxas {run('ptxas', '--version').stdout.split()[-1]}"
