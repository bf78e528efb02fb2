"""Noise functions: which are refused, with the one to write, and which two are one to a compiled function."""

import functools
import gc
import weakref
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from refusals import refused

import intnumerics
from intnumerics import Context, IntNumerics, quantize, quantize_to_int
from intnumerics._error_values import shown

X = np.asarray([0.25, -1.5, 9.0], np.float32)
KEY = jax.random.key(0)


def noisy(noise_fn: Any) -> IntNumerics:
    return IntNumerics.symmetric(8, noise_fn=noise_fn)


@pytest.mark.parametrize(
    ("name", "class_name"),
    [
        ("jax.uniform", "JaxUniform"),  # AQT's names
        ("custom-1", "RandomCenteredUniform"),
        ("uniform", "JaxUniform"),  # Qwix's
        ("low_bit_uniform", "RandomCenteredUniform"),
        ("PhiloxUniform", "PhiloxUniform"),
        ("hardwareuniform", "HardwareUniform"),
        ("random_centered_uniform", "RandomCenteredUniform"),
        ("something", "PhiloxUniform"),
    ],
)
def test_a_name_of_noise_is_answered_with_the_class(name: str, class_name: str) -> None:
    assert callable(getattr(intnumerics, class_name)())
    with refused(TypeError, f"noise_fn={name!r}", "string", "(shape, key)", f"noise_fn=intnumerics.{class_name}()"):
        noisy(name)


class OfShape:
    def __call__(self, shape: Any) -> Any:
        return np.zeros(shape, np.float32)


def of_nothing() -> Any: ...


def of_three(shape: Any, key: Any, dtype: Any) -> Any: ...


def by_name(*, shape: Any, key: Any) -> Any: ...


@pytest.mark.parametrize(
    ("noise_fn", "takes"),
    [
        (lambda shape: np.zeros(shape, np.float32), "takes (shape)"),
        (OfShape(), "takes (shape)"),
        (functools.partial(lambda scale, shape: scale, 1.0), "takes (shape)"),
        (jax.jit(lambda shape: shape), "takes (shape)"),
        (of_nothing, "takes ()"),
        (of_three, "takes (shape, key, dtype)"),
        (by_name, "takes (shape, key)"),
    ],
    ids=["lambda", "object", "partial", "jit", "none", "three", "keywords"],
)
def test_a_noise_function_of_other_arguments_is_refused_with_its_signature(noise_fn: Any, takes: str) -> None:
    words = [f"numerics.noise_fn={shown(noise_fn)}", takes, "noise_fn(shape, key)", "lambda shape, key:"]
    if takes == "takes (shape)":
        words.append("as Qwix has, would draw the same noise at each call")
    for call in (quantize, quantize_to_int, lambda x, n, key: n.fwd(x, Context(key=key))):
        with refused(TypeError, *words) as caught:
            call(X, noisy(noise_fn), key=KEY)
        assert caught.value.__cause__ is not None


@pytest.mark.parametrize("noise_fn", [jax.random.uniform, jax.random.normal, lambda key, shape: key + shape])
def test_a_noise_function_that_takes_the_key_first_is_refused(noise_fn: Any) -> None:
    with refused(TypeError, "takes (key, shape", "the key first", "lambda shape, key: jax.random.uniform(key, shape)"):
        quantize(X, noisy(noise_fn), key=KEY)


def test_an_error_within_a_noise_function_is_its_own() -> None:
    def broken(shape: Any, key: Any) -> Any:
        return len(3)  # pyright: ignore

    for noise_fn in (broken, functools.partial(broken), lambda *args: broken(*args)):
        with refused(TypeError, "object of type 'int' has no len()") as caught:
            quantize(X, noisy(noise_fn), key=KEY)
        assert "noise_fn" not in str(caught.value)


def test_noise_functions_whose_signature_says_nothing_or_too_much_are_called() -> None:
    def with_key(f: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
        @functools.wraps(f)  # and so with the signature of f
        def both(shape: Any, key: Any) -> Any:
            return f(shape)

        return both

    class Silent:
        __signature__ = "none"

        def __call__(self, shape: Any, key: Any) -> Any:
            return np.full(shape, 0.75, np.float32)

    one = with_key(lambda shape: np.full(shape, 0.75, np.float32))
    for noise_fn in (one, Silent(), lambda *args: np.full(args[0], 0.75, np.float32)):
        assert quantize(X, noisy(noise_fn), key=KEY).tolist() == [1, -1, 10]


# --- functions that are made anew at each call ------------------------------------------------------------------------


def scaled(scale: Any, shape: Any, key: Any) -> Any:
    return np.full(shape, scale, np.float32)


def scaled_by_name(shape: Any, key: Any, *, scale: Any) -> Any:
    return scaled(scale, shape, key)


def traces(make: Callable[[int], Any]) -> int:
    """How many traces three calls take, each with a numerics made for it."""
    count = []

    @jax.jit
    def f(x: jax.Array, n: IntNumerics) -> jax.Array:
        count.append(x)
        return quantize(x, n, key=KEY)

    for i in range(3):
        f(X, noisy(make(i)))
    return len(count)


ANEW = {
    "lambda": lambda i: lambda shape, key: jax.random.uniform(key, shape) - 0.5,
    "partial": lambda i: functools.partial(scaled, 0.25),
    "partial-by-name": lambda i: functools.partial(scaled_by_name, scale=0.25),
    "partial-of-lambda": lambda i: functools.partial(lambda scale, shape, key: np.full(shape, scale, np.float32), 0.25),
}


@pytest.mark.parametrize("make", ANEW.values(), ids=ANEW)
def test_a_noise_function_made_anew_that_does_the_same_is_traced_once(make: Any) -> None:
    assert traces(make) == 1
    held = noisy(make(0))
    assert noisy(make(1)) == held
    assert hash(noisy(make(1))) == hash(held)


DIFFERENT = {
    "closures": lambda i: lambda shape, key: np.full(shape, i / 4, np.float32),
    "defaults": lambda i: lambda shape, key, i=i: np.full(shape, i / 4, np.float32),
    "partials": lambda i: functools.partial(scaled, i + 10),
    "arrays": lambda i: functools.partial(scaled, np.float32(i / 4) * np.ones(3, np.float32)),
    "equal-numbers": lambda i: functools.partial(scaled, [0, False, -0.0][i]),
}


@pytest.mark.parametrize("make", DIFFERENT.values(), ids=DIFFERENT)
def test_noise_functions_that_may_differ_are_never_taken_for_one(make: Any) -> None:
    made = [make(i) for i in range(3)]
    held = [noisy(noise_fn) for noise_fn in made]
    assert all(n.noise_fn is noise_fn for n, noise_fn in zip(held, made, strict=True))
    assert traces(make) == 3


def test_a_function_of_a_global_is_itself_for_the_global_may_change() -> None:
    module: dict[str, Any] = {"np": np}
    held = []
    for module["value"] in (0.75, 0.25):
        exec("noise = lambda shape, key: (lambda: np.full(shape, value, np.float32))()", module)
        held.append(noisy(module["noise"]))
    step = jax.jit(lambda n: quantize(X, n, key=KEY))
    first = step(held[0]).tolist()  # with the value of now
    assert held[0] != held[1]
    module["value"] = 1.75
    assert step(held[1]).tolist() != first


def test_a_function_with_attributes_is_itself() -> None:
    def make() -> Any:
        def noise(shape: Any, key: Any) -> Any: ...

        return noise

    first, second = make(), make()
    second.scale = 2
    assert noisy(first).noise_fn is first
    assert noisy(second).noise_fn is second


def test_a_noise_function_lives_no_longer_than_what_holds_it() -> None:
    noise_fn = lambda shape, key: np.zeros(shape, np.float32)  # noqa: E731
    n, alive = noisy(noise_fn), weakref.ref(noise_fn)
    del noise_fn
    gc.collect()
    assert alive() is n.noise_fn
    del n
    gc.collect()
    assert alive() is None
