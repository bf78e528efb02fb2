"""Compiles one of the programs of `bench.aot` for an H100, runs it on a CPU, and shows what its kernels executed.

    python -m tools.ptx --list
    python -m tools.ptx "pallas_triton: quantize bfloat16 -> int8 with Philox" --trace 0 17

x is normal numbers times 100. Counts are of instructions that threads executed, so of a branch the way that was taken.
"""

import argparse
import dataclasses
import math
import sys

import jax
import numpy as np

from bench.aot.case import Case
from bench.aot.cases import cases

from .errors import Error
from .machine import Execution
from .parser import parse
from .program import Kernel, compile


def shortened(case: Case, elements: int) -> Case:
    """The case with fewer examples or rows, so that x has about so many elements."""
    batch, axes = case.shape[: case.batch], case.shape[case.batch :]
    rest = math.prod(batch) * math.prod(axes[1:])
    return dataclasses.replace(case, shape=(*batch, max(1, min(axes[0], elements // rest)), *axes[1:]))


def random_like(aval: jax.ShapeDtypeStruct) -> np.ndarray:
    rng, dtype = np.random.default_rng(0), np.dtype(aval.dtype)
    if dtype.kind == "u":
        return rng.integers(0, np.iinfo(dtype).max, aval.shape, dtype, endpoint=True)
    return (rng.normal(size=aval.shape) * 100).astype(dtype)


def show(kernel: Kernel, execution: Execution, elements: int) -> None:
    total = sum(execution.counts.values()) / elements
    print(f"\n{kernel.name}: grid {kernel.grid}, block {kernel.block}, {kernel.shared} bytes of shared memory")
    for form, count in [("instructions per element", total * elements), *execution.counts.most_common()]:
        print(f"{count / elements:10.3f}  {form}")


def show_trace(kernel: Kernel, execution: Execution) -> None:
    registers = parse(kernel.text).entries[kernel.name].registers
    for step in execution.trace:
        print(f"{step.line:5}  {step.text.expandtabs()}")
        for name, bits in step.writes.items():
            size = registers[name].bits
            value = f", as a float {np.array(bits, np.uint32).view(np.float32)}" if size == 32 else ""
            print(f"{'':10} {name} = {bits:#0{2 + -(-size // 4)}x}{value}")


def main() -> None:
    known = {case.name: case for platform in ("cuda", "jax_triton") for case in cases(platform)}
    parser = argparse.ArgumentParser(prog="python -m tools.ptx", description=str(__doc__).splitlines()[0])
    parser.add_argument("case", nargs="?", help="the name of a case")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("--elements", type=int, default=1 << 14, help="about how many elements x has (default: 16384)")
    parser.add_argument("--trace", type=int, nargs=2, metavar=("BLOCK", "THREAD"), help="what one thread executes")
    options = parser.parse_args()
    if options.list:
        print(*known, sep="\n")
        return
    if options.case is None:
        parser.error("say which case; --list prints their names")
    if options.case not in known:
        parser.error(f"no case is named {options.case!r}; --list prints their names")
    if options.elements < 1:
        parser.error(f"--elements is {options.elements}: it must be positive")
    jax.config.update("jax_platforms", "cpu")
    case = shortened(known[options.case], options.elements)
    try:
        program = compile(case.function, *case.avals)
        largest = max(program.kernels, key=lambda kernel: math.prod(kernel.grid))
        program(*map(random_like, case.avals), trace=(largest.name, *options.trace) if options.trace else None)
    except (Error, ValueError, RuntimeError) as error:
        sys.exit(f"{case.name}: {error}")
    print(f"{case.name}: {case.elements} elements")
    for kernel, execution in zip(program.kernels, program.executions, strict=True):
        show(kernel, execution, case.elements)
    for kernel, execution in zip(program.kernels, program.executions, strict=True):
        show_trace(kernel, execution)


if __name__ == "__main__":
    main()
