"""What Mosaic GPU makes of the operations that kernels need, compiled for an H100 and run on a CPU: NumPy's bits."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax import lax
from mosaic_calls import RNG, bits, compiled, in_64_bits, numbers, strided
from oracle import assert_same_bits

pytestmark = [pytest.mark.ptx, pytest.mark.tools]

BF16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = [np.dtype(np.float32), np.dtype(np.float16), BF16]
INTEGERS = [np.dtype(name) for name in ("int32", "uint32", "int16", "uint16", "int8", "uint8")]


@pytest.mark.parametrize("vector", [4, 8])
def test_copies_have_the_bits_of_the_operands_and_wide_accesses(vector: int) -> None:
    arrays = [bits(dtype) for dtype in (*FLOATS, *INTEGERS)]
    program = compiled(lambda *given: given, *arrays, dtypes=[x.dtype for x in arrays], vector=vector)
    for result, x in zip(program(*arrays), arrays, strict=True):
        assert_same_bits(result, x)
    threads, names = arrays[0].size // vector, {4: ".b32", 8: ".v2.b32", 16: ".v4.b32"}
    for name, bytes_per_thread in (
        ("ld", [x.nbytes // threads for x in arrays]),
        ("st", [x.nbytes // threads for x in arrays]),
    ):
        expected = dict.fromkeys(names.values(), 0)
        for count in bytes_per_thread:
            expected[names[min(count, 16)]] += threads * max(1, count // 16)
        assert {ending: program.executions[0].counts[f"{name}.global{ending}"] for ending in expected} == expected


ARITHMETIC: list[Callable[..., Any]] = [
    lambda np, x, y: x + y,
    lambda np, x, y: x - y,
    lambda np, x, y: np.maximum(x, y),
    lambda np, x, y: np.minimum(np.abs(x), y),
    lambda np, x, y: np.where((x < y) & (y != x.dtype.type(3)), x, -y),
]


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS[:4]], ids=str)
def test_arithmetic_and_choices(dtype: np.dtype[Any]) -> None:
    x, y = (bits(dtype), bits(dtype)) if dtype.kind in "iu" else (numbers(dtype), numbers(dtype))
    formulas = lambda np, x, y: [formula(np, x, y) for formula in ARITHMETIC]  # noqa: E731
    program = compiled(lambda x, y: formulas(jnp, x, y), x, y, dtypes=[dtype] * len(ARITHMETIC))
    for result, expected in zip(program(x, y), formulas(np, x, y), strict=True):
        assert_same_bits(result, expected)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_maximum_and_minimum_keep_nan(dtype: np.dtype[Any]) -> None:
    x, y = numbers(dtype), numbers(dtype)
    x[:100:3], y[:100:5] = np.nan, np.nan
    program = compiled(lambda x, y: (jnp.maximum(x, y), jnp.minimum(x, y)), x, y, dtypes=[dtype] * 2)
    for result, expected in zip(program(x, y), (np.maximum(x, y), np.minimum(x, y)), strict=True):
        np.testing.assert_array_equal(np.isnan(result), np.isnan(expected))
        assert_same_bits(result[~np.isnan(expected)], expected[~np.isnan(expected)])


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS], ids=str)
def test_conversions(dtype: np.dtype[Any]) -> None:
    """Of whole numbers within all types, for out of range a conversion of a float is left open by NumPy."""
    x = RNG.integers(0, 128, 2048).astype(dtype)
    if dtype.kind == "f" or dtype == BF16:
        x += RNG.choice(np.array([0, 0.25, 0.75], dtype), x.size)
    taken = [*FLOATS, *INTEGERS]
    results = compiled(lambda x: [x.astype(one) for one in taken], x, dtypes=taken)(x)
    for result, one in zip(results, taken, strict=True):
        assert_same_bits(result, x.astype(one))


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_conversions_of_all_integers(dtype: np.dtype[Any]) -> None:
    x = bits(dtype)
    taken = [*FLOATS[::2], *INTEGERS]  # float16 overflows
    results = compiled(lambda x: [x.astype(one) for one in taken], x, dtypes=taken)(x)
    for result, one in zip(results, taken, strict=True):
        assert_same_bits(result, x.astype(one))


def test_bits_of_one_type_taken_as_another() -> None:
    arrays = [bits(dtype) for dtype in ("float32", "uint32", BF16, "int16")]
    taken = [np.dtype(dtype) for dtype in ("int32", "float32", "uint16", "float16")]
    formula = lambda *given: [lax.bitcast_convert_type(x, one) for x, one in zip(given, taken, strict=True)]  # noqa: E731
    for result, x, one in zip(compiled(formula, *arrays, dtypes=taken)(*arrays), arrays, taken, strict=True):
        assert_same_bits(result, x.view(one))


@pytest.mark.parametrize("dtype", INTEGERS[:2], ids=str)
def test_integers_are_divided_by_a_constant_and_shifted(dtype: np.dtype[Any]) -> None:
    def formula(x: Any) -> list[Any]:
        divided = [x // dtype.type(d) * dtype.type(3) + x % dtype.type(d) for d in (7, 8, 1000)]
        return [*divided, (x >> dtype.type(5)) ^ (x << dtype.type(7)) ^ (x >> (x & dtype.type(31)))]

    x = bits(dtype)
    for result, expected in zip(compiled(formula, x, dtypes=[dtype] * 4)(x), formula(x), strict=True):
        assert_same_bits(result, expected)


@pytest.mark.parametrize("sign", ["int", "uint"])
def test_products_sums_shifts_and_comparisons_of_64_bits(sign: str) -> None:
    wide, narrow = np.dtype(f"{sign}64").type, np.dtype(f"{sign}32").type

    def formula(np: Any, x: Any, y: Any) -> list[Any]:
        a, b = x.astype(wide), y.astype(wide)
        high = a * b >> wide(32), ((a << wide(29)) + b) >> wide(17), (a * wide(0x6A09E667)) ^ b >> wide(40)
        return [*(one.astype(narrow) for one in high), np.where(a * wide(3) < b << wide(2), x, y)]

    x, y = bits(narrow), bits(narrow)
    program = compiled(in_64_bits(lambda x, y: formula(jnp, x, y)), x, y, dtypes=[narrow] * 4)
    for result, expected in zip(program(x, y), formula(np, x, y), strict=True):
        assert_same_bits(result, expected)


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS[:3]], ids=str)
def test_a_reduction_of_a_block_goes_through_shuffles_shared_memory_and_barriers(dtype: np.dtype[Any]) -> None:
    x = RNG.integers(0 if dtype.kind == "u" else -500, 500, 2048).astype(dtype)
    program = compiled(lambda x: [jnp.maximum(x - jnp.max(x), jnp.min(x))], x, dtypes=[dtype])
    parts = x.reshape(-1, strided()[0])
    expected = np.maximum(parts - parts.max(1, keepdims=True), parts.min(1, keepdims=True))
    assert_same_bits(program(x)[0], expected.reshape(-1))
    [kernel], [execution] = program.kernels, program.executions
    assert kernel.shared > 0
    assert {"bar.sync", "shfl.sync.bfly.b32"} < set(execution.counts)


# --- signs ------------------------------------------------------------------------------------------------------------

SIGNS = [("uint32", "int32"), ("int32", "uint32")]


def signed(formula: Callable[[Any], Any], dtype: Any) -> Callable[[Any], list[Any]]:
    """A conversion, a maximum and a comparison of what a formula returns, which depend on the sign of its type."""
    three = np.dtype(dtype).type(3)

    def of(x: Any) -> list[Any]:
        taken = formula(x)
        return [taken.astype(np.float32), jnp.maximum(taken, three), jnp.where(taken < three, taken, three)]

    return of


@pytest.mark.parametrize(("given", "taken"), SIGNS)
def test_jax_drops_a_bitcast_that_only_changes_whether_a_type_has_a_sign(given: str, taken: str) -> None:
    """A bug of JAX's Lane semantics: what follows the bitcast is compiled for the type before it.

    If this fails and the test below does not, JAX has mended it: a bitcast is then as right as astype.
    """
    x = bits(given)
    formula = signed(lambda x: lax.bitcast_convert_type(x, np.dtype(taken)), taken)
    program = compiled(formula, x, dtypes=[np.float32, taken, taken])
    three = np.dtype(given).type(3)
    wrong = x.astype(np.float32), np.maximum(x, three).view(taken), np.minimum(x, three).view(taken)
    for result, expected in zip(program(x), wrong, strict=True):
        assert_same_bits(result, expected)
    right = x.view(taken).astype(np.float32)
    assert (program(x)[0] != right).mean() > 0.4
    conversions = {"u": "cvt.rn.f32.u32", "i": "cvt.rn.f32.s32"}
    assert set(conversions.values()) & set(program.executions[0].counts) == {conversions[given[0]]}


@pytest.mark.parametrize(("given", "taken"), SIGNS)
def test_astype_changes_whether_a_type_has_a_sign(given: str, taken: str) -> None:
    x = bits(given)
    program = compiled(signed(lambda x: x.astype(taken), taken), x, dtypes=[np.float32, taken, taken])
    y, three = x.view(taken), np.dtype(taken).type(3)
    for result, expected in zip(
        program(x), (y.astype(np.float32), np.maximum(y, three), np.minimum(y, three)), strict=True
    ):
        assert_same_bits(result, expected)
