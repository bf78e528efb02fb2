"""Memory whose every access is checked: bounds, alignment, whether it was written, and races between threads.

Each buffer has a range of addresses of its own, far from the others, so an access beyond its end is in none of them.
A buffer begins at an address that is aligned as much as promised and not more.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .errors import AccessError, RaceError
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


class Place(NamedTuple):
    """An instruction that some threads execute; of each the block, the number in that, and the barriers behind it.

    `threads` has four columns: the last two count the barriers that the block and the warp have passed.
    """

    instruction: Instruction
    threads: np.ndarray

    def invalid(self, what: str, which: np.ndarray) -> AccessError:
        return AccessError(f"{where(self.instruction, *self.threads[which[0], :2])}: {what}")


class Access(NamedTuple):
    """What an instruction read or wrote: for each thread the offsets of bytes, and their values, -1 if it read."""

    instruction: Instruction
    threads: np.ndarray
    offsets: np.ndarray
    values: np.ndarray


class Memory:
    """What a launch can reach in global memory, or a block in its shared memory."""

    def __init__(self, *regions: Region) -> None:
        self.regions = {region.base >> SPAN: region for region in regions}

    def add(self, region: Region) -> None:
        self.regions[region.base >> SPAN] = region

    def load(self, place: Place, addresses: np.ndarray, width: int) -> np.ndarray:
        """The bytes at each address, (threads, width)."""
        result = np.zeros((addresses.size, width), np.uint8)
        for region, which, offsets in self._find(place, addresses, width):
            result[which] = region.data[offsets]
            if region.written is not None:
                unwritten = ~region.written[offsets].all(axis=1)
                if unwritten.any():
                    text = f"reads byte {offsets[unwritten][0, 0]} of {region.name}, which nobody wrote"
                    raise place.invalid(text, which[unwritten])
            if not region.is_constant:
                region.log.append(Access(place.instruction, place.threads[which], offsets, np.full_like(offsets, -1)))
        return result

    def store(self, place: Place, addresses: np.ndarray, values: np.ndarray) -> None:
        """Writes the bytes of each address."""
        for region, which, offsets in self._find(place, addresses, values.shape[1]):
            if region.is_constant:
                raise place.invalid(f"writes to {region.name}, which is constant", which)
            region.data[offsets] = values[which]
            if region.written is not None:
                region.written[offsets] = True
            region.log.append(Access(place.instruction, place.threads[which], offsets, values[which]))

    def _find(self, place: Place, addresses: np.ndarray, width: int) -> Iterator[tuple[Region, np.ndarray, np.ndarray]]:
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
            if any(access.values.max() >= 0 for access in region.log):
                _check(region)
            region.log.clear()


def where(instruction: Instruction, block: int, thread: int) -> str:
    return f"block {block}, thread {thread}, line {instruction.line} ({instruction.text})"


def _check(region: Region) -> None:
    """Sorts all accesses by byte, and looks at the bytes that several threads used and at least one wrote."""
    offset = np.concatenate([access.offsets.ravel() for access in region.log])
    order = np.argsort(offset, kind="stable")  # of one byte, in the order of execution
    offset = offset[order]
    is_same = np.append(offset[1:] == offset[:-1], False)
    order, offset = (each[is_same | np.roll(is_same, 1)] for each in (order, offset))  # of bytes used more than once
    if not order.size:
        return
    value = np.concatenate([access.values.ravel() for access in region.log])[order]
    number = np.repeat(np.arange(len(region.log)), [access.offsets.size for access in region.log])[order]
    threads = np.concatenate([np.repeat(a.threads, a.offsets.shape[1], axis=0) for a in region.log])[order]

    def starts(*keys: np.ndarray) -> np.ndarray:
        return np.flatnonzero(np.append(True, np.any([key[1:] != key[:-1] for key in keys], axis=0)))

    def several(what: np.ndarray, groups: np.ndarray) -> np.ndarray:
        return np.minimum.reduceat(what, groups) != np.maximum.reduceat(what, groups)

    # Barriers part what a block does to a byte; nothing parts what several blocks do.
    groups = starts(offset)
    is_shared = np.repeat(several(threads[:, 0], groups), np.diff(np.append(groups, offset.size)))
    groups = starts(offset, np.where(is_shared, 0, threads[:, 2]))
    suspect = several(threads[:, 1], groups) | is_shared[groups]
    suspect &= several(value, groups) & (np.maximum.reduceat(value, groups) >= 0)
    for start, end in zip(groups[suspect], np.append(groups, offset.size)[1:][suspect], strict=True):
        for later, earlier in itertools.combinations(range(end - 1, start - 1, -1), 2):
            if value[later] == value[earlier] or _in_order(threads[earlier], threads[later]):
                continue
            one, other = (
                f"{where(region.log[number[k]].instruction, *threads[k, :2])}, "
                + ("reads" if value[k] < 0 else f"writes {value[k]}")
                for k in (earlier, later)
            )
            raise RaceError(f"byte {offset[start]} of {region.name}: {one}, and {other}, with no barrier between")


def _in_order(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether the accesses of two threads cannot happen at once: see `Place.threads`."""
    if one[0] != other[0]:
        return False
    same_warp = one[1] // WARP == other[1] // WARP
    return bool(one[1] == other[1] or one[2] != other[2] or (same_warp and one[3] != other[3]))
