"""`stochastic_cast` as it is called: its noise, parts, meshes, transforms and derivatives, and what it refuses."""

import functools
import math
import re
from typing import Any

import float_oracle as oracle
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import streams
from float_oracle import BFLOAT16, FLOAT8_E4M3FN, FLOAT8_E5M2, FLOAT16, FLOAT32
from jax import export, lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from meshes import KINDS, assert_sharded_like, collectives, mesh, placed
from oracle import assert_same_bits
from refusals import refused

from intnumerics import HardwareUniform, HashUniform, JaxUniform, PhiloxUniform, RandomCenteredUniform, stochastic_cast

KEY = jax.random.key(42, impl="threefry2x32")  # whose words are 0 and 42
SHAPE = (8, 4, 16)
X = np.random.default_rng(7).normal(size=SHAPE).astype(np.float32) * np.float32(9)
HASH = streams.hashed(math.prod(SHAPE), (0, 42)).reshape(SHAPE)
PHILOX = streams.draws(math.prod(SHAPE), (0, 42)).reshape(SHAPE)
INTERPRETED = [("pallas_triton", "cuda"), ("pallas_mosaic_gpu", "cuda"), ("pallas", "tpu")]
WAYS: dict[str, dict[str, Any]] = {name: {"implementation": name} for name in ("reference", "xla")}
WAYS |= {f"{name}, {on}": {"implementation": name, "interpret": on} for name, on in INTERPRETED}
every_way = pytest.mark.parametrize(
    "how",
    [
        pytest.param(how, id=name, marks=[pytest.mark.pallas_triton] if "triton" in name else [])
        for name, how in ({"None": {}} | WAYS).items()
    ],
)
to_bfloat16 = functools.partial(stochastic_cast, dtype=jnp.bfloat16, key=KEY)


# --- the noise --------------------------------------------------------------------------------------------------------


@every_way
def test_draws_of_16_bits_decide_as_integers(how: Any) -> None:
    draws = {HashUniform(): HASH, PhiloxUniform(): PHILOX}
    if how == WAYS["xla"]:
        draws[RandomCenteredUniform()] = np.asarray(jax.random.bits(KEY, SHAPE, np.uint16))
    for noise_fn, h in draws.items():
        found = stochastic_cast(X, jnp.float8_e5m2, key=KEY, noise_fn=noise_fn, **how)
        assert_same_bits(found, oracle.by_draws(X, h, FLOAT8_E5M2))


@every_way
def test_more_bits_and_a_function_of_the_user_decide_by_their_sum_with_the_fraction(how: Any) -> None:
    _, fraction = oracle.neighbours(X, FLOAT16)

    def few(shape: tuple[int, ...], key: jax.Array) -> jax.Array:
        return jnp.linspace(-0.5, 0.5, shape[-1])

    for noise_fn, noise in (
        (JaxUniform(), np.asarray(jax.random.uniform(KEY, SHAPE)) - np.float32(0.5)),
        (few, np.linspace(-0.5, 0.5, SHAPE[-1]).astype(np.float32)),
    ):
        found = stochastic_cast(X, jnp.float16, key=KEY, noise_fn=noise_fn, overflow="ieee", **how)
        up = fraction.astype(np.float32) + noise >= 0.5
        assert_same_bits(found, oracle.cast(X, up, FLOAT16, "ieee"))


def test_a_draw_may_be_shared_along_an_axis_and_x_may_have_no_axes_or_no_elements() -> None:
    h = streams.hashed(4 * 16, (0, 42)).reshape(1, 4, 16)
    assert_same_bits(to_bfloat16(X, noise_fn=HashUniform((0,))), oracle.by_draws(X, h, BFLOAT16))
    assert_same_bits(to_bfloat16(X[0, 0, 0]), oracle.by_draws(X[0, 0, 0], HASH[0, 0, 0], BFLOAT16))
    assert_same_bits(to_bfloat16(X[:0]), np.zeros((0, 4, 16), BFLOAT16))
    for how in WAYS.values():
        assert to_bfloat16(X[:0], **how).dtype == jnp.bfloat16


def test_the_mean_is_x() -> None:
    """To six standard errors of the mean, at fractions of a gap down to a 64th."""
    n = 1 << 16
    fraction = np.asarray([1 / 64, 0.25, 0.5, 0.9])
    x = np.broadcast_to((1 + fraction / 128).astype(np.float32)[:, None], (4, n))
    found = np.asarray(to_bfloat16(x)).astype(np.float64)
    deviation = np.sqrt(fraction * (1 - fraction) / n) / 128
    assert (abs(found.mean(axis=1) - x[:, 0]) < 6 * deviation).all()
    assert (abs(x.astype(BFLOAT16).astype(np.float64).mean(axis=1) - x[:, 0]) > 6 * deviation)[[0, 1, 3]].all()


# --- parts, meshes and batches ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [WAYS["xla"], WAYS["pallas, tpu"]], ids=["xla", "kernel"])
@pytest.mark.parametrize("noise_fn", [HashUniform(), lambda shape, key: streams.uniform_hash(shape, (0, 42))])
def test_a_part_has_the_noise_of_the_whole(noise_fn: Any, how: Any) -> None:
    part = stochastic_cast(
        X[3:5], FLOAT8_E4M3FN, key=KEY, noise_fn=noise_fn, offset=(3, 0, 0), global_shape=SHAPE, **how
    )
    whole = stochastic_cast(X, FLOAT8_E4M3FN, key=KEY, noise_fn=noise_fn)
    assert_same_bits(part, np.asarray(whole)[3:5])


@pytest.mark.mesh
@pytest.mark.parametrize("kind", KINDS)
def test_a_sharded_array_has_the_bits_of_one_device_and_so_has_its_gradient(kind: AxisType) -> None:
    on, wanted = mesh(kind), oracle.by_draws(X, HASH, BFLOAT16)

    def both(x: jax.Array, g: jax.Array) -> Any:
        y, backward = jax.vjp(to_bfloat16, x)
        return y, backward(g)[0]

    with jax.set_mesh(on):
        x, g = placed(X, on, "rows", None, "lanes"), placed(X.astype(BFLOAT16), on, "rows", None, "lanes")
        compiled = jax.jit(both).lower(x, g).compile()
        assert not collectives(compiled)
        y, gradient = compiled(x, g)
        assert_same_bits(y, wanted)
        assert_same_bits(gradient, X.astype(BFLOAT16).astype(np.float32))
        assert_sharded_like((y, gradient), x)


@pytest.mark.mesh
def test_a_kernel_is_given_its_shard_and_a_shard_map_its_place() -> None:
    on, wanted = mesh(AxisType.Explicit), oracle.by_draws(X, PHILOX, FLOAT8_E5M2)
    cast = functools.partial(stochastic_cast, dtype=jnp.float8_e5m2, key=KEY, noise_fn=PhiloxUniform())

    def on_shard(x: jax.Array) -> jax.Array:
        return cast(x, offset=(lax.axis_index("rows") * x.shape[0], 0, 0), global_shape=SHAPE)

    with jax.set_mesh(on):
        x = placed(X, on, "rows")
        assert_same_bits(jax.jit(functools.partial(cast, **WAYS["pallas, tpu"]))(x), wanted)
        assert_same_bits(jax.jit(jax.shard_map(on_shard, mesh=on, in_specs=P("rows"), out_specs=P("rows")))(x), wanted)


@pytest.mark.parametrize("how", [WAYS["xla"], WAYS["pallas, tpu"]], ids=["xla", "kernel"])
def test_each_example_of_a_batch_has_the_noise_of_its_key(how: Any) -> None:
    keys = jax.random.split(KEY, SHAPE[0])
    found = jax.vmap(lambda x, key: stochastic_cast(x, jnp.float16, key=key, **how))(X, keys)
    alone = [stochastic_cast(x, jnp.float16, key=key) for x, key in zip(X, keys, strict=True)]
    assert_same_bits(found, np.stack(alone))
    shared = jax.vmap(lambda x: to_bfloat16(x, **how))(X)
    assert_same_bits(shared, oracle.by_draws(X, HASH.reshape(-1)[:64].reshape(1, 4, 16), BFLOAT16))


def test_an_exported_program_of_any_size_gives_the_same_bits() -> None:
    shape = export.symbolic_shape("n, 4, 16")
    exported = export.export(jax.jit(to_bfloat16))(jax.ShapeDtypeStruct(shape, np.float32))
    restored = export.deserialize(exported.serialize())
    assert_same_bits(restored.call(X), oracle.by_draws(X, HASH, BFLOAT16))


def test_casts_that_differ_in_anything_static_have_different_names_and_others_the_same() -> None:
    def name(x: np.ndarray = X, **how: Any) -> str:
        text = jax.jit(lambda x: stochastic_cast(x, **{"dtype": jnp.bfloat16, "key": KEY} | how)).lower(x)
        [found] = set(re.findall(r"jit\((intnumerics_quantize_[0-9a-f]{12})\)", text.as_text(debug_info=True)))
        return found

    ways = [{}, {"dtype": jnp.float16}, {"overflow": "ieee"}, {"noise_fn": PhiloxUniform()}, {"implementation": "xla"}]
    ways += [{"dtype": jnp.float8_e5m2}, {"dtype": jnp.float8_e4m3fn}, {"noise_fn": JaxUniform()}]
    assert len({name(**way) for way in ways}) == len(ways)
    assert name(key=jax.random.key(1)) == name()


# --- derivatives ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", [BFLOAT16, FLOAT8_E4M3FN], ids=str)
@pytest.mark.parametrize("wrapper", [lambda f: f, jax.jit, jax.checkpoint], ids=["plain", "jit", "remat"])
def test_the_derivative_goes_straight_through_in_both_modes(to: np.dtype, wrapper: Any) -> None:
    x, t = np.float32([0.3, -1e9, 7.7, np.inf]), np.float32([1.01, -3.3, 0.0, 2.0])
    cast = wrapper(functools.partial(stochastic_cast, dtype=to, key=KEY))
    _, tangent = jax.jvp(cast, (x,), (t,))
    assert_same_bits(tangent, t.astype(to))
    y, backward = jax.vjp(cast, x)
    assert y.dtype == to
    assert_same_bits(backward(jnp.asarray(t.astype(to)))[0], t.astype(to).astype(np.float32))


def test_a_second_derivative_is_that_of_what_is_around_the_cast() -> None:
    def square(x: jax.Array) -> jax.Array:
        return to_bfloat16(x).astype(jnp.float32) ** 2

    def times_x(x: jax.Array) -> jax.Array:
        return to_bfloat16(x).astype(jnp.float32) * 3

    x = np.float32(0.3)
    assert float(jax.grad(jax.grad(square))(x)) == 2
    assert float(jax.grad(jax.grad(times_x))(x)) == 0

    def in_a_loop(x: jax.Array) -> jax.Array:
        return lax.scan(lambda c, _: (square(c), None), x, None, length=3)[0]

    assert float(jax.grad(jax.grad(in_a_loop))(x)) == pytest.approx(8 * 7 * 0.3**6, rel=0.1)


@pytest.mark.mesh
def test_in_a_shard_map_the_gradient_of_an_x_that_devices_share_is_the_sum_of_theirs() -> None:
    on = mesh(AxisType.Auto, sizes=(4,), names=("rows",))

    def on_shard(x: jax.Array, key: jax.Array) -> jax.Array:
        return stochastic_cast(x, jnp.bfloat16, key=key[0]).astype(jnp.float32).sum()[None]

    mapped = jax.shard_map(on_shard, mesh=on, in_specs=(P(), P("rows")), out_specs=P("rows"))
    gradient = jax.jit(jax.grad(lambda x: mapped(x, jax.random.split(KEY, 4)).sum()))(X)
    assert_same_bits(gradient, np.full(SHAPE, 4, np.float32))


@every_way
def test_no_dtype_or_rank_is_promoted(how: Any) -> None:
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for noise_fn in (HashUniform(), JaxUniform()):
            stochastic_cast(X, jnp.bfloat16, key=KEY, noise_fn=noise_fn, **how)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "dtype", "words"),
    [
        (X, "float32", ("dtype=float32", "float32 is rounded to", "leave x as it is")),
        (X, jnp.int8, ("dtype=int8", "bfloat16, float16, float8_e4m3fn, float8_e5m2", "x.astype(int8)")),
        (X, "float64", ("dtype=float64", "x.astype(float64), which is exact")),
        (X, None, ("dtype=None", "jnp.bfloat16")),
        (X, "float7", ("dtype='float7'", "jnp.bfloat16")),
        (X, ml_dtypes.float8_e4m3b11fnuz, ("dtype=float8_e4m3b11fnuz", "rounding to nearest")),
        (X.astype(BFLOAT16), "float16", ("dtype=float16", "bfloat16 is rounded to", "x.astype(jnp.float32)")),
        (X.astype(FLOAT16), "bfloat16", ("dtype=bfloat16", "float16 is rounded to", "x.astype(jnp.float32)")),
    ],
)
def test_another_pair_of_dtypes_is_refused(x: np.ndarray, dtype: Any, words: tuple[str, ...]) -> None:
    with refused(ValueError, *words):
        stochastic_cast(x, dtype, key=KEY)


def test_float64_is_refused() -> None:
    with jax.enable_x64(True), refused(ValueError, "x has dtype float64", "x.astype(jnp.float32)"):
        to_bfloat16(X.astype(np.float64))


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"overflow": "clip"}, ValueError, ("overflow='clip'", "'saturate'", "'ieee'", "NaN")),
        ({"overflow": None}, ValueError, ("overflow=None", "'saturate'", "'ieee'")),
        ({"key": None}, ValueError, ("key=None, and noise_fn needs one", "jax.random.key(seed)")),
        ({"key": 0}, TypeError, ("key=0", "jax.random.key(seed)")),
        ({"noise_fn": None}, ValueError, ("noise_fn=None", "x.astype(dtype)")),
        ({"noise_fn": "hash"}, TypeError, ("noise_fn='hash'", "intnumerics.HashUniform()")),
        ({"noise_fn": HashUniform}, TypeError, ("noise_fn=HashUniform", "HashUniform()")),
        ({"noise_fn": lambda shape: 0.0}, TypeError, ("noise_fn=", "takes (shape)", "lambda shape, key")),
        ({"noise_fn": lambda shape, key: np.zeros((3, 3))}, ValueError, ("noise_fn returned shape (3, 3)",)),
        ({"offset": (0, 0, 0)}, ValueError, ("offset=(0, 0, 0)", "global_shape")),
        ({"implementation": "cuda"}, ValueError, ("implementation='cuda'", "'xla'")),
        ({"implementation": "pallas_triton"}, ValueError, ("'pallas_triton'", "platform 'cpu'")),
        ({"noise_fn": HardwareUniform()}, ValueError, ("HardwareUniform()", "TPU")),
    ],
)
def test_a_bad_argument_is_refused(changes: dict[str, Any], kind: type[Exception], words: tuple[str, ...]) -> None:
    with refused(kind, *words) as caught:
        stochastic_cast(X, **{"dtype": jnp.bfloat16, "key": KEY} | changes)
    assert "numerics" not in str(caught.value).replace("intnumerics", ""), "which there are none of here"


@pytest.mark.parametrize("x", [X.astype(np.int32), [1.0], "x"], ids=["integers", "list", "string"])
def test_an_x_that_is_not_made_of_floats_is_refused(x: Any) -> None:
    with refused(TypeError, "x"):
        to_bfloat16(x)


def test_dtypes_of_x_and_results_are_what_the_documentation_says() -> None:
    casts = {source: [np.dtype(to) for to in dtypes] for source, dtypes in oracle.TO.items()}
    assert casts[FLOAT32] == [BFLOAT16, FLOAT16, FLOAT8_E4M3FN, FLOAT8_E5M2]
    for source, dtypes in casts.items():
        for to in dtypes:
            cast = functools.partial(stochastic_cast, dtype=to, key=KEY)
            assert jax.eval_shape(cast, jax.ShapeDtypeStruct((3,), source)) == jax.ShapeDtypeStruct((3,), to)
