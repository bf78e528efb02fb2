"""Blocks while they run: their threads at once, as NumPy vectors, one instruction after the other.

Each thread has a program counter. The threads at the lowest one go first, so threads that took different ways meet
again where the ways do.
"""

import collections
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from . import conversions as conversions  # which adds its forms
from .errors import AccessError, DeadlockError, UnsupportedError
from .instructions import FORMS, PRED
from .kinds import SIGNED, UNSIGNED, Kind
from .memory import WARP, Memory, Region, where
from .parser import Address, Entry, Operand

LIMIT = 1 << 20  # instructions: a loop that executes more is taken for one that never ends


class Step(NamedTuple):
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


class Launch(NamedTuple):
    """What all blocks share: `symbols` are the addresses of variables and parameters, `shared` counts bytes."""

    entry: Entry
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    symbols: dict[str, int]
    spaces: dict[str, Memory]
    shared: int
    traced: tuple[int, int]


class Blocks:
    """Blocks that run together: registers by name, program counters, and which threads execute the instruction.

    A thread may read a register that it did not write: the value is unknown, and so is what is computed from it. It is
    an error if an address, a stored value or a decision depends on an unknown value. A register may be known in part:
    instructions that move bits keep track of each.

    Threads are numbered through all the blocks. If blocks have shared memory, each runs alone.
    """

    def __init__(self, launch: Launch, numbers: Sequence[int], execution: Execution) -> None:
        self.launch, self.execution = launch, execution
        self.code, self.end = launch.entry.code, len(launch.entry.code)
        size = math.prod(launch.block)
        self.threads = np.arange(len(numbers) * size)
        block, thread = np.repeat(numbers, size), self.threads % size
        self.lanes, self.warps = thread % WARP, self.threads // WARP
        self.position = np.stack([block, thread], axis=-1)  # of each thread: its block, and where it is in that
        self.pc = np.zeros(self.threads.size, np.int64)
        self.waits = np.full(self.threads.size, -1)  # the barrier at which a thread is
        self.steps = 0  # how many instructions were executed
        self.phase = 0  # how many barriers have been passed
        self.warp_phases = np.zeros(self.threads.size, np.int64)  # how many of a warp each thread has passed
        self.registers: dict[str, np.ndarray] = {}
        self.unset: dict[str, np.ndarray] = {}  # of each register the bits that are unknown, if any are
        shared = Region("shared memory", 0, np.zeros(launch.shared, np.uint8), np.zeros(launch.shared, bool))
        self.spaces = {**launch.spaces, "shared": Memory(shared)}
        self.special = {"%laneid": self.lanes, "%warpid": thread // WARP}
        for axis, inside, outside in zip("xyz", launch.block, launch.grid, strict=True):
            values = {"tid": thread % inside, "ctaid": block % outside, "ntid": inside, "nctaid": outside}
            self.special |= {f"%{name}.{axis}": np.atleast_1d(value) for name, value in values.items()}
            thread, block = thread // inside, block // outside
        self.traced = np.flatnonzero((self.position == launch.traced).all(axis=1))  # that thread, or none

    # --- control

    def run(self) -> None:
        """Runs all threads to their end."""
        while (self.pc < self.end).any():
            ready = (self.pc < self.end) & (self.waits < 0)
            if not ready.any():  # the threads that have not exited are all at a barrier
                self.release()
                continue
            at = int(self.pc[ready].min())
            together = ready & (self.pc == at)
            others = self.pc[ready & ~together]
            stop, goes_on = int(others.min()) if others.size else self.end, True
            while at < stop and goes_on:
                goes_on = self.execute(at, together)
                at += 1
            if goes_on:
                self.pc[together] = at
        self.spaces["shared"].check_races()

    def release(self) -> None:
        """Lets all threads behind the barrier at which they wait."""
        waiting = self.waits >= 0
        blocks = np.unique(np.stack([self.position[waiting, 0], self.waits[waiting]]), axis=1)[0]
        for block in blocks[1:][blocks[1:] == blocks[:-1]]:
            places = np.unique(self.pc[waiting & (self.position[:, 0] == block)] - 1)
            lines = [self.code[at].line for at in places]
            raise DeadlockError(f"block {block}: threads wait at different barriers, on lines {lines}")
        self.waits[:] = -1
        self.phase += 1

    def execute(self, at: int, together: np.ndarray) -> bool:
        """Executes the instruction at a place; whether all these threads go on with the next one."""
        self.at, self.instruction, self.together, self.active = at, self.code[at], together, together
        self.written: dict[str, np.ndarray] = {}
        self.doubt: dict[str, np.ndarray] = {}  # of registers that were read: the threads for which it is unknown
        opcode, jumped = self.instruction.opcode, None
        self.steps += 1
        if self.steps > LIMIT:
            raise DeadlockError(f"{self.here()}: {LIMIT} instructions, and no end")
        try:
            if self.instruction.guard is not None:
                self.active = together & self.certain(self.read(self.instruction.guard, PRED))
            if self.active.any():
                handler = HANDLERS.get(opcode) or HANDLERS.get(f"{opcode[:2]}.*", compute)
                jumped = handler(self)
        except UnsupportedError as error:
            raise UnsupportedError(f"line {self.instruction.line}: {error}: {self.instruction.text}") from None
        self.execution.counts[opcode] += int(np.count_nonzero(self.active))
        for thread in self.traced[self.active[self.traced]]:
            writes = {name: int(bits[thread]) for name, bits in self.written.items()}
            self.execution.trace.append(Step(self.instruction.line, self.instruction.text, writes))
        return not jumped

    def jump(self, to: int) -> bool:
        """Sends the active threads to a place, and the others that are together with them to the next one."""
        self.pc[self.together] = self.at + 1
        self.pc[self.active] = to
        return True

    def here(self, active: np.ndarray | None = None) -> str:
        """Where the first of the active threads is, for a message."""
        return where(self.instruction, *self.position[(self.active if active is None else active).argmax()])

    def unknown(self) -> UnsupportedError:
        return UnsupportedError(f"unknown instruction {self.instruction.opcode}")

    # --- operands and registers

    def operands(self, count: int) -> tuple[Operand, ...]:
        if len(self.instruction.operands) != count:
            raise UnsupportedError(f"{len(self.instruction.operands)} operands where {count} are expected")
        return self.instruction.operands

    def register(self, name: str) -> Kind:
        if (kind := self.launch.entry.registers.get(name)) is None:
            raise UnsupportedError(f"{name} is not a register")
        return kind

    def unset_bits(self, operand: Operand, kind: Kind) -> np.ndarray:
        """The bits of an operand that are unknown, one number for each thread or one for all."""
        if operand not in self.launch.entry.registers or operand in self.registers:
            return self.unset.get(str(operand), np.zeros(1)).astype(UNSIGNED[kind.bits])
        return ~np.zeros(1, UNSIGNED[kind.bits])

    def read(self, operand: Operand, kind: Kind, is_relaxed: bool = False, low: int = 64) -> np.ndarray:
        """The numbers of an operand, one for each thread or one for all; what is read for depends on its `low` bits."""
        if isinstance(operand, int):
            if not -(1 << kind.bits - 1) <= operand < 1 << kind.bits:
                raise UnsupportedError(f"operand {operand:#x} has more bits than .{kind.name}")
            return kind.of(np.array([operand & (1 << kind.bits) - 1], UNSIGNED[kind.bits]))
        if isinstance(operand, Address) and operand.base in self.launch.symbols:
            return self.read(operand.base, kind) + self.read(operand.offset, kind)
        if not isinstance(operand, str):
            raise UnsupportedError(f"operand {operand}")
        if operand[0] == "!" and kind is PRED:
            return ~self.read(operand[1:], kind)
        if operand in self.launch.symbols or operand in self.special:
            width = 32 if operand in self.special else max(kind.bits, 32)
            bits = np.asarray(self.special.get(operand, [self.launch.symbols.get(operand)]), UNSIGNED[width])
        else:
            width = self.register(operand).bits
            bits = self.registers.get(operand, np.zeros(1, UNSIGNED[width]))
            if operand in self.unset or operand not in self.registers:
                unknown = self.unset_bits(operand, kind) & np.array((1 << min(low, kind.bits)) - 1, UNSIGNED[kind.bits])
                self.doubt[operand] = np.broadcast_to(unknown != 0, self.active.shape)
        self.check_width(operand, width, kind, is_relaxed)
        return kind.of(bits if width == kind.bits else bits.astype(UNSIGNED[kind.bits]))

    def certain(self, numbers: np.ndarray) -> np.ndarray:
        """Returns the numbers. Raises if those of an active thread depend on a register that it did not write."""
        for name, unknown in self.doubt.items():
            if (unknown & self.active).any():
                raise AccessError(f"{self.here(unknown & self.active)}: depends on register {name}, which nobody wrote")
        return numbers

    def write(
        self,
        operand: Operand,
        numbers: np.ndarray,
        kind: Kind,
        is_relaxed: bool = False,
        unset: np.ndarray | None = None,
    ) -> None:
        """Writes numbers to a register of the active threads; one that is wider is filled with the sign, or zeros.

        `unset` are the bits that are unknown. If it is left out, they are all if there is a doubt.
        """
        if operand == "_":
            return
        name = str(operand)
        width, bits = self.register(name).bits, kind.to(numbers)
        self.check_width(name, width, kind, is_relaxed)
        if width != kind.bits:
            bits = (bits.view(SIGNED[kind.bits]) if kind.letter == "s" else bits).astype(UNSIGNED[width])
        if unset is None:
            unset = np.any([*self.doubt.values()], axis=0) if self.doubt else np.zeros(1, bool)
            unset = np.where(unset, ~np.zeros(1, bits.dtype), np.zeros(1, bits.dtype))
        if not self.active.all():
            unset = np.where(self.active, unset, self.unset_bits(name, self.register(name)))
            bits = np.where(self.active, bits, self.registers.get(name, bits))
        self.registers[name] = self.written[name] = np.broadcast_to(bits, self.active.shape)
        self.unset.pop(name, None)
        if unset.any():
            self.unset[name] = np.broadcast_to(unset, self.active.shape)

    def check_width(self, name: str, width: int, kind: Kind, is_relaxed: bool) -> None:
        if width != kind.bits and not (is_relaxed and width > kind.bits > 1):
            raise UnsupportedError(f"{name} has {width} bits where .{kind.name} is expected")


def compute(block: Blocks) -> None:
    """An instruction whose form is known."""
    if (form := FORMS.get(block.instruction.opcode)) is None:
        raise block.unknown()
    first, *sources = block.instruction.operands
    if block.instruction.opcode == "prmt.b32" and isinstance(choice := sources[-1], int):
        used = {choice >> 4 * i & 4 for i in range(4)}  # a source whose bytes are not chosen may be unknown
        sources[:2] = [source if 4 * i in used else 0 for i, source in enumerate(sources[:2])]
    names = elements(first)
    if len(sources) != len(form.sources) or len(names) > len(form.results):
        raise UnsupportedError(f"{len(names)} results and {len(sources)} sources")
    numbers = [block.read(s, kind, form.is_relaxed, form.low) for s, kind in zip(sources, form.sources, strict=True)]
    found = form.compute(*numbers)
    for name, kind, value in zip(names, form.results, found if isinstance(found, tuple) else (found,), strict=False):
        block.write(name, value, kind, form.is_relaxed)


def elements(operand: Operand) -> tuple[Operand, ...]:
    """The elements of `{a, b}` or `p|q`, or the one operand."""
    return operand if isinstance(operand, tuple) else (operand,)


def branch(block: Blocks) -> bool:
    [target] = block.operands(1)
    if target not in block.launch.entry.labels:
        raise UnsupportedError(f"unknown label {target}")
    return block.jump(block.launch.entry.labels[str(target)])


def leave(block: Blocks) -> bool:
    return block.jump(block.end)


# Instructions that are more than a computation, by their opcodes, or "ld.*" and "st.*": True if they called `jump`.
HANDLERS: dict[str, Callable[[Blocks], bool | None]] = {"bra": branch, "bra.uni": branch, "ret": leave, "exit": leave}
