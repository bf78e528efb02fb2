"""Which cases the steps measure, in the order of their worth: when time runs out, the most valuable are there."""

import itertools
from collections.abc import Iterator, Sequence

from bench import arrays, cases
from bench.cases import Case
from bench.gpu import targets
from bench.operations import operations

EXPONENTS, REHEARSAL_EXPONENT = (28, 26), 12
REST = (24, 30, 27, 21, 18, 15, 12)  # what a size of its own tells most about comes first
# What the most is known from, the most valuable first; what follows after it in each group of a dtype and size.
FIRST = (
    targets.NOISY,
    "quantize to int8",
    targets.BACKWARD[0],
    targets.CHAINS[0],
    targets.CHAINS[1],
    targets.MASKED[1],
    "quantize",
    targets.BACKWARD[1],
)
THEN = (
    "quantize with PhiloxUniform",
    targets.MASKED[0],
    *targets.CHAINS[2:],
    *(f"quantize{to} with {noise}" for noise in targets.NOISES[1:] for to in (" to int8", "")),
)
# The rows of kernels/gpu/tuning.py that the kernel of an operation takes.
ROWS = {
    "quantize": "quantize",
    "quantize to int8": "quantize to int8",
    "quantize with PhiloxUniform": "quantize, noise drawn",
    targets.NOISY: "quantize to int8, noise drawn",
    targets.MASKED[0]: "quantize, with mask",
    targets.MASKED[1]: "quantize, noise drawn, with mask",
    targets.BACKWARD[0]: "clip gradient from mask",
    targets.BACKWARD[1]: "clip gradient from x",
    targets.CHAINS[0]: "quantize to int8",
    targets.CHAINS[1]: "quantize to int8, noise drawn",
    targets.CHAINS[2]: "quantize to int8",
    targets.CHAINS[3]: "quantize to int8, noise drawn",
}


def headline(rehearsal: bool = False) -> Iterator[Case]:
    """The headline cases: what is known from most first, in bfloat16 and at the largest size first."""
    by_name = {operation.name: operation for operation in operations()}
    for names, dtype, size in _rehearsed() if rehearsal else _groups():
        for name in names:
            operation = by_name[name]
            yield Case(operation, dtype, arrays.shape_of(operation.rank, 1 << size))


Groups = list[tuple[Sequence[str], str, int]]  # names of operations, a dtype and a size


def _groups() -> Groups:
    sizes, dtypes = EXPONENTS, targets.DTYPES
    return [
        (FIRST, dtypes[0], sizes[0]),
        (FIRST, dtypes[1], sizes[0]),
        (THEN, dtypes[0], sizes[0]),
        *((FIRST, dtype, size) for size in sizes[1:] for dtype in dtypes),
        (THEN, dtypes[1], sizes[0]),
        *((THEN, dtype, size) for size in sizes[1:] for dtype in dtypes),
    ]


def _rehearsed() -> Groups:
    """A case for each target, for interpreting takes its time."""
    bfloat16, float32 = targets.DTYPES
    return [(FIRST, bfloat16, REHEARSAL_EXPONENT), (FIRST[1:3], float32, REHEARSAL_EXPONENT)]


def again(changed: Sequence[tuple[str, str]], rehearsal: bool = False) -> Iterator[Case]:
    """The headline cases whose row changed.

    Args:
        changed: dtype and operation of the rows.
        rehearsal: As in `headline`.
    """
    for case in headline(rehearsal):
        if (case.dtype, ROWS.get(case.operation.name)) in changed:
            yield case


def rest(platform: str, rehearsal: bool = False) -> Iterator[Case]:
    """What the benchmark has beside the headline."""
    if rehearsal:
        yield from itertools.islice(cases.select(platform, (10,), targets.DTYPES[:1], ("0.5",)), 1)
        return
    for size in REST:
        yield from cases.select(platform, (size,))
