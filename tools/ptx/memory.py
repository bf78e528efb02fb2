"""Memory whose every access is checked: bounds, alignment, whether it was written, and races between threads.

Each buffer has a range of addresses of its own, far from the others, so an access beyond its end is in none of them.
A buffer begins at an address that is aligned as much as promised and not more.
"""

import dataclasses

import numpy as np

from .errors import DataRace, InvalidAccess
from .parser import Instruction

SPAN = 44  # the bits of an address within a range
WARP = 32


@dataclasses.dataclass
class Region:
    """A range of addresses; `written` tells of each byte whether it holds anything, None if all do."""

    name: str
    base: int
    data: np.ndarray
    written: np.ndarray | None = None
    is_constant: bool = False
    log: list["Access"] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Access:
    """One instruction's access, of several threads: which bytes, and the values if they were written."""

    instruction: Instruction
    block: int
    phase: int  # how many barriers the block has passed
    threads: np.ndarray
    warp_phases: np.ndarray  # how many barriers the warp of each thread has passed
    offsets: np.ndarray  # (threads, bytes)
    values: np.ndarray | None


class Memory:
    """What a launch can reach in global memory, or a block in its shared memory."""

    def __init__(self) -> None:
        self.regions: dict[int, Region] = {}

    def add(self, region: Region) -> None:
        self.regions[region.base >> SPAN] = region

    def find(self, address: int) -> Region | None:
        return self.regions.get(address >> SPAN)

    def access(
        self, who: "Place", addresses: np.ndarray, width: int, align: int, values: np.ndarray | None = None
    ) -> np.ndarray:
        """Reads `width` bytes at each address, or writes the `values`; returns the bytes, (threads, width)."""
        off = addresses % np.uint64(align) != 0
        if off.any():
            raise who.invalid(f"misaligned address {addresses[off][0]:#x} of {align} bytes", off)
        result = np.zeros((len(addresses), width), np.uint8)
        spans = addresses >> np.uint64(SPAN)
        for span in np.unique(spans):
            here = spans == span
            if (region := self.regions.get(int(span))) is None:
                raise who.invalid(f"address {addresses[here][0]:#x} is in no buffer", here)
            offsets = addresses[here].astype(np.int64) - region.base
            beyond = (offsets < 0) | (offsets + width > region.data.size)
            if beyond.any():
                text = f"{width} bytes at byte {offsets[beyond][0]} of {region.name}, which has {region.data.size}"
                raise who.invalid(text, here.nonzero()[0][beyond])
            at = offsets[:, None] + np.arange(width)
            if values is None:
                result[here] = self._read(who, region, at, here)
            else:
                self._write(who, region, at, here, values[here])
        return result

    def _read(self, who: "Place", region: Region, at: np.ndarray, here: np.ndarray) -> np.ndarray:
        if region.written is not None:
            unwritten = ~region.written[at].all(axis=1)
            if unwritten.any():
                what = f"byte {at[unwritten][0, 0]} of {region.name}, which nobody wrote"
                raise who.invalid(what, here.nonzero()[0][unwritten])
            region.log.append(who.access(at, here, None))
        return region.data[at]

    def _write(self, who: "Place", region: Region, at: np.ndarray, here: np.ndarray, values: np.ndarray) -> None:
        if region.is_constant:
            raise who.invalid(f"a store to {region.name}, which is constant", here)
        region.data[at] = values
        if region.written is not None:
            region.written[at] = True
        region.log.append(who.access(at, here, values))

    def check_races(self) -> None:
        """Raises if two threads used one byte, at least one of them wrote, and no barrier was between."""
        for region in self.regions.values():
            if any(access.values is not None for access in region.log):
                _check(region)
            region.log.clear()


@dataclasses.dataclass
class Place:
    """An instruction that a block executes, with the threads that do."""

    instruction: Instruction
    block: int
    phase: int
    threads: np.ndarray
    warp_phases: np.ndarray

    def invalid(self, what: str, which: np.ndarray) -> InvalidAccess:
        thread = self.threads[which][0]
        return InvalidAccess(f"{where(self.instruction, self.block, thread)}: {what}")

    def access(self, at: np.ndarray, here: np.ndarray, values: np.ndarray | None) -> Access:
        threads = self.threads[here]
        phases = self.warp_phases[threads // WARP]
        return Access(self.instruction, self.block, self.phase, threads, phases, at, values)


def where(instruction: Instruction, block: int, thread: int) -> str:
    return f"block {block}, thread {thread}, line {instruction.line} ({instruction.text})"


def _check(region: Region) -> None:
    """Sorts all accesses by byte, and looks at the bytes that several threads used and at least one wrote."""
    log = region.log
    sizes = [access.offsets.size for access in log]
    offsets = np.concatenate([access.offsets.ravel() for access in log])
    order = np.argsort(offsets, kind="stable")  # within a byte, in the order of execution
    number = np.repeat(np.arange(len(log)), sizes)[order]
    thread = np.concatenate([np.repeat(a.threads, a.offsets.shape[1]) for a in log])[order]
    warp_phase = np.concatenate([np.repeat(a.warp_phases, a.offsets.shape[1]) for a in log])[order]
    value = np.concatenate([np.full(a.offsets.size, -1) if a.values is None else a.values.ravel() for a in log])[order]
    block, phase = (np.array([getattr(a, name) for a in log])[number] for name in ("block", "phase"))
    offsets = offsets[order]
    starts = np.flatnonzero(np.concatenate([[True], offsets[1:] != offsets[:-1]]))
    ends = np.append(starts[1:], offsets.size)
    moment = block.astype(np.int64) << 32 | phase
    mixed = [np.minimum.reduceat(a, starts) != np.maximum.reduceat(a, starts) for a in (value, block, thread)]
    new_moment = np.flatnonzero(np.concatenate([[True], (offsets[1:] != offsets[:-1]) | (moment[1:] != moment[:-1])]))
    alone = np.minimum.reduceat(thread, new_moment) == np.maximum.reduceat(thread, new_moment)
    crowded = ~np.logical_and.reduceat(np.repeat(alone, np.diff(np.append(new_moment, offsets.size))), starts)
    suspect = mixed[0] & (np.maximum.reduceat(value, starts) >= 0) & (mixed[1] | (mixed[2] & crowded))
    for start, end in zip(starts[suspect], ends[suspect], strict=True):
        for i in range(start, end):
            for j in range(start, i):
                if value[i] == value[j] or max(value[i], value[j]) < 0:
                    continue
                if block[i] == block[j]:
                    same_warp = thread[i] // WARP == thread[j] // WARP
                    ordered = phase[i] != phase[j] or (same_warp and warp_phase[i] != warp_phase[j])
                    if thread[i] == thread[j] or ordered:
                        continue
                one, other = (
                    f"{where(log[number[k]].instruction, block[k], thread[k])} "
                    + (f"writes {value[k]}" if value[k] >= 0 else "reads")
                    for k in (j, i)
                )
                raise DataRace(f"byte {offsets[start]} of {region.name}: {one}, and {other}, with no barrier between")
