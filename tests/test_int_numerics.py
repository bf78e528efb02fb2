"""`IntNumerics` is FJFormer's: its fields, bounds, results and derivatives, and the ways its callers use it."""

import copy
import dataclasses
import functools
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax import lax
from oracle import assert_same_bits
from original import dither, numbers, numerics, original, original_gradient

from intnumerics import Context, IntNumerics, QNumerics

FIELDS = ("bits", "preserve_zero", "preserve_max_val", "clip", "clip_gradient", "round", "noise_fn", "dtype")
SWITCHES = list(itertools.product((False, True), repeat=3))


# --- the fields -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preserve_zero", "preserve_max_val", "rows"),
    # at 8, 2 and 1 bits: the edge, the centre, and what the largest magnitude is mapped to
    [
        (False, False, [(128.0, 127.5, 128.0), (2.0, 1.5, 2.0), (1.0, 0.5, 1.0)]),
        (False, True, [(128.0, 127.5, 127.5), (2.0, 1.5, 1.5), (1.0, 0.5, 0.5)]),
        (True, False, [(127.5, 127.0, 127.5), (1.5, 1.0, 1.5), (0.5, 0.0, 0.5)]),
        (True, True, [(127.5, 127.0, 127.0), (1.5, 1.0, 1.0), (0.5, 0.0, 0.0)]),
    ],
)
def test_bounds_are_those_of_the_truth_table(preserve_zero: bool, preserve_max_val: bool, rows: list[Any]) -> None:
    for bits, (edge, centre, mapped) in zip((8, 2, 1), rows, strict=True):
        n = numerics(bits, preserve_zero=preserve_zero, preserve_max_val=preserve_max_val)
        assert n.get_edge_of_last_int_bucket() == edge
        assert n.get_center_of_last_int_bucket() == centre
        assert n.abs_val_mapped_to() == mapped
        assert n.get_quant_bound() == mapped


def test_fields_are_those_of_fjformer_in_its_order_by_position_and_by_keyword() -> None:
    values = (4, True, False, True, False, True, dither, jnp.int8)
    by_position = IntNumerics(*values)
    assert tuple(getattr(by_position, name) for name in FIELDS) == values
    assert by_position == IntNumerics(**dict(reversed(list(zip(FIELDS, values, strict=True)))))
    assert IntNumerics(*values[:-1]).dtype is None
    assert by_position.get_dtype() is jnp.int8


def test_noise_dtype_is_keyword_only_and_none_by_default() -> None:
    values = (4, True, False, True, False, True, None, None)
    assert IntNumerics(*values).noise_dtype is None
    assert IntNumerics(*values, noise_dtype=jnp.float32).noise_dtype == jnp.float32
    assert IntNumerics(*values, noise_dtype="float32") == IntNumerics(*values, noise_dtype=jnp.float32)
    with pytest.raises(TypeError, match="positional"):
        IntNumerics(*values, jnp.float32)


def test_is_frozen_hashable_and_equal_by_its_fields() -> None:
    a, b = numerics(4, noise_fn=dither), numerics(4, noise_fn=dither)
    assert a == b
    assert hash(a) == hash(b)
    for name in (*FIELDS[:6], "noise_fn", "dtype", "noise_dtype"):
        changed = {"bits": 5, "noise_fn": None, "dtype": jnp.int8, "noise_dtype": jnp.float32}.get(name, False)
        assert a != a.replace(**{name: changed}), name
    with pytest.raises(dataclasses.FrozenInstanceError):
        a.bits = 8


def test_pickle_and_deepcopy_give_an_equal_copy() -> None:
    n = numerics(4, noise_fn=dither, dtype=jnp.int8, noise_dtype=jnp.float32)
    for twin in (pickle.loads(pickle.dumps(n)), copy.deepcopy(n), copy.copy(n)):
        assert twin == n
        assert hash(twin) == hash(n)


def test_replace_changes_the_named_field_only_and_checks_it() -> None:
    n = numerics(8, noise_fn=dither)
    assert n.replace(bits=4) == numerics(4, noise_fn=dither)
    assert n.bits == 8
    with pytest.raises(ValueError, match="bits=23"):
        n.replace(bits=23)
    with pytest.raises(TypeError):
        n.replace(width=4)


@pytest.mark.parametrize("bits", [np.int64(10), np.float32(10)], ids=repr)
def test_bits_of_a_numpy_type_mean_what_the_number_means(bits: Any) -> None:
    n, x = numerics(bits, preserve_zero=True), jnp.asarray([1000.0, 3.5], jnp.bfloat16)
    assert type(n.abs_val_mapped_to()) is float
    with jax.numpy_dtype_promotion("strict"):
        assert_same_bits(n.fwd(x, Context()), np.asarray([512, 4], ml_dtypes.bfloat16))


# --- transforms -------------------------------------------------------------------------------------------------------


def test_is_a_pytree_without_leaves_that_passes_through_transforms_as_an_argument() -> None:
    n, x = numerics(4), jnp.asarray([[-9.0, 0.2, 2.5], [3.5, 7.0, 8.0]])
    expected = np.asarray([[-7, 0, 2], [4, 7, 7]], np.float32)
    assert jax.tree.leaves(n) == []

    def fwd(n: IntNumerics, x: jax.Array) -> jax.Array:
        return n.fwd(x, Context())

    assert_same_bits(jax.jit(fwd)(n, x), expected)
    assert_same_bits(jax.vmap(fwd, in_axes=(None, 0))(n, x), expected)
    assert_same_bits(jax.checkpoint(fwd)(n, x), expected)
    slope = jax.jit(jax.grad(lambda n, x: jax.checkpoint(fwd)(n, x).sum(), argnums=1))
    assert_same_bits(slope(n.replace(round=False), x), np.asarray([[0, 1, 1], [1, 1, 0]], np.float32))
    assert_same_bits(lax.scan(lambda _, row: (None, fwd(n, row)), None, x)[1], expected)
    carried, rows = lax.scan(lambda n, row: (n, fwd(n, row)), n, x)
    assert carried == n
    assert_same_bits(rows, expected)


def test_equal_numerics_share_one_trace_and_different_ones_do_not() -> None:
    traced = []

    @jax.jit
    def fwd(n: IntNumerics, x: jax.Array) -> jax.Array:
        traced.append(n)
        return n.fwd(x, Context())

    for bits in (4, 4, 5):
        fwd(numerics(bits), jnp.ones(3))
    assert [n.bits for n in traced] == [4, 5]


def test_context_is_a_pytree_whose_key_survives_jit() -> None:
    key = jax.random.key(7)
    context = jax.jit(lambda c: c.replace(train_step=c.train_step + 1))(Context(key=key, train_step=2))
    assert isinstance(context, Context)
    assert context.key.dtype == key.dtype
    assert_same_bits(jax.random.key_data(context.key), jax.random.key_data(key))
    assert context.train_step == 3
    assert len(jax.tree.leaves(context)) == 2
    assert jax.tree.leaves(Context()) == []
    assert_same_bits(
        jax.jit(lambda c, x: numerics(noise_fn=dither, round=False).fwd(x, c))(Context(key), jnp.zeros(9)),
        np.asarray(dither((9,), key)),
    )


def test_qnumerics_is_abstract() -> None:
    methods = {"get_dtype", "abs_val_mapped_to", "fwd", "vjp_fwd", "vjp_bwd"}
    assert issubclass(IntNumerics, QNumerics)
    for left_out in methods:
        partial = type("Partial", (QNumerics,), {name: lambda *_: None for name in methods - {left_out}})
        with pytest.raises(TypeError, match=left_out):
            partial()
    type("Whole", (QNumerics,), {name: lambda *_: None for name in methods})()


# --- values and gradients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise_fn", [None, dither], ids=["exact", "noisy"])
@pytest.mark.parametrize(("dtype", "bits"), [("float32", 8), ("bfloat16", 9), ("float16", 1)])
def test_forward_and_backward_are_those_of_fjformer_for_every_switch(dtype: str, bits: int, noise_fn: Any) -> None:
    context = Context(key=jax.random.key(bits))

    def everything(n: IntNumerics, x: jax.Array, g: jax.Array) -> Any:
        y, residual = n.vjp_fwd(x, context)
        straight, nothing = n.replace(clip_gradient=False).vjp_fwd(x, context)
        gradients = n.vjp_bwd(residual, g), n.replace(clip_gradient=False).vjp_bwd(nothing, g)
        return (n.fwd(x, context), y, straight), gradients

    several = [numerics(bits, preserve_zero=z, clip=c, round=r, noise_fn=noise_fn) for z, c, r in SWITCHES]
    arrays = [numbers(n, dtype) for n in several]
    cotangents = [np.linspace(-3, 3, x.size, dtype=np.float32).astype(x.dtype) for x in arrays]
    run = lambda *arguments: [everything(n, x, g) for n, x, g in zip(several, *arguments, strict=True)]  # noqa: E731
    found = (run if noise_fn is None and dtype == "float32" else jax.jit(run))(arrays, cotangents)
    for n, x, g, (results, gradients) in zip(several, arrays, cotangents, found, strict=True):
        expected = original(x, n, None if noise_fn is None else noise_fn(x.shape, context.key))
        for result in results:
            assert_same_bits(result, expected)
        for (gradient, of_context), wanted in zip(gradients, (original_gradient(x, jnp.asarray(g), n), g), strict=True):
            assert_same_bits(gradient, wanted)
            assert of_context is None


def as_an_argument(n: IntNumerics, context: Context) -> Callable[[jax.Array], jax.Array]:
    q = jax.custom_vjp(n.fwd)
    q.defvjp(n.vjp_fwd, n.vjp_bwd)
    return lambda x: q(x, context)


def as_q_dot_general_does(n: IntNumerics, context: Context) -> Callable[[jax.Array], jax.Array]:
    q = jax.custom_vjp(n.fwd)
    q.defvjp(n.vjp_fwd, n.vjp_bwd)
    return functools.partial(q, context=context)


def closed_over(n: IntNumerics, context: Context) -> Callable[[jax.Array], jax.Array]:
    q = jax.custom_vjp(lambda x: n.fwd(x, context))
    q.defvjp(lambda x: n.vjp_fwd(x, context), lambda residual, g: n.vjp_bwd(residual, g)[:1])
    return q


@pytest.mark.parametrize("clip_gradient", [False, True])
@pytest.mark.parametrize("noise_fn", [None, dither], ids=["exact", "noisy"])
@pytest.mark.parametrize("bind", [as_an_argument, as_q_dot_general_does, closed_over])
def test_serves_in_a_custom_vjp_as_callers_write_it(bind: Any, noise_fn: Any, clip_gradient: bool) -> None:
    n = numerics(2, clip_gradient=clip_gradient, noise_fn=noise_fn)
    key = jax.random.key(3)
    x = numbers(n, "float32")
    g = jnp.linspace(-3, 3, x.size)
    expected = original(x, n, None if noise_fn is None else noise_fn(x.shape, key)), original_gradient(x, g, n)

    def forward(x: jax.Array, context: Context) -> Any:
        return jax.vjp(bind(n, context), x)

    def both(x: jax.Array, context: Context) -> Any:
        y, backward = forward(x, context)
        return y, *backward(g)

    for run in (both, jax.jit(both)):
        for got, wanted in zip(run(x, Context(key)), expected, strict=True):
            assert_same_bits(got, wanted)
    for run in (forward, jax.jit(forward)):  # the second function leaves jit as a pytree, and is applied outside
        y, backward = run(x, Context(key))
        assert_same_bits(y, expected[0])
        for times in (1.0, -2.0):
            assert_same_bits(backward(times * g)[0], original_gradient(x, times * g, n))
