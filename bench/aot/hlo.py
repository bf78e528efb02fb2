"""What the kernels of a program for a GPU read and write, from the program's own text."""

import re

INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*?)\)", re.MULTILINE)
ARRAY = re.compile(r"([a-z]+)(\d*)\w*\[([\d,]*)\]")
OURS = "intnumerics"  # for the machine code of our kernels, which has no name in the program
FREE = {"parameter", "constant", "bitcast", "get-tuple-element", "tuple"}  # move nothing


def size_of(kind: str) -> int:
    """The bytes of an array, or of all arrays of a tuple, from its type as HLO writes it."""
    total = 0
    for _, bits, shape in ARRAY.findall(kind):
        elements = 1
        for size in filter(None, shape.split(",")):
            elements *= int(size)
        total += elements * max(int(bits or 8), 8) // 8  # a pred, which names no bits, takes a byte
    return total


def traffic(program: str) -> dict[str, tuple[int, int]]:
    """The bytes that each kernel reads and writes, by the name of its machine code: `OURS` for the one of ours.

    Each of a kernel's arrays is counted once: what it reads twice is in a cache.
    """
    instructions = INSTRUCTION.findall(program[program.index("\nENTRY ") :])
    sizes = {name: size_of(kind) for name, kind, _, _ in instructions}
    found = {}
    for name, kind, operation, operands in instructions:
        if operation not in FREE:
            read = sum(sizes[operand] for operand in set(re.findall(r"%([\w.-]+)", operands)))
            found[OURS if operation == "custom-call" else re.sub(r"[.-]", "_", name)] = (read, size_of(kind))
    return found
