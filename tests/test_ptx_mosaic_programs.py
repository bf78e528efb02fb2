"""Programs with kernels of Mosaic GPU: which are launched, with what, and what comes out of them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import streams
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from mosaic_calls import call, in_64_bits, launch, numbers, strided
from oracle import assert_same_bits

from tools import ptx

pytestmark = [pytest.mark.ptx, pytest.mark.tools]

F32 = np.float32
SIZE, LAYOUT = strided()


def add(number: float) -> Callable[[Any], Any]:
    """A kernel; those of all numbers have one name."""
    return lambda x: call(lambda x: [x + jnp.float32(number)], x, dtypes=[F32])[0]


def test_kernels_of_one_name_in_one_program_are_each_matched_to_its_call() -> None:
    x = numbers(F32)
    program = ptx.compile(lambda x: add(2)(add(1)(x) * jnp.float32(3)), x)
    ours = [kernel for kernel in program.kernels if "mosaic" in kernel.name]
    assert [(kernel.grid, kernel.block, kernel.shared) for kernel in ours] == [((2, 1, 1), (128, 1, 1), 0)] * 2
    assert len({kernel.name for kernel in ours}) == 1
    assert len(program.kernels) == 3  # one is a fusion of XLA
    assert_same_bits(program(x), (x + F32(1)) * F32(3) + F32(2))


def test_a_kernel_that_this_process_compiled_before_is_found_again() -> None:
    """Mosaic compiles each kernel once in a process, and dumps it then."""
    x = numbers(F32)
    for first, then in ((5, 6), (6, 5), (5, 5)):
        program = ptx.compile(lambda x, first=first, then=then: add(then)(add(first)(x)), x)
        assert_same_bits(program(x), x + F32(first) + F32(then))


def test_a_kernel_reads_what_a_fusion_wrote_and_the_other_way_round() -> None:
    x, y = numbers(F32), numbers(F32)

    def function(x: Any, y: Any) -> Any:
        [most] = call(lambda x, y: [jnp.maximum(x, y)], x * y, x, dtypes=[F32])
        return most - y, y

    for result, expected in zip(ptx.compile(function, x, y)(x, y), (np.maximum(x * y, x) - y, y), strict=True):
        assert_same_bits(result, expected)


def test_a_kernel_may_have_its_parameters_in_another_order_than_its_call_and_not_all() -> None:
    def kernel(scalars: Any, unused: Any, x: Any, y: Any, result: Any) -> None:
        at = pl.ds(lax.axis_index("block") * SIZE, SIZE)
        result[at] = (plgpu.layout_cast(y[at], LAYOUT) - plgpu.layout_cast(x[at], LAYOUT)) * scalars[1]

    scalars, x, y = np.array([5, 2], F32), numbers(F32), numbers(F32)
    program = ptx.compile(lambda *given: launch(kernel, x, 2, *given), scalars, x, x, y)
    assert_same_bits(program(scalars, np.zeros_like(x), x, y), (y - x) * F32(2))
    assert len(program.kernels[0].parameters) == 4
    with pytest.raises(ptx.AccessError, match="kernel_param"):
        ptx.compile(lambda *given: launch(kernel, x, 3, *given), scalars, x, x, y)(scalars, x, x, y)


def test_a_result_that_the_kernel_is_not_given_is_named() -> None:
    def kernel(x: Any, y: Any, unused: Any) -> None:
        y[pl.ds(0, SIZE)] = plgpu.layout_cast(x[pl.ds(0, SIZE)], LAYOUT)

    x = jax.ShapeDtypeStruct((SIZE,), F32)
    with pytest.raises(ptx.UnsupportedError, match=r"\(custom-call\): the kernel \w+ does not have its arrays \[2\]"):
        ptx.compile(lambda x: launch(kernel, (x, x), 1, x), x)


def test_a_descriptor_of_tma_is_refused() -> None:
    def kernel(x: Any, y: Any, shared: Any, barrier: Any) -> None:
        plgpu.copy_gmem_to_smem(x, shared, barrier)
        plgpu.barrier_wait(barrier)
        y[...] = plgpu.layout_cast(shared[...], plgpu.Layout.WG_STRIDED((32, 64), vec_size=8))

    scratch = (plgpu.SMEM((32, 64), jnp.float32), plgpu.Barrier())
    x = jax.ShapeDtypeStruct((32, 64), F32)
    with pytest.raises(ptx.UnsupportedError, match=r"\(custom-call\): it is given .* not one of the call's arrays"):
        ptx.compile(lambda x: launch(kernel, x, 1, x, scratch_types=scratch), x)


def test_blocks_of_an_array_of_more_than_2_32_elements_are_at_their_place() -> None:
    """Of arrays of zeros, which take no memory until they are used."""

    @in_64_bits
    def kernel(x: Any, y: Any) -> None:
        at = pl.ds(lax.axis_index("block").astype(jnp.int64) * jnp.int64(SIZE), SIZE)
        y[at] = (plgpu.layout_cast(x[at], LAYOUT).astype(jnp.int16) + 1).astype(jnp.int8)

    blocks = (1 << 32) // SIZE + 2
    x, y = (np.zeros(blocks * SIZE, np.int8) for _ in range(2))
    [compiled] = ptx.compile(lambda x: launch(kernel, x, blocks, x), x).kernels
    x[-2 * SIZE :] = np.arange(2 * SIZE) % 127
    how = {"grid": compiled.grid, "block": compiled.block, "entry": compiled.name, "alignments": compiled.alignments}
    ptx.run(compiled.text, x, y, **how, blocks=(blocks - 2, blocks - 1))
    assert_same_bits(y[-2 * SIZE :], x[-2 * SIZE :] + np.int8(1))
    assert not y[: 2 * SIZE].any()


def test_blocks_take_their_ways_and_loop() -> None:
    def kernel(x: Any, y: Any) -> None:
        block = lax.axis_index("block")

        def body(i: Any, most: Any) -> Any:
            at = pl.ds((2 * block + i) * SIZE, SIZE)
            part = plgpu.layout_cast(x[at], LAYOUT)

            @pl.when(block == 0)
            def _() -> None:
                y[at] = part

            @pl.when(block != 0)
            def _() -> None:
                y[at] = most - part

            return jnp.maximum(most, part)

        lax.fori_loop(0, 2, body, plgpu.layout_cast(jnp.full((SIZE,), -1000, jnp.float32), LAYOUT))

    x = numbers(F32, 4 * SIZE)
    parts = x.reshape(2, 2, SIZE)
    most = np.stack([np.full_like(parts[1, 0], -1000), np.maximum(parts[1, 0], -1000)])
    result = ptx.compile(lambda x: launch(kernel, x, 2, x), x)(x)
    assert_same_bits(result, np.stack([parts[0], most - parts[1]]).reshape(-1))


@in_64_bits
def product(number: int, word: Any) -> tuple[Any, Any]:
    whole = word.astype(jnp.uint64) * jnp.asarray(number, jnp.uint64)
    return (whole >> jnp.asarray(32, jnp.uint64)).astype(jnp.uint32), whole.astype(jnp.uint32)


def philox(c0: Any, k0: Any, k1: Any) -> list[Any]:
    c1, c2, c3 = jnp.zeros_like(c0), jnp.zeros_like(c0), jnp.full_like(c0, 0x494E544E)
    for _ in range(10):
        (h0, l0), (h1, l1) = product(0xD2511F53, c0), product(0xCD9E8D57, c2)
        c0, c1, c2, c3 = h1 ^ (c1 ^ k0), l1, h0 ^ (c3 ^ k1), l0
        k0, k1 = k0 + jnp.uint32(streams.WEYL[0]), k1 + jnp.uint32(streams.WEYL[1])
    return [c0, c1, c2, c3]


def test_a_kernel_that_rounds_with_philox_noise_gives_the_stream() -> None:
    def kernel(key: Any, x: Any, y: Any) -> None:
        start = lax.axis_index("block") * SIZE
        element = plgpu.layout_cast(lax.broadcasted_iota(jnp.int32, (SIZE,), 0), LAYOUT) + start
        words, j = philox((element >> 3).astype(jnp.uint32), key[0], key[1]), element & 7
        word = jnp.where(j < 4, jnp.where(j < 2, *words[:2]), jnp.where(j < 6, *words[2:]))
        high = jnp.where((j & 1) == 0, word << jnp.uint32(16), word & jnp.uint32(0xFFFF0000)) ^ jnp.uint32(0x80008000)
        noise = high.astype(jnp.int32).astype(jnp.float32) * jnp.float32(2.0**-32)
        at = pl.ds(start, SIZE)
        number = plgpu.layout_cast(x[at], LAYOUT).astype(jnp.float32) + noise
        whole = jnp.minimum(jnp.maximum(number, -127.0), 127.0) + jnp.float32(1.5 * 2**23)
        y[at] = lax.bitcast_convert_type(whole, jnp.int32).astype(jnp.int8)

    key, x = np.array([7, 0x85A308D3], np.uint32), numbers(ml_dtypes.bfloat16)
    program = ptx.compile(lambda *given: launch(kernel, x.astype(np.int8), 2, *given), key, x)
    number = x.astype(F32) + streams.uniform(x.shape, (7, 0x85A308D3))
    assert_same_bits(program(key, x), np.rint(np.clip(number, -127, 127)).astype(np.int8))
    assert program.executions[0].counts["mul.wide.u32"] < 25 * x.size // 8  # a block of Philox for 8 elements
