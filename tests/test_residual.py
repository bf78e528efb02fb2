"""What is kept for the backward: one bit per element, x itself, or what FJFormer keeps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax.sharding import AxisType
from meshes import KINDS, assert_sharded_like, collectives, mesh, placed
from oracle import assert_same_bits
from original import bound_of, dither, numbers, numerics, original_gradient, spec_of
from refusals import refused

from intnumerics import Context, IntNumerics, PhiloxUniform, quantize

KEY = jax.random.key(0)
every_dtype = pytest.mark.parametrize("dtype", oracle.DTYPES, ids=str)


def pulled_back(x: Any, g: Any, n: IntNumerics, **how: Any) -> tuple[jax.Array, jax.Array]:
    y, backward = jax.vjp(lambda x: quantize(x, n, key=KEY, **how), x)
    return y, backward(g)[0]


# --- quantize(residual="x") -------------------------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("noise_dtype", [None, jnp.float32], ids=["as-x", "float32"])
@pytest.mark.parametrize("noise_fn", [None, dither, PhiloxUniform()], ids=["exact", "function", "philox"])
def test_the_gradient_from_x_is_that_of_the_formula(dtype: np.dtype, noise_fn: Any, noise_dtype: Any) -> None:
    n = numerics(9, preserve_zero=False, noise_fn=noise_fn, noise_dtype=noise_dtype)
    x = numbers(n, dtype)
    g = jnp.linspace(-3, 3, x.size).astype(x.dtype)
    y, gradient = jax.jit(lambda x, g: pulled_back(x, g, n, residual="x"))(x, g)
    noise = None if noise_fn is None else np.asarray(noise_fn(x.shape, KEY))
    assert_same_bits(y, oracle.quantize(np.asarray(x), noise, spec_of(n)))
    inside = oracle.mask(np.asarray(x), spec_of(n))
    assert_same_bits(gradient, np.where(inside, np.asarray(g), np.zeros_like(g)))


IMPLEMENTATIONS = [("reference", None), ("xla", None), ("pallas", "cuda"), ("pallas", "tpu")]


@pytest.mark.parametrize(("implementation", "interpret"), IMPLEMENTATIONS, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 17)], ids=str)
def test_every_implementation_has_the_gradient_from_x(
    implementation: str, interpret: str | None, shape: tuple[int, ...]
) -> None:
    n = numerics(4)
    x = np.linspace(-9, 9, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    g = np.full(shape, 3, np.float32)
    how = {"implementation": implementation, "interpret": interpret, "residual": "x"}
    _, gradient = pulled_back(x, g, n, **how)
    assert_same_bits(gradient, np.where(np.abs(x) <= 7, g, np.float32(0)))


@every_dtype
def test_what_is_kept_is_x_and_nothing_else(dtype: np.dtype) -> None:
    x = jnp.zeros((3, 5), dtype)

    def kept(residual: str, **fields: Any) -> Any:
        return jax.eval_shape(lambda x: jax.vjp(lambda x: quantize(x, numerics(**fields), residual=residual), x)[1], x)

    def arrays(backward: Any) -> list[Any]:
        return [(a.shape, a.dtype) for a in jax.tree.leaves(backward)]

    assert arrays(kept("x")) == [(x.shape, x.dtype)]
    assert [dtype for _, dtype in arrays(kept("mask"))] == [np.uint8]
    assert arrays(kept("x", clip_gradient=False)) == []


def test_an_x_that_is_kept_anyway_is_kept_once() -> None:
    x = jnp.linspace(-9, 9, 24)
    backward = jax.vjp(lambda x: quantize(x, numerics(4), residual="x") * jnp.sin(x), x)[1]
    of_x = [a for a in jax.tree.leaves(backward) if a.shape == x.shape and (a == x).all()]
    assert len({id(a) for a in of_x}) == 1


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_second_derivatives_are_those_beside_a_mask(compiled: bool) -> None:
    n = numerics(4)
    x = jnp.asarray([-9.0, -7.0, 0.2, 2.6, 7.0, 7.5])

    def curvature(x: jax.Array) -> jax.Array:
        return jax.hessian(lambda x: (quantize(x, n, residual="x") ** 3).sum())(x)

    found = (jax.jit(curvature) if compiled else curvature)(x)
    assert_same_bits(jnp.diag(found), np.asarray([0, -42, 0, 18, 42, 0], np.float32))  # 6 y, straight through
    assert not np.asarray(found - jnp.diag(jnp.diag(found))).any()


def test_vmap_and_scan_have_the_gradient_of_each_example() -> None:
    n = numerics(4)
    x = np.random.default_rng(0).standard_normal((5, 3, 7)).astype(np.float32) * 6
    expected = np.where(np.abs(x) <= 7, np.float32(1), np.float32(0))
    slope = jax.grad(lambda x: quantize(x, n, residual="x").sum())
    assert_same_bits(jax.jit(jax.vmap(slope))(x), expected)
    assert_same_bits(jax.lax.scan(lambda _, x: (None, slope(x)), None, x)[1], expected)


@pytest.mark.mesh
@pytest.mark.parametrize("kind", KINDS)
def test_a_sharded_x_is_masked_where_it_is(kind: AxisType) -> None:
    n, on = numerics(4, noise_fn=PhiloxUniform()), mesh(kind)
    x = np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32) * 6
    sharded = placed(x, on, "rows", "lanes")
    program = jax.jit(lambda x: pulled_back(x, jnp.ones_like(x), n, residual="x")[1]).lower(sharded).compile()
    assert collectives(program) == []
    gradient = program(sharded)
    assert_sharded_like(gradient, sharded)
    assert_same_bits(np.asarray(gradient), np.where(np.abs(x) <= 7, np.float32(1), np.float32(0)))


@pytest.mark.parametrize("value", [None, "bits", True, "X", 1, ("x",)], ids=repr)
def test_another_residual_is_refused(value: Any) -> None:
    with refused(ValueError, f"residual={value!r}", "'mask'", "'x'", "clip_gradient=False"):
        quantize(np.zeros(3, np.float32), numerics(4), residual=value)


@pytest.mark.parametrize("residual", ["mask", "x"])
def test_the_cotangent_of_a_scalar_may_be_a_number(residual: Any) -> None:
    for x, slope in ((6.4, 2), (7.6, 0)):
        backward = jax.vjp(lambda x: quantize(x, numerics(4), residual=residual), jnp.float32(x))[1]
        assert_same_bits(backward(2.0)[0], np.float32(slope))


# --- vjp_bwd with the residual of FJFormer's vjp_fwd ------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("rounds", [False, True], ids=["clipped", "rounded"])
@pytest.mark.parametrize("sequence", [tuple, list])
def test_vjp_bwd_takes_x_as_fjformer_keeps_it(dtype: np.dtype, rounds: bool, sequence: Any) -> None:
    n = numerics(9, round=rounds)
    x = numbers(n, dtype)
    g = jnp.linspace(-3, 3, x.size).astype(x.dtype)
    for run in (n.vjp_bwd, jax.jit(n.vjp_bwd)):
        gradient, of_context = run(sequence([x]), g)
        assert_same_bits(gradient, original_gradient(x, g, n))
        assert of_context is None


def test_vjp_bwd_masks_by_an_x_of_another_dtype_than_the_cotangent() -> None:
    n, x = numerics(9), jnp.asarray([255.0, 255.4, 256.0, -300.0], jnp.float32)
    assert bound_of(n) == 255.0
    gradient, _ = n.vjp_bwd((x,), jnp.full(4, 3, jnp.bfloat16))
    assert_same_bits(gradient, np.asarray([3, 0, 0, 0], jnp.bfloat16))


def test_vjp_bwd_looks_at_no_residual_without_clip_gradient() -> None:
    n, g = numerics(4, clip_gradient=False), jnp.arange(3.0)
    for residual in ((), None, (jnp.full(3, 99.0),), (jnp.zeros(1, jnp.uint8),), "anything"):
        assert_same_bits(n.vjp_bwd(residual, g)[0], g)


@pytest.mark.parametrize(
    ("residual", "kind", "words"),
    [
        ((), TypeError, ["residual is ()", "tuple of one array", "(mask,)", "(x,)"]),
        (None, TypeError, ["residual is None", "(mask,)", "(x,)"]),
        (np.zeros(3, np.float32), TypeError, ["numpy.ndarray, shape (3,), dtype float32", "(mask,)", "(x,)"]),
        ((np.zeros(3, np.float32),) * 2, TypeError, ["(<numpy.ndarray", "tuple of one array", "(x,)"]),
        ((np.zeros(3, np.int8),), TypeError, ["residual[0]", "int8", "uint8", "float"]),
        ((np.zeros(3, bool),), TypeError, ["residual[0]", "bool", "uint8", "float"]),
        (("x",), TypeError, ["residual[0] is 'x'", "not an array"]),
        ((np.zeros(4, np.float32),), ValueError, ["residual[0]", "(4,)", "float32", "(3,)", "shape of grad"]),
        ((np.zeros((1, 3), np.float32),), ValueError, ["residual[0]", "(1, 3)", "(3,)"]),
        ((np.zeros(4, np.uint8),), ValueError, ["(4,)", "(3,)", "packed mask"]),
    ],
    ids=["empty", "none", "bare", "two", "int8", "bool", "string", "longer", "rank", "mask"],
)
def test_another_residual_of_vjp_bwd_is_refused(residual: Any, kind: type[Exception], words: list[str]) -> None:
    with refused(kind, *words):
        numerics(4).vjp_bwd(residual, np.zeros(3, np.float32))


def test_what_vjp_fwd_keeps_is_what_vjp_bwd_takes() -> None:
    n = numerics(4, noise_fn=PhiloxUniform())
    x = np.asarray([-9, 7, 3], np.float32)
    _, residual = n.vjp_fwd(x, Context(key=KEY))
    assert_same_bits(n.vjp_bwd(residual, np.ones(3, np.float32))[0], np.asarray([0, 1, 1], np.float32))
