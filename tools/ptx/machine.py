"""Runs a kernel: the threads of a block at once, as NumPy vectors, one instruction after the other.

Each thread has a program counter. The threads at the lowest one go first, so threads that took different ways meet
again where the ways do.
"""

import collections
import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

from . import computing as computing  # which says what instructions do
from . import converting as converting
from .errors import Deadlock, Error, InvalidAccess, Unsupported
from .forms import form
from .kinds import KINDS, SIGNED, UNSIGNED, Kind
from .memory import SPAN, WARP, Memory, Place, Region, where
from .parser import Address, Complement, Entry, Instruction, Operand, Pair, Variable, Vector

ALL = np.uint32(0xFFFFFFFF)


@dataclasses.dataclass(frozen=True)
class Step:
    """An instruction that the traced thread executed, and the bits that it wrote to registers."""

    line: int
    text: str
    writes: dict[str, int]


@dataclasses.dataclass
class Execution:
    """What a launch did.

    Attributes:
        counts: How many threads executed each form of an instruction.
        trace: What the traced thread executed, in order.
    """

    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    trace: list[Step] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Launch:
    """What all blocks of a launch share."""

    entry: Entry
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    parameters: dict[str, np.ndarray]  # the bytes of each
    symbols: dict[str, int]  # the addresses of variables
    memory: Memory
    shared: int  # bytes
    traced: tuple[int, int] | None


class Block:
    """One block while it runs."""

    def __init__(self, launch: Launch, number: int, execution: Execution) -> None:
        self.launch, self.number, self.execution = launch, number, execution
        self.code, self.labels = launch.entry.code, launch.entry.labels
        self.threads = np.arange(math.prod(launch.block))
        self.pc = np.zeros(self.threads.size, np.int64)
        self.waits = np.zeros(self.threads.size, bool)  # at a barrier
        self.phase = 0
        self.warp_phases = np.zeros(-(-self.threads.size // WARP), np.int64)
        self.registers: dict[str, np.ndarray] = {}
        self.holes: dict[str, np.ndarray] = {}  # of a register that not all threads wrote: which did
        self.shared = Memory()
        data = np.zeros(launch.shared, np.uint8)
        self.shared.add(Region("shared memory", 0, data, np.zeros(data.size, bool)))
        self.special = self._special()

    def _special(self) -> dict[str, np.ndarray]:
        found = {}
        inside, outside, thread, number = self.launch.block, self.launch.grid, self.threads, self.number
        for axis in range(3):
            letter = "xyz"[axis]
            found[f"%tid.{letter}"], thread = thread % inside[axis], thread // inside[axis]
            found[f"%ctaid.{letter}"], number = np.full(1, number % outside[axis]), number // outside[axis]
            found[f"%ntid.{letter}"], found[f"%nctaid.{letter}"] = np.full(1, inside[axis]), np.full(1, outside[axis])
        found["%laneid"], found["%warpid"] = self.threads % WARP, self.threads // WARP
        for name, compare in (("lt", np.less), ("le", np.less_equal), ("eq", np.equal), ("ge", np.greater_equal), ("gt", np.greater)):
            lanes = compare(np.arange(WARP), (self.threads % WARP)[:, None])
            found[f"%lanemask_{name}"] = (lanes * (1 << np.arange(WARP))).sum(axis=1)
        return {name: value.astype(np.uint32) for name, value in found.items()}

    # --- control

    def run(self) -> None:
        end = len(self.code)
        while (self.pc < end).any():
            ready = (self.pc < end) & ~self.waits
            if not ready.any():  # all threads that have not exited are at the barrier
                self.release()
                continue
            at = int(self.pc[ready].min())
            active = ready & (self.pc == at)
            others = self.pc[ready & ~active]
            stop = int(others.min()) if others.size else end
            while at < stop and self.execute(at, active):
                at += 1
                self.pc[active] = at
        self.shared.check_races()

    def release(self) -> None:
        places = set(self.pc[self.waits])
        barriers = {self.code[at - 1].operands for at in places}
        if len(barriers) > 1:
            at = min(places) - 1
            raise Deadlock(f"block {self.number}: threads wait at different barriers, some at line {self.code[at].line}")
        self.waits[:] = False
        self.phase += 1

    def execute(self, at: int, active: np.ndarray) -> bool:
        """Executes an instruction; whether the threads go on together to the next one."""
        instruction = self.code[at]
        self.instruction, self.active = instruction, active
        try:
            if instruction.guard is not None:
                self.active = active & self.read(instruction.guard, KINDS["pred"])
            self.execution.counts[instruction.opcode] += int(np.count_nonzero(self.active))
            self.written: dict[str, np.ndarray] = {}
            name = instruction.opcode.partition(".")[0]
            goes_on = True
            if name in CONTROL:
                goes_on = CONTROL[name](self, at, active)
            elif self.active.any():
                OTHERS.get(name, Block.compute)(self)
        except Unsupported as error:
            raise Unsupported(f"line {instruction.line}: {error}: {instruction.text}") from None
        if self.launch.traced is not None and self.launch.traced[0] == self.number:
            thread = self.launch.traced[1]
            if self.active[thread]:
                writes = {name: int(np.broadcast_to(bits, self.active.shape)[thread]) for name, bits in self.written.items()}
                self.execution.trace.append(Step(instruction.line, instruction.text, writes))
        return goes_on

    def branch(self, at: int, active: np.ndarray) -> bool:
        target = self.instruction.operands[0]
        if self.instruction.opcode not in ("bra", "bra.uni") or target not in self.labels:
            raise Unsupported(f"unknown branch {self.instruction.opcode}")
        self.pc[active] = at + 1
        self.pc[self.active] = self.labels[target]
        return False

    def leave(self, at: int, active: np.ndarray) -> bool:
        self.pc[active] = at + 1
        self.pc[self.active] = len(self.code)
        return False

    def barrier(self, at: int, active: np.ndarray) -> bool:
        opcode, operands = self.instruction.opcode, self.instruction.operands
        self.pc[active] = at + 1
        if opcode == "bar.warp.sync":
            self.members(operands[0])
            self.warp_phases[np.unique(self.threads[self.active] // WARP)] += 1
            return False
        if opcode not in ("bar.sync", "barrier.sync", "barrier.sync.aligned", "barrier.cta.sync", "barrier.cta.sync.aligned"):
            raise Unsupported(f"unknown barrier {opcode}")
        if len(operands) != 1 or not isinstance(operands[0], int):
            raise Unsupported("a barrier of some threads only")
        self.waits |= self.active
        return False

    # --- registers

    def register(self, name: str) -> Kind:
        if (kind := self.launch.entry.registers.get(name)) is None:
            raise Unsupported(f"unknown name {name}")
        if kind not in KINDS:
            raise Unsupported(f"a register of type .{kind}")
        return KINDS[kind]

    def read(self, operand: Operand, kind: Kind, is_relaxed: bool = False) -> np.ndarray:
        """The numbers of an operand; for the active threads they are known."""
        if isinstance(operand, Complement):
            return ~self.read(operand.register, kind)
        if isinstance(operand, int):
            if kind.letter == "p":
                return np.full(1, bool(operand))
            return kind.of(np.array([operand & ((1 << kind.bits) - 1)], UNSIGNED[kind.bits]))
        if not isinstance(operand, str):
            raise Unsupported(f"operand {operand}")
        if operand in self.special:
            bits, width = self.special[operand], 32
        elif operand in self.launch.symbols:
            bits, width = np.array([self.launch.symbols[operand]], UNSIGNED[max(kind.bits, 32)]), max(kind.bits, 32)
        else:
            width, bits = self.register(operand).bits, self.registers.get(operand)
            hole = self.active if bits is None else self.active & ~self.holes.get(operand, self.active)
            if hole.any():
                thread = int(hole.argmax())
                text = where(self.instruction, self.number, thread)
                raise InvalidAccess(f"{text}: reads register {operand}, which nobody wrote")
        if width != kind.bits and not (is_relaxed and width > kind.bits > 1):
            raise Unsupported(f"{operand} has {width} bits where .{kind.name} is expected")
        return kind.of(bits if width == kind.bits else bits.astype(UNSIGNED[kind.bits]))

    def write(self, operand: Operand, numbers: np.ndarray, kind: Kind, is_relaxed: bool = False) -> None:
        """Writes to a register, of the active threads."""
        if operand == "_":
            return
        width = self.register(str(operand)).bits
        bits = kind.to(numbers)
        if width != kind.bits:
            if not (is_relaxed and width > kind.bits > 1):
                raise Unsupported(f"{operand} has {width} bits where .{kind.name} is expected")
            bits = bits.view(SIGNED[kind.bits]) if kind.letter == "s" else bits
            bits = bits.astype(UNSIGNED[width])
        name, old = str(operand), self.registers.get(str(operand))
        if not self.active.all():
            known = np.zeros_like(self.active) if old is None else self.holes.get(name, np.ones_like(self.active))
            self.holes[name] = known | self.active
            bits = np.where(self.active, bits, np.zeros(1, bits.dtype) if old is None else old)
        else:
            self.holes.pop(name, None)
        self.written[name] = bits
        self.registers[name] = np.broadcast_to(bits, self.active.shape)

    # --- everything else

    def compute(self) -> None:
        what = form(self.instruction.opcode)
        results, *sources = self.instruction.operands
        if len(sources) != len(what.sources):
            raise Unsupported(f"{len(sources)} sources where {len(what.sources)} are expected")
        numbers = [self.read(s, k, what.is_relaxed) for s, k in zip(sources, what.sources, strict=True)]
        found = what.compute(*numbers)
        names = (results.first, results.second) if isinstance(results, Pair) else (results,)
        if len(names) > len(what.results):
            raise Unsupported("two results")
        for name, kind, value in zip(names, what.results, found if isinstance(found, tuple) else (found,), strict=False):
            self.write(name, value, kind, what.is_relaxed)

    def move(self) -> None:
        kind = form_of_move(self.instruction.opcode)
        result, source = self.instruction.operands
        if isinstance(source, Vector):  # packed, the first lowest
            parts = self.part(kind, source)
            whole = np.zeros(1, UNSIGNED[kind.bits])
            for i, element in enumerate(source.elements):
                whole = whole | self.read(element, parts).astype(whole.dtype) << (i * parts.bits)
            self.write(result, whole, KINDS[f"b{kind.bits}"])
        elif isinstance(result, Vector):
            parts, whole = self.part(kind, result), KINDS[f"b{kind.bits}"].of(self.read(source, KINDS[f"b{kind.bits}"]))
            for i, element in enumerate(result.elements):
                self.write(element, (whole >> (i * parts.bits)).astype(UNSIGNED[parts.bits]), parts)
        else:
            self.write(result, self.read(source, kind), kind)

    def part(self, kind: Kind, vector: Vector) -> Kind:
        if (part := KINDS.get(f"b{kind.bits // len(vector.elements)}")) is None or kind.letter != "b":
            raise Unsupported("elements that do not make up the type")
        return part

    def to_address_space(self) -> None:
        parts = self.instruction.opcode.split(".")
        spaces = [part for part in parts[1:-1] if part != "to"]
        if spaces not in (["global"], ["const"], ["param"]) or parts[-1] != "u64":
            raise Unsupported(f"unknown conversion of an address {self.instruction.opcode}")
        result, source = self.instruction.operands  # a generic address of global memory is the same
        self.write(result, self.read(source, KINDS["u64"]), KINDS["u64"])

    def nothing(self) -> None:
        """What only says something to the scheduler."""
        if self.instruction.opcode not in ("griddepcontrol.wait", "griddepcontrol.launch_dependents"):
            raise Unsupported(f"unknown instruction {self.instruction.opcode}")

    # --- memory

    def transfer(self) -> None:
        """`ld` and `st`."""
        name, *rest = self.instruction.opcode.split(".")
        kind, known = KINDS.get(rest.pop()), {"weak", "nc", "relaxed", "volatile", "gpu", "cta", "sys", "ca", "cg", "cs", "cv", "wb", "wt", "lu"}
        count = 1
        for modifier in ("v2", "v4", "v8"):
            if modifier in rest:
                rest.remove(modifier)
                count = int(modifier[1:])
        hints = [word for word in rest if word in known or word.startswith(("L1::", "L2::"))]
        space = [word for word in rest if word not in hints]
        if kind is None or kind.letter == "p" or kind.lanes > 1 or len(space) != 1:
            raise Unsupported(f"unknown instruction {self.instruction.opcode}")
        first, second = self.instruction.operands[:2]
        address, value = (second, first) if name == "ld" else (first, second)
        if not isinstance(address, Address) or (count > 1) != isinstance(value, Vector):
            raise Unsupported("operands of another form")
        elements = value.elements if isinstance(value, Vector) else (value,)
        if len(elements) != count:
            raise Unsupported(f"{len(elements)} elements where {count} are expected")
        size = kind.bits // 8
        if space[0].partition("::")[0] == "param":
            data = self.parameter(address, size * count)
        else:
            memory, addresses = self.addresses(space[0].partition("::")[0], address)
            place = Place(self.instruction, self.number, self.phase, self.threads[self.active], self.warp_phases)
            stored = None
            if name == "st":
                values = [np.broadcast_to(kind.to(self.read(e, kind, True)), self.active.shape) for e in elements]
                stored = np.stack(values, axis=-1).view(np.uint8)[self.active]
            found = memory.access(place, addresses, size * count, size * count, stored)
            data = np.zeros((self.threads.size, size * count), np.uint8)
            data[self.active] = found
        if name == "ld":
            for i, element in enumerate(elements):
                bits = np.ascontiguousarray(data[:, i * size : (i + 1) * size]).view(UNSIGNED[kind.bits]).reshape(-1)
                self.write(element, kind.of(bits), kind, True)

    def parameter(self, address: Address, size: int) -> np.ndarray:
        data = self.launch.parameters.get(str(address.base))
        if data is None or address.offset < 0 or address.offset + size > data.size:
            raise Unsupported(f"unknown parameter {address.base}")
        return data[None, address.offset : address.offset + size]

    def addresses(self, space: str, address: Address) -> tuple[Memory, np.ndarray]:
        memory = {"global": self.launch.memory, "const": self.launch.memory, "shared": self.shared}.get(space)
        if memory is None:
            raise Unsupported(f"unknown state space .{space}")
        if isinstance(address.base, str) and address.base in self.launch.entry.registers and self.register(address.base).bits == 32:
            base = self.read(address.base, KINDS["b32"]).astype(np.uint64)
        else:
            base = self.read(address.base, KINDS["b64"])
        offset = np.uint64(address.offset & 0xFFFFFFFFFFFFFFFF)
        return memory, np.broadcast_to(base + offset, self.active.shape)[self.active]

    # --- warps

    def members(self, mask: Operand) -> np.ndarray:
        """The member mask of each thread; all threads that it names are here."""
        masks = np.broadcast_to(self.read(mask, KINDS["b32"]), self.active.shape)
        size = self.warp_phases.size * WARP
        here, exists = np.zeros(size, bool), np.zeros(size, bool)
        here[: self.threads.size] = self.active
        exists[: self.threads.size] = self.pc < len(self.code)
        bits = masks[:, None] >> np.arange(WARP, dtype=np.uint32) & 1 == 1
        warp = (self.threads // WARP)[:, None] * WARP + np.arange(WARP)
        elsewhere = bits & exists[warp] & ~here[warp]
        lane = self.threads % WARP
        wrong = self.active & (elsewhere.any(axis=1) | ~bits[self.threads, lane])
        if wrong.any():
            text = where(self.instruction, self.number, int(wrong.argmax()))
            raise Deadlock(f"{text}: the member mask names a thread that is elsewhere, or not this one")
        return masks

    def shuffle(self) -> None:
        parts = self.instruction.opcode.split(".")
        mode = parts[2] if parts[1:2] == ["sync"] and parts[3:] == ["b32"] else ""
        if mode not in ("up", "down", "bfly", "idx"):
            raise Unsupported(f"unknown instruction {self.instruction.opcode}")
        results, source, b, c, mask = self.instruction.operands
        self.members(mask)
        b32 = KINDS["b32"]
        values = np.broadcast_to(self.read(source, b32), self.active.shape)
        by, clamp = (np.broadcast_to(self.read(o, b32), self.active.shape).astype(np.int64) for o in (b, c))
        lane, by, segment, clamp = self.threads % WARP, by & 31, clamp >> 8 & 31, clamp & 31
        low, high = lane & segment, (lane & segment) | (clamp & ~segment)
        j = {"up": lane - by, "down": lane + by, "bfly": lane ^ by, "idx": low | (by & ~segment)}[mode]
        inside = j >= high if mode == "up" else j <= high
        place = self.threads - lane + np.where(inside, j, lane)
        inactive = self.active & ~np.append(self.active, False)[np.minimum(place, self.threads.size)]
        if inactive.any():
            text = where(self.instruction, self.number, int(inactive.argmax()))
            raise InvalidAccess(f"{text}: reads a register of a thread that does not execute this")
        names = (results.first, results.second) if isinstance(results, Pair) else (results,)
        self.write(names[0], values[np.minimum(place, self.threads.size - 1)], b32)
        if len(names) > 1:
            self.write(names[1], inside, KINDS["pred"])

    def vote(self) -> None:
        opcode = self.instruction.opcode
        if opcode == "activemask.b32":
            votes = np.ones(self.active.shape, bool)
            [result] = self.instruction.operands
        elif opcode in ("vote.sync.ballot.b32", "vote.sync.all.pred", "vote.sync.any.pred", "vote.sync.uni.pred"):
            result, source, mask = self.instruction.operands
            self.members(mask)
            votes = np.broadcast_to(self.read(source, KINDS["pred"]), self.active.shape)
        else:
            raise Unsupported(f"unknown instruction {opcode}")
        yes, no = (
            np.bincount(self.threads // WARP, (self.active & v) * 2.0 ** (self.threads % WARP)).astype(np.uint32)
            for v in (votes, ~votes)
        )
        kind = KINDS["b32"] if opcode.endswith("b32") else KINDS["pred"]
        found = {"all": no == 0, "any": yes != 0, "uni": (no == 0) | (yes == 0)}.get(opcode.split(".")[2:3][0] if "vote" in opcode else "", yes)
        self.write(result, found[self.threads // WARP], kind)


def form_of_move(opcode: str) -> Kind:
    name, _, kind = opcode.partition(".")
    if kind not in KINDS or KINDS[kind].bits == 8 or KINDS[kind].lanes > 1:
        raise Unsupported(f"unknown instruction {opcode}")
    return KINDS[kind]


CONTROL = {"bra": Block.branch, "ret": Block.leave, "exit": Block.leave, "bar": Block.barrier, "barrier": Block.barrier}
OTHERS = {
    "mov": Block.move,
    "ld": Block.transfer,
    "st": Block.transfer,
    "cvta": Block.to_address_space,
    "griddepcontrol": Block.nothing,
    "shfl": Block.shuffle,
    "vote": Block.vote,
    "activemask": Block.vote,
}
