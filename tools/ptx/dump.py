"""Reads what XLA dumped of a program: its instructions in order, their kernels, and where their arrays lie.

Thunks say what each instruction became: a kernel's name, grid, block and dynamic shared memory. The buffer assignment
says which arrays share memory. A kernel of jax-triton is in its call, in jaxlib's triton.proto a TritonAnyKernelCall.
"""

import dataclasses
import io
import math
import pathlib
import re
import zlib
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

from bench.aot import mosaic

from .errors import UnsupportedError
from .memory import WARP
from .parser import parse

ALIGNED = 16  # of an argument of a program XLA promises no more; Mosaic says 256 of every parameter
SCRATCH = 2  # the most pointers to scratch memory that Triton adds to a kernel's parameters; jaxlib passes null
DTYPES: dict[str, np.dtype[Any]] = {
    "pred": np.dtype(bool),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "f8e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "f8e5m2": np.dtype(ml_dtypes.float8_e5m2),
    **{f"f{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    **{f"s{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"u{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
}
LINE = re.compile(r"^  (ROOT )?%([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*?)\)(.*)$", re.MULTILINE)
ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([\d,]*)\})?(?:, |$)")
THUNK = re.compile(r"^ *(\d+): (\w+) +\[.*?\] +(.*)$", re.MULTILINE)
LAUNCH = re.compile(r"(\S+) grid: \[([\d, ]+)\] threads: \[([\d, ]+)\] +shared_memory: (\d+) bytes")
INFO = re.compile(r'profile_annotation: "(.*?)"\s+thunk_id: (\d+)')
VALUE = re.compile(r"^allocation (\d+):|^ value: <\d+ ([\w.-]+)(?:\{(\d+)\})? @\d+> \(size=(\d+),offset=(\d+)\)", re.M)
OFFSET = re.compile(r'"byte_offset":"(\d+)","byte_stride":"0"')
ROW = re.compile(r"slice=\{(?:\[0:1\], )*\[(\d+):\d+\]\}")  # of an array of one row
ENTRY = re.compile(r"\.entry ([\w$]+)")


@dataclasses.dataclass(frozen=True)
class Array:
    """The type of an array; `order` is its axes from the slowest in memory to the fastest."""

    dtype: np.dtype
    shape: tuple[int, ...]
    order: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an array lies in the device's memory."""

    allocation: int
    size: int
    offset: int

    def overlaps(self, other: "Place") -> bool:
        ends = self.offset + self.size, other.offset + other.size
        return self.allocation == other.allocation and self.offset < ends[1] and other.offset < ends[0]


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of the program: the types of the results, what is in the parentheses, and what comes behind them."""

    name: str
    kind: str
    operation: str
    inside: str
    rest: str
    is_root: bool

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.#-]+)", self.inside)

    @property
    def results(self) -> list[Array]:
        inside = re.sub(r"/\*.*?\*/", "", self.kind).strip("()")
        if ARRAY.sub("", inside) or not all(kind in DTYPES for kind, _, _ in ARRAY.findall(inside)):
            raise self.unsupported(f"its type {self.kind}")
        numbers = lambda text: tuple(map(int, filter(None, text.split(","))))  # noqa: E731
        return [Array(DTYPES[k], numbers(shape), numbers(order)[::-1]) for k, shape, order in ARRAY.findall(inside)]

    def unsupported(self, why: str) -> UnsupportedError:
        return UnsupportedError(f"HLO instruction %{self.name} ({self.operation}): {why}")


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A launch: what is launched, and where the arrays lie that it is given; `nulls` pointers behind them are null.

    `operands` are the positions of the parameters that are read only, `results` of those that hold nothing yet; others
    are both. `alignments` are what the launch promises of the parameters, instead of what they say themselves.
    """

    name: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared: int
    text: str
    alignments: tuple[int, ...] = ()
    parameters: tuple[Place, ...] = ()
    nulls: int = 0
    operands: tuple[int, ...] = ()
    results: tuple[int, ...] = ()


class Dump:
    """What is in the folder of a dump of one program."""

    def __init__(self, folder: pathlib.Path) -> None:
        def one(ending: str) -> str:
            found = list(folder.glob(f"*{ending}"))
            if len(found) != 1:
                raise FileNotFoundError(f"XLA dumped {len(found)} files *{ending}, not one: was a cached program used?")
            return found[0].read_text()

        self.computations, _, program = one("_gpu_after_optimizations.txt").partition("\nENTRY ")
        self.instructions = [
            Instruction(name, kind, operation, inside, rest, bool(root))
            for root, name, kind, operation, inside, rest in LINE.findall(program)
        ]
        texts = [path.read_text() for path in folder.glob("*.ptx")]
        self.texts = {found[1]: text for text in texts if (found := ENTRY.search(text))}
        thunks = {int(number): (kind, rest) for number, kind, rest in THUNK.findall(one(".thunk_sequence.txt"))}
        self.thunks: dict[str, list[tuple[str, str]]] = {}
        for name, number in INFO.findall(one(".thunk_metadata.txt")):
            self.thunks.setdefault(name, []).append(thunks[int(number)])
        allocation, self.places = 0, dict[str, Place]()  # by the name of an instruction and the number of its result
        for number, name, index, size, offset in VALUE.findall(one("_after_optimizations-buffer-assignment.txt")):
            allocation = int(number) if number else allocation
            if name:
                self.places[f"{name}/{index or 0}"] = Place(allocation, int(size), int(offset))

    def copied(self, one: Instruction) -> tuple[int, int, int, int] | None:
        """What a fusion copies into another operand, in place: the operand, from which byte, how many, to which byte.

        None if the fusion is a kernel.
        """
        if [kind for kind, _ in self.thunks.get(one.name, [])] != ["kDynamicSliceFusion"]:
            return None
        name = one.rest.partition("calls=")[2].partition(",")[0]
        lines = LINE.findall(self.computations.partition(f"\n{name} ")[2].partition("\n}")[0])
        body = {line[1]: Instruction(*line[1:], bool(line[0])) for line in lines}
        [root] = [line for line in body.values() if line.is_root]
        at, begin = OFFSET.search(root.rest), 0
        unknown = one.unsupported("it became kDynamicSliceFusion, and does more than copy to a place that is known")
        if root.operation != "dynamic-update-slice" or at is None:
            raise unknown
        source = body[root.operands[1]]
        [part] = source.results
        while source.operation != "parameter":
            if source.operation == "slice" and (row := ROW.search(source.rest)):
                begin += int(row[1])
            elif source.operation not in ("bitcast", "copy"):
                raise unknown
            source = body[source.operands[0]]
        size = part.dtype.itemsize
        return int(source.inside), begin * size, math.prod(part.shape) * size, int(at[1])

    def kernel(self, one: Instruction, operands: tuple[Place, ...], results: tuple[Place, ...]) -> Kernel:
        """The one kernel that an instruction became. Its parameters are the operands, then the results."""
        thunks = self.thunks.get(one.name, [])
        kinds = ", ".join(kind for kind, _ in thunks) or "nothing"
        parameters = (*operands, *results)
        if kinds == "kCustomCall" and 'custom_call_target="triton_kernel_call"' in one.rest:
            kernel, most = _of_triton(one, len(parameters)), SCRATCH
        elif kinds == "kCustomCall" and mosaic.CALL.search(one.rest):
            (kernel, parameters), most = _of_mosaic(one, parameters, len(results)), 0
        elif kinds == "kCustomKernel" and (found := LAUNCH.match(thunks[0][1])) and found[1] in self.texts:
            grid, block = (tuple(map(int, numbers.split(","))) for numbers in found.groups()[1:3])
            kernel, most = Kernel(found[1], grid, block, int(found[4]), self.texts[found[1]]), 0
        else:
            raise one.unsupported(f"it became {kinds}, and not one kernel whose PTX is there")
        wanted = len(parse(kernel.text).entries[kernel.name].parameters)
        if not 0 <= (nulls := wanted - len(parameters)) <= most:
            raise one.unsupported(f"it has {len(parameters)} arrays, and the kernel {kernel.name} {wanted} parameters")
        if any(a != b and a.overlaps(b) for a in results for b in operands):
            raise one.unsupported("a result shares a part of an operand's memory")
        read, fresh = (
            tuple(i for i, place in enumerate(parameters) if place in these and place not in others)
            for these, others in ((operands, results), (results, operands))
        )
        return dataclasses.replace(kernel, parameters=parameters, nulls=nulls, operands=read, results=fresh)


def _of_triton(one: Instruction, arrays: int) -> Kernel:
    """The kernel of a call of jax-triton; the numbers are those of fields in triton.proto."""
    [quoted] = re.findall(r'backend_config="((?:[^"\\]|\\.)*)"', one.rest)
    packed = quoted.encode("latin-1").decode("unicode_escape").encode("latin-1")
    called = dict(_fields(zlib.decompress(packed)))
    if 1 not in called:
        raise one.unsupported("which of several kernels is launched is chosen on the device")
    call, kernel = dict(fields := list(_fields(called[1]))), dict(_fields(dict(fields)[1]))
    given = [list(_fields(value)) for number, value in fields if number == 5]
    pointers = [dict(_fields(value[0][1])) for value in given if value[0][0] == 1]
    if len(given) != len(pointers) or len(given) != arrays or any(1 in p for p in pointers) or kernel.get(10, 1) != 1:
        raise one.unsupported(f"it has scalars, arrays to fill with zeros or clusters of blocks: {given}")
    alignments = (*(pointer.get(2, 1) for pointer in pointers), *(1,) * SCRATCH)
    grid, block = (call[2], call[3], call[4]), (WARP * kernel[2], 1, 1)
    return Kernel(kernel[1].decode(), grid, block, kernel.get(3, 0), kernel[4].decode(), alignments)


def _of_mosaic(one: Instruction, arrays: tuple[Place, ...], results: int) -> tuple[Kernel, tuple[Place, ...]]:
    """The kernel of a call of Mosaic GPU, and its parameters, which have an order of their own."""
    try:
        name, text, grid, block, shared, given = mosaic.launch(one.rest)
    except ValueError as error:
        raise one.unsupported(str(error)) from None
    if missing := {*range(len(arrays) - results, len(arrays))} - {*given}:
        raise one.unsupported(f"the kernel {name} does not have its arrays {sorted(missing)}, which are results")
    return Kernel(name, grid, block, shared, text, (ALIGNED,) * len(given)), tuple(arrays[i] for i in given)


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message of protocol buffers: their numbers, and integers or bytes."""
    left = io.BytesIO(message)

    def integer() -> int:
        value = shift = 0
        while True:
            byte = left.read(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while left.tell() < len(message):
        number, kind = divmod(integer(), 8)
        yield number, integer() if kind == 0 else left.read({1: 8, 5: 4}.get(kind) or integer())
