"""The bytes that each instruction of a compiled program reads and writes, from the program's text."""

import collections
import math
import re
from typing import NamedTuple

COMPUTATION = re.compile(r"^(ENTRY )?%([\w.-]+) \(.*?^\}", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"^\s+(?:ROOT )?%([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*?)\)(?:.* calls=%([\w.-]+))?", re.MULTILINE)
ARRAY = re.compile(r"([a-z]+)(\d*)\w*\[([\d,]*)\]")
FREE = {"parameter", "constant", "bitcast", "get-tuple-element", "tuple"}  # move nothing
SLICES = {"slice", "dynamic-slice"}


class Instruction(NamedTuple):
    """An instruction as HLO writes it, with what is in its parentheses, and the computation that a fusion calls."""

    name: str
    kind: str
    operation: str
    inside: str
    calls: str

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.-]+)", self.inside)


def size_of(kind: str) -> int:
    """The bytes of an array, or of all arrays of a tuple, from its type as HLO writes it."""
    total = 0
    for _, bits, shape in ARRAY.findall(kind):  # a pred, which names no bits, takes a byte
        total += math.prod(map(int, filter(None, shape.split(",")))) * max(int(bits or 8), 8) // 8
    return total


def traffic(program: str) -> dict[str, tuple[int, int]]:
    """The bytes that each instruction reads and writes, by its name.

    Each array is counted once, for what is read twice is in a cache. Of a slice, and of an array that is updated in
    place, only the part counts.
    """
    computations, main = dict[str, dict[str, Instruction]](), dict[str, Instruction]()
    for found in COMPUTATION.finditer(program):
        computations[found[2]] = {line[0]: Instruction(*line) for line in LINE.findall(found[0])}
        main = computations[found[2]] if found[1] else main
    moved = dict[str, tuple[int, int]]()
    for one in main.values():
        if one.operation not in FREE:
            alone = (*(main[name]._replace(operation="parameter", inside="") for name in one.operands), one)
            moved[one.name] = _moved(tuple(computations[one.calls].values()) if one.calls else alone)
    return moved


def _moved(body: tuple[Instruction, ...]) -> tuple[int, int]:
    """What is read of the parameters of a computation, and what is written of its result, which is the last."""
    view_of, read = dict[str, str](), collections.Counter[str]()
    sizes = {one.name: size_of(one.kind) for one in body}
    written = dict(sizes)
    for one in body:
        operands = [view_of.get(name, name) for name in one.operands]
        if one.operation == "bitcast":
            view_of[one.name], written[one.name] = operands[0], written[operands[0]]
            continue
        if one.operation == "tuple":
            written[one.name] = sum(written[name] for name in operands)
        elif one.operation == "dynamic-update-slice":
            written[one.name] = sizes[operands[1]]
        for place, name in enumerate(operands):
            is_part = place == 0 and one.operation in (*SLICES, "dynamic-update-slice")
            read[name] += (sizes[one.name] if one.operation in SLICES else 0) if is_part else sizes[name]
    parameters = {one.name for one in body if one.operation == "parameter"}
    return sum(min(read[name], sizes[name]) for name in parameters), written[body[-1].name]
