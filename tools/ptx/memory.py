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
    """A range of addresses.

    `written` tells of each byte whether it holds anything, None if all do. `log` has every access: who it was, the
    offsets of the bytes, and their values, or -1 for reading.
    """

    name: str
    base: int
    data: np.ndarray
    written: np.ndarray | None = None
    is_constant: bool = False
    log: list[tuple["Place", np.ndarray, np.ndarray]] = dataclasses.field(default_factory=list)


class Place(NamedTuple):
    """An instruction that some threads execute; of each the block, the number in that, and the barriers behind it.

    `threads` has four columns: the last two count the barriers that the block and the warp have passed.
    """

    instruction: Instruction
    threads: np.ndarray

    def refuse(self, wrong: np.ndarray, what: str, numbers: np.ndarray) -> None:
        """Raises if something is wrong with a thread; `what` says so with the number of the first such thread."""
        if wrong.any():
            first = int(wrong.argmax())
            raise AccessError(f"{where(self.instruction, *self.threads[first, :2])}: {what.format(numbers[first])}")


Found = tuple[Region, np.ndarray, np.ndarray, Place]


class Memory:
    """What a launch can reach in a state space, or a block in its shared memory."""

    def __init__(self, *regions: Region) -> None:
        self.regions = {region.base >> SPAN: region for region in regions}

    def add(self, region: Region) -> None:
        self.regions[region.base >> SPAN] = region

    def load(self, place: Place, addresses: np.ndarray, width: int) -> np.ndarray:
        """The bytes at each address, (threads, width)."""
        result = np.zeros((addresses.size, width), np.uint8)
        for region, which, offsets, here in self._find(place, addresses, width):
            result[which] = region.data[offsets]
            if region.written is not None:
                unwritten = ~region.written[offsets].all(axis=1)
                here.refuse(unwritten, f"reads byte {{}} of {region.name}, which nobody wrote", offsets[:, 0])
            if not region.is_constant:
                region.log.append((here, offsets, np.full(offsets.shape, -1, np.int16)))
        return result

    def store(self, place: Place, addresses: np.ndarray, values: np.ndarray) -> None:
        """Writes the bytes of each address."""
        for region, which, offsets, here in self._find(place, addresses, values.shape[1]):
            constant = np.full(which.size, region.is_constant)
            here.refuse(constant, f"writes to byte {{}} of {region.name}, which is constant", offsets[:, 0])
            region.data[offsets] = values[which]
            if region.written is not None:
                region.written[offsets] = True
            region.log.append((here, offsets, values[which].astype(np.int16)))

    def _find(self, place: Place, addresses: np.ndarray, width: int) -> Iterator[Found]:
        """For each region: it, which of the addresses lie in it, the offsets of their bytes, and whose they are."""
        place.refuse(np.asarray(addresses % width != 0), f"{width} bytes at {{:#x}}, which is misaligned", addresses)
        spans = addresses >> SPAN
        place.refuse(~np.isin(spans, [*self.regions]), "address {:#x} is in no buffer", addresses)
        for span in np.unique(spans):
            region, which = self.regions[int(span)], np.flatnonzero(spans == span)
            here = Place(place.instruction, place.threads[which])
            starts = addresses[which].astype(np.int64) - region.base
            outside = (starts < 0) | (starts + width > region.data.size)
            here.refuse(outside, f"{width} bytes at byte {{}} of {region.name}, which has {region.data.size}", starts)
            yield region, which, starts[:, None] + np.arange(width), here

    def check_races(self) -> None:
        """Raises if two threads used one byte, at least one of them wrote, and no barrier was between."""
        for region in self.regions.values():
            if any((values >= 0).any() for _, _, values in region.log):
                _check(region)
            region.log.clear()


def where(instruction: Instruction, block: int, thread: int) -> str:
    return f"block {block}, thread {thread}, line {instruction.line} ({instruction.text})"


def _check(region: Region) -> None:
    """Sorts all accesses by byte, and looks at the bytes that several threads used and at least one wrote."""
    places, offsets, values = zip(*region.log, strict=True)
    offset = np.concatenate([each.ravel() for each in offsets])
    order = np.argsort(offset, kind="stable")  # of one byte, in the order of execution
    offset = offset[order]
    is_same = np.append(offset[1:] == offset[:-1], False)
    order, offset = (each[is_same | np.roll(is_same, 1)] for each in (order, offset))  # of bytes used more than once
    if not order.size:
        return
    value = np.concatenate([each.ravel() for each in values])[order]
    number = np.repeat(np.arange(len(places)), [each.size for each in offsets])[order]
    threads = np.concatenate([np.repeat(p.threads, each.shape[1], axis=0) for p, each, _ in region.log])[order]

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
                f"{where(places[number[k]].instruction, *threads[k, :2])}, "
                + ("reads" if value[k] < 0 else f"writes {value[k]}")
                for k in (earlier, later)
            )
            raise RaceError(f"byte {offset[start]} of {region.name}: {one}, and {other}, with no barrier between")


def _in_order(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether the accesses of two threads cannot happen at once: see `Place.threads`."""
    by_warp = one[1] // WARP == other[1] // WARP and one[3] != other[3]
    return bool(one[0] == other[0] and (one[1] == other[1] or one[2] != other[2] or by_warp))
