"""`run`: launches a kernel on NumPy arrays."""

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from . import moving as moving  # which adds its instructions
from .kinds import KINDS
from .machine import Blocks, Execution, Launch
from .memory import SPAN, WARP, Memory, Region
from .parser import Entry, Variable, parse

TOGETHER = 1 << 14  # threads, of several blocks


def run(
    text: str,
    *buffers: np.ndarray | np.generic | None,
    grid: Sequence[int],
    block: Sequence[int],
    entry: str | None = None,
    shared: int = 0,
    outputs: Sequence[int] = (),
    alignments: Sequence[int] = (),
    blocks: Iterable[int] | None = None,
    trace: tuple[int, int] | None = None,
) -> Execution:
    """Runs a kernel of a PTX module.

    Args:
        text: The module.
        *buffers: One for each parameter of the kernel, in order: a C-contiguous array for a pointer, which is changed
            in place; None for a pointer that is null; a NumPy scalar for any other parameter.
        grid: How many blocks, along up to three axes.
        block: How many threads a block has, along up to three axes.
        entry: The name of the kernel; may be left out if the module has one.
        shared: Bytes of dynamic shared memory.
        outputs: The positions of the buffers that hold nothing yet, so that reading them is an error.
        alignments: To how many bytes each buffer is aligned, if the kernel's parameters do not say.
        blocks: The numbers of the blocks to run, x fastest; None runs all.
        trace: The number of a block and of a thread in it, whose instructions are recorded.

    Raises:
        ValueError: A wrong number of buffers or threads, or no such kernel, block or thread.
        TypeError: A buffer that is not an array, or not of the parameter's type.
        Error: One of its subclasses, which say what went wrong in the kernel.

    Example:
        >>> import numpy as np
        >>> module = '''.version 8.0
        ... .target sm_90
        ... .entry twice(.param .u64 .ptr .align 4 x) {
        ...     .reg .b32 %r<3>; .reg .b64 %d<3>;
        ...     ld.param.u64 %d0, [x]; mov.u32 %r0, %tid.x; mul.wide.u32 %d1, %r0, 4; add.s64 %d2, %d0, %d1;
        ...     ld.global.u32 %r1, [%d2]; shl.b32 %r2, %r1, 1; st.global.u32 [%d2], %r2; ret;
        ... }'''
        >>> x = np.arange(4, dtype=np.uint32)
        >>> done = run(module, x, grid=(1,), block=(4,))
        >>> x.tolist(), done.counts["shl.b32"]
        ([0, 2, 4, 6], 4)
    """
    module = parse(text)
    kernel = find(module.entries, entry)
    grid, block = (three(name, size) for name, size in (("grid", grid), ("block", block)))
    required, most = (kernel.about.get(word, block) for word in (".reqntid", ".maxntid"))
    if three("block", required) != block or math.prod(block) > math.prod(most):
        raise ValueError(f"block is {block}, and {kernel.name} is compiled for {required}, or at most {most}")
    if len(buffers) != len(kernel.parameters):
        raise ValueError(f"{len(buffers)} buffers, and {kernel.name} has {len(kernel.parameters)} parameters")
    if shared < 0 or not all(0 <= i < len(buffers) for i in outputs):
        raise ValueError(f"shared is {shared} and outputs are {outputs}: a size, and positions of buffers")
    number_of_blocks, threads = math.prod(grid), math.prod(block)
    chosen = range(number_of_blocks) if blocks is None else list(blocks)
    if not all(0 <= i < number_of_blocks for i in chosen):
        raise ValueError(f"blocks has {[i for i in chosen if not 0 <= i < number_of_blocks]}, of {number_of_blocks}")
    if trace is not None and not (trace[0] in chosen and 0 <= trace[1] < threads):
        raise ValueError(f"trace is {trace}: a block that runs, and a thread below {threads}")
    memory, parameters = Memory(), {}
    for i, (parameter, buffer) in enumerate(zip(kernel.parameters, buffers, strict=True)):
        align = alignments[i] if alignments else parameter.align or 4
        parameters[parameter.name] = bind(memory, i, parameter, buffer, align, i in outputs)
    symbols, total = place_variables(memory, module.variables.values(), shared)
    launch = Launch(kernel, grid, block, parameters, symbols, memory, total, trace)
    execution = Execution()
    with np.errstate(all="ignore"):
        for together in groups(launch, list(chosen)):
            Blocks(launch, together, execution).run()
        memory.check_races()
    return execution


def groups(launch: Launch, blocks: list[int]) -> Iterator[list[int]]:
    """Blocks that run together, because it takes less time: one at a time if their threads wait for each other."""
    alone = launch.shared or any(one.opcode.startswith("bar") for one in launch.entry.code)
    size = 1 if alone or math.prod(launch.block) % WARP else max(1, TOGETHER // math.prod(launch.block))
    for start in range(0, len(blocks), size):
        yield blocks[start : start + size]


def find(entries: dict[str, Entry], name: str | None) -> Entry:
    if name is None and len(entries) == 1:
        return next(iter(entries.values()))
    if name not in entries:
        raise ValueError(f"entry is {name!r}, and the module has {', '.join(entries) or 'none'}")
    return entries[name]


def three(name: str, size: Sequence[int]) -> tuple[int, int, int]:
    found = (*size, 1, 1, 1)[: max(len(size), 3)]
    is_whole = all(isinstance(n, int | np.integer) for n in found)
    if len(found) != 3 or not is_whole or min(found) < 1 or (name == "block" and math.prod(found) > 1024):
        raise ValueError(f"{name} is {tuple(size)}: up to three positive numbers, and at most 1024 threads per block")
    return found


def bind(
    memory: Memory, i: int, parameter: Variable, buffer: np.ndarray | np.generic | None, align: int, is_output: bool
) -> np.ndarray:
    """The bytes of a parameter, and its buffer in memory."""
    width = parameter.kind.bits // 8 * (parameter.count or 1)
    if isinstance(buffer, np.generic) and not parameter.is_pointer and buffer.nbytes == width:
        return np.frombuffer(buffer.tobytes(), np.uint8)
    if width != 8 or not (buffer is None or isinstance(buffer, np.ndarray)):
        raise TypeError(
            f"parameter {parameter.name} is .{parameter.kind.name}, and its buffer is {type(buffer).__name__}"
        )
    base = 0
    if buffer is not None:
        if not buffer.flags.c_contiguous or (not buffer.flags.writeable and is_output):
            raise ValueError(f"the buffer of {parameter.name} is not C-contiguous and writable")
        base = ((i + 1) << SPAN) + align
        data = buffer.reshape(-1).view(np.uint8)
        written = np.zeros(data.size, bool) if is_output else None
        memory.add(Region(parameter.name, base, data, written, is_constant=not buffer.flags.writeable))
    return np.array([base], np.uint64).view(np.uint8)


def place_variables(memory: Memory, variables: Iterable[Variable], dynamic: int) -> tuple[dict[str, int], int]:
    """The addresses of variables, and how many bytes of shared memory there are."""
    symbols, end = {}, 0
    for number, variable in enumerate(sorted(variables, key=lambda v: v.count is None)):  # of the launch's size: last
        size = variable.kind.bits // 8
        if variable.space == "shared":
            end += -end % max(variable.align, size)
            symbols[variable.name] = end
            end += size * variable.count if variable.count is not None else 0
            continue
        data = np.zeros(variable.count or 1, KINDS[f"u{8 * size}"].dtype)
        data[: len(variable.values)] = np.array(variable.values, object) & ((1 << (8 * size)) - 1)
        base = ((1 << 10) + number) << SPAN
        memory.add(Region(variable.name, base, data.view(np.uint8), is_constant=variable.space == "const"))
        symbols[variable.name] = base
    return symbols, end + dynamic
