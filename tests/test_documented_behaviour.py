"""What a program may mean, and surprises: it is documented at the argument, and is as documented."""

import inspect
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import assert_same_bits
from original import numerics

from intnumerics import IntNumerics, NoiseFn, PhiloxUniform, absmax_scale, quantize, quantize_to_int

X = np.linspace(-9, 9, 64, dtype=np.float32)
KEY = jax.random.key(0)
NOISY = numerics(8, noise_fn=PhiloxUniform())


def entry(of: Any, name: str) -> str:
    """What a docstring says of an argument or a field."""
    [found] = re.findall(rf"^    {name}: (.*?)(?=^    \S|^\S|\Z)", inspect.getdoc(of) or "", re.DOTALL | re.MULTILINE)
    return " ".join(found.split())


@pytest.mark.parametrize(
    ("of", "name", "words"),
    [
        (IntNumerics, "bits", "whole number from 1 to 22; 8.0; np.int64(8); 7.5 raises; FJFormer"),
        (IntNumerics, "preserve_zero", "At 1 bit; all becomes 0"),
        (quantize, "x", "Without x64; NumPy; float64; float32"),
        (quantize, "key", "without a noise function; not looked at; equal size the same noise; jax.random.split"),
        (quantize_to_int, "dtype", "int2, int4, int8, int16 or int32; None for the smallest; from int8 on"),
    ],
)
def test_it_is_documented_at_the_argument(of: Any, name: str, words: str) -> None:
    assert not [word for word in words.split("; ") if word not in entry(of, name)]


def test_functions_made_anew_and_forward_mode_are_documented() -> None:
    told = " ".join((inspect.getdoc(NoiseFn) or "").split())
    assert "made anew at each call" in told
    assert "compiles again" in told
    assert re.search(r"forward mode.*numerics\.fwd", inspect.getdoc(quantize) or "", re.DOTALL)
    assert "NaN gives 0" in (inspect.getdoc(quantize_to_int) or "")


def test_numpy_float64_is_float32_without_x64() -> None:
    x = X.astype(np.float64) + 2.0**-40  # which float32 rounds away
    expected = np.rint(np.clip(x.astype(np.float32), -127, 127))
    assert_same_bits(quantize(x, numerics(8)), expected)
    assert absmax_scale(x, numerics(8)).dtype == np.float32
    with jax.enable_x64(True):
        assert_same_bits(quantize(x, numerics(8)), np.rint(x))


@pytest.mark.parametrize("key", [KEY, jax.random.split(KEY, 3), 3, "anything"], ids=["key", "keys", "int", "string"])
def test_a_key_without_a_noise_function_is_not_looked_at(key: Any) -> None:
    assert_same_bits(quantize(X, numerics(8), key=key), np.rint(X))
    assert_same_bits(quantize_to_int(X, numerics(8), key=key), np.rint(X).astype(np.int8))


def test_one_key_gives_arrays_of_equal_size_the_same_noise_and_two_keys_do_not() -> None:
    x = np.full(4096, 0.5, np.float32)
    a, b = (np.asarray(quantize(x.reshape(shape), NOISY, key=KEY)).ravel() for shape in ((64, 64), (4096,)))
    assert_same_bits(a, b)
    assert 0.4 < a.mean() < 0.6
    c = np.asarray(quantize(x, NOISY, key=jax.random.split(KEY)[1]))
    assert 0.4 < (a != c).mean() < 0.6


@pytest.mark.parametrize("preserve_zero", [True, False])
@pytest.mark.parametrize("dtype", [jnp.int4, None, jnp.int16, jnp.int32])
def test_nan_becomes_0_in_integers_and_stays_nan_in_floats(dtype: Any, preserve_zero: bool) -> None:
    n, x = numerics(4, preserve_zero=preserve_zero), np.asarray([np.nan, -np.nan, 3.25], np.float32)
    assert np.asarray(quantize_to_int(x, n, dtype=dtype)).astype(int).tolist() == [0, 0, 3]
    assert np.isnan(np.asarray(quantize(x, n))).tolist() == [True, True, False]


def test_one_bit_that_preserves_zero_has_one_bucket() -> None:
    n = numerics(1, preserve_zero=True)
    assert not np.asarray(quantize(X, n)).any()
    assert not np.asarray(quantize_to_int(X, n)).any()
    assert set(np.asarray(quantize(X, IntNumerics.symmetric(1))).tolist()) == {-0.5, 0.5}


@pytest.mark.parametrize("bits", [8.0, np.int64(8), np.float32(8)], ids=repr)
def test_whole_numbers_of_any_type_are_the_same_numerics(bits: Any) -> None:
    assert IntNumerics.symmetric(bits) == IntNumerics.symmetric(8)
    assert hash(IntNumerics.symmetric(bits)) == hash(IntNumerics.symmetric(8))
    assert_same_bits(quantize(X * 50, IntNumerics.symmetric(bits)), np.rint(np.clip(X * 50, -127, 127)))


def test_a_gradient_does_not_go_through_integers() -> None:
    gradient = jax.grad(lambda x: quantize_to_int(x, numerics(8)).astype(jnp.float32).sum())(X)
    assert_same_bits(gradient, np.zeros_like(X))


def test_x_that_is_not_divided_by_a_scale_is_clipped() -> None:
    assert_same_bits(quantize(X * 1000, IntNumerics.symmetric(4)), np.clip(np.rint(X * 1000), -7, 7))
