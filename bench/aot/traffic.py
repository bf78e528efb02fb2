"""The bytes that each instruction of a compiled program reads and writes, from the program's text."""

import collections
import math
import re

COMPUTATION = re.compile(r"^(ENTRY )?%([\w.-]+) (\(.*?^\})", re.MULTILINE | re.DOTALL)
# An instruction's name, type, operation and operands, and the computation that it calls if it is a fusion.
LINE = re.compile(r"^\s+(?:ROOT )?%([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*?)\)(?:.* calls=%([\w.-]+))?", re.MULTILINE)
NAME = re.compile(r"%([\w.-]+)")
ARRAY = re.compile(r"([a-z]+)(\d*)\w*\[([\d,]*)\]")
FREE = {"parameter", "constant", "bitcast", "get-tuple-element", "tuple"}  # move nothing
PARTS = {"slice", "dynamic-slice", "dynamic-update-slice"}  # move a part of their first operand


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
    computations = {main or name: LINE.findall(text) for main, name, text in COMPUTATION.findall(program)}
    given = {name: (name, kind, "parameter", "", "") for name, kind, *_ in computations["ENTRY "]}
    moved = dict[str, tuple[int, int]]()
    for one in computations["ENTRY "]:
        name, _, operation, operands, calls = one
        if operation not in FREE:
            moved[name] = _moved(computations[calls] if calls else [*map(given.get, NAME.findall(operands)), one])
    return moved


def _moved(body: list[tuple[str, ...]]) -> tuple[int, int]:
    """What is read of the parameters of a computation, and what is written of its result, which is the last."""
    sizes = {name: size_of(kind) for name, kind, *_ in body}
    whole, read, written = {name: name for name in sizes}, collections.Counter[str](), dict(sizes)
    for name, _, operation, inside, _ in body:
        operands = [whole[operand] for operand in NAME.findall(inside)]
        if operation == "bitcast":
            whole[name] = operands.pop()
        elif operation == "tuple":
            written[name] = sum(written[operand] for operand in operands)
        elif operation in PARTS:
            written[name] = sizes[operands[1]] if "update" in operation else sizes[name]
            read[operands.pop(0)] += 0 if "update" in operation else sizes[name]
        read.update({operand: sizes[operand] for operand in operands})
    parameters = {name for name, _, operation, *_ in body if operation == "parameter"}
    return sum(min(read[name], sizes[name]) for name in parameters), written[whole[body[-1][0]]]
