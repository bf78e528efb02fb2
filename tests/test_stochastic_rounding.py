"""The noise functions: what they draw, and that a pass which draws gives the bits of one that is given the array."""

import copy
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import streams
from oracle import assert_same_bits
from original import numerics, spec_of

from intnumerics import Context, quantize, quantize_to_int
from intnumerics.stochastic_rounding import (
    HardwareUniform,
    HashUniform,
    JaxUniform,
    PhiloxUniform,
    RandomCenteredUniform,
)

PORTABLE = [PhiloxUniform(), HashUniform(), JaxUniform(), RandomCenteredUniform()]
FROM_JAX = [JaxUniform(), RandomCenteredUniform()]
IMPLEMENTATIONS = {
    "None": {},
    "reference": {"implementation": "reference"},
    "xla": {"implementation": "xla"},
    "pallas-gpu": {"implementation": "pallas", "interpret": "cuda"},
    "pallas-tpu": {"implementation": "pallas", "interpret": "tpu"},
}
KEY_WORDS = (0, 42)
# The classes with a stream of their own, and what NumPy says of it.
STREAMS = [(PhiloxUniform(), streams.uniform), (HashUniform(), streams.uniform_hash)]
every_stream = pytest.mark.parametrize(("noise_fn", "stream"), STREAMS, ids=["PhiloxUniform", "HashUniform"])
every_portable = pytest.mark.parametrize("noise_fn", PORTABLE, ids=lambda f: type(f).__name__)
every_from_jax = pytest.mark.parametrize("noise_fn", FROM_JAX, ids=lambda f: type(f).__name__)
every_impl = pytest.mark.parametrize("how", IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS.keys())


def key() -> jax.Array:
    return jax.random.key(42, impl="threefry2x32")


def array(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return (np.random.default_rng(6).normal(size=shape) * 60).astype(dtype)


def by_jax(noise_fn: Any, key: jax.Array, shape: tuple[int, ...]) -> np.ndarray:
    """AQT's two formulas, in NumPy on the bits of jax.random."""
    if isinstance(noise_fn, JaxUniform):
        return np.asarray(jax.random.uniform(key, shape, jnp.float32)) - np.float32(0.5)
    bits = np.asarray(jax.random.bits(key, shape, jnp.uint16)).astype(np.float64)
    return (bits * 2.0**-16 + 2.0**-17 - 0.5).astype(np.float32)


# --- what is drawn ----------------------------------------------------------------------------------------------------


@every_stream
@pytest.mark.parametrize("shape", [(), (1,), (7,), (8,), (4099,), (3, 5), (2, 3, 130), (0,), (4, 0)], ids=str)
def test_the_noise_is_the_stream_of_the_key(noise_fn: Any, stream: Any, shape: tuple[int, ...]) -> None:
    expected = stream(shape, KEY_WORDS)
    assert_same_bits(noise_fn(shape, key()), expected)
    assert_same_bits(jax.jit(noise_fn, static_argnums=0)(shape, key()), expected)


@every_from_jax
@pytest.mark.parametrize("shape", [(), (1,), (7,), (4099,), (3, 5), (2, 3, 130), (0,), (4, 0)], ids=str)
def test_the_two_of_aqt_draw_what_jax_random_draws(noise_fn: Any, shape: tuple[int, ...]) -> None:
    assert noise_fn.seeded(shape, key()) is not None
    assert_same_bits(noise_fn(shape, key()), by_jax(noise_fn, key(), shape))


@every_from_jax
def test_they_leave_other_keys_and_another_threefry_to_jax_random(noise_fn: Any) -> None:
    rbg = jax.random.key(3, impl="rbg")
    assert noise_fn.seeded((9,), rbg) is None
    assert_same_bits(noise_fn((9,), rbg), by_jax(noise_fn, rbg, (9,)))
    n, x = numerics(8, noise_fn=noise_fn), array(9)
    assert_same_bits(quantize(x, n, key=rbg), oracle.quantize(x, by_jax(noise_fn, rbg, (9,)), spec_of(n)))
    with jax.threefry_partitionable(False):
        assert noise_fn.seeded((9,), key()) is None
        expected = by_jax(noise_fn, key(), (9,))
        assert_same_bits(noise_fn((9,), key()), expected)
        assert_same_bits(quantize(x, n, key=key()), oracle.quantize(x, expected, spec_of(n)))
    assert not np.array_equal(expected, by_jax(noise_fn, key(), (9,))), "the setting changes the bits"


@every_portable
def test_noise_is_float32_under_x64_too(noise_fn: Any) -> None:
    expected = noise_fn((11,), key())
    with jax.enable_x64(True):
        assert_same_bits(noise_fn((11,), key()), expected)
        x = array(11, dtype=np.float64)
        n = numerics(8, noise_fn=noise_fn)
        assert_same_bits(quantize(x, n, key=key()), oracle.quantize(x, np.asarray(expected), spec_of(n)))


@every_portable
@pytest.mark.parametrize(("axes", "shape"), [((0,), (1, 4, 5)), ((-1, 1), (3, 1, 1)), ([0, 1, 2], (1, 1, 1))], ids=str)
def test_a_draw_is_shared_along_the_axes_asked_for(noise_fn: Any, axes: Any, shape: tuple[int, ...]) -> None:
    shared = type(noise_fn)(axes)
    drawn = shared((3, 4, 5), key())
    assert_same_bits(drawn, noise_fn(shape, key()))
    x, n = array(3, 4, 5), numerics(8, noise_fn=shared)
    expected = oracle.quantize(x, np.broadcast_to(drawn, x.shape), spec_of(n))
    for how in IMPLEMENTATIONS.values():
        assert_same_bits(quantize(x, n, key=key(), **how), expected)
    mask = np.abs(x) <= 127
    gradient = jax.grad(lambda x: quantize(x, n, key=key()).sum())(x)
    assert_same_bits(gradient, mask.astype(np.float32))


# --- keys -------------------------------------------------------------------------------------------------------------


@every_stream
@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey], ids=["typed", "legacy"])
def test_a_stream_takes_every_key(make: Any, impl: str, noise_fn: Any, stream: Any) -> None:
    with jax.default_prng_impl(impl):
        one = make(42, impl=impl)
        typed = jax.random.key(42, impl=impl)
        words = jax.random.key_data(typed) if impl == "threefry2x32" else jax.random.bits(typed, (2,), jnp.uint32)
        expected = stream((50,), tuple(int(w) for w in words))
        assert_same_bits(noise_fn((50,), one), expected)
        n, x = numerics(8, noise_fn=noise_fn), array(50)
        assert_same_bits(jax.jit(lambda x, k: quantize(x, n, key=k))(x, one), oracle.quantize(x, expected, spec_of(n)))


@every_stream
@pytest.mark.parametrize("impl", ["philox4x32", "philox2x32", "threefry4x32"])
def test_a_stream_takes_typed_keys_of_jaxs_other_generators(impl: str, noise_fn: Any, stream: Any) -> None:
    one = jax.random.key(42, impl=impl)
    data = jax.random.key_data(one)
    words = data if data.size == 2 else jax.random.bits(one, (2,), jnp.uint32)
    assert_same_bits(noise_fn((50,), one), stream((50,), tuple(int(w) for w in words)))


@pytest.mark.parametrize(
    ("impl", "noise_fn"),
    [("threefry2x32", PhiloxUniform()), ("rbg", PhiloxUniform()), ("threefry2x32", HashUniform())],
    ids=["threefry", "rbg", "HashUniform"],
)
@every_impl
def test_under_vmap_each_key_draws_what_it_draws_alone(how: dict[str, Any], impl: str, noise_fn: Any) -> None:
    keys, n = jax.random.split(jax.random.key(1, impl=impl), 3), numerics(8, noise_fn=noise_fn)
    x = array(3, 24)
    alone = np.stack([quantize(x[i], n, key=keys[i]) for i in range(3)])
    assert_same_bits(jax.vmap(lambda x, k: quantize(x, n, key=k, **how))(x, keys), alone)
    one_key = np.stack([quantize(x[i], n, key=keys[0]) for i in range(3)])
    assert_same_bits(jax.vmap(lambda x: quantize(x, n, key=keys[0], **how))(x), one_key)
    one_x = np.stack([quantize(x[0], n, key=k) for k in keys])
    assert_same_bits(jax.vmap(lambda k: quantize(x[0], n, key=k, **how))(keys), one_x)
    nested = jax.vmap(lambda k: jax.vmap(lambda x: quantize(x, n, key=k, **how))(x))(keys)
    assert_same_bits(nested, np.stack([[quantize(x[i], n, key=k) for i in range(3)] for k in keys]))


# --- fusing is never visible ------------------------------------------------------------------------------------------


@every_impl
@every_portable
@pytest.mark.parametrize(("dtype", "shape"), [(oracle.DTYPES[0], ()), (oracle.DTYPES[1], (3, 40))], ids=str)
def test_the_pass_gives_what_the_formula_gives_with_the_array(
    noise_fn: Any, how: dict[str, Any], dtype: np.dtype, shape: tuple[int, ...]
) -> None:
    x, n = array(*shape, dtype=dtype), numerics(8, noise_fn=noise_fn, preserve_zero=bool(shape))
    noise = np.asarray(noise_fn(shape, key()))
    expected = oracle.quantize(x, noise, spec_of(n))
    as_int = oracle.quantize(x, noise, spec_of(n, integer_dtype=np.dtype(np.int8)))
    assert_same_bits(quantize(x, n, key=key(), **how), expected)
    y, q = jax.jit(lambda x, k: (quantize(x, n, key=k, **how), quantize_to_int(x, n, key=k, **how)))(x, key())
    assert_same_bits(y, expected)
    assert_same_bits(q, as_int)


@every_impl
@every_portable
def test_the_gradient_is_the_mask_of_x_before_the_noise(noise_fn: Any, how: dict[str, Any]) -> None:
    x, n = array(4, 33) * 2, numerics(8, noise_fn=noise_fn)
    y, backward = jax.vjp(lambda x: quantize(x, n, key=key(), **how), x)
    assert_same_bits(y, oracle.quantize(x, np.asarray(noise_fn(x.shape, key())), spec_of(n)))
    g = array(4, 33)
    assert_same_bits(backward(jnp.asarray(g))[0], np.where(np.abs(x) <= 127, g, np.float32(0)))


@every_portable
@pytest.mark.parametrize("rounds", [True, False])
def test_the_methods_of_the_numerics_draw_it_too_and_differentiate_as_the_formula(noise_fn: Any, rounds: bool) -> None:
    x, n = jnp.asarray(array(40) * 3), numerics(8, noise_fn=noise_fn, round=rounds)
    by_array = n.replace(noise_fn=lambda shape, k: noise_fn(shape, k))
    context, tangent = Context(key=key()), jnp.asarray(array(40))
    assert_same_bits(n.vjp_fwd(x, context)[0], n.fwd(x, context))
    for ours, theirs in zip(
        jax.jvp(lambda x: n.fwd(x, context), (x,), (tangent,)),
        jax.jvp(lambda x: by_array.fwd(x, context), (x,), (tangent,)),
        strict=True,
    ):
        assert_same_bits(ours, theirs)


def memory_beside_arguments_and_result(noise_fn: Any, dtype: Any, size: int) -> int:
    """What the compiled pass to int8, whose result is too small to hold noise meanwhile, takes on a CPU, in bytes."""
    n, x = numerics(8, noise_fn=noise_fn), jax.ShapeDtypeStruct((size,), dtype)
    with jax.default_device(jax.devices("cpu")[0]):
        compiled = jax.jit(lambda x, k: quantize_to_int(x, n, key=k)).lower(x, key()).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@every_portable
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_no_noise_is_ever_an_array_of_its_own_on_a_cpu(noise_fn: Any, dtype: Any) -> None:
    size = 1 << 20
    assert memory_beside_arguments_and_result(noise_fn, dtype, size) < size // 8
    apart = lambda shape, k: jnp.sort(noise_fn(shape, k))  # noqa: E731  a sort is never fused, so the array is seen
    assert memory_beside_arguments_and_result(apart, dtype, size) >= 4 * size


@every_portable
def test_a_new_key_compiles_nothing(noise_fn: Any) -> None:
    n, x = numerics(8, noise_fn=noise_fn), array(16)
    run = jax.jit(lambda x, k: quantize(x, n, key=k))
    first, second = (np.asarray(run(x, jax.random.key(seed))) for seed in (1, 2))
    assert run._cache_size() == 1
    assert not np.array_equal(first, second)


# --- what the objects are ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [PhiloxUniform, JaxUniform, RandomCenteredUniform])
def test_noise_functions_are_values(cls: Any) -> None:
    one, other = cls(noise_sharing_axes=(0,)), cls([0])
    assert one == other
    assert hash(one) == hash(other)
    assert one != cls()
    assert pickle.loads(pickle.dumps(one)) == copy.deepcopy(one) == one
    with pytest.raises(AttributeError):
        one.noise_sharing_axes = ()


# --- what bad input gets ----------------------------------------------------------------------------------------------


@every_portable
@pytest.mark.parametrize("axes", [3, "ab", (0.5,), None])
def test_axes_that_are_no_integers(noise_fn: Any, axes: Any) -> None:
    with pytest.raises(TypeError, match=r"noise_sharing_axes=.* is not a sequence of integers: give the axes"):
        type(noise_fn)(axes)


@every_portable
@pytest.mark.parametrize("axis", [2, -3])
def test_an_axis_that_x_does_not_have(noise_fn: Any, axis: int) -> None:
    shared = type(noise_fn)((axis,))
    message = rf"noise_sharing_axes=\({axis},\) has axis {axis}, which an array of shape \(3, 4\) does not have"
    with pytest.raises(ValueError, match=message):
        shared((3, 4), key())
    with pytest.raises(ValueError, match=message):
        quantize(array(3, 4), numerics(8, noise_fn=shared), key=key())


@pytest.mark.parametrize("noise_fn", [*PORTABLE, HardwareUniform()], ids=lambda f: type(f).__name__)
def test_a_shape_or_key_that_is_none(noise_fn: Any) -> None:
    with pytest.raises(TypeError, match="shape=3 is not a sequence of integers: give the shape of x"):
        noise_fn(3, key())
    with pytest.raises(ValueError, match=r"shape=\(2, -1\) has a negative dimension"):
        noise_fn((2, -1), key())
    with pytest.raises(TypeError, match="key=7 is neither a typed key nor a legacy uint32 key"):
        noise_fn((3,), 7)
    with pytest.raises(ValueError, match=r"key has shape \(4,\), and a legacy key of JAX's default generator"):
        noise_fn((3,), jnp.zeros(4, jnp.uint32))


@pytest.mark.parametrize("cls", [PhiloxUniform, HardwareUniform])
def test_a_class_in_the_place_of_its_object(cls: Any) -> None:
    with pytest.raises(TypeError, match=rf"noise_fn={cls.__name__} is a class.*: write {cls.__name__}\(\)"):
        numerics(8, noise_fn=cls)
