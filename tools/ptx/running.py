"""`run`: launches a kernel on NumPy arrays."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from . import moving as moving  # which adds its instructions
from .kinds import UNSIGNED
from .machine import Blocks, Execution, Launch
from .memory import SPAN, WARP, Memory, Region
from .parser import Variable, parse

Buffer = np.ndarray | np.generic | None
TOGETHER = 1 << 14  # threads, of several blocks
# A buffer begins so many bytes, less its alignment, after a round address. So the address has ones above the zeros that
# the alignment promises. A compiler that takes more of its bits for zeros, and adds an offset by `or`, gets it wrong.
ODD = 1 << 12


def run(
    text: str,
    *buffers: Buffer,
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
        alignments: To how many bytes each buffer is aligned; if left out, as the kernel's parameters say.
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
    names = [entry] if entry else [*module.entries]
    if len(names) != 1 or names[0] not in module.entries:
        raise ValueError(f"entry is {entry!r}, and the module has {', '.join(module.entries) or 'none'}")
    kernel = module.entries[names[0]]
    grid, block = (three(name, size) for name, size in (("grid", grid), ("block", block)))
    required, most = (kernel.about.get(word, block) for word in (".reqntid", ".maxntid"))
    if three("block", required) != block or math.prod(block) > math.prod(most):
        raise ValueError(f"block is {block}, and {kernel.name} is compiled for {required}, or at most {most}")
    if len(buffers) != len(kernel.parameters):
        raise ValueError(f"{len(buffers)} buffers, and {kernel.name} has {len(kernel.parameters)} parameters")
    if shared < 0 or not all(0 <= i < len(buffers) for i in outputs) or 0 < len(alignments) < len(buffers):
        raise ValueError(f"shared {shared}, outputs {outputs} or alignments {alignments} do not fit the buffers")
    chosen = [*range(math.prod(grid))] if blocks is None else list(blocks)
    if wrong := [i for i in chosen if not 0 <= i < math.prod(grid)]:
        raise ValueError(f"blocks has {wrong}, of {math.prod(grid)}")
    if trace is not None and not (trace[0] in chosen and 0 <= trace[1] < math.prod(block)):
        raise ValueError(f"trace is {trace}: a block that runs, and a thread below {math.prod(block)}")
    spaces = {space: Memory() for space in ("global", "const", "param")}
    spaces[""] = spaces["global"]  # of a generic address, which is one in global memory: see `moving.move`
    symbols, total = place(spaces, module.variables.values(), shared)
    for i, (parameter, buffer) in enumerate(zip(kernel.parameters, buffers, strict=True)):
        align = alignments[i] if alignments else parameter.align or 4
        data = bind(spaces["global"], (i + 1) << SPAN, parameter, buffer, align, i in outputs)
        symbols[parameter.name] = (i + 1) << SPAN
        spaces["param"].add(Region(parameter.name, symbols[parameter.name], data, is_constant=True))
    launch, execution = Launch(kernel, grid, block, symbols, spaces, total, trace or (-1, -1)), Execution()
    # Blocks run together, because it takes less time; but one at a time if they use memory or a warp of their own.
    alone = (total and ".shared" in text) or math.prod(block) % WARP
    size = 1 if alone else max(1, TOGETHER // math.prod(block))
    with np.errstate(all="ignore"):
        for start in range(0, len(chosen), size):
            Blocks(launch, chosen[start : start + size], execution).run()
        spaces["global"].check_races()
    return execution


def three(name: str, size: Sequence[int]) -> tuple[int, int, int]:
    found = (*size, 1, 1, 1)[: max(len(size), 3)]
    is_whole = all(isinstance(n, int | np.integer) for n in found)
    if len(found) != 3 or not is_whole or min(found) < 1 or (name == "block" and math.prod(found) > 1024):
        raise ValueError(f"{name} is {tuple(size)}: up to three positive numbers, and at most 1024 threads per block")
    return found


def bind(memory: Memory, start: int, parameter: Variable, buffer: Buffer, align: int, is_output: bool) -> np.ndarray:
    """The bytes of a parameter; a buffer is put into memory."""
    width = parameter.kind.bits // 8 * (parameter.length or 1)
    if isinstance(buffer, np.generic) and not parameter.is_pointer and buffer.nbytes == width:
        return np.frombuffer(buffer.tobytes(), np.uint8)
    if width != 8 or not (buffer is None or isinstance(buffer, np.ndarray)):
        raise TypeError(f"{parameter.name} is .{parameter.kind.name}, and its buffer is {type(buffer).__name__}")
    if buffer is None:
        return np.zeros(8, np.uint8)
    if not buffer.flags.c_contiguous or (not buffer.flags.writeable and is_output):
        raise ValueError(f"the buffer of {parameter.name} is not C-contiguous and writable")
    data = buffer.reshape(-1).view(np.uint8)
    address = start + ODD - align
    written = np.zeros(data.size, bool) if is_output else None
    memory.add(Region(parameter.name, address, data, written, is_constant=not buffer.flags.writeable))
    return np.array([address], np.uint64).view(np.uint8)


def place(spaces: dict[str, Memory], variables: Iterable[Variable], dynamic: int) -> tuple[dict[str, int], int]:
    """The addresses of variables, and how many bytes of shared memory there are."""
    symbols, end = {}, 0
    for number, one in enumerate(sorted(variables, key=lambda v: v.length is None)):  # of the launch's size: last
        size = one.kind.bits // 8
        align = max(one.align, size)
        if one.space == "shared":
            symbols[one.name] = end = end + (align - end) % (2 * align)
            end += size * (one.length or 0)
            continue
        data = np.zeros(one.length or 1, UNSIGNED[one.kind.bits])
        data[: len(one.values)] = np.array(one.values, object) & ((1 << one.kind.bits) - 1)
        symbols[one.name] = base = (((1 << 10) + number) << SPAN) + align
        spaces[one.space].add(Region(one.name, base, data.view(np.uint8), is_constant=one.space == "const"))
    return symbols, end + dynamic
