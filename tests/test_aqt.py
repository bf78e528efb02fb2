"""`intnumerics.aqt.IntSymmetric` is AQT's class to AQT, and gives AQT's bits in one pass."""

import copy
import dataclasses
import functools
import itertools
import pickle
import subprocess
import sys
from typing import Any

import aqt_pairs
import jax
import jax.numpy as jnp
import numpy as np
import original
import pytest
from aqt_pairs import NOISE, Theirs, array, assert_equal, context, pair, stochastic_rounding
from oracle import assert_same_bits

from intnumerics import PhiloxUniform, aqt
from intnumerics.stochastic_rounding import JaxUniform

pytestmark = aqt_pairs.MARKS

settings = aqt_pairs.settings_of_aqt
DTYPES = ["float32", "bfloat16", "float16"]
KEYS = {
    "threefry": lambda: jax.random.key(3),
    "legacy": lambda: jax.random.PRNGKey(3),
    "rbg": lambda: jax.random.key(3, impl="rbg"),
}


def both(n: Any, x: jax.Array, g: jax.Array, key: Any = None) -> tuple[Any, Any]:
    """The forward and the gradient of a numerics as AQT uses them."""
    y, residual = n.vjp_fwd(x, context(key))
    return y, n.vjp_bwd(residual, g)[0]


def compare(pairs: list[tuple[Any, Any]], dtype: Any, transform: Any, key: Any = None) -> None:
    """Expects AQT's bits of ours, for pairs of numerics; all in one program, which compiles sooner than many."""
    operands = [numbers(theirs, dtype) for theirs, _ in pairs]

    def run(of: int) -> Any:
        def each(operands: list[jax.Array]) -> Any:
            gradients = [jnp.linspace(-3, 3, x.size).astype(dtype) for x in operands]
            return [both(pair[of], x, g, key) for pair, x, g in zip(pairs, operands, gradients, strict=True)]

        return transform(each)(operands)

    for (y, gradient), (expected, expected_gradient) in zip(run(1), run(0), strict=True):
        assert_same_bits(y, expected)
        assert_equal(gradient, expected_gradient)


def numbers(n: Any, dtype: Any) -> jax.Array:
    fields = {name: getattr(n, name) for name in original.SWITCHES}
    return original.numbers(original.numerics(n.bits, **fields), dtype)


# --- the same bits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "dtype"), [*((8, dtype) for dtype in DTYPES), (1, "float32")])
def test_every_combination_of_switches_gives_the_bits_of_aqt(bits: int, dtype: str) -> None:
    switches = itertools.product((False, True), repeat=len(original.SWITCHES))
    pairs = [pair(bits, **dict(zip(original.SWITCHES, values, strict=True))) for values in switches]
    compare(pairs, dtype, jax.jit)
    compare(pairs[-1:], dtype, lambda f: f)


@pytest.mark.parametrize(
    ("bits", "dtype"),
    [
        (8, "int8"),
        (5, "int8"),
        (4, "int4"),
        (2, "int2"),
        (4, "int32"),
        (12, "int16"),
        (9, "int8"),  # which does not hold every bucket
        (8, "uint8"),
        (8, "bfloat16"),
    ],
)
def test_the_result_has_the_dtype_of_the_field_and_the_numbers_of_the_cast_of_aqt(bits: int, dtype: str) -> None:
    pairs = [
        pair(bits, dtype=jnp.dtype(dtype), preserve_zero=zero, clip_gradient=clip)
        for zero, clip in itertools.product((False, True), repeat=2)
    ]
    compare(pairs, jnp.float32, jax.jit)
    assert pairs[0][1].vjp_fwd(array(8), context())[0].dtype == dtype


def equations(jaxpr: Any) -> list[Any]:
    """The equations of a program, those of its inner programs among them."""
    found = []
    for equation in jaxpr.eqns:
        found.append(equation)
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "jaxpr")):
            found += equations(inner.jaxpr) if hasattr(inner, "jaxpr") else []
    return found


@pytest.mark.parametrize("noise", [None, *NOISE])
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_noise_clip_rounding_the_cast_and_the_mask_are_one_pass(dtype: str, noise: str | None) -> None:
    key = jax.random.key(0)
    theirs, ours = pair(4, dtype=jnp.dtype(dtype), noise_fn=NOISE.get(noise or ""))
    programs = [
        equations(jax.make_jaxpr(lambda x, n=n: n.vjp_fwd(x, context(key)))(array(6, 8))) for n in (theirs, ours)
    ]
    names = [{equation.primitive.name for equation in program} for program in programs]
    assert ("random_bits" in names[0]) == (noise is not None)
    assert names[1].isdisjoint({"random_bits", "round", "clamp", "max", "min", "add"})
    [the_pass] = {e.outvars[0].aval.dtype.name for e in programs[1] if e.primitive.name == "intnumerics"}
    assert the_pass == "int8"  # which XLA narrows to int4


def test_the_residual_is_one_bit_per_element_or_nothing() -> None:
    x = array(32, 64)
    clipped, straight = (pair(8, clip_gradient=c)[1].vjp_fwd(x, context())[1] for c in (True, False))
    [mask] = jax.tree.leaves(clipped)
    assert mask.nbytes == x.size // 8
    assert not jax.tree.leaves(straight)


def test_the_backward_takes_the_residual_of_aqt_too() -> None:
    theirs, ours = pair(4)
    x, g = array(32, 64, scale=6), array(32, 64, seed=1)
    residual = theirs.vjp_fwd(x, context())[1]
    assert_equal(ours.vjp_bwd(residual, g), theirs.vjp_bwd(residual, g))


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("g", [np.inf, -np.inf, np.nan])
def test_a_masked_gradient_is_0_whatever_it_was_where_aqt_may_have_nan(g: float, transform: Any) -> None:
    for dtype in DTYPES:
        x = jnp.array([0.5, 300.0, np.nan], dtype)
        theirs, ours = (transform(functools.partial(both, n))(x, jnp.full(3, g, dtype))[1] for n in pair(8))
        assert_same_bits(ours, np.array([g, 0, 0], dtype))
        if dtype == "bfloat16":  # of float32 XLA for CPU makes a selection
            assert_same_bits(theirs, np.array([g, np.nan, np.nan], dtype))


# --- noise ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noise", "kind"),
    [*((noise, "threefry") for noise in NOISE), ("JaxUniform", "legacy"), ("RandomCenteredUniform, shared", "rbg")],
)
def test_the_noise_of_aqt_has_the_bits_of_aqt(noise: str, kind: str) -> None:
    key = KEYS[kind]()
    pairs = [pair(8, noise_fn=NOISE[noise], dtype=dtype, clip_gradient=dtype is None) for dtype in (None, jnp.int8)]
    for x in (array(12, 40, scale=60), array(12, 40, scale=60).astype(jnp.bfloat16)):
        results = [jax.jit(lambda x, of=of: [both(pair[of], x, x, key) for pair in pairs])(x) for of in (0, 1)]
        for (y, gradient), (expected, expected_gradient) in zip(results[1], results[0], strict=True):
            assert_same_bits(y, expected)
            assert_equal(gradient, expected_gradient)


def test_the_noise_of_aqt_has_the_bits_of_aqt_outside_jit() -> None:
    for noise_fn in (NOISE["JaxUniform"], NOISE["RandomCenteredUniform, shared"]):
        x, key = array(12, 40, scale=60), jax.random.key(3)
        (expected, _), (y, _) = (both(n, x, x, key) for n in pair(8, noise_fn=noise_fn))
        assert_same_bits(y, expected)


@pytest.mark.parametrize(("noise", "dtype"), [*((noise, "float32") for noise in NOISE), ("JaxUniform", "float64")])
def test_under_x64_the_noise_still_has_the_bits_of_aqt(dtype: str, noise: str) -> None:
    with jax.enable_x64(True):
        x = array(12, 40, scale=60).astype(dtype)
        expected, y = (n.vjp_fwd(x, context(jax.random.key(3)))[0] for n in pair(8, noise_fn=NOISE[noise]))
        assert_same_bits(y, expected)


@dataclasses.dataclass
class Recorded(stochastic_rounding.JaxUniform):
    """A noise class that someone made of AQT's."""

    calls: list[Any] = dataclasses.field(default_factory=list)

    def __call__(self, *args: Any, **keywords: Any) -> jax.Array:
        self.calls.append((args, keywords))
        return jnp.full(args[0], 0.25)


def test_any_other_noise_function_is_called_as_aqt_calls_it() -> None:
    theirs, ours = Recorded(), Recorded()
    x, key = array(4, 8, scale=9), object()  # a key of whatever kind the function wants
    results = [n.vjp_fwd(x, context(key))[0] for n in (pair(noise_fn=theirs)[0], pair(noise_fn=ours)[1])]
    assert_same_bits(results[1], results[0])
    assert ours.calls == theirs.calls == [(((4, 8), key), {})]


def test_the_noise_classes_of_the_package_are_taken_too() -> None:
    x, key = array(16, 32, scale=9), jax.random.key(5)
    for noise_fn in (PhiloxUniform(), JaxUniform((0,))):
        y = pair(noise_fn=noise_fn, dtype=jnp.int8)[1].vjp_fwd(x, context(key))[0]
        assert_same_bits(y, np.rint(np.clip(x + noise_fn((16, 32), key), -127, 127)).astype(np.int8))


# --- a class of AQT's -------------------------------------------------------------------------------------------------


def test_it_is_a_class_of_aqt_with_the_same_fields_repr_leaves_and_bounds() -> None:
    theirs, ours = pair(4, noise_fn=NOISE["JaxUniform"], dtype=jnp.int4)
    assert isinstance(ours, Theirs)
    assert repr(ours) == repr(theirs)
    assert [(f.name, f.default, f.kw_only) for f in dataclasses.fields(ours)] == [
        (f.name, f.default, f.kw_only) for f in dataclasses.fields(theirs)
    ]
    assert jax.tree.leaves(ours) == jax.tree.leaves(theirs)
    assert jax.tree.unflatten(jax.tree.structure(ours), jax.tree.leaves(theirs)) == ours
    for method in ("get_dtype", "get_quant_bound", "get_edge_of_last_int_bucket", "get_center_of_last_int_bucket"):
        assert getattr(ours, method)() == getattr(theirs, method)()
    with pytest.raises(TypeError):
        aqt.IntSymmetric(8, True, False, True, False, True, None)  # keyword-only, as AQT's
    assert not hasattr(ours, "__dict__")


@pytest.mark.parametrize(
    "remake", [copy.copy, copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n)), lambda n: n.replace()]
)
def test_a_copy_is_equal_and_another_object(remake: Any) -> None:
    _, ours = pair(4, noise_fn=functools.partial(stochastic_rounding.JaxUniform(), noise_sharing_axes=(0,)))
    ours.noise_fn = PhiloxUniform()
    made = remake(ours)
    assert type(made) is type(ours)
    assert made == ours
    made.bits = 3
    assert ours.bits == 4


def test_a_field_that_is_assigned_counts_from_the_next_call_on() -> None:
    theirs, ours = pair(8)
    x = array(8, 16, scale=99)
    for name, value in {"bits": 4, "dtype": jnp.int8, "noise_fn": NOISE["JaxUniform"], "clip": False}.items():
        for n in (theirs, ours):
            setattr(n, name, value)
        expected, result = (n.vjp_fwd(x, context(jax.random.key(0)))[0] for n in (theirs, ours))
        assert_same_bits(result, expected)


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"noise_fn": NOISE["JaxUniform"]}, ValueError, "context.key=None.*set_context"),
        ({"bits": 23}, ValueError, "bits=23.*22"),
        ({"noise_fn": "jax.uniform"}, TypeError, "noise_fn='jax.uniform'"),
        ({"noise_fn": lambda shape, key: jnp.zeros((2, 2, 2))}, ValueError, "does not broadcast"),
        ({"noise_fn": lambda shape: jnp.zeros(shape)}, TypeError, r"takes \(shape\), and is called as"),
        ({"noise_fn": jax.random.uniform}, TypeError, "the key first"),
    ],
)
def test_a_mistake_is_named(fields: Any, kind: type[Exception], words: str) -> None:
    key = None if "set_context" in words else jax.random.key(0)
    with pytest.raises(kind, match=words):
        pair(**fields)[1].vjp_fwd(array(2, 2), context(key))


def test_a_bare_key_in_the_place_of_a_context_is_named() -> None:
    with pytest.raises(TypeError, match=r"context=.* has no key: give a Context"):
        pair(noise_fn=NOISE["JaxUniform"])[1].vjp_fwd(array(2, 2), jax.random.key(0))


def test_without_aqt_the_package_works_and_the_module_says_what_to_install() -> None:
    code = "import sys; sys.modules['aqt'] = None; import intnumerics; import intnumerics.aqt"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: intnumerics.aqt needs AQT, and ")
    assert "pip install aqtp" in done.stderr.splitlines()[-1]
