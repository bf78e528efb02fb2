"""Bad input is refused before anything is compiled, by an error that names the argument, its value and the remedy."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from refusals import compiled, refused

from intnumerics import Context, IntNumerics, from_int, quantize, quantize_to_int
from intnumerics._error_values import shown

X = np.asarray([0.25, -1.5, 9.0], np.float32)
KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 3)
LEGACY = np.zeros(2, np.uint32)
SWITCHES = ("preserve_zero", "preserve_max_val", "clip", "clip_gradient", "round")


def numerics(bits: Any = 4, **fields: Any) -> IntNumerics:
    return IntNumerics(bits, **(dict.fromkeys(SWITCHES, True) | {"noise_fn": None} | fields))


def noisy(noise: Any) -> IntNumerics:
    return numerics(noise_fn=lambda shape, key: noise)


def fwd(x: Any, n: IntNumerics, *, key: Any = None) -> Any:
    return n.fwd(x, Context(key=key))


def vjp_fwd(x: Any, n: IntNumerics, *, key: Any = None) -> Any:
    return n.vjp_fwd(x, Context(key=key))


every_function = pytest.mark.parametrize("function", [quantize, quantize_to_int, fwd, vjp_fwd])
public_function = pytest.mark.parametrize("function", [quantize, quantize_to_int])


def test_compilations_are_counted() -> None:
    jax.clear_caches()
    compiled.clear()
    quantize(X, numerics())
    assert compiled


# --- IntNumerics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [23, 22.5, float("inf"), np.int64(23)])
def test_bits_that_float32_cannot_hold_are_refused(bits: Any) -> None:
    with refused(ValueError, f"bits={bits!r}", "from 1 to 22", "float32", "leave the array unquantized"):
        numerics(bits)


@pytest.mark.parametrize("bits", [0, -1, 0.5, -8, float("-inf"), np.int64(0)])
def test_bits_below_one_are_refused_for_another_reason_than_the_precision(bits: Any) -> None:
    with refused(ValueError, f"bits={bits!r}", "from 1 to 22", "below 1 bit", "do not call quantize") as caught:
        numerics(bits)
    assert "float32" not in str(caught.value)


@pytest.mark.parametrize("bits", [7.5, 1.5, float("nan"), np.float32(4.25)])
def test_bits_that_are_not_whole_are_refused(bits: Any) -> None:
    with refused(ValueError, f"bits={bits!r}", "not a whole number from 1 to 22", "whole bits", "scale x"):
        numerics(bits)


@pytest.mark.parametrize("bits", [True, np.True_, "8", None, 8j, [8], (8,)], ids=repr)
def test_bits_that_are_no_number_are_refused(bits: Any) -> None:
    with refused(TypeError, f"bits={bits!r}", "not a number", "from 1 to 22"):
        numerics(bits)


@pytest.mark.parametrize("bits", [1, 22, 8.0, np.int32(8), np.int64(8), np.float64(8)], ids=repr)
def test_bits_that_are_whole_numbers_in_range_are_taken(bits: Any) -> None:
    assert numerics(bits).bits == bits


@pytest.mark.parametrize("value", [1, 0, "yes", None, np.asarray([True])], ids=repr)
@pytest.mark.parametrize("name", SWITCHES)
def test_switches_that_are_no_bool_are_refused(name: str, value: Any) -> None:
    with refused(TypeError, f"{name}={shown(value)}", "True", "False"):
        numerics(**{name: value})


@pytest.mark.parametrize("value", [0.5, False, np.zeros(3)], ids=repr)
def test_a_noise_function_that_cannot_be_called_is_refused(value: Any) -> None:
    words = (f"noise_fn={shown(value)}", "not callable", "(shape, key)", "None", "lambda shape, key: array")
    with refused(TypeError, *words):
        numerics(noise_fn=value)


@pytest.mark.parametrize("value", [jnp.bfloat16, "float64", int, "foo", 5, jnp.int8], ids=repr)
def test_a_noise_dtype_other_than_float32_is_refused(value: Any) -> None:
    with refused(ValueError, f"noise_dtype={value!r}", "None", "float32"):
        numerics(noise_dtype=value)


# --- x ----------------------------------------------------------------------------------------------------------------


@every_function
@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint8, bool, np.complex64, ml_dtypes.float8_e4m3fn])
def test_x_of_a_dtype_that_cannot_be_quantized_is_refused(function: Callable[..., Any], dtype: Any) -> None:
    calls = []
    n, name = numerics(noise_fn=lambda shape, key: calls.append(shape)), np.dtype(dtype).name
    with refused(TypeError, f"x has dtype {name}", "float32", "bfloat16", "x.astype(jnp.float32)"):
        function(np.zeros(3, dtype), n, key=KEY)
    with refused(TypeError, f"x has dtype {name}"):
        jax.eval_shape(lambda x: function(x, n, key=KEY), jax.ShapeDtypeStruct((3,), dtype))
    assert not calls


@every_function
@pytest.mark.parametrize("x", ["1.5", None, [0.25, 1.5], [[1.0], [2.0, 3.0]], (1.0,), {}], ids=repr)
def test_x_that_is_no_array_is_refused(function: Callable[..., Any], x: Any) -> None:
    with refused(TypeError, f"x={x!r}", "not an array", "JAX or NumPy array"):
        function(x, numerics())


@every_function
def test_x_that_is_not_finite_is_data(function: Callable[..., Any]) -> None:
    x = np.asarray([np.nan, np.inf, -np.inf], np.float32)
    result = jax.tree.leaves(function(x, numerics()))[0]
    assert np.asarray(result)[1:].tolist() == [7, -7]


def test_a_cotangent_that_is_no_float_is_refused() -> None:
    with refused(TypeError, "grad has dtype int32", "float32", "grad.astype"):
        numerics().vjp_bwd((np.zeros(1, np.uint8),), np.zeros(3, np.int32))


@public_function
@pytest.mark.parametrize("value", [None, 8, IntNumerics], ids=repr)
def test_numerics_of_another_kind_are_refused(function: Callable[..., Any], value: Any) -> None:
    with refused(TypeError, f"numerics={value!r}", "IntNumerics.symmetric(bits"):
        function(X, value)
    with refused(TypeError, f"numerics={value!r}", "IntNumerics.symmetric(bits"):
        from_int(np.zeros(3, np.int8), value, jnp.float32)


# --- keys and noise ---------------------------------------------------------------------------------------------------


@every_function
@pytest.mark.parametrize(
    ("key", "kind", "words"),
    [
        (None, ValueError, ("key=None", "noise_fn", "jax.random.key(seed)")),
        (3, TypeError, ("key=3", "typed key", "uint32", "jax.random.key(seed)")),
        ([0, 1], TypeError, ("key=[0, 1]", "typed key", "jax.random.key(seed)")),
        (
            np.zeros(2, np.float32),
            TypeError,
            ("key=<numpy.ndarray, shape (2,), dtype float32>", "typed key", "uint32", "jax.random.key(seed)"),
        ),
        (
            np.zeros(2, np.int32),
            TypeError,
            ("key=<numpy.ndarray", "int32", "typed key", "uint32", "jax.random.key(seed)"),
        ),
        (np.zeros((), np.uint32), ValueError, ("key", "shape ()", "one key", "(2,)")),
        (np.zeros((3, 2), np.uint32), ValueError, ("key", "shape (3, 2)", "one key", "(2,)", "jax.vmap")),
        (KEYS, ValueError, ("key", "shape (3,)", "one key", "index", "jax.vmap")),
    ],
    ids=["none", "int", "list", "float", "int32", "rank-0", "rank-2", "typed-batch"],
)
def test_keys_that_are_not_one_key_are_refused(
    function: Callable[..., Any], key: Any, kind: type[Exception], words: tuple[str, ...]
) -> None:
    calls = []
    with refused(kind, *words):
        function(X, numerics(noise_fn=lambda shape, key: calls.append(shape)), key=key)
    assert not calls


@every_function
@pytest.mark.parametrize("shape", [(2,), (4,), (0,), (1, 3), (3, 3), (3, 1)], ids=str)
def test_noise_that_does_not_broadcast_or_would_enlarge_x_is_refused(function: Any, shape: tuple[int, ...]) -> None:
    with refused(ValueError, "noise_fn", f"shape {shape}", "(3,)", "broadcast", "or 1"):
        function(X, noisy(np.zeros(shape, np.float32)), key=LEGACY)


@every_function
@pytest.mark.parametrize("dtype", [np.complex64, bool, ml_dtypes.float8_e4m3fn])
def test_noise_that_is_not_real_numbers_is_refused(function: Callable[..., Any], dtype: Any) -> None:
    with refused(TypeError, "noise_fn", np.dtype(dtype).name, "float32"):
        function(X, noisy(np.zeros(3, dtype)), key=KEY)


@pytest.mark.parametrize("noise", [None, "loud"], ids=repr)
def test_noise_that_is_no_array_is_refused(noise: Any) -> None:
    with refused(TypeError, "noise_fn", repr(noise), "float32"):
        quantize(X, noisy(noise), key=KEY)


# --- implementations --------------------------------------------------------------------------------------------------


@public_function
@pytest.mark.parametrize("name", ["cuda", "Pallas", "", 3, ["xla"]], ids=repr)
def test_an_unknown_implementation_is_refused_with_the_known_ones(function: Callable[..., Any], name: Any) -> None:
    calls = []
    n = numerics(noise_fn=lambda shape, key: calls.append(shape))
    with refused(ValueError, f"implementation={name!r}", "'reference'", "'xla'", "'pallas'", "'jax_triton'", "None"):
        function(X, n, key=KEY, implementation=name)
    assert not calls


def test_an_array_is_not_the_name_of_an_implementation() -> None:
    with refused(ValueError, "implementation=<numpy.ndarray", "'reference'", "None"):
        quantize(X, numerics(), implementation=np.asarray(["xla", "triton"]))


def test_the_old_name_of_jax_triton_is_refused_with_the_new_one() -> None:
    with refused(
        ValueError, "implementation='triton'", "now called 'jax_triton'", "implementation='jax_triton'", "None"
    ):
        quantize(X, numerics(), implementation="triton")


@public_function
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="needs a machine where CPU is the default platform")
@pytest.mark.parametrize(("name", "extras"), [("pallas", ("[cuda13]", "[tpu]")), ("jax_triton", ("[triton]",))])
def test_a_kernel_without_its_platform_is_refused_with_what_to_install(
    function: Callable[..., Any], name: str, extras: tuple[str, ...]
) -> None:
    words = (f"implementation={name!r}", "'cpu'", *extras, "implementation=None")
    with refused(ValueError, *words):
        function(X, numerics(), implementation=name)
    with refused(ValueError, *words):
        jax.jit(lambda x: function(x, numerics(), implementation=name)).lower(X)
    with refused(ValueError, *words):
        jax.jit(jax.vmap(jax.grad(lambda x: quantize(x, numerics(), implementation=name)))).lower(X)


@public_function
@pytest.mark.parametrize("implementation", [None, "xla", "reference", "jax_triton"])
def test_interpret_without_a_kernel_is_refused(function: Callable[..., Any], implementation: Any) -> None:
    with refused(ValueError, "interpret='cuda'", f"implementation={implementation!r}", "'pallas'", "leave interpret"):
        function(X, numerics(), implementation=implementation, interpret="cuda")


@public_function
@pytest.mark.parametrize("interpret", ["cpu", "rocm", True, False], ids=repr)
def test_interpret_of_an_unknown_platform_is_refused(function: Callable[..., Any], interpret: Any) -> None:
    with refused(ValueError, f"interpret={interpret!r}", "interpret='cuda'", "interpret='tpu'", "leave interpret"):
        function(X, numerics(), implementation="pallas", interpret=interpret)


@public_function
@pytest.mark.parametrize("interpret", [None, "cuda", "tpu"])
def test_a_kernel_refuses_float64(function: Callable[..., Any], interpret: str | None) -> None:
    with jax.enable_x64(True):
        words = ("implementation='pallas'", "float64", "float32", "implementation='xla'")
        with refused(ValueError, *words):
            function(X.astype(np.float64), numerics(), implementation="pallas", interpret=interpret)
        with refused(ValueError, *words):
            function(X, noisy(np.zeros(3)), key=KEY, implementation="pallas", interpret=interpret)
