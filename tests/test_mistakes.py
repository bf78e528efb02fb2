"""What people get wrong is refused by an error with the argument, the value, the reason and what to write instead."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import refused

from intnumerics import Context, IntNumerics, PhiloxUniform, absmax_scale, from_int, quantize, quantize_to_int
from intnumerics._error_values import shown

X = np.asarray([0.25, -1.5, 9.0], np.float32)
KEY = jax.random.key(0)
INT8 = IntNumerics.symmetric(8)
FIELDS = [field.name for field in dataclasses.fields(IntNumerics)]


def noisy(noise_fn: Any) -> IntNumerics:
    return IntNumerics.symmetric(8, noise_fn=noise_fn)


# --- numerics ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: IntNumerics(8), lambda: IntNumerics(bits=8)])  # pyright: ignore
def test_too_few_fields_are_answered_with_the_usual_numerics(make: Any) -> None:
    with refused(TypeError, "missing", "'noise_fn'", "IntNumerics.symmetric(8)", ", ".join(FIELDS)):
        make()


def test_an_unknown_field_is_answered_with_the_fields() -> None:
    with refused(TypeError, "'bit'", ", ".join(FIELDS)):
        INT8.replace(bit=4)
    with refused(TypeError, "'noise'", "IntNumerics.symmetric(4)", ", ".join(FIELDS)):
        IntNumerics(4, noise=None)  # pyright: ignore


def test_the_signature_and_errors_of_the_fields_are_left_as_they_are() -> None:
    assert list(inspect.signature(IntNumerics).parameters) == FIELDS
    with refused(TypeError, "bits='8' is not a number"):
        IntNumerics("8", *([True] * 5), None)  # pyright: ignore

    @dataclasses.dataclass(frozen=True)
    class Named(IntNumerics):
        name: str = dataclasses.field(default="", kw_only=True)

    assert Named(8, *([True] * 5), None, name="weights").name == "weights"  # pyright: ignore


@pytest.mark.parametrize("wrap", [jax.jit, jax.vmap, jax.grad], ids=["jit", "vmap", "grad"])
def test_traced_bits_are_refused_with_what_makes_them_static(wrap: Any) -> None:
    values = jnp.full(3, 8.0) if wrap is jax.vmap else jnp.float32(8)
    for fields in ({}, {"preserve_zero": True}):
        words = ("bits=<traced, shape ()", "float32", "jax.jit(f, static_argnames='bits')", "outside of the function")
        with refused(TypeError, *words):
            wrap(lambda b, fields=fields: quantize(X, IntNumerics.symmetric(b, **fields)).sum())(values)


@pytest.mark.parametrize("name", ["preserve_zero", "preserve_max_val", "clip", "clip_gradient", "round"])
def test_traced_switches_are_refused_with_what_makes_them_static(name: str) -> None:
    with refused(TypeError, f"{name}=<traced, shape (), dtype bool>", f"jax.jit(f, static_argnames={name!r})"):
        jax.jit(lambda switch: quantize(X, INT8.replace(**{name: switch})))(True)


def test_static_bits_and_switches_are_taken() -> None:
    @functools.partial(jax.jit, static_argnames=("bits", "clip"))
    def f(x: jax.Array, bits: int, clip: bool) -> jax.Array:
        return quantize(x, IntNumerics.symmetric(bits, clip=clip))

    assert f(X, bits=2, clip=True).tolist() == [0, -1, 1]
    assert f(X, bits=2, clip=False).tolist() == [0, -2, 9]


@pytest.mark.parametrize("form", [jnp.asarray, np.asarray, lambda v: np.asarray(v)[()]], ids=["jax", "numpy", "scalar"])
def test_arrays_of_one_known_number_mean_that_number(form: Callable[[Any], Any]) -> None:
    """They come from checkpoints and from `for bits in jnp.arange(2, 9)`."""
    n = IntNumerics.symmetric(form(4), preserve_zero=form(True), clip=form(False))
    assert n == IntNumerics.symmetric(4, preserve_zero=True, clip=False)
    assert hash(n) == hash(IntNumerics.symmetric(4, preserve_zero=True, clip=False))
    assert IntNumerics.symmetric(form(1)) == IntNumerics.symmetric(1)
    with refused(ValueError, "bits=23"):
        IntNumerics.symmetric(int(form(23)))


@pytest.mark.parametrize("value", [np.asarray([8]), jnp.arange(3), KEY], ids=["one", "three", "key"])
def test_other_arrays_are_not_bits(value: Any) -> None:
    with refused(TypeError, f"bits={shown(value)}", "not a number"):
        IntNumerics.symmetric(value)


# --- arrays -----------------------------------------------------------------------------------------------------------


SECRET = np.asarray([7654321.0, 1234567.0], np.float32)
TREE = {"layer": {"w": SECRET, "b": [jnp.asarray(SECRET)]}}


def fwd(x: Any, n: Any) -> Any:
    return IntNumerics.symmetric(8).fwd(x, Context())


every_function = pytest.mark.parametrize("function", [quantize, quantize_to_int, absmax_scale])


@every_function
@pytest.mark.parametrize("x", [X, jnp.asarray(X), 3.0], ids=["numpy", "jax", "number"])
def test_numerics_in_the_place_of_x_are_refused_with_the_order(function: Callable[..., Any], x: Any) -> None:
    with refused(TypeError, f"numerics={shown(x)}", "the array comes first and the numerics second"):
        function(INT8, x)
    with refused(TypeError, f"numerics={shown(x)}", "the array comes first"):
        from_int(INT8, x, jnp.float32)  # pyright: ignore


@pytest.mark.parametrize("function", [quantize, quantize_to_int, absmax_scale, fwd])
@pytest.mark.parametrize("tree", [TREE, [SECRET], (SECRET, 1.0)], ids=["dict", "list", "tuple"])
def test_a_tree_of_arrays_is_answered_with_jax_tree_map(function: Callable[..., Any], tree: Any) -> None:
    with refused(TypeError, "x=", "<numpy.ndarray, shape (2,), dtype float32>", "pytree", "jax.tree.map") as caught:
        function(tree, INT8)
    assert "7654321" not in str(caught.value)


@pytest.mark.parametrize("function", [quantize, quantize_to_int, absmax_scale, fwd])
def test_arrays_that_jax_does_not_take_are_refused_with_its_reason(function: Callable[..., Any]) -> None:
    masked = np.ma.masked_array(SECRET, [True, False])
    with refused(TypeError, "x=<numpy.ma", "numpy masked arrays are not supported", "filled(0)") as caught:
        function(masked, INT8)
    assert "1234567" not in str(caught.value)
    words = (
        "x=<numpy.ndarray, shape (2,), dtype >f4>",
        ">f4 is not a valid JAX array type",
        "byte order",
        "newbyteorder",
    )
    with refused(TypeError, *words) as caught:
        function(SECRET.astype(">f4"), INT8)
    assert "1234567" not in str(caught.value)
    assert function(masked.filled(0), INT8) is not None
    native = SECRET.astype(">f4")
    assert function(native.astype(native.dtype.newbyteorder("=")), INT8) is not None


MISUSES: dict[str, Callable[[Any], Any]] = {
    "bits": lambda a: IntNumerics.symmetric(a),
    "switch": lambda a: INT8.replace(clip=a),
    "noise_fn": lambda a: INT8.replace(noise_fn=a),
    "noise_fn-partial": lambda a: quantize(X, noisy(functools.partial(lambda a, shape: a, a)), key=KEY),
    "noise_dtype": lambda a: INT8.replace(noise_dtype=a),
    "numerics": lambda a: quantize(X, a),
    "numerics-list": lambda a: quantize(X, [a]),  # pyright: ignore
    "x-list": lambda a: quantize([a], INT8),  # pyright: ignore
    "x-object": lambda a: quantize(np.asarray([a, None], object), INT8),
    "x-record": lambda a: quantize(np.asarray(a).astype([("a", np.float32)]), INT8),
    "key": lambda a: quantize(X, noisy(PhiloxUniform()), key=a),
    "key-list": lambda a: quantize(X, noisy(PhiloxUniform()), key=[a]),  # pyright: ignore
    "key-dict": lambda a: quantize(X, noisy(PhiloxUniform()), key={"dropout": a}),  # pyright: ignore
    "context": lambda a: noisy(PhiloxUniform()).fwd(X, a),
    "noise-list": lambda a: quantize(X, noisy(lambda shape, key: [a]), key=KEY),
    "dtype": lambda a: quantize_to_int(X, INT8, dtype=[a]),
    "from_int-dtype": lambda a: from_int(np.zeros(3, np.int8), INT8, [a]),
    "q": lambda a: from_int(a, INT8, jnp.float32),
    "residual": lambda a: quantize(X, INT8, residual=a),
    "residual-of-bwd": lambda a: INT8.replace(clip_gradient=True).vjp_bwd([a, a], X),
    "implementation": lambda a: quantize(X, INT8, implementation=a),
    "interpret": lambda a: quantize(X, INT8, implementation="pallas", interpret=a),
    "offset": lambda a: quantize(X, INT8, offset=a, global_shape=(9,)),
    "offset-alone": lambda a: quantize(X, INT8, offset=a),
    "global_shape": lambda a: quantize(X, INT8, offset=(0,), global_shape=a),
    "axis": lambda a: absmax_scale(X, INT8, axis=a),
    "shape": lambda a: PhiloxUniform()(a, KEY),
    "noise_sharing_axes": lambda a: PhiloxUniform(a),
}


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES)
@pytest.mark.parametrize("form", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_no_error_shows_the_numbers_of_an_array(misuse: Callable[[Any], Any], form: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        misuse(form(SECRET))
    assert not [digits for digits in ("7654321", "1234567", "7.654321", "1.234567") if digits in str(caught.value)]
    assert len(str(caught.value)) < 800


def test_a_value_is_shown_in_a_few_words() -> None:
    assert shown(np.zeros((2, 3))) == "<numpy.ndarray, shape (2, 3), dtype float64>"
    assert shown(jnp.zeros(3)) == "<jax.Array, shape (3,), dtype float32>"
    assert shown(KEY) == "<jax.Array, shape (), dtype key<fry>>"
    assert shown(list(range(10**6))) == "[0, 1, 2, 3, ...]"
    assert shown([[[[[1]]]]]) == "[[[[...]]]]"
    assert shown((1,)) == "(1,)"
    assert len(shown("x" * 10**6)) == 120
    assert shown(Context(key=KEY)) == "<intnumerics.numerics.Context object>"
    assert shown(functools.partial(max, SECRET, key=1)).startswith("functools.partial(<built-in function max>, <numpy")


# --- other arguments --------------------------------------------------------------------------------------------------


def test_a_key_in_the_place_of_the_context_is_answered_with_the_context() -> None:
    for method in (noisy(PhiloxUniform()).fwd, noisy(PhiloxUniform()).vjp_fwd):
        with refused(TypeError, f"context={shown(KEY)}", "has no key", "Context(key=jax.random.key(seed))"):
            method(X, KEY)


def test_a_dict_of_keys_is_not_a_key() -> None:
    with refused(TypeError, "key={'dropout': <jax.Array, shape (), dtype key<fry>>}", "typed key"):
        quantize(X, noisy(PhiloxUniform()), key={"dropout": KEY})  # pyright: ignore


@pytest.mark.parametrize("name", [np.asarray(["xla"]), jnp.zeros(3), {"xla"}], ids=["strings", "array", "set"])
def test_an_implementation_that_is_not_a_string_is_refused(name: Any) -> None:
    with refused(ValueError, f"implementation={shown(name)}", "'xla'", "None"):
        quantize(X, INT8, implementation=name)
    with refused(ValueError, f"interpret={shown(name)}", "'cuda'", "leave interpret"):
        quantize(X, INT8, implementation="pallas", interpret=name)
