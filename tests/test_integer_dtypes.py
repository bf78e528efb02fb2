"""The integers that a quantization ends in: each dtype that holds every bucket is taken, and no other."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from meshes import KINDS, assert_sharded_like, collectives, mesh, placed
from oracle import assert_same_bits
from original import numerics
from refusals import refused

from intnumerics import PhiloxUniform, from_int, quantize_to_int

X = np.asarray([0.25, -1.5, 9.0], np.float32)
TOO_SMALL = [(9, jnp.int8, "int16"), (17, "int16", "int32"), (5, "int4", "int8"), (3, jnp.int2, "int4")]

# bits, preserve_zero, the dtype to ask for, and every bucket by its integer
INT4, INT2 = np.dtype(ml_dtypes.int4), np.dtype(ml_dtypes.int2)
NARROW = [
    (4, True, INT4, range(-7, 8)),
    (4, False, INT4, range(-8, 8)),
    (3, True, INT4, range(-3, 4)),
    (2, True, INT2, range(-1, 2)),
    (2, False, INT2, range(-2, 2)),
    (1, False, INT2, range(-1, 1)),
]
narrow = pytest.mark.parametrize(("bits", "zero", "dtype", "buckets"), NARROW)
WAYS = [{}, {"implementation": "reference"}, {"implementation": "xla"}]
WAYS += [{"implementation": "pallas", "interpret": platform} for platform in ("cuda", "tpu")]


def inputs(zero: bool, buckets: range) -> tuple[np.ndarray, np.ndarray]:
    """Numbers in each bucket, at its centre, near its edges and beyond the last, and the integers they become."""
    centres = np.asarray(buckets, np.float32) + (0 if zero else 0.5)
    x = np.concatenate([centres, centres + 0.49, centres - 0.49, [np.inf, -np.inf, 1e30, -1e30, np.nan]])
    expected = np.concatenate([[*buckets] * 3, [buckets[-1], buckets[0]] * 2, [0]])
    return x.astype(np.float32), expected.astype(np.int32)


def assert_integers(actual: Any, expected: np.ndarray, dtype: np.dtype) -> None:
    assert actual.dtype == dtype
    assert_same_bits(np.asarray(actual).astype(np.int32), expected)


# --- int4 and int2 ----------------------------------------------------------------------------------------------------


@narrow
@pytest.mark.parametrize("how", WAYS, ids=lambda how: "-".join(how.values()) or "fastest")
def test_integers_below_a_byte_are_those_of_numpy_in_every_implementation(
    how: Any, bits: int, zero: bool, dtype: np.dtype, buckets: range
) -> None:
    n, (x, expected) = numerics(bits, preserve_zero=zero), inputs(zero, buckets)
    for form in (x, x.reshape(1, -1)):
        assert_integers(quantize_to_int(form, n, dtype=dtype, **how), expected.reshape(form.shape), dtype)
    assert set(expected.tolist()) == set(buckets)


@narrow
@pytest.mark.parametrize("to", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_from_int_takes_integers_below_a_byte(bits: int, zero: bool, dtype: np.dtype, buckets: range, to: Any) -> None:
    centres = np.asarray(buckets, np.float32) + (0 if zero else 0.5)
    n = numerics(bits, preserve_zero=zero)
    for q in (np.asarray(buckets, np.int8).astype(dtype), jnp.asarray(np.asarray(buckets, np.int8)).astype(dtype)):
        assert_same_bits(from_int(q, n, to), centres.astype(to))
        assert_same_bits(jax.jit(lambda q: from_int(q, n, to))(q), centres.astype(to))


@pytest.mark.parametrize("dtype", ["int4", jnp.int4, ml_dtypes.int4, np.dtype(ml_dtypes.int4)], ids=repr)
def test_int4_has_many_names(dtype: Any) -> None:
    assert_integers(quantize_to_int(X, numerics(4), dtype=dtype), np.asarray([0, -2, 7], np.int32), INT4)


@pytest.mark.parametrize(("bits", "dtype"), [(1, np.int8), (4, np.int8), (8, np.int8), (9, np.int16), (17, np.int32)])
def test_none_is_the_smallest_dtype_from_int8_on(bits: int, dtype: Any) -> None:
    assert quantize_to_int(X, numerics(bits, preserve_zero=False)).dtype == dtype


@pytest.mark.parametrize(
    "transform", [jax.jit, jax.vmap, lambda f: jax.vmap(jax.vmap(f)), jax.checkpoint], ids=range(4)
)
def test_int4_goes_through_transforms_as_int8_does(transform: Any) -> None:
    x = np.linspace(-9, 9, 2 * 4 * 16, dtype=np.float32).reshape(2, 4, 16)
    expected = np.rint(np.clip(x, -7, 7)).astype(np.int32)
    f = functools.partial(quantize_to_int, numerics=numerics(4), dtype=jnp.int4)
    assert_integers(transform(f)(x), expected, INT4)


def test_int4_under_scan_and_in_a_gradient() -> None:
    x = np.linspace(-9, 9, 64, dtype=np.float32).reshape(4, 16)
    n, expected = numerics(4), np.rint(np.clip(x, -7, 7)).astype(np.int32)

    def step(last: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
        return quantize_to_int(row, n, dtype=jnp.int4), last

    last, before = jax.lax.scan(step, jnp.zeros(16, jnp.int4), x)
    assert_integers(last, expected[-1], INT4)
    assert_integers(before, np.concatenate([0 * expected[:1], expected[:-1]]), INT4)

    def loss(x: jax.Array) -> jax.Array:
        return (x * from_int(quantize_to_int(x, n, dtype=jnp.int4), n, x.dtype)).sum()

    assert_same_bits(jax.grad(loss)(x), expected.astype(np.float32))  # the integers are constants to it


def test_int4_with_noise_is_the_int8_of_the_same_key() -> None:
    n, key = numerics(4, noise_fn=PhiloxUniform()), jax.random.key(0)
    x = np.linspace(-9, 9, 1000, dtype=np.float32)
    expected = np.rint(np.clip(x + np.asarray(PhiloxUniform()(x.shape, key)), -7, 7))
    assert_integers(quantize_to_int(x, n, key=key, dtype=jnp.int4), expected.astype(np.int32), INT4)


@pytest.mark.mesh
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [INT4, INT2])
def test_integers_below_a_byte_are_made_where_x_is(kind: AxisType, dtype: np.dtype) -> None:
    bits = 4 if dtype == INT4 else 2
    n, bound = numerics(bits), 2 ** (bits - 1) - 1
    x = np.linspace(-9, 9, 8 * 32, dtype=np.float32).reshape(8, 32)
    there = placed(x, mesh(kind), "rows", "lanes")
    f = jax.jit(functools.partial(quantize_to_int, numerics=n, dtype=dtype))
    q = f(there)
    assert_integers(q, np.rint(np.clip(x, -bound, bound)).astype(np.int32), dtype)
    assert_sharded_like(q, there)
    assert not collectives(f.lower(there).compile())
    assert_same_bits(from_int(q, n, jnp.float32), np.rint(np.clip(x, -bound, bound)) + np.float32(0))


@pytest.mark.mesh
def test_int4_inside_a_shard_map() -> None:
    x = np.linspace(-9, 9, 8 * 32, dtype=np.float32).reshape(8, 32)
    f = functools.partial(quantize_to_int, numerics=numerics(4), dtype=jnp.int4)
    split = P("rows", "lanes")
    q = jax.jit(jax.shard_map(f, mesh=mesh(AxisType.Auto), in_specs=split, out_specs=split))(x)
    assert_integers(q, np.rint(np.clip(x, -7, 7)).astype(np.int32), INT4)


@pytest.mark.parametrize("shape", [(16,), export.symbolic_shape("b")], ids=["fixed", "symbolic"])
def test_int4_is_exported(shape: Any) -> None:
    pytest.importorskip("flatbuffers", reason="jax.export needs flatbuffers: pip install flatbuffers")
    f = jax.jit(functools.partial(quantize_to_int, numerics=numerics(4), dtype=jnp.int4))
    exported = export.export(f)(jax.ShapeDtypeStruct(shape, jnp.float32))
    x = np.linspace(-9, 9, 16, dtype=np.float32)
    q = export.deserialize(exported.serialize()).call(x)
    assert_integers(q, np.rint(np.clip(x, -7, 7)).astype(np.int32), INT4)


def test_nothing_but_integers_below_a_byte_is_narrowed_after_the_pass() -> None:
    for dtype, converts in ((None, 0), (jnp.int8, 0), (jnp.int16, 0), (jnp.int4, 1)):
        jaxpr = str(jax.make_jaxpr(lambda x, d=dtype: quantize_to_int(x, numerics(4), dtype=d))(X))
        assert jaxpr.count("convert_element_type") == converts


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "dtype", "remedy"), TOO_SMALL)
def test_integers_too_small_for_the_buckets_are_refused(bits: int, dtype: Any, remedy: str) -> None:
    with refused(ValueError, f"dtype={np.dtype(dtype).name}", "too small", remedy, "None"):
        quantize_to_int(X, numerics(bits), dtype=dtype)


def test_integers_too_small_for_the_bound_that_bfloat16_rounds_up_are_refused() -> None:
    with refused(ValueError, "dtype=int16", "too small", "32768", "int32"):
        quantize_to_int(X.astype(ml_dtypes.bfloat16), numerics(16), dtype=jnp.int16)


@pytest.mark.parametrize("dtype", ["foo", "itn8", np.int64, float, bool, 3], ids=repr)
def test_dtypes_that_are_no_integers_of_ours_are_refused(dtype: Any) -> None:
    with refused(ValueError, f"dtype={dtype!r}", "int2, int4, int8, int16, int32", "None"):
        quantize_to_int(X, numerics(), dtype=dtype)


@pytest.mark.parametrize("dtype", ["uint8", np.uint32, jnp.uint4], ids=repr)
def test_unsigned_integers_are_refused_because_buckets_have_signs(dtype: Any) -> None:
    with refused(ValueError, f"dtype={dtype!r}", "buckets have signs", "int8"):
        quantize_to_int(X, numerics(), dtype=dtype)


@pytest.mark.parametrize("name", ["clip", "round"])
def test_integers_without_clip_or_round_are_refused(name: str) -> None:
    with refused(ValueError, f"numerics.{name}=False", f"numerics.replace({name}=True)", "quantize()"):
        quantize_to_int(X, numerics(**{name: False}))


@pytest.mark.parametrize("preserve_zero", [False, True])
@pytest.mark.parametrize("dtype", [None, jnp.int32])
def test_buckets_beyond_float16_are_refused(dtype: Any, preserve_zero: bool) -> None:
    with refused(ValueError, "inf", "no integer dtype", "noise_dtype=jnp.float32", "fewer bits"):
        quantize_to_int(X.astype(np.float16), numerics(17, preserve_zero=preserve_zero), dtype=dtype)


@pytest.mark.parametrize("dtype", [np.float32, bool, np.complex64])
def test_from_int_refuses_what_is_not_integers(dtype: Any) -> None:
    with refused(TypeError, f"q has dtype {np.dtype(dtype).name}", "integers", "quantize_to_int()"):
        from_int(np.zeros(3, dtype), numerics(), jnp.float32)


@pytest.mark.parametrize("q", [None, "1", [1, 2], {}], ids=repr)
def test_from_int_refuses_what_is_no_array(q: Any) -> None:
    with refused(TypeError, f"q={q!r}", "not an array", "quantize_to_int()"):
        from_int(q, numerics(), jnp.float32)


@pytest.mark.parametrize("dtype", [jnp.int8, "foo", bool, jnp.complex64, jnp.float8_e4m3fn, None], ids=repr)
def test_from_int_refuses_a_dtype_that_is_no_float(dtype: Any) -> None:
    with refused(TypeError, f"dtype={dtype!r}", "float32", "bfloat16"):
        from_int(np.zeros(3, np.int8), numerics(), dtype)
