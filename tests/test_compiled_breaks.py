"""The tests of compiled code can fail: each break in a kernel's PTX is found, by the bits or by a check of memory."""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import ml_dtypes
import numpy as np
import oracle
import pytest
import streams
from implementations import COMPILED, Where, assert_is_formula
from oracle import assert_same_bits
from test_kernels import all_values
from test_stream_kernels import KEY

from intnumerics.kernels import Draw, QuantSpec

pytestmark = pytest.mark.ptx

NEAREST = QuantSpec(127.0, clip=True, rounding="half_to_even", with_mask=True)
HALVES = QuantSpec(127.5, clip=True, rounding="floor_plus_half")
TO_INT8 = dataclasses.replace(NEAREST, integer_dtype=np.dtype(np.int8), draw=Draw("philox", (3, 1032)))


def further(found: re.Match[str]) -> str:
    return f"{found[1]}+{int(found[2] or 0) + 16}"


BREAKS = {  # a pattern in the PTX, and what takes its place
    "a signed conversion is unsigned": (r"\bcvt\.rn\.f32\.s32\b", "cvt.rn.f32.u32"),
    "a maximum loses NaN": (r"\bmax\.NaN\.", "max."),
    "a minimum loses NaN": (r"\bmin\.NaN\.", "min."),
    "a sum is rounded to zero": (r"\badd(\.rn)?\.f32\b", "add.rz.f32"),
    "a conversion to bfloat16 is rounded to zero": (r"\bcvt\.rn\.bf16", "cvt.rz.bf16"),
    "a load is 16 bytes off": (r"(\bld\.(?!param)\S+\s+[^;]*\[ ?%rd\d+) ?(?:\+ ?(\d+))?", further),
    "a store is 16 bytes off": (r"(\bst\.(?!param|shared)\S+\s+\[ ?%rd\d+) ?(?:\+ ?(\d+))?", further),
    "a load has no predicate": (r"@!?%p\d+ ld\.global", "ld.global"),
    "a store has no predicate": (r"@!?%p\d+ st\.global", "st.global"),
    "a barrier is missing": (r"\bbar\.sync\s+0;", ""),
    "a shift is by one bit more": (r"(\bsh[lr]\.b32\s+%r\d+, %r\d+, )(\d+);", lambda m: f"{m[1]}{int(m[2]) + 1};"),
    "a comparison is strict": (r"\bsetp\.le\.", "setp.lt."),
}


@dataclasses.dataclass
class Promise:
    """A program with arrays, and a function that raises unless the results are right."""

    program: Any
    arrays: tuple[np.ndarray, ...]
    check: Callable[[Any], None]

    def hold(self, broken: int | None = None, by: str = "") -> None:
        """Runs the program, with another text for one of its kernels."""
        from tools.ptx import program

        number = iter(range(len(self.program.kernels)))

        def run(text: str, *buffers: Any, **options: Any) -> Any:
            return program_run(by if next(number) == broken else text, *buffers, **options)

        program_run = program.run
        with mock.patch.object(program, "run", run):
            self.check(self.program(*self.arrays))


@functools.cache
def promise(where: Where) -> Promise:
    """Each operation once, on ragged arrays."""
    run = where.operations()
    x = np.resize(all_values(np.dtype(np.float32), NEAREST, HALVES), 4099)
    small = np.resize(all_values(np.dtype(ml_dtypes.bfloat16), NEAREST, HALVES), (3, 1032))
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, small.shape).astype(np.float32)
    noise[1] = 0.25 - 2.0**-20  # for which the sum with 64.5 is rounded up, to float32 and then to bfloat16
    g, seed = x[::-1].copy(), streams.seed(KEY, 1 << 40)

    def every(
        x: jax.Array, small: jax.Array, noise: jax.Array, g: jax.Array, packed: jax.Array, seed: jax.Array
    ) -> Any:
        gradients = run.clip_gradient_from_mask(g, packed), run.clip_gradient_from_x(g, x, NEAREST)
        return (
            run.quantize(x, None, NEAREST),
            run.quantize(small, noise, HALVES),
            run.quantize(small, seed, TO_INT8),
            *gradients,
        )

    arrays = x, small, noise, g, oracle.packed_mask(x, NEAREST), seed
    drawn = streams.uniform(small.shape, KEY, 1 << 37)

    def check(results: Any) -> None:
        nearest, halves, to_int8, *gradients = results
        assert_is_formula(nearest, x, None, NEAREST, keeps_subnormal=True)
        assert_is_formula(halves, small, noise, HALVES, keeps_subnormal=True)
        assert_is_formula(to_int8, small, drawn, TO_INT8, keeps_subnormal=True)
        for gradient in gradients:
            assert_same_bits(gradient, np.where(oracle.mask(x, NEAREST), g, np.zeros_like(g)))

    return Promise(where.compiled(every, *arrays), arrays, check)


def changes_nothing(name: str, where: Where, kernel: Any) -> bool:
    """Whether a break cannot be seen in the results of a kernel."""
    if where.name != "pallas_mosaic_gpu":
        return False
    if not kernel.name.startswith("intnumerics"):  # XLA's, for the few elements after the last whole block
        return True
    # Each kernel begins with a barrier that orders nothing, and that to int8 takes the integer of NaN before the clip.
    return "barrier" in name or ("NaN" in name and kernel.name.startswith("intnumerics_quantize_with_noise"))


@pytest.mark.parametrize("name", BREAKS)
def test_a_break_in_a_kernel_is_found(name: str) -> None:
    from tools import ptx

    pattern, put = BREAKS[name]
    broken = 0
    for where, held in ((where, promise(where)) for where in COMPILED.values()):
        for i, kernel in enumerate(held.program.kernels):
            if changes_nothing(name, where, kernel):
                continue
            if (text := re.sub(pattern, put, kernel.text)) != kernel.text:
                broken += 1
                with pytest.raises((AssertionError, ptx.AccessError, ptx.RaceError)):  # not that it is not PTX
                    held.hold(i, text)
    assert broken


def test_nothing_is_found_in_what_is_not_broken() -> None:
    for where in COMPILED.values():
        promise(where).hold()
