"""Memory whose every access is checked: bounds, alignment, whether it was written, and races between threads.

Each buffer has a range of addresses of its own, far from the others, so an access beyond its end is in none of them.
A buffer begins at an address that is aligned as much as promised and not more.
"""

import dataclasses
from collections.abc import Iterator

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

    def __init__(self, *regions: Region) -> None:
        self.regions = {region.base >> SPAN: region for region in regions}

    def add(self, region: Region) -> None:
        self.regions[region.base >> SPAN] = region

    def load(self, place: "Place", addresses: np.ndarray, width: int) -> np.ndarray:
        """The bytes at each address, (threads, width)."""
        result = np.zeros((addresses.size, width), np.uint8)
        for region, which, offsets in self._find(place, addresses, width):
            result[which] = region.data[offsets]
            if region.written is not None:
                unwritten = ~region.written[offsets].all(axis=1)
                if unwritten.any():
                    text = f"reads byte {offsets[unwritten][0, 0]} of {region.name}, which nobody wrote"
                    raise place.invalid(text, which[unwritten])
                region.log.append(place.access(which, offsets, None))
        return result

    def store(self, place: "Place", addresses: np.ndarray, values: np.ndarray) -> None:
        """Writes the bytes of each address."""
        for region, which, offsets in self._find(place, addresses, values.shape[1]):
            if region.is_constant:
                raise place.invalid(f"writes to {region.name}, which is constant", which)
            region.data[offsets] = values[which]
            if region.written is not None:
                region.written[offsets] = True
            region.log.append(place.access(which, offsets, values[which]))

    def _find(
        self, place: "Place", addresses: np.ndarray, width: int
    ) -> Iterator[tuple[Region, np.ndarray, np.ndarray]]:
        """For each region: it, which of the addresses lie in it, and the offsets of their bytes."""
        misaligned = np.flatnonzero(addresses % np.uint64(width))
        if misaligned.size:
            raise place.invalid(f"{width} bytes at {addresses[misaligned[0]]:#x}, which is misaligned", misaligned)
        for span in np.unique(addresses >> np.uint64(SPAN)):
            which = np.flatnonzero(addresses >> np.uint64(SPAN) == span)
            if (region := self.regions.get(int(span))) is None:
                raise place.invalid(f"address {addresses[which[0]]:#x} is in no buffer", which)
            starts = addresses[which].astype(np.int64) - region.base
            outside = (starts < 0) | (starts + width > region.data.size)
            if outside.any():
                text = f"{width} bytes at byte {starts[outside][0]} of {region.name}, which has {region.data.size}"
                raise place.invalid(text, which[outside])
            yield region, which, starts[:, None] + np.arange(width)

    def check_races(self) -> None:
        """Raises if two threads used one byte, at least one of them wrote, and no barrier was between."""
        for region in self.regions.values():
            if any(access.values is not None for access in region.log):
                _check(region)
            region.log.clear()


@dataclasses.dataclass(frozen=True)
class Place:
    """An instruction that some threads of a block execute."""

    instruction: Instruction
    block: int
    phase: int
    threads: np.ndarray
    warp_phases: np.ndarray  # of each warp

    def invalid(self, what: str, which: np.ndarray) -> InvalidAccess:
        return InvalidAccess(f"{where(self.instruction, self.block, int(self.threads[which[0]]))}: {what}")

    def access(self, which: np.ndarray, offsets: np.ndarray, values: np.ndarray | None) -> Access:
        threads = self.threads[which]
        phases = self.warp_phases[threads // WARP]
        return Access(self.instruction, self.block, self.phase, threads, phases, offsets, values)


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
