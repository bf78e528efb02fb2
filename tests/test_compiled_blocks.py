"""The compiled code of large arrays: two blocks and the last one, of every kernel that bench/aot counts.

Large arrays have larger blocks than small ones, of the sizes that `kernels/gpu/tuning.py` has.
"""

import math
import re
from unittest import mock

import jax
import numpy as np
import oracle
import pytest
import streams
from oracle import assert_same_bits
from test_stream_kernels import KEY

from bench.aot.case import Case
from bench.aot.cases import SIZE, cases
from intnumerics.kernels.gpu import tuning
from tools import ptx

pytestmark = pytest.mark.ptx

FIRST = 8 * ((1 << 32) - 64)  # the number of the first element: the numbers of blocks of eight pass 2**32
ALL = [case for platform in ("cuda", "jax_triton") for case in cases(platform)]
# Noise of jax.random and chains are in test_compiled_xla.py; large blocks of float16 that draw noise are in `H200`;
# rows with a scale each are in test_scaled_kernels.py, and casts in test_stochastic_cast.py.
ELSEWHERE = ("cast", "JaxUniform", "chain", "float16 with Philox", "float16 -> int8 with Philox", "by absmax")
LEFT_TO_XLA = ("pallas_mosaic_gpu: quantize bfloat16 with shared noise",)  # which is not divided into blocks of ours
KERNELS = [
    case
    for case in ALL
    if case.who != "formula"
    and math.prod(case.shape) == SIZE
    and not any(one in case.name for one in ELSEWHERE)
    and case.name not in LEFT_TO_XLA
    and (case.noise != "hash" or case.name.endswith("bfloat16 -> int8 with hash"))
]
H200 = [row for row in tuning.TABLE if row.device == "NVIDIA H200"]

# PTX ISA, 9.7.3.3: "mul/add sequences with no rounding modifiers may be optimized to use fused-multiply-add
# instructions on the target device". `ptxas` might then do what the PTX does not.
CONTRACTIBLE = re.compile(r"\bmul(\.ftz)?(\.sat)?\.(f32|f64|b?f16(x2)?)\s")


def arrays(case: Case, blocks: int) -> list[np.ndarray]:
    """Random arguments; x has in each block numbers at which a kernel could go wrong."""
    random = np.random.default_rng(0)
    x = (random.standard_normal((blocks, SIZE // blocks), np.float32) * 90).astype(case.dtype)
    special = oracle.values(case.spec, x.dtype)[: x.shape[1]]
    x[:, : special.size] = special
    x[:, -1] = special[-1]
    found = [x.reshape(case.shape)]
    for aval in case.avals[1:]:
        if aval.dtype == np.uint8:
            found.append(random.integers(0, 256, aval.shape, np.uint8))
        elif aval.dtype == np.uint32:
            seeds = [streams.seed((KEY[0] + i, KEY[1]), first(case)) for i in range(math.prod(aval.shape[:-1]))]
            found.append(np.reshape(seeds, aval.shape))
        elif case.backward:
            found.append(found[0].reshape(-1)[::-1].reshape(case.shape).copy())
        else:
            found.append(random.uniform(-0.5, 0.5, aval.shape).astype(aval.dtype))
    return found


def first(case: Case) -> int:
    """The number of the first element: of the hash's that of a whole array, which says that it has no other."""
    return 0 if case.noise == "hash" else FIRST


def drawn(case: Case, seeds: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The noise of the elements at some indices: those of an example have its key, and numbers of the whole array."""
    shape = case.shape[case.batch :]
    example, inside = np.divmod(at, math.prod(shape))
    number = np.ravel_multi_index(np.unravel_index(inside, shape), case.whole or shape).astype(np.uint64) + first(case)
    [[k0, k1]] = np.unique(seeds.reshape(-1, 4)[example, :2], axis=0)  # a block lies in one example
    if case.noise == "hash":
        blocks, which = np.unique(number // 2, return_inverse=True)
        words = streams.hashed_words(blocks.tolist(), (int(k0), int(k1)))[which]
        return streams.noise_of(words >> (number % 2 * 16) & 0xFFFF)
    block = number // 8
    counter = np.stack([block % 2**32, block >> 32, np.zeros_like(block), np.full_like(block, 0x494E544E)], axis=1)
    words = streams.philox4x32(counter.astype(np.uint32), (int(k0), int(k1)))
    draws = words.view(np.uint16)[np.arange(at.size), number % 8]
    return streams.noise_of(draws)


def check_block(case: Case, given: list[np.ndarray], results: list[np.ndarray], at: np.ndarray) -> None:
    """Compares what a block wrote, at consecutive indices, with the formula."""
    x, *others = given
    here, packed_at = x.reshape(-1)[at], slice(at[0] // 8, -(-(at[-1] + 1) // 8))
    if case.backward:
        if case.backward == "x":
            inside = oracle.mask(others[0].reshape(-1)[at], case.spec)
        else:
            inside = np.unpackbits(others[0].reshape(-1)[packed_at], bitorder="little", count=at.size) == 1
        assert_same_bits(results[0].reshape(-1)[at], np.where(inside, here, np.zeros_like(here)))
        return
    noise = None
    if others:
        is_drawn = others[0].dtype == np.uint32
        noise = drawn(case, others[0], at) if is_drawn else np.broadcast_to(others[0], x.shape).reshape(-1)[at]
    assert_same_bits(results[0].reshape(-1)[at], oracle.quantize(here, noise, case.spec))
    if case.mask:
        assert_same_bits(results[1].reshape(-1)[packed_at], oracle.packed_mask(here, case.spec))


def check(case: Case) -> None:
    program = ptx.compile(case.function, *case.avals)
    # XLA has a small kernel, of one block, for the subkeys of the hash.
    [kernel] = [one for one in program.kernels if case.noise != "hash" or math.prod(one.grid) > 1]
    assert not CONTRACTIBLE.search(kernel.text)
    blocks = math.prod(kernel.grid)
    chosen, size = (0, blocks // 2 + 1, blocks - 1), SIZE // blocks
    given = arrays(case, blocks)
    results = program(*given, blocks={kernel.name: chosen})
    for block in chosen:
        check_block(case, given, jax.tree.leaves(results), np.arange(block * size, (block + 1) * size))


@pytest.mark.parametrize("case", KERNELS, ids=lambda case: case.name)
def test_the_blocks_of_a_large_array_have_the_formulas_bits(case: Case) -> None:
    check(case)


BEYOND = [case for case in ALL if case.elements > 1 << 31 and case.noise != "shared noise"]


@pytest.mark.parametrize("case", BEYOND, ids=lambda case: case.name)
def test_so_have_the_last_blocks_of_an_array_whose_indices_need_64_bits(case: Case) -> None:
    """Of arrays of zeros, which take no memory until they are used, with numbers at the end."""
    program = ptx.compile(case.function, *case.avals)
    # XLA has kernels for what follows the last whole block of a kernel of Mosaic GPU.
    [ours] = [kernel for kernel in program.kernels if "fusion" not in kernel.name]
    blocks = math.prod(ours.grid)
    last_is_whole = case.who == "pallas_mosaic_gpu"
    size = case.elements // blocks if last_is_whole else 1 << ((case.elements - 1) // blocks).bit_length()
    start = (blocks - 2) * size
    given = [np.zeros(aval.shape, aval.dtype) for aval in case.avals]
    given[0][start:] = np.resize(oracle.values(case.spec, given[0].dtype), case.elements - start)
    if case.backward:
        given[1][start // 8 :] = 0x5A
    elif case.noise:
        given[1][:] = streams.seed(KEY, FIRST)
    results = program(*given, blocks={ours.name: (blocks - 2, blocks - 1)})
    check_block(case, given, jax.tree.leaves(results), np.arange(start, case.elements))


def row_case(row: tuning.Row) -> Case:
    """The case of a row that was measured."""
    names = {tuning.FROM_MASK: "mask", tuning.FROM_X: "x"}
    if row.operation in names:
        return Case(row.implementation, (SIZE,), ("h100",), row.dtype, backward=names[row.operation])
    to, noise = "int8" * ("to int8" in row.operation), "Philox" * ("noise drawn" in row.operation)
    mask = "with mask" in row.operation
    case = Case(row.implementation, (SIZE,), ("h100",), row.dtype, to=to, noise=noise, mask=mask)
    assert tuning.quantization(case.spec, bool(noise)) == row.operation
    return case


@pytest.mark.parametrize("row", H200, ids=lambda row: f"{row.dtype} {row.operation}")
def test_so_have_the_blocks_that_were_measured_to_be_fastest_on_another_device(row: tuning.Row) -> None:
    with mock.patch.object(tuning, "device_kind", return_value=row.device):
        check(row_case(row))


def test_a_product_that_may_be_contracted_would_be_seen() -> None:
    assert CONTRACTIBLE.search("mul.f32 %f3, %f1, %f2;")
    assert not CONTRACTIBLE.search("mul.rn.f32 %f3, %f1, %f2; mul.wide.u32 %rd3, %r1, 4;")
