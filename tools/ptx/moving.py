"""The instructions that move data: between registers, from and to memory, and between the threads of a warp."""

import math

import numpy as np

from .errors import DeadlockError, UnsupportedError
from .kinds import KINDS, UNSIGNED
from .machine import HANDLERS, PRED, Blocks, elements
from .memory import WARP, Place
from .parser import Address, Operand

B32, B64 = KINDS["b32"], KINDS["b64"]
MOVED = {name: kind for name, kind in KINDS.items() if kind.lanes == 1 and kind.letter != "p"}
HINTS = {"weak", "nc", "relaxed", "volatile", "cta", "gpu", "sys", "ca", "cg", "cs", "cv", "wb", "wt", "lu"}


def move(block: Blocks) -> None:
    """`mov`; a vector is packed into a register, or taken out of it, the first element lowest.

    Also `cvta`, because an address in global memory is the same as a generic one.
    """
    kind = KINDS[block.instruction.opcode.rpartition(".")[2]]
    result, source = block.operands(2)
    if not isinstance(source, tuple) and not isinstance(result, tuple):
        block.write(result, block.read(source, kind), kind, unset=block.unset_bits(source, kind))
        return
    parts = source if isinstance(source, tuple) else elements(result)
    if kind.letter != "b" or (part := KINDS.get(f"b{kind.bits // len(parts)}")) is None:
        raise block.unknown()
    if isinstance(source, tuple):
        whole, unset = (
            sum(one(e, part).astype(kind.dtype) << kind.dtype(i * part.bits) for i, e in enumerate(parts))
            for one in (block.read, block.unset_bits)
        )
        block.write(result, whole, kind, unset=unset)
    else:
        whole, unset = block.read(source, kind), block.unset_bits(source, kind)
        for i, element in enumerate(parts):
            bits, open_bits = ((each >> (i * part.bits)).astype(part.dtype) for each in (whole, unset))
            block.write(element, bits, part, unset=open_bits)


def transfer(block: Blocks) -> None:
    """`ld` and `st`, of which the words that are only hints are left out."""
    name, *words = block.instruction.opcode.split(".")
    kind = MOVED.get(words.pop())
    words = [word for word in words if word not in HINTS and not word.startswith(("L1::", "L2::"))]
    count = next((int(word[1]) for word in words if word in ("v2", "v4", "v8")), 1)
    words = [word.removesuffix("::cta").removesuffix("::entry") for word in words if word != f"v{count}"]
    value, address = block.operands(2)[:: 1 if name == "ld" else -1]
    parts = elements(value)
    memory = block.spaces.get(" ".join(words)) if (name, *words) != ("st", "param") else None
    if memory is None or kind is None or len(parts) != count or not isinstance(address, Address):
        raise block.unknown()
    is_narrow = address.base in block.launch.entry.registers and block.register(str(address.base)).bits == 32
    base = block.certain(block.read(address.base, B32 if is_narrow else B64).astype(np.uint64))
    addresses = np.broadcast_to(base + np.uint64(address.offset & (1 << 64) - 1), block.active.shape)[block.active]
    phases = np.broadcast_to(block.phase, block.active.shape), block.warp_phases
    place = Place(block.instruction, np.column_stack([block.position, *phases])[block.active])
    if name == "st":
        values = [np.broadcast_to(kind.to(block.read(e, kind, True)), block.active.shape) for e in parts]
        memory.store(place, addresses, block.certain(np.stack(values, axis=-1).view(np.uint8)[block.active]))
        return
    data = np.zeros((block.threads.size, count), UNSIGNED[kind.bits])
    data[block.active] = memory.load(place, addresses, data.itemsize * count).view(data.dtype)
    for i, element in enumerate(parts):
        block.write(element, kind.of(data[:, i]), kind, True)


REDUCTIONS = {
    "add": np.add,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}

# --- warps -----------------------------------------------------------------------------------------------------------


def ballot(block: Blocks, choice: np.ndarray) -> np.ndarray:
    """For each thread a bit for each lane of its warp."""
    return np.bincount(block.warps, np.where(choice, 2.0**block.lanes, 0)).astype(np.uint32)[block.warps]


def members(block: Blocks, mask: Operand) -> None:
    """Raises unless the threads that the member mask names are here, and name themselves."""
    masks = block.certain(block.read(mask, B32))
    elsewhere = ballot(block, (block.pc < block.end) & ~block.active)
    wrong = block.active & ((masks & elsewhere != 0) | (masks >> block.lanes.astype(np.uint32) & 1 == 0))
    if wrong.any():
        raise DeadlockError(f"{block.here(wrong)}: the member mask names a thread that is elsewhere, or not this one")


def shuffle(block: Blocks) -> None:
    """`shfl.sync`; `least` and `last` are minLane and maxLane of the manual's pseudocode."""
    mode = block.instruction.opcode.split(".")[2]
    first, source, *numbers, mask = block.operands(5)
    members(block, mask)
    by, limit = (block.certain(np.broadcast_to(block.read(o, B32), block.active.shape)).astype(int) for o in numbers)
    by, segment, clamp = by & 31, limit >> 8 & 31, limit & 31
    least, last = block.lanes & segment, block.lanes & segment | clamp & ~segment
    ways = {"up": block.lanes - by, "down": block.lanes + by, "bfly": block.lanes ^ by, "idx": least | by & ~segment}
    inside = ways[mode] >= last if mode == "up" else ways[mode] <= last
    thread = block.threads - block.lanes + np.where(inside, ways[mode], block.lanes)
    values = np.broadcast_to(block.read(source, B32), block.active.shape)
    name, *predicate = elements(first)
    if predicate:
        block.write(predicate[0], inside, PRED, unset=np.zeros(1, bool))
    at = np.minimum(thread, block.threads.size - 1)
    unset = np.broadcast_to(block.unset_bits(source, B32), block.active.shape)[at]
    is_inactive = ~block.active[at] | (thread != at)  # "the thread is inactive": its value is unknown
    block.write(name, values[at], B32, unset=np.where(is_inactive, ~np.zeros_like(unset), unset))


def vote(block: Blocks) -> None:
    """`vote.sync`."""
    mode = block.instruction.opcode.split(".")[2]
    result, source, mask = block.operands(3)
    members(block, mask)
    votes = block.certain(np.broadcast_to(block.read(source, PRED), block.active.shape))
    yes, no = (ballot(block, block.active & choice) for choice in (votes, ~votes))
    found = {"ballot": yes, "all": no == 0, "any": yes != 0, "uni": (no == 0) | (yes == 0)}[mode]
    block.write(result, found, B32 if mode == "ballot" else PRED)


def reduce(block: Blocks) -> None:
    """`redux.sync`: the members of a warp have one result."""
    operation, name = block.instruction.opcode.split(".")[2:]
    result, source, mask = block.operands(3)
    members(block, mask)
    numbers, masks = (
        block.certain(np.broadcast_to(block.read(one, kind), block.active.shape))[block.active]
        for one, kind in ((source, KINDS[name]), (mask, B32))
    )
    _, groups = np.unique(np.stack([block.warps[block.active], masks]), axis=1, return_inverse=True)
    groups = groups.reshape(-1)
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(groups[order]) > 0))
    found = np.zeros(block.active.shape, numbers.dtype)
    found[block.active] = REDUCTIONS[operation].reduceat(numbers[order], starts)[groups]
    block.write(result, found, KINDS[name])


def elect(block: Blocks) -> None:
    """`elect.sync`: which of the members leads is left open by the manual; here it is the lowest."""
    first, mask = block.operands(2)
    if len(elements(first)) != 2:
        raise UnsupportedError(f"{len(elements(first))} results where 2 are expected")
    members(block, mask)
    masks = block.certain(np.broadcast_to(block.read(mask, B32), block.active.shape))
    leader = np.log2(np.maximum(masks & ~masks + 1, 1)).astype(np.uint32)
    for name, value, kind in zip(elements(first), (leader, leader == block.lanes), (B32, PRED), strict=True):
        block.write(name, value, kind)


def barrier(block: Blocks) -> bool:
    """`bar.sync`: of all threads of a block. A barrier of some of them would order only what those do."""
    number, *count = (
        block.certain(np.broadcast_to(block.read(one, B32), block.active.shape)[block.active])
        for one in block.instruction.operands
    )
    whole = -(-math.prod(block.launch.block) // WARP) * WARP
    if number.max() > 15 or len(count) > 1 or any((each != whole).any() for each in count):
        raise UnsupportedError(f"a barrier of other than all {whole} threads, or not of 0 to 15")
    block.waits[block.active] = number
    return block.jump(block.at + 1)


def warp_barrier(block: Blocks) -> None:
    """`bar.warp.sync`."""
    members(block, *block.operands(1))
    block.warp_phases[block.active] += 1


for names, handler in {
    ("ld.*", "st.*"): transfer,
    tuple(f"mov.{name}" for name in (*MOVED, "pred")): move,
    ("cvta.to.global.u64", "cvta.global.u64"): move,
    ("griddepcontrol.wait", "griddepcontrol.launch_dependents"): lambda _: None,  # for the scheduler
    ("fence.mbarrier_init.release.cluster",): lambda _: None,  # orders what makes barriers in memory: nothing here does
    ("elect.sync",): elect,
    tuple(f"shfl.sync.{mode}.b32" for mode in ("up", "down", "bfly", "idx")): shuffle,
    tuple(f"redux.sync.{name}.{kind}" for name in ("add", "min", "max") for kind in ("u32", "s32")): reduce,
    tuple(f"redux.sync.{name}.b32" for name in ("and", "or", "xor")): reduce,
    ("vote.sync.ballot.b32", *(f"vote.sync.{mode}.pred" for mode in ("all", "any", "uni"))): vote,
    ("bar.sync", "barrier.sync", "barrier.sync.aligned", "barrier.cta.sync", "barrier.cta.sync.aligned"): barrier,
    ("bar.warp.sync",): warp_barrier,
}.items():
    HANDLERS.update(dict.fromkeys(names, handler))
